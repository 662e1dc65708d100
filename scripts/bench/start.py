"""Seconds from `emulator train` to the first update, and of `emulator stats`, against another build, on generated stores.

    python scripts/bench/start.py --other CHECKOUT [--python PYTHON] [--gigabytes 2 20] [--folder FOLDER]

The store has five prognostic fields on 13 sigma levels of 64 x 128 cells and the fluxes of all budgets. Builds take turns;
medians; the store's pages are dropped before every start. `train` begins from nothing, `resumed` from a state after the first
updates, `held` from nothing with the period held in memory (where it is at most as large as `--held`). `stats` has its pages.
`processor` are the process's processor seconds until then, which other programs disturb less. Both trainings take the
statistics that this build wrote. Compiled kernels have to be built in both.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr
import yaml
from measure import forget, machine

from emulator.planet.constants import ERA5
from emulator.planet.grid import Grid
from emulator.planet.variables import VARIABLES
from emulator.planet.vertical import Levels
from emulator.store.marks import partial_path
from emulator.store.regions import create, finish, write_region

ROOT = Path(__file__).resolve().parents[2]
CALL = "import sys; from pipelines.cli import main; sys.exit(main(sys.argv[1:]))"
GRID, LEVELS, SHARD, KINDS = Grid.gaussian(64), Levels.sigma(np.linspace(0, 1, 14)), 64, 4
UPPER = {
    "temperature": (250.0, 8.0),
    "u_component_of_wind": (0.0, 10.0),
    "v_component_of_wind": (0.0, 8.0),
    "specific_humidity": (4e-3, 5e-4),
}
SURFACE = {
    "surface_pressure": (98500.0, 400.0),
    "mean_total_precipitation_rate": (3e-5, 4e-6),
    "mean_evaporation_rate": (-3e-5, 4e-6),
    "mean_surface_net_short_wave_radiation_flux": (160.0, 20.0),
    "mean_surface_net_long_wave_radiation_flux": (-60.0, 5.0),
    "mean_surface_sensible_heat_flux": (-20.0, 4.0),
    "mean_surface_latent_heat_flux": (-75.0, 9.0),
    "mean_top_net_short_wave_radiation_flux": (240.0, 20.0),
    "mean_top_net_long_wave_radiation_flux": (-235.0, 10.0),
    "sea_surface_temperature": (290.0, 5.0),
}
CHANNELS = 13 * len(UPPER) + len(SURFACE)
TRAIN = {
    "prognostic": [*UPPER, "surface_pressure"],
    "network": {"kind": "sfno", "embed_dim": 8, "blocks": 1},
    "phases": [{"updates": 100_000, "batch_size": 4}],
    "log_every": 1,
}


def make(path: Path, gigabytes: float) -> int:
    """A store of so many GB of float32; the number of its times. The files of the first shards are copied to the others."""
    shards = max(KINDS, round(gigabytes * 1e9 / (4 * CHANNELS * SHARD * GRID.area.size)))
    count, dims = shards * SHARD, ("time", "level", "latitude", "longitude")
    space = {n: (dims, (count, 13, *GRID.shape)) for n in UPPER}
    space |= {n: ((dims[0], *dims[2:]), (count, *GRID.shape)) for n in SURFACE}
    data = {}
    for name, (own, shape) in space.items():
        known = VARIABLES[name]
        about = {"units": known.units, "cell_methods": f"time: {known.cell}", "role": known.role}
        data[name] = (own, np.broadcast_to(np.float32(0), shape), about)
    data |= {"half_level_a": ("half_level", LEVELS.half_a), "half_level_b": ("half_level", LEVELS.half_b)}
    data["cell_area"] = (dims[2:], GRID.area)
    times = np.datetime64("1979-01-01", "ns") + np.arange(count) * np.timedelta64(6, "h")
    place = {"time": times, "level": LEVELS.values, "latitude": GRID.latitude, "longitude": GRID.longitude}
    about = {"emulator_schema": "analysis-1", "vertical_coordinate": "sigma", "fingerprint": f"{gigabytes:g} GB"}
    whole = xr.Dataset(data, place, about | {"time_step_seconds": 21600.0, "constants": ERA5.to_json()})
    create(path, whole, {"time": 1}, {"time": SHARD})
    chance = np.random.default_rng(0)
    latitude, longitude = (np.radians(a).astype(np.float32) for a in GRID.mesh())
    waves = np.stack([np.sin(k * longitude + 0.7 * k) * np.cos(latitude) ** k / k for k in range(1, 20, 3)])
    for name, (mean, size) in (UPPER | SURFACE).items():
        for kind in range(KINDS):
            shape = (SHARD, *whole[name].shape[1:-2])
            walk = np.cumsum(chance.normal(0, 0.1, (*shape, len(waves))), axis=0).astype(np.float32)
            values = np.tensordot(walk, waves, axes=1).astype(np.float32)
            values += chance.normal(0, 0.02, values.shape).astype(np.float32)
            write_region(path, name, (mean + size * np.clip(values, -3, 3)).astype(np.float32), {"time": kind * SHARD})
        folder = partial_path(path) / name / "c"
        for shard in range(KINDS, shards):
            shutil.copytree(folder / str(shard % KINDS), folder / str(shard))
    finish(path)
    return count


def started(checkout: Path, python: str, stage: str, config: Path, *overrides: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    command = [python, "-c", CALL, stage, str(config), *overrides]
    return subprocess.Popen(command, env=environment, cwd=checkout, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def first_update(build: tuple[Path, str], config: Path, output: Path, store: Path, *overrides: str) -> list[float]:
    """Seconds from the start of the command until an update more than before is logged, by the clock and of the processor.

    The training is then stopped.
    """
    forget(store)
    log = output / "metrics.jsonl"
    before, began = _lines(log), time.perf_counter()
    process = started(*build, "train", config, *overrides)
    while _lines(log) <= before:
        if process.poll() is not None:
            raise SystemExit(f"train of {build[0]} failed: {process.stderr.read().decode()[-2000:]}")
        time.sleep(0.005)
    taken = [time.perf_counter() - began, _processor_seconds(process.pid)]
    process.send_signal(signal.SIGTERM)
    process.communicate()
    return taken


def _processor_seconds(pid: int) -> float:
    """Of a process that runs, on Linux."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def finished(build: tuple[Path, str], config: Path) -> list[float]:
    """Seconds of the stage stats, by the clock and of the processor."""
    began, before = time.perf_counter(), os.times()
    process = started(*build, "stats", config)
    _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"stats of {build[0]} failed: {errors.decode()[-2000:]}")
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return [time.perf_counter() - began, used]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--other", type=Path, help="the other checkout")
    parser.add_argument("--python", default=sys.executable, help="its Python")
    parser.add_argument("--folder", type=Path, help="where stores are made, and removed again")
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[1.5, 20.0])
    parser.add_argument("--held", type=float, default=3.0, help="GB up to which a store is held in memory too")
    parser.add_argument("--stats", type=float, default=3.0, help="GB up to which the stage stats is timed")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    builds = {"ours": (ROOT, sys.executable)}
    if options.other:
        builds["peer"] = options.other.resolve(), options.python
    named = argparse.Namespace(threads=os.cpu_count(), clock="wall", device="cpu")
    print(json.dumps(machine(named, numpy=np.__version__)), flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for gigabytes in options.gigabytes:
            for row in measured(Path(folder), gigabytes, builds, options):
                print(json.dumps(row), flush=True)


def measured(folder: Path, gigabytes: float, builds: dict, options: argparse.Namespace):
    """One row for every case of a store."""
    store, file = folder / "a.zarr", folder / "statistics.nc"
    count = make(store, gigabytes)
    cases = {"stats": []} if gigabytes <= options.stats else {}
    places = {name: folder / name for name in builds}
    for place in places.values():
        place.mkdir(exist_ok=True)
        train = TRAIN | {"store": str(store), "statistics": str(file), "output": str(place / "train")}
        (place / "train.yaml").write_text(yaml.safe_dump(train))
        (place / "stats.yaml").write_text(yaml.safe_dump({"store": str(store), "output": str(place / "s.nc")}))
    (folder / "stats.yaml").write_text(yaml.safe_dump({"store": str(store), "output": str(file)}))
    finished(builds["ours"], folder / "stats.yaml")
    kinds = ["train", "resumed"] + ["held"] * (gigabytes <= options.held)
    cases |= {kind: [] for kind in kinds}
    for kind, rows in cases.items():
        for _ in range(options.repeats):
            taken = {}
            for name, build in builds.items():
                place = places[name]
                if kind == "stats":
                    (place / "s.nc").unlink(missing_ok=True)
                    taken[name] = finished(build, place / "stats.yaml")
                    continue
                if kind != "resumed":
                    shutil.rmtree(place / "train", ignore_errors=True)
                cache = f"cache_gigabytes={options.held if kind == 'held' else 0}"
                taken[name] = first_update(build, place / "train.yaml", place / "train", store, cache)
            rows.append(taken)
        line = {"case": kind, "gigabytes": gigabytes, "times": count}
        for number, clock in enumerate(("seconds", "processor")):
            line[clock] = {name: round(statistics.median(row[name][number] for row in rows), 2) for name in builds}
            if "peer" in builds:
                line[clock]["ratio"] = round(statistics.median(r["peer"][number] / r["ours"][number] for r in rows), 2)
        yield line
    shutil.rmtree(store)
    file.unlink()


if __name__ == "__main__":
    main()
