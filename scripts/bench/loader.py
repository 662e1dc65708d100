"""How fast training samples come off the disk: against reading and decompressing the same bytes, Zarr, and other loaders.

A sample is a window of one step: two times of 70 channels (5 variables on 13 levels, 5 at the surface). Samples are drawn in
random order; all ways take turns in one run, so that a busy machine slows all alike; medians. `cold`: the files' pages are
dropped before every turn. `ratio` is our rate over the peer's. Peers that are not installed are left out.
"""

import argparse
import concurrent.futures
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import xarray as xr
import zarr
from measure import forget
from numcodecs import blosc

from emulator.data.channels import Channels, Layout
from emulator.data.samples import Samples
from emulator.planet.grid import Grid
from emulator.store.analysis import open_analysis
from emulator.store.regions import COMPRESSOR, create, finish, write_region

UPPER = ("geopotential", "temperature", "u_component_of_wind", "v_component_of_wind", "specific_humidity")
SURFACE = (
    "2m_temperature",
    "mean_sea_level_pressure",
    "surface_pressure",
    "10m_u_component_of_wind",
    "10m_v_component_of_wind",
)
LEVELS = (50.0, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
PACKAGES = ("numpy", "zarr", "zarrs", "numcodecs", "xarray", "torch", "anemoi-datasets", "fme")
SHARD = 64


def fields(grid: Grid, times: int, names=(*UPPER, *SURFACE)) -> dict[str, np.ndarray]:
    """Waves of decreasing amplitude with noise in the last digits: compresses like reanalysis, by a third."""
    chance = np.random.default_rng(0)
    latitude, longitude = (np.radians(a).astype(np.float32) for a in grid.mesh())
    waves = [np.sin(k * longitude + 0.7 * k) * np.cos(latitude) ** k / k for k in range(1, 20, 3)]
    found = {}
    for name in names:
        shape = (times, len(LEVELS)) if name in UPPER else (times,)
        weights = chance.normal(size=(*shape, len(waves))).astype(np.float32)
        values = 280 + 10 * np.tensordot(weights, np.stack(waves), axes=1).astype(np.float32)
        found[name] = values + chance.normal(0, 0.02, values.shape).astype(np.float32)
    return found


def dataset_of(values: dict[str, np.ndarray], grid: Grid) -> xr.Dataset:
    count = len(values[SURFACE[0]])
    dims = ("time", "level", "latitude", "longitude")
    data = {n: (dims if v.ndim == 4 else ("time", *dims[2:]), v, {"units": "1"}) for n, v in values.items()}
    moments = np.datetime64("2001-01-01", "ns") + np.arange(count) * np.timedelta64(6, "h")
    place = {"time": moments, "level": list(LEVELS), "latitude": grid.latitude, "longitude": grid.longitude}
    data["cell_area"] = (dims[2:], grid.area)
    return xr.Dataset(data, place, {"emulator_schema": "analysis-1", "vertical_coordinate": "pressure"})


def write_store(path: Path, data: xr.Dataset, shard: int = SHARD) -> None:
    """A store as ingest writes it."""
    create(path, data, {"time": 1}, {"time": shard} if shard > 1 else None)
    for name in (*UPPER, *SURFACE):
        for start in range(0, data.sizes["time"], shard):
            write_region(path, name, data[name].values[start : start + shard], {"time": start})
    finish(path)


def write_anemoi(path: Path, values: dict[str, np.ndarray], grid: Grid) -> None:
    """The same fields as anemoi-datasets lays them out: one array `(date, variable, ensemble, cell)`, a chunk a date."""
    columns, names = [], []
    for name, array in values.items():
        flat = array.reshape(len(array), -1, grid.area.size)
        columns.append(flat)
        names += [f"{name}_{n}" for n in range(flat.shape[1])]
    data = np.concatenate(columns, axis=1)[:, :, None]
    dates = np.datetime64("2001-01-01", "s") + np.arange(len(data)) * np.timedelta64(6, "h")
    group = zarr.open_group(path, mode="w", zarr_format=2)
    array = group.create_array("data", shape=data.shape, chunks=(1, *data.shape[1:]), dtype="f4")
    array[:] = data
    latitude, longitude = grid.mesh()
    for name, vector in (("dates", dates), ("latitudes", latitude.ravel()), ("longitudes", longitude.ravel())):
        group.create_array(name, data=np.ascontiguousarray(vector))
    for name, row in (
        ("mean", data.mean((0, 2, 3))),
        ("stdev", data.std((0, 2, 3))),
        ("minimum", data.min((0, 2, 3))),
        ("maximum", data.max((0, 2, 3))),
    ):
        group.create_array(name, data=row.astype(np.float64))
    group.attrs.update(
        {
            "variables": names,
            "frequency": "6h",
            "resolution": "o96",
            "start_date": str(dates[0]),
            "end_date": str(dates[-1]),
            "ensemble_dimension": 2,
            "flatten_grid": True,
            "field_shape": list(grid.shape),
            "version": "0.30",
            "missing_dates": [],
            "variables_metadata": {name: {} for name in names},
        }
    )


def fme_reader(folder: Path, values: dict[str, np.ndarray], data: xr.Dataset):
    """fme's loader on its own layout, a variable for every level with the same codec, chunks and shards; None without it."""
    try:
        from fme.core.dataset.schedule import IntSchedule
        from fme.core.dataset.xarray import XarrayDataConfig, XarrayDataset
    except ImportError:
        return None
    flat = {}
    for name, array in values.items():
        levels = array.reshape(len(array), -1, *array.shape[-2:])
        flat |= {f"{name}_{n}": (("time", "lat", "lon"), levels[:, n]) for n in range(levels.shape[1])}
    place = {"time": data["time"].values, "lat": data["latitude"].values, "lon": data["longitude"].values}
    shape = next(iter(flat.values()))[1].shape
    layout = {"chunks": (1, *shape[1:]), "shards": (SHARD, *shape[1:]), "compressors": [COMPRESSOR]}
    store = xr.Dataset(flat, place)
    store.to_zarr(folder / "fme.zarr", zarr_format=3, consolidated=True, encoding={n: layout for n in flat})
    config = XarrayDataConfig(data_path=str(folder), file_pattern="fme.zarr", engine="zarr")
    dataset = XarrayDataset(config, list(flat), IntSchedule.from_constant(2))
    found = dataset[3][0][f"{UPPER[0]}_2"]
    if not np.array_equal(found[0].numpy(), values[UPPER[0]][3, 2]):
        raise SystemExit("fme's loader gives other values")
    return lambda start: dataset[start]


def raw_reader(path: Path, threads: int):
    """Reads and decompresses the chunks of two times: plain system calls and Blosc, into memory that is there already.

    As fast as we know how in Python: the system is told of a thread's chunks before the first is waited for.
    """
    tables, memory = {}, {}
    for name in (*UPPER, *SURFACE):
        array = zarr.open_array(path, path=name, mode="r")
        for shard in range(-(-array.shape[0] // SHARD)):
            file = path / name / "c" / str(shard) / "/".join("0" * (array.ndim - 1))
            data = file.read_bytes()
            index = np.frombuffer(data[-16 * SHARD - 4 : -4], "<u8").reshape(SHARD, 2)
            for n, (offset, length) in enumerate(index):
                tables[name, shard * SHARD + n] = str(file), int(offset), int(length)
        for step in (0, 1):
            memory[name, step] = np.empty(array.shape[1:], np.float32)
    pool = concurrent.futures.ThreadPoolExecutor(threads)

    def some(pieces):
        handles = []
        for name, time_, _ in pieces:
            file, offset, length = tables[name, time_]
            handles.append(os.open(file, os.O_RDONLY))
            os.posix_fadvise(handles[-1], offset, length, os.POSIX_FADV_WILLNEED)
        for handle, (name, time_, step) in zip(handles, pieces, strict=True):
            _, offset, length = tables[name, time_]
            blosc.decompress(os.pread(handle, length, offset), memory[name, step])
            os.close(handle)

    def read(start):
        pieces = [(name, start + step, step) for step in (0, 1) for name in (*UPPER, *SURFACE)]
        if threads == 1:
            some(pieces)
            return
        for done in [pool.submit(some, pieces[n::threads]) for n in range(threads)]:
            done.result()

    return read


def rates(ways: dict, starts: np.ndarray, folder: Path, repeats: int, cold: bool) -> dict[str, float]:
    """Samples a second of each way, median over turns; `starts` `(turn, sample)`."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for read in ways.values():
        read(int(starts[0, 0]))
    for turn in range(repeats):
        for name, read in ways.items():
            if cold:
                forget(folder)
            began = time.perf_counter()
            for start in starts[turn]:
                read(int(start))
            seconds[name].append(time.perf_counter() - began)
    return {name: starts.shape[1] / statistics.median(found) for name, found in seconds.items()}


def ways_of(folder: Path, values, grid: Grid, threads: int) -> dict:
    store, data = folder / "ours.zarr", dataset_of(values, grid)
    write_store(store, data)
    opened = open_analysis(store)
    layout = Layout(Channels.of(opened, (*UPPER, *SURFACE)), *(Channels((), ()),) * 3)
    direct = Samples(opened, layout, cache_bytes=0, stores=[store], threads=threads)
    through_zarr = Samples(opened, layout, cache_bytes=0)
    ways = {
        "ours": lambda start: direct.batch([start], 1),
        "raw read and decompress": raw_reader(store, threads),
        "ours through zarr": lambda start: through_zarr.batch([start], 1),
    }
    try:
        import zarrs

        zarr.registry.register_pipeline(zarrs.ZarrsCodecPipeline)
        with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "threading.max_workers": threads}):
            fast = Samples(open_analysis(store), layout, cache_bytes=0)
            fast.batch([0], 1)
        ways["ours through zarr with zarrs"] = lambda start: fast.batch([start], 1)
    except ImportError:
        pass
    try:
        from anemoi.datasets import open_dataset

        write_anemoi(folder / "anemoi.zarr", values, grid)
        other = open_dataset(str(folder / "anemoi.zarr"))
        first = opened[UPPER[0]].values[3, 2].ravel()
        if not np.array_equal(np.asarray(other[3])[2, 0], first):
            raise SystemExit("anemoi-datasets gives other values")
        ways["anemoi-datasets open_dataset"] = lambda start: other[start : start + 2]
    except ImportError:
        pass
    if (other_reader := fme_reader(folder, values, data)) is not None:
        ways["fme XarrayDataset"] = other_reader
    return ways


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--grids", nargs="*", default=["64x128", "240x480"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--samples", type=int, default=16, help="in a turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to measure; default: the temporary one")
    parser.add_argument("--peers", default="", help="folder with installed peers (pip install --target)")
    options = parser.parse_args()
    if options.peers:
        sys.path.append(options.peers)  # last, so that it adds packages and replaces none
    about = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": options.threads,
        "versions": {name: found for name in PACKAGES if (found := installed(name))},
    }
    print(json.dumps(about) if options.json else f"{about}")
    for name in options.grids:
        rows, columns = map(int, name.split("x"))
        grid = Grid.equiangular(rows, columns)
        folder = Path(tempfile.mkdtemp(dir=options.folder))
        try:
            count = SHARD if rows > 100 else 2 * SHARD
            ways = ways_of(folder, fields(grid, count), grid, options.threads)
            size = options.repeats, options.samples  # no start twice, as far as there are others
            starts = np.resize(np.random.default_rng(1).permutation(count - 1), size)
            for cold in (False, True):
                found = rates(ways, starts, folder, options.repeats, cold)
                report(f"{name} x 70, {'cold' if cold else 'warm'}", found, 8 * 70 * grid.area.size, options.json)
        finally:
            shutil.rmtree(folder)


def report(case: str, found: dict[str, float], size: int, as_json: bool) -> None:
    for peer, rate in found.items():
        if peer == "ours":
            continue
        line = {"case": f"{case}, against {peer}", "ours": found["ours"], "peer": rate, "ratio": found["ours"] / rate}
        line |= {"unit": "samples s-1", "megabytes_per_second": found["ours"] * size / 1e6}
        if as_json:
            print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in line.items()}), flush=True)
        else:
            print(f"{line['case']:62} {line['ours']:8.1f} {line['peer']:8.1f} {line['ratio']:6.2f}", flush=True)


if __name__ == "__main__":
    main()
