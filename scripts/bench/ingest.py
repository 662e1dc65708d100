"""How fast NetCDF becomes a store: against `xarray.open_mfdataset(...).to_zarr(...)` with the same chunks and codec.

Both read the same files and write one time a chunk with Blosc (lz4, shuffle) on the same disk, each in a process of its own
with as many threads, in turns; medians. `ratio` is our rate over xarray's. The memory is the largest of the process, whole.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import xarray as xr

LEVELS = [50.0, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000]
UNITS = {"geopotential": "m2 s-2", "temperature": "K", "u_component_of_wind": "m s-1"}
PACKAGES = ("numpy", "xarray", "dask", "zarr", "netCDF4")


def write_sources(folder: Path, rows: int, columns: int, times: int, files: int, packed: bool) -> int:
    """Fields of 13 levels in NetCDF4 files of consecutive times, as CDS gives them; returns their bytes as float32."""
    chance = np.random.default_rng(0)
    latitude, longitude = np.linspace(90, -90, rows), np.arange(columns) * (360 / columns)
    wave = np.cos(np.radians(latitude))[:, None] * np.sin(np.radians(3 * longitude))
    axis = np.datetime64("2001-01-01", "ns") + np.arange(times) * np.timedelta64(6, "h")
    dims = ("time", "level", "latitude", "longitude")
    for number, part in enumerate(np.array_split(axis, files)):
        data = {}
        for name, units in UNITS.items():
            weights = chance.normal(size=(len(part), len(LEVELS), 1, 1))
            values = (250 + 20 * weights * wave + chance.normal(0, 0.05, (1, 1, rows, columns))).astype(np.float32)
            data[name] = (dims, values, {"units": units})
        level = ("level", LEVELS, {"units": "hPa"})
        dataset = xr.Dataset(data, {"time": part, "level": level, "latitude": latitude, "longitude": longitude})
        packing = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 250.0, "_FillValue": -32767}
        encoding = {
            n: {"zlib": True, "complevel": 1, "chunksizes": (1, 1, rows, columns), **(packing if packed else {})}
            for n in data
        }
        dataset.to_netcdf(folder / f"{number:03d}.nc", encoding=encoding)
    return 4 * times * len(LEVELS) * rows * columns * len(UNITS)


def ours(folder: Path, output: Path, threads: int, shard: int) -> None:
    from pipelines.config import IngestConfig
    from pipelines.ingest import ingest

    settings = {"times_per_region": shard, "dask": {"threads": threads}}
    ingest(IngestConfig(sources=[{"path": str(folder / "*.nc")}], output=output, **settings))


def peer(folder: Path, output: Path, threads: int, shard: int) -> None:
    import dask

    from emulator.store.regions import COMPRESSOR

    dask.config.set(scheduler="threads", num_workers=threads)
    chunks = {"time": shard, "level": -1, "latitude": -1, "longitude": -1}
    data = xr.open_mfdataset(str(folder / "*.nc"), chunks=chunks, parallel=False)
    shape = tuple(data.sizes[d] for d in ("level", "latitude", "longitude"))
    encoding = {n: {"chunks": (1, *shape), "shards": (shard, *shape), "compressors": [COMPRESSOR]} for n in UNITS}
    for name in UNITS:
        data[name].encoding = {}
        data[name] = data[name].astype(np.float32)
    data.chunk(chunks).to_zarr(output, zarr_format=3, consolidated=False, encoding=encoding)


def measured(way: str, folder: Path, output: Path, threads: int, shard: int) -> tuple[float, float]:
    """Seconds without the start of Python and its imports, and the largest memory in GB, of one way in its own process."""
    code = f"""
import sys, time; sys.path.insert(0, {str(Path(__file__).parent)!r})
import dask.array, netCDF4
import ingest as bench, pipelines.ingest, emulator.store.regions
from pathlib import Path
began = time.perf_counter()
bench.{way}(Path({str(folder)!r}), Path({str(output)!r}), {threads}, {shard})
seconds = time.perf_counter() - began
largest = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))  # getrusage counts the parent's too
print(seconds, int(largest.split()[1]) * 1024 / 1e9)
"""
    found = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True)
    seconds, memory = map(float, found.stdout.split())
    return seconds, memory


def same(one: Path, other: Path) -> None:
    """Raises `SystemExit` when the two stores do not hold the same values."""
    a, b = (xr.open_zarr(path, consolidated=False, chunks=None) for path in (one, other))
    for name in UNITS:
        np.testing.assert_allclose(a[name][-1].values, b[name][-1].values, rtol=1e-6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--grid", default="181x360")
    parser.add_argument("--times", type=int, default=64)
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shard", type=int, default=8, help="times in a file of the store")
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    about = {"machine": platform.machine(), "cores": os.cpu_count(), "threads": options.threads}
    about["versions"] = {name: version(name) for name in PACKAGES}
    print(json.dumps(about) if options.json else f"{about}")
    rows, columns = map(int, options.grid.split("x"))
    for packed in (False, True):
        folder = Path(tempfile.mkdtemp(dir=options.folder))
        try:
            (folder / "in").mkdir()
            size = write_sources(folder / "in", rows, columns, options.times, options.files, packed)
            seconds: dict[str, list] = {"ours": [], "peer": []}
            for turn in range(options.repeats):
                for way in ("ours", "peer") if turn % 2 == 0 else ("peer", "ours"):
                    output = folder / f"{way}.zarr"
                    shutil.rmtree(output, ignore_errors=True)
                    seconds[way].append(measured(way, folder / "in", output, options.threads, options.shard))
            same(folder / "ours.zarr", folder / "peer.zarr")
            rate = {way: size / 1e6 / statistics.median(s for s, _ in found) for way, found in seconds.items()}
            memory = {way: max(m for _, m in found) for way, found in seconds.items()}
            kind = "packed" if packed else "float32"
            case = f"{options.grid}, 13 levels, {kind} NetCDF4, against open_mfdataset().to_zarr()"
            line = {"case": case, **rate, "ratio": rate["ours"] / rate["peer"], "unit": "MB s-1 of float32"}
            line |= {"memory_gigabytes": memory["ours"], "peer_memory_gigabytes": memory["peer"]}
            if options.json:
                print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in line.items()}), flush=True)
            else:
                print(
                    f"{case}: {rate['ours']:.0f} and {rate['peer']:.0f} MB/s, ratio {line['ratio']:.2f}, memory "
                    f"{memory['ours']:.2f} and {memory['peer']:.2f} GB",
                    flush=True,
                )
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
