"""Ten thousand steps of a trained emulator, with its conservation scheme and without: does dry mass stay?

    python scripts/trials/ten_thousand_steps.py runs/quickstart [--steps 10000]

Prints, and writes as JSON lines with `--json`, the largest relative departure of the dry mass from its initial value
(float32 states, float64 sums), the largest residual of every budget and the largest share of saturation on the way.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from emulator.data.forcing import Forcing
from emulator.model.rollout import rollout
from emulator.model.saved_model import load_model
from emulator.model.step import Step
from emulator.planet.grid import Grid
from emulator.store.analysis import open_analysis
from emulator.store.schema import constants_of, levels_of
from emulator.verify import budgets
from pipelines import load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="directory of a finished run")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    experiment = load.load_experiment(options.run / "experiment.yaml")
    dataset = open_analysis(experiment.rollout.store)
    step = load_model(experiment.rollout.checkpoint)
    for name, variant in {"with its scheme": step, "without corrections": Step.without_scheme(step)}.items():
        found = follow(variant.eval(), dataset, options.steps)
        if options.json:
            print(json.dumps({"case": name, "steps": options.steps} | found))
        else:
            print(f"{name}, {options.steps} steps")
            for key, value in found.items():
                print(f"  {key:48}{value:.3g}")


def follow(step: Step, dataset, steps: int) -> dict[str, float]:
    """Largest values over a rollout from the last time of the store."""
    forcing = Forcing(dataset, step.layout.forcing)
    time = dataset["time"].values[-1]
    grid = Grid.from_coordinates(dataset["latitude"].values, dataset["longitude"].values)
    part = dataset.isel(time=[-1])
    state = step.layout.prognostic.pack(
        {n: torch.from_numpy(np.asarray(part[n].values, np.float32)) for n in step.layout.prognostic.names}
    )
    static = {"geopotential_at_surface": dataset["geopotential_at_surface"].values.astype(np.float64)}

    def dry_mass(state):
        fields = {name: field.numpy().astype(np.float64) for name, field in step.fields(state).items()}
        totals = budgets.totals(fields | static, levels_of(dataset), grid, constants_of(dataset), budgets.HYDROSTATIC)
        return float(totals["dry_air"][0])

    first = dry_mass(state)
    worst: dict[str, float] = {"largest relative change of dry mass": 0.0}
    inputs = (forcing.inputs([forcing.later(time, number)]) for number in range(steps))
    for number, result in enumerate(rollout(step, state, inputs), start=1):
        if number % 10 == 0 or number == steps:
            change = abs(dry_mass(result.state) / first - 1)
            worst["largest relative change of dry mass"] = max(worst["largest relative change of dry mass"], change)
        for name, value in result.record.items():
            if name.startswith(("residual_after", "residual_before", "saturation")):
                worst[name] = max(worst.get(name, 0.0), float(value.abs().max()))
    worst["relative change of dry mass at the end"] = abs(dry_mass(result.state) / first - 1)
    worst["finite at the end"] = float(torch.isfinite(result.state).all())
    return worst


if __name__ == "__main__":
    main()
