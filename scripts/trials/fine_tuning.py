"""What starting from weights brings: a variable that the network has not seen, and another climate.

    python scripts/trials/fine_tuning.py variable RUN OUTPUT [--add geopotential] [--updates 300]
    python scripts/trials/fine_tuning.py climate RUN OUTPUT --store WARM/analysis.zarr --end DATE [--updates 200]

RUN: a finished quickstart. `variable` trains a network with one variable more from the run's weights and from scratch, on the
run's training period; `climate` trains the run's network on a store of another climate until --end: whole, and by adapters
of rank 8. Prints errors at 6 and 24 hours of initial times after the training's end, in units of a typical change over a
step. OUTPUT takes the trainings.
"""

import argparse
import re
from pathlib import Path

import held_out

import emulator as em
from emulator.data.normalisation import open_statistics
from emulator.model import checkpoint

KEPT = ("prognostic", "diagnostic", "forcing", "network", "conservation")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("variable", "climate"))
    parser.add_argument("run", type=Path, help="directory with analysis.zarr, statistics.nc and train/checkpoint")
    parser.add_argument("output", type=Path)
    parser.add_argument("--checkpoint", type=Path, help="another one than the run's")
    parser.add_argument("--store", type=Path, help="of the other climate")
    parser.add_argument("--end", default="2002-03-02", help="of the training's period")
    parser.add_argument("--add", default="geopotential")
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="of the trainings, those whose name has this part")
    options = parser.parse_args()
    {"variable": variable, "climate": climate}[options.what](options)


def variable(options: argparse.Namespace) -> None:
    start = {"checkpoint": str(options.checkpoint or options.run / "train" / "checkpoint"), "statistics": "old"}
    statistics = options.run / "statistics.nc"
    trial = Trial(options, start["checkpoint"], options.run / "analysis.zarr", statistics)
    trial.chosen["prognostic"] = [*trial.chosen["prognostic"], options.add]
    for rate in (0.0043, 0.0085, 0.017, 0.034):
        trial(f"from weights, rate {rate:g}", rate, start=start)
        trial(f"from scratch, rate {rate:g}", rate)


def climate(options: argparse.Namespace) -> None:
    start = {"checkpoint": str(options.checkpoint or options.run / "train" / "checkpoint"), "statistics": "old"}
    options.output.mkdir(parents=True, exist_ok=True)
    statistics = options.output / "statistics.nc"
    if not statistics.exists():
        em.statistics(options.store, statistics, end=options.end)
    trial = Trial(options, start["checkpoint"], options.store, statistics)
    trial.show("nothing trained", em.load_model(start["checkpoint"]))
    trial("nothing trained, the new climate's bounds", 1e-12, updates=1, start=start)
    for rate in (0.017,):
        trial(f"everything, rate {rate:g}", rate, start=start)
    lora = {"rank": 8, "alpha": 8, "layers": ["*filter*", "*mlp*"]}
    for rate in (0.034, 0.068):
        trial(f"rank 8, rate {rate:g}", rate, start=start | {"lora": lora})


class Trial:
    """Trainings with the options of a checkpoint on a store, whose errors are printed."""

    def __init__(self, options: argparse.Namespace, like: str, store: Path, statistics: Path):
        config = checkpoint.describe(Path(like))["config"]
        self.chosen = {name: config[name] for name in KEPT}
        self.options, self.store, self.statistics = options, store, statistics

    def __call__(self, what: str, rate: float, updates: int | None = None, **more) -> None:
        options = self.options
        if options.only not in what:
            return
        folder = options.output / f"{re.sub('[^a-z0-9.]+', '_', what)}_seed_{options.seed}"
        step = em.train(
            self.store,
            self.statistics,
            folder,
            **self.chosen,
            **more,
            period={"end": options.end},
            optimizer={"lr": rate, "weight_decay": 0.1, "warmup_steps": 40},
            phases=[{"updates": updates or options.updates}],
            seed=options.seed,
        )
        self.show(what, step)

    def show(self, what: str, step: em.Step) -> None:
        period = self.options.end, None
        found = held_out.errors(step.eval(), self.store, open_statistics(self.statistics), period)
        print(held_out.line(what, found), flush=True)


if __name__ == "__main__":
    main()
