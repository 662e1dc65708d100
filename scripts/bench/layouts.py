"""Which chunks, shards and codecs make a training sample fast to read: one variable of 13 levels, times in random order.

Every layout is written once and read in turns: by Zarr, by Zarr with the codec pipeline `zarrs` where it is installed, and by
`emulator.store.chunks` where that can. Milliseconds a time, medians; `ratio` is the layout's best time over the shipped
layout's: above 1 the layout is slower than what ships.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import zarr
from loader import LEVELS, fields
from zarr.codecs import BloscCodec, ZstdCodec

from emulator.planet.grid import Grid
from emulator.store.chunks import ChunkReader

TIMES = 64
SHIPPED = "1 time, shards of 64, blosc lz4 5 shuffle"
CODECS = {
    "blosc zstd 3 shuffle": BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=4),
    "blosc zstd 1 shuffle": BloscCodec(cname="zstd", clevel=1, shuffle="shuffle", typesize=4),
    "blosc zstd 5 shuffle": BloscCodec(cname="zstd", clevel=5, shuffle="shuffle", typesize=4),
    "blosc zstd 3 bitshuffle": BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle", typesize=4),
    "blosc lz4 5 shuffle": BloscCodec(cname="lz4", clevel=5, shuffle="shuffle", typesize=4),
    "zstd 3": ZstdCodec(level=3),
    "none": None,
}
# times a chunk, levels a chunk, times a shard (0: a file for each chunk), codec
LAYOUTS = [
    *[(1, len(LEVELS), 64, codec) for codec in CODECS],
    *[(1, len(LEVELS), shard, "blosc lz4 5 shuffle") for shard in (0, 8)],
    (1, 1, 64, "blosc lz4 5 shuffle"),
    (4, len(LEVELS), 64, "blosc lz4 5 shuffle"),
    (16, len(LEVELS), 64, "blosc lz4 5 shuffle"),
]


def name_of(times: int, levels: int, shard: int, codec: str) -> str:
    chunk = f"{times} time{'s' * (times > 1)}" + (", 1 level" if levels == 1 else "")
    return f"{chunk}, {f'shards of {shard}' if shard else 'no shards'}, {codec}"


def write(folder: Path, values: np.ndarray, layout) -> tuple[float, float]:
    """Milliseconds a time to write, and how many times smaller than float32 it is."""
    times, levels, shard, codec = layout
    array = zarr.create_array(
        folder / "t",
        shape=values.shape,
        dtype="f4",
        chunks=(times, levels, *values.shape[2:]),
        shards=(shard, *values.shape[1:]) if shard else None,
        compressors=[CODECS[codec]] if CODECS[codec] else None,
        fill_value=np.nan,
    )
    began = time.perf_counter()
    array[:] = values
    seconds = time.perf_counter() - began
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return 1e3 * seconds / len(values), values.nbytes / size


def readers(folder: Path, values: np.ndarray) -> dict:
    array = zarr.open_array(folder / "t", mode="r")
    found = {"zarr": lambda n: array[n]}
    try:
        import zarrs

        zarr.registry.register_pipeline(zarrs.ZarrsCodecPipeline)
        with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
            fast = zarr.open_array(folder / "t", mode="r")
        found["zarrs"] = lambda n: fast[n]
    except ImportError:
        pass
    if (direct := ChunkReader.of(folder, "t")) is not None:
        out = np.empty(values.shape[1:], np.float32)

        def read(n):
            direct.read(n, out)
            return out

        found["chunk_reader"] = read
    for reader, read in found.items():
        if not np.array_equal(read(5), values[5]):
            raise SystemExit(f"{reader} gives other values")
    return found


def measure(values: np.ndarray, folder: Path, repeats: int) -> dict[str, dict]:
    rows, ways = {}, {}
    for layout in LAYOUTS:
        name = name_of(*layout)
        place = folder / str(len(rows))
        place.mkdir()
        milliseconds, smaller = write(place, values, layout)
        rows[name] = {"smaller": smaller, "write": milliseconds}
        ways[name] = readers(place, values)
    order = np.random.default_rng(0).permutation(TIMES)[:12]
    spent: dict = {(name, reader): [] for name, found in ways.items() for reader in found}
    for _ in range(repeats):
        for (name, reader), seconds in spent.items():
            read = ways[name][reader]
            began = time.perf_counter()
            for n in order:
                read(int(n))
            seconds.append(1e3 * (time.perf_counter() - began) / len(order))
    for (name, reader), seconds in spent.items():
        rows[name][reader] = statistics.median(seconds)
    return rows


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def best(row: dict) -> float:
    return min(row[reader] for reader in ("zarr", "zarrs", "chunk_reader") if reader in row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--grids", nargs="*", default=["64x128", "240x480"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    packages = ("numpy", "zarr", "zarrs", "numcodecs")
    about = {"machine": platform.machine(), "cores": os.cpu_count()}
    about["versions"] = {name: found for name in packages if (found := installed(name))}
    print(json.dumps(about) if options.json else f"{about}")
    for text in options.grids:
        rows, columns = map(int, text.split("x"))
        values = fields(Grid.equiangular(rows, columns), TIMES, ("temperature",))["temperature"]
        folder = Path(tempfile.mkdtemp(dir=options.folder))
        try:
            found = measure(values, folder, options.repeats)
        finally:
            shutil.rmtree(folder)
        for name, row in found.items():
            if options.json:
                line = {"case": f"{text} x 13, {name}", "ours": best(found[SHIPPED]), "peer": best(row)}
                line |= {"ratio": best(row) / best(found[SHIPPED]), "unit": "ms a time"} | row
                print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in line.items()}), flush=True)
            else:
                cells = "  ".join(f"{key} {value:.2f}" for key, value in row.items())
                print(f"{text} {name:46} {cells}", flush=True)


if __name__ == "__main__":
    main()
