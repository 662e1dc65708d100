"""DYffusion beside a network with noise that is trained by the CRPS of two members, at equal processor time.

    python scripts/trials/dyffusion.py runs/quickstart OUTPUT --seconds 60

trains both on the quickstart's data, interpolator and forecaster for half of the time each, and prints of forecasts of a day
the fair CRPS, the error of the ensemble mean and spread over error, in units of a step's change over all prognostic channels,
with processor time and memory of a member-step. A training that is there is not made again.
"""

import argparse
import contextlib
import time
from pathlib import Path

import numpy as np
import xarray as xr

import emulator as em
from emulator.parallel.rates import most_held
from emulator.planet.grid import Grid
from emulator.training.options import TrainOptions
from emulator.training.run import StageHooks, Training

TRAINED = {"end": "2002-03-01"}
INITS = ["2002-03-08", "2002-03-16", "2002-03-24", "2002-04-01", "2002-04-09", "2002-04-17"]
PROGNOSTIC = ["temperature", "u_component_of_wind", "v_component_of_wind", "specific_humidity", "surface_pressure"]
FLUXES = [
    "mean_total_precipitation_rate", "mean_evaporation_rate", "mean_surface_net_short_wave_radiation_flux",
    "mean_surface_net_long_wave_radiation_flux", "mean_surface_sensible_heat_flux", "mean_surface_latent_heat_flux",
    "mean_top_net_short_wave_radiation_flux", "mean_top_net_long_wave_radiation_flux",
]  # fmt: skip
NETWORK = {
    "kind": "sfno", "embed_dim": 32, "blocks": 3, "scale_factor": 1.5, "stencil": 3, "mlp_ratio": 1, "encoder_layers": 0,
    "position": "learned", "pre_norm": "branch", "zero_output": True,
}  # fmt: skip
COMMON = {
    "period": TRAINED,
    "prognostic": PROGNOSTIC,
    "diagnostic": FLUXES,
    "forcing": ["sea_surface_temperature", "sea_ice_cover", "soil_temperature_level_1"],
    "margin": 0.0,
    "save_minutes": 60.0,
}
TRIED = 20  # updates by which the time of one is found
NOISE = {"length_scales": [2500.0, 800.0], "channels": 4, "correlation": 0.5}


def trained(run: Path, output: Path, seconds: float, batch: int, **options) -> Path:
    """A checkpoint that took about so many seconds of a processor; what each update takes is found by a few."""

    def training(folder: Path, updates: int) -> tuple[Training, list[float]]:
        rate = {"lr": 8e-3, "weight_decay": 0.1, "warmup_steps": min(30, updates)}
        phases = [{"updates": updates, "batch_size": batch}]
        paths = {"store": run / "analysis.zarr", "statistics": run / "statistics.nc", "output": folder}
        clock: list[float] = []
        hooks = StageHooks(stopping=lambda: contextlib.nullcontext(lambda: clock.append(time.process_time())))
        return Training(TrainOptions.of(COMMON | options | {"phases": phases, "optimizer": rate} | paths), hooks), clock

    if not (output / "checkpoint").exists():
        made, clock = training(output.with_name(output.name + "-tried"), TRIED)
        made.run()
        updates = max(TRIED, round(seconds / float(np.median(np.diff(clock)))))
        made, clock = training(output, updates)
        made.run()
        print(f"{output.name}: {updates} updates, {clock[-1] - clock[0]:.0f} s", flush=True)
    return output / "checkpoint"


def scores(forecast: xr.Dataset, truth: xr.Dataset, size: xr.Dataset) -> np.ndarray:
    """Fair CRPS, squared error of the ensemble mean and variance of members, means over everything."""
    grid = Grid.from_coordinates(forecast["latitude"].values, forecast["longitude"].values)
    found, last = [], forecast.isel(lead_time=-1)
    for name in PROGNOSTIC:
        wanted = truth[name].sel(time=last["init_time"] + last["lead_time"])
        field = last[name].transpose("member", "init_time", ..., "latitude", "longitude")
        unit = size[name].values if "level" not in field.dims else size[name].values[:, None, None]
        members = field.values / unit
        true = wanted.transpose("init_time", ..., "latitude", "longitude").values / unit
        count = len(members)
        apart = np.abs(members[:, None] - members[None]).sum((0, 1)) / (2 * count * (count - 1))
        mean = members.mean(0)
        each = np.abs(members - true).mean(0) - apart, (mean - true) ** 2, members.var(0, ddof=1)
        rows = np.stack([grid.mean(part) for part in each])
        found.append(rows.mean(1).reshape(3, -1))
    return np.concatenate(found, 1).mean(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--horizon", type=int, default=6)
    parser.add_argument("--members", type=int, default=6)
    given = parser.parse_args()
    run, output, seconds = given.run, given.output, given.seconds
    inside = {"kind": "dyffusion_interpolator", "horizon": given.horizon}
    between = NETWORK | {"dropout": 0.1, "drop_path": 0.1}
    half = {"batch": 4, "loss": {"kind": "l1"}, "seconds": seconds / 2}
    between = trained(run, output / "interpolator", network=between, objective=inside, **half)
    ahead = {"kind": "dyffusion", "interpolator": str(between)}
    models = {
        "dyffusion": trained(run, output / "forecaster", network=NETWORK, objective=ahead, **half),
        "noise": trained(
            run, output / "noise", seconds, 2, network=NETWORK | {"noise": NOISE}, loss={"kind": "crps", "members": 2}
        ),
    }
    truth = xr.open_zarr(run / "analysis.zarr")
    size = xr.open_dataset(run / "statistics.nc").sel(statistic="difference_std")
    ensemble = {"members": given.members, "kind": "none"}
    for name, path in models.items():
        model = em.load_model(path, "cpu")
        em.forecast(model, truth, INITS[:1], 1.0, ensemble=ensemble)
        begun = time.process_time()
        found = [em.forecast(model, truth, [init], 1.0, ensemble=ensemble, batch_size=given.members) for init in INITS]
        taken = (time.process_time() - begun) / (len(INITS) * given.members * 4)
        crps, error, variance = scores(xr.concat(found, "init_time", data_vars="all"), truth, size)
        one = {"members": 2, "kind": "none"}
        held = most_held(lambda model=model, one=one: em.forecast(model, truth, INITS[:1], 0.5, ensemble=one)) / 2
        parameters = sum(p.numel() for p in model.network.parameters())
        ratio = np.sqrt((1 + 1 / given.members) * variance / error)
        print(
            f"{name}: CRPS {crps:.3f}, error of the mean {np.sqrt(error):.3f}, spread over error {ratio:.2f}, "
            f"{1e3 * taken:.1f} ms and {held / 2**20:.0f} MiB a member-step, {parameters} parameters",
            flush=True,
        )


if __name__ == "__main__":
    main()
