"""Verification against the same scores written with xskillscore and xarray: RMSE, ACC, bias and CRPS of an ensemble.

A store of random fields is written in WeatherBench 2's layout: 60 initial times, 40 leads, 10 members, 5 variables on
64 x 128, 3.9 GB. Ours goes through `score_variables`, which gives these scores with persistence and climatology beside them,
spread, energy score and sums for intervals. The peer opens the stores with Dask and calls xskillscore, as its users would.
Each runs in a process of its own, both with the same number of threads. `ratio` is the peer's time over ours. `--inits 6`
takes a tenth of the time and of the disk; both sides are linear in the number of initial times.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr

VARIABLES = (
    "2m_temperature",
    "mean_sea_level_pressure",
    "10m_u_component_of_wind",
    "10m_v_component_of_wind",
    "surface_pressure",
)
LEADS, MEMBERS, NLAT, NLON, RECORD = 40, 10, 64, 128, 120


def make(folder: Path, inits: int) -> None:
    """A truth of `RECORD` times before the first initial time and all that is verified, and the forecasts."""
    rng = np.random.default_rng(0)
    step = np.timedelta64(6, "h")
    times = np.datetime64("2020-01-01", "ns") + np.arange(RECORD + 2 * inits + LEADS) * step
    place = {"latitude": np.linspace(90 - 90 / NLAT, -90 + 90 / NLAT, NLAT), "longitude": np.arange(NLON) * 360 / NLON}
    shape = (len(times), NLAT, NLON)
    truth = xr.Dataset(
        {
            n: (("time", "latitude", "longitude"), rng.standard_normal(shape, np.float32), {"units": "1"})
            for n in VARIABLES
        },
        {"time": times} | place,
        {"emulator_schema": "analysis-1", "complete": True, "time_step_seconds": 21600},
    )
    truth.to_zarr(folder / "truth.zarr", zarr_format=3, encoding={n: {"chunks": (8, NLAT, NLON)} for n in VARIABLES})
    dims = ("time", "prediction_timedelta", "number", "latitude", "longitude")
    for index in range(inits):
        data = {
            n: (dims, rng.standard_normal((1, LEADS, MEMBERS, NLAT, NLON), np.float32), {"units": "1"})
            for n in VARIABLES
        }
        leads = (np.arange(LEADS) * step).astype("timedelta64[ns]")
        part = xr.Dataset(
            data,
            {"time": times[[RECORD + 2 * index]], "prediction_timedelta": leads, "number": np.arange(MEMBERS)} | place,
        )
        encoding = {n: {"chunks": (1, 4, MEMBERS, NLAT, NLON)} for n in VARIABLES}
        encoding["time"] = {"units": "hours since 2020-01-01", "dtype": "int64"}
        options = {"encoding": encoding, "zarr_format": 3}
        part.to_zarr(
            folder / "forecast.zarr", **(options if index == 0 else {"append_dim": "time"}), consolidated=False
        )


def ours(folder: Path, threads: int) -> dict:
    import dask

    from emulator.planet.regions import region_weights
    from emulator.store.analysis import open_analysis
    from emulator.store.forecast import open_forecast
    from emulator.store.schema import grid_of
    from emulator.verify import climatology
    from emulator.verify.align import align
    from emulator.verify.assemble import assemble
    from emulator.verify.channels import scored
    from emulator.verify.score import binning, score_variables

    truth, forecast = open_analysis(folder / "truth.zarr"), open_forecast(folder / "forecast.zarr")
    grid = grid_of(truth)
    variables, _ = scored(truth, {"model": forecast}, grid, None)
    alignment = align(
        {t: i for i, t in enumerate(truth["time"].values)},
        {"model": (forecast["init_time"].values, forecast["lead_time"].values)},
    )
    plan = climatology.recipe(truth["time"], np.arange(RECORD))
    shared = binning(grid, region_weights(grid, ["global"]), alignment, events=(), members=MEMBERS)
    shared = type(shared)(**{**vars(shared), "spectrum_leads": ()})
    with dask.config.set(scheduler="threads", num_workers=threads):
        found = assemble(
            _without_maps(score_variables, variables, plan, shared), shared, ["model"], ["global"], [MEMBERS, 1]
        )
    at = found.sel(forecast="model", region="global", channel=list(VARIABLES))
    return {
        name: at[name].transpose("channel", "lead_time").values.tolist() for name in ("rmse", "bias", "acc", "crps")
    }


def _without_maps(score, variables, plan, shared):
    """Events, ranks and maps belong to the report's headline fields, which the peer does not make."""
    import emulator.verify.score as module

    module.headline_ranks = lambda variable: {}
    return score(variables, plan, shared)


