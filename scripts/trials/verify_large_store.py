"""Verification of a forecast store ten times larger than the memory it may use.

    python scripts/trials/verify_large_store.py [--gib 20] [--limit 2]

Writes an ensemble in WeatherBench 2's layout whose logical size is `--gib`, and a truth, runs `emulator verify` on them in a
process of its own with everything that it does by default, and prints that process' peak memory. Exit code 1 above
`--limit` GiB. All initial times share the chunks of the first (hard links), so that the disk takes a few hundred MB.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr
import yaml

NLAT, NLON, LEADS, MEMBERS, RECORD = 120, 240, 40, 10, 120
CHUNK_LEADS = 4
# The peak of the verification's own memory. `ru_maxrss` of a child counts what its parent held when it was started, and the
# parent has held the store.
VERIFY = """
import sys
from pipelines.cli import main
code = main(["verify", sys.argv[1]])
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
sys.exit(code)
"""
VARIABLES = {"2m_temperature": (280.0, 10.0, "K"), "mean_sea_level_pressure": (1e5, 800.0, "Pa")}


def make(folder: Path, inits: int) -> None:
    """A truth six hours apart, and forecasts twelve hours apart from the end of its first month on."""
    rng = np.random.default_rng(0)
    times = np.datetime64("2020-01-01", "ns") + np.arange(RECORD + 2 * inits + LEADS) * np.timedelta64(6, "h")
    latitude, longitude = np.linspace(90 - 90 / NLAT, -90 + 90 / NLAT, NLAT), np.arange(NLON) * 360 / NLON
    place = {"latitude": latitude, "longitude": longitude}
    fields, forecasts = {}, {}
    wave = np.cos(np.radians(latitude))[:, None] * np.cos(3 * np.radians(longitude))
    for name, (mean, size, units) in VARIABLES.items():
        series = mean + size * (rng.standard_normal((len(times), 1, 1)) + wave)
        fields[name] = (("time", *place), series.astype(np.float32), {"units": units})
        noise = rng.standard_normal((1, LEADS, MEMBERS, NLAT, 1)) + wave  # equal along rows but for the wave
        dims = ("time", "prediction_timedelta", "number", *place)
        forecasts[name] = (dims, (mean + size * noise).astype(np.float32), {"units": units})
    xr.Dataset(fields, {"time": times} | place).to_zarr(folder / "truth.zarr", zarr_format=3)
    leads = (np.arange(LEADS) * np.timedelta64(6, "h")).astype("timedelta64[ns]")
    axes = {"prediction_timedelta": leads, "number": np.arange(MEMBERS)} | place
    starts = times[RECORD : RECORD + 2 * inits : 2]
    whole = xr.Dataset(
        {n: (d, np.broadcast_to(v, (inits, *v.shape[1:])), a) for n, (d, v, a) in forecasts.items()},
        {"time": starts} | axes,
    )
    encoding = {n: {"chunks": (1, CHUNK_LEADS, MEMBERS, NLAT, NLON)} for n in VARIABLES}
    encoding["time"] = {"units": "hours since 2020-01-01", "dtype": "int64"}
    store = folder / "forecast.zarr"
    # a token: without one Dask hashes the values, which takes the memory of the whole store
    lazy = whole.chunk({"time": 1, "prediction_timedelta": CHUNK_LEADS}, token="logical")
    lazy.to_zarr(store, zarr_format=3, encoding=encoding, compute=False, consolidated=False)
    region = {"time": slice(0, 1), "prediction_timedelta": slice(None)}
    first = whole.isel(time=slice(0, 1)).drop_vars([*axes, "time"])
    first.to_zarr(store, region=region, consolidated=False)
    for name in VARIABLES:
        for index in range(1, inits):
            for file in (store / name / "c" / "0").rglob("*"):
                target = store / name / "c" / str(index) / file.relative_to(store / name / "c" / "0")
                if file.is_file():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.link(file, target)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=20.0, help="logical size of the forecast store")
    parser.add_argument("--limit", type=float, default=2.0, help="GiB that the verification may use")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the stores are made for the time of the trial")
    options = parser.parse_args()
    one = LEADS * MEMBERS * len(VARIABLES) * NLAT * NLON * 4 / 2**30
    inits = max(4, round(options.gib / one))
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        make(folder, inits)
        disk = sum(f.stat().st_blocks * 512 / f.stat().st_nlink for f in folder.rglob("*") if f.is_file()) / 2**30
        config = {
            "forecasts": {"model": str(folder / "forecast.zarr")},
            "truth": str(folder / "truth.zarr"),
            "output": str(folder / "scores.nc"),
            "dask": {"threads": options.threads},
        }
        (folder / "verify.yaml").write_text(yaml.safe_dump(config))
        start = time.perf_counter()
        command = [sys.executable, "-c", VERIFY, str(folder / "verify.yaml")]
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
        seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = int(done.stdout.split()[-1]) / 2**20
    print(
        f"{inits} inits x {LEADS} leads x {MEMBERS} members x {len(VARIABLES)} variables, {NLAT} x {NLON}: "
        f"{inits * one:.1f} GiB in float32, {disk:.2f} GiB on disk; peak memory {peak:.2f} GiB of {options.limit:g}, "
        f"{seconds:.0f} s ({used.ru_utime + used.ru_stime:.0f} s of processor), exit code {done.returncode}"
    )
    return int(done.returncode != 0 or peak > options.limit)


if __name__ == "__main__":
    sys.exit(main())
