"""A cascade of two networks, as FuXi's: the second starts from the first and learns from its stored forecasts.

    python scripts/trials/cascade.py RUN OUTPUT [--from-days 5] [--until-days 6] [--windows 100x4,100x8,60x20]

RUN: a finished quickstart. Writes its network's forecasts of the training period (every 84 hours, each day of the leads that
the second is for), trains the second on them, and prints the root-mean-square error of both after 1 to 10 days from initial
times that neither has seen, the power of the smallest features over the truth's, and whether forecasts are the same until
the second takes over.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

import emulator as em
from emulator.forecasting.options import ThinOptions
from emulator.model import checkpoint
from emulator.model.stepper import Cascade
from emulator.report.view import View
from emulator.store.schema import time_step_seconds

KEPT = ("prognostic", "diagnostic", "forcing", "network", "conservation")
DAYS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="directory with analysis.zarr, statistics.nc and train/checkpoint")
    parser.add_argument("output", type=Path)
    parser.add_argument("--end", default="2002-03-02", help="of the training's period")
    parser.add_argument("--unseen", default="2002-03-12", help="first initial time of the verification")
    parser.add_argument("--from-days", type=float, default=5.0)
    parser.add_argument(
        "--until-days", type=float, default=6.0, help="last lead of stored forecasts that windows start at"
    )
    parser.add_argument(
        "--windows", default="100x4,100x8,60x20", help="of each phase the updates and the steps of a window"
    )
    parser.add_argument("--rate", type=float, default=0.0085, help="learning rate")
    options = parser.parse_args()
    options.phases = [tuple(map(int, phase.split("x"))) for phase in options.windows.split(",")]
    store, short = options.run / "analysis.zarr", options.run / "train" / "checkpoint"
    stored = options.output / "stored.zarr"
    first = em.load_model(short)
    if not stored.exists():
        truth = em.open_analysis(store)
        last = np.datetime64(options.end) - np.timedelta64(DAYS + 1, "D")
        inits = pd.date_range(truth["time"].values[0], last, freq="84h")
        thin = ThinOptions(variables=first.layout.prognostic.names, every_hours=24)
        em.forecast(first, store, inits.values, DAYS, thin=thin, output=stored)
    second = trained(options, store, short, stored)
    verified(options, store, first, second)


def trained(options: argparse.Namespace, store: Path, short: Path, stored: Path) -> em.Step:
    """The later network, from the weights of the first."""
    config = checkpoint.describe(short)["config"]
    return em.train(
        store,
        options.run / "statistics.nc",
        options.output / "train",
        **{name: config[name] for name in KEPT},
        start={"checkpoint": str(short), "statistics": "old"},
        forecasts={"store": str(stored), "lead_days": [options.from_days, options.until_days]},
        period={"end": options.end},
        optimizer={"lr": options.rate, "weight_decay": 0.1, "warmup_steps": 40},
        phases=[{"updates": updates, "rollout_steps": steps} for updates, steps in options.phases],
    )


def verified(options: argparse.Namespace, store: Path, first: em.Step, second: em.Step) -> None:
    """Prints errors and spectra of the first alone and of both."""
    truth = em.open_analysis(store)
    takes_over = round(options.from_days * 86400 / time_step_seconds(truth))
    models = {"short": first, "cascade": Cascade([(0, first), (takes_over, second)])}
    last = truth["time"].values[-1] - np.timedelta64(DAYS, "D")
    inits = pd.date_range(options.unseen, last, freq="36h").values
    found = {name: em.forecast(model, store, inits, DAYS) for name, model in models.items()}
    same = all(
        np.array_equal(found["short"][name][:, : takes_over + 1], found["cascade"][name][:, : takes_over + 1])
        for name in first.layout.prognostic.names
    )
    print(f"{len(inits)} initial times, the same bits until day {options.from_days:g}: {same}")
    view = View(em.score(found, store, variables=first.layout.prognostic.names, climatology=(None, options.end)))
    for channel in view.headline:
        print(f"{view.title(channel)} [{view.units(channel)}], RMSE after days 1 to {DAYS}")
        for name in (*models, *view.baselines):
            rmse = view.get("rmse", name, channel)
            print(f"  {name:12}", " / ".join(f"{rmse[view.lead_index(day)]:.4g}" for day in range(1, DAYS + 1)))
        for name in models:
            ratios = view.scores["power_ratio"].sel(source=name).isel(channel=view.position(channel)).values
            known = np.flatnonzero(np.isfinite(ratios).all(0))
            small = ratios[:, known[2 * len(known) // 3 :]].mean(1)
            print(f"  {name:12} power of small features over the truth's:", " / ".join(f"{x:.3g}" for x in small))


if __name__ == "__main__":
    main()
