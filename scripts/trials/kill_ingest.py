"""Kills an ingest with SIGKILL at random moments, again and again, and compares what it ends with byte by byte.

Every trial starts `emulator ingest` on the same sources (whole, or in parts one after the other), kills it after a random
share of the time that an undisturbed run takes, starts it again, kills that one too, and so on, until a run ends. Regions
that were marked before a kill must not be written again; the finished store must be, byte for byte, the undisturbed one.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr


def write_sources(folder: Path, times: int, files: int) -> None:
    """Random fields on pressure levels, six-hourly, in compressed NetCDF files of consecutive times."""
    random_numbers = np.random.default_rng(0)
    axis = np.datetime64("2001-01-01", "ns") + np.arange(times) * np.timedelta64(6, "h")
    latitude, longitude = np.linspace(90, -90, 37), np.arange(72) * 5.0
    for number, part in enumerate(np.array_split(axis, files)):
        shape = (len(part), 5, len(latitude), len(longitude))
        fields = {"temperature": ("K", 250), "u_component_of_wind": ("m s-1", 0), "v_component_of_wind": ("m s-1", 0)}
        dims = ("time", "level", "latitude", "longitude")
        data = {
            name: (dims, (mean + 10 * random_numbers.standard_normal(shape)).astype(np.float32), {"units": units})
            for name, (units, mean) in fields.items()
        }
        level = ("level", [200.0, 500, 700, 850, 1000], {"units": "hPa"})
        encoding = {name: {"zlib": True, "complevel": 1, "chunksizes": (1, *shape[1:])} for name in data}
        xr.Dataset(data, {"time": part, "level": level, "latitude": latitude, "longitude": longitude}).to_netcdf(
            folder / f"{number:03d}.nc", encoding=encoding
        )


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def command(config: Path, output: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "pipelines.cli", "ingest", str(config), f"output={output}", *more]


def run_killed(arguments: list[str], seconds: float, output: Path) -> tuple[bool, int]:
    """Runs and kills after `seconds`: whether it had ended, and how many regions marked before were written again."""
    progress = output.with_name(output.name + ".progress")
    before = {f.name: f.stat().st_mtime_ns for f in progress.glob("*.done")}
    child = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    try:
        said = child.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGKILL)
        child.wait()
        after = {f.name: f.stat().st_mtime_ns for f in progress.glob("*.done")}
        return False, sum(after.get(name, stamp) != stamp for name, stamp in before.items())
    if child.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {child.returncode}: {said}")
    return True, 0


def trial(config: Path, folder: Path, whole: dict, longest: float, chance: random.Random, parts: int) -> dict:
    """One store, made under kills. Returns what happened; `same` says whether the bytes are the undisturbed ones."""
    output, kills, again = folder / "killed.zarr", [], 0
    shares = (
        [("--part", f"{number}/{parts}") for number in chance.sample(range(1, parts + 1), parts)] if parts > 1 else []
    )
    for more in [*shares, ()]:
        while True:
            patience = chance.uniform(0.3, 1.0 if len(kills) < 6 else 3.0) * longest
            ended, twice = run_killed(command(config, output, *more), patience, output)
            again += twice
            if ended:
                break
            kills.append(round(patience, 2))
            if output.exists() and bytes_of(output) != whole:
                raise SystemExit("a store that was not whole lay at the output")
    same = bytes_of(output) == whole
    left = [f.name for f in folder.iterdir() if f.name.startswith("killed.zarr") and f != output]
    for name in (output.name, *left):
        shutil.rmtree(folder / name)
    return {"kills": len(kills), "seconds": kills, "written_again": again, "same": same, "left": left, "parts": parts}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--json", action="store_true", help="one JSON object a trial")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "in").mkdir()
        write_sources(folder / "in", options.times, 5)
        config = folder / "ingest.yaml"
        config.write_text(
            f"sources: [{{path: {folder}/in/*.nc}}]\noutput: x.zarr\ntimes_per_region: 4\ndask: {{threads: 1}}\n"
        )
        start = time.perf_counter()
        subprocess.run(command(config, folder / "whole.zarr"), check=True, stderr=subprocess.DEVNULL)
        longest = time.perf_counter() - start
        whole = bytes_of(folder / "whole.zarr")
        failed = kills = 0
        for number in range(options.trials):
            found = trial(config, folder, whole, longest, chance, parts=3 if number % 4 == 3 else 1)
            failed += not (found["same"] and not found["left"] and not found["written_again"])
            kills += found["kills"]
            if options.json:
                print(json.dumps({"trial": number, **found}), flush=True)
            else:
                more = f", {found['written_again']} written again, left: {found['left'] or 'nothing'}"
                print(f"trial {number:2d}: {found['kills']:2d} kills, same bytes: {found['same']}{more}", flush=True)
        line = {"trials": options.trials, "kills": kills, "failed": failed, "undisturbed_seconds": round(longest, 2)}
        print(json.dumps(line) if options.json else f"{options.trials} trials, {kills} kills, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