def peer(folder: Path, threads: int) -> dict:
    import dask
    import xskillscore

    from emulator.planet.grid import Grid

    truth = xr.open_zarr(folder / "truth.zarr")
    forecast = xr.open_zarr(folder / "forecast.zarr", decode_timedelta=True, consolidated=False)
    grid = Grid.from_coordinates(truth["latitude"].values, truth["longitude"].values)
    weights = xr.DataArray(grid.area, {n: truth[n] for n in ("latitude", "longitude")}, ("latitude", "longitude"))
    record = truth.isel(time=slice(0, RECORD)).astype(np.float64)
    climate = record.groupby("time.hour").mean("time")
    valid = forecast["time"] + forecast["prediction_timedelta"]
    space, found = ["latitude", "longitude"], {n: [] for n in ("rmse", "bias", "acc", "crps")}
    with dask.config.set(scheduler="threads", num_workers=threads):
        expected = climate.compute()
        for name in VARIABLES:
            members = forecast[name].astype(np.float64)
            observed = (
                truth[name].sel(time=valid).drop_vars("time").astype(np.float64).assign_coords(time=forecast["time"])
            )
            normal = expected[name].sel(hour=valid.dt.hour).drop_vars("hour")
            mean = members.mean("number")
            one, other = mean - normal, observed - normal
            scores = {
                "rmse": np.sqrt(xskillscore.mse(mean, observed, dim=space, weights=weights).mean("time")),
                "bias": xskillscore.me(mean, observed, dim=space, weights=weights).mean("time"),
                "acc": (
                    (one * other).weighted(weights).mean(space)
                    / np.sqrt((one**2).weighted(weights).mean(space) * (other**2).weighted(weights).mean(space))
                ).mean("time"),
                "crps": xskillscore.crps_ensemble(
                    observed, members, member_dim="number", dim=space, weights=weights
                ).mean("time"),
            }
            computed = dask.compute(scores)[0]
            for score, values in computed.items():
                found[score].append(values.values.tolist())
    return found


def child(side: str, folder: str, threads: int) -> None:
    start, cpu = time.perf_counter(), time.process_time()
    values = {"ours": ours, "peer": peer}[side](Path(folder), threads)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak, "values": values}))


def run(side: str, folder: Path, threads: int) -> dict:
    command = [sys.executable, __file__, "--child", side, str(folder), "--threads", str(threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def cases(inits: int, threads: int, folder: Path, with_peer: bool):
    make(folder, inits)
    mine = run("ours", folder, threads)
    size = inits * LEADS * MEMBERS * len(VARIABLES) * NLAT * NLON * 4 / 2**30
    name = f"{inits} inits x {LEADS} leads x {MEMBERS} members x {len(VARIABLES)} variables, {NLAT} x {NLON}"
    if with_peer:
        theirs = run("peer", folder, threads)
        for score, tolerance in (("rmse", 1e-10), ("acc", 1e-8), ("bias", 1e-6)):
            np.testing.assert_allclose(mine["values"][score], theirs["values"][score], rtol=tolerance, atol=1e-10)
        # xskillscore has the form of the empirical distribution, larger than the fair one by a term known only to us
        low, high = np.array(mine["values"]["crps"]), np.array(theirs["values"]["crps"])
        if not ((low < high) & (high < 1.2 * low)).all():
            raise ValueError("Expected xskillscore's CRPS a little above the fair one")
        ratio = theirs["seconds"] / mine["seconds"]
        yield {"case": name, "ours": mine["seconds"], "peer": theirs["seconds"], "ratio": ratio, "unit": "s"}
        yield {"case": "the same in processor time, which other programs disturb less", "ours": mine["cpu"],
               "peer": theirs["cpu"], "ratio": theirs["cpu"] / mine["cpu"], "unit": "s"}  # fmt: skip
        yield {"case": f"peak memory, store of {size:.2f} GiB", "ours": mine["peak"], "peer": theirs["peak"],
               "ratio": theirs["peak"] / mine["peak"], "unit": "GiB"}  # fmt: skip
    else:
        yield {"case": f"time, {name}", "ours": mine["seconds"], "peer": None, "ratio": None, "unit": "s"}
        yield {"case": f"peak memory, store of {size:.2f} GiB, limit 2 GiB", "ours": mine["peak"], "peer": 2.0,
               "ratio": 2.0 / mine["peak"], "unit": "GiB"}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--inits", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-peer", action="store_true", help="ours alone, for memory on a large store")
    parser.add_argument("--folder", type=Path, help="where the stores are written for the time of the run")
    parser.add_argument("--child", nargs=2, metavar=("SIDE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child, options.threads)
        return
    import xskillscore

    machine = {
        "machine": f"{platform.machine()}, {options.threads} threads",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "xarray": xr.__version__,
        "xskillscore": xskillscore.__version__,
    }
    print(json.dumps(machine) if options.json else ", ".join(f"{k} {v}" for k, v in machine.items()))
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for case in cases(options.inits, options.threads, Path(folder), not options.no_peer):
            if options.json:
                print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in case.items()}), flush=True)
            else:
                peer_text = f"{case['peer']:8.2f}" if case["peer"] is not None else "       -"
                ratio = f"{case['ratio']:6.2f}" if case["ratio"] is not None else "     -"
                print(f"{case['ours']:8.2f} {peer_text} {case['unit']:4} ratio {ratio}  {case['case']}", flush=True)


if __name__ == "__main__":
    main()
