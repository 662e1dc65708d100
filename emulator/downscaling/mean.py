"""The network of the mean about whose fields another one draws samples: found, compared with the training, told of.

A checkpoint of the other one holds its tensors too (`mean.` before their names) and says what it is, so that it needs no
second file and can be moved and handed on.
"""

import os
from pathlib import Path

from emulator.downscaling.downscaler import Downscaler
from emulator.downscaling.plan import Plan
from emulator.downscaling.saved import load_downscaler
from emulator.model import checkpoint
from emulator.planet.grid import Grid
from emulator.planet.variables import known

TOLD = ("sha256", "static_features", "period", "store")  # what a checkpoint says of itself, in one that holds it


def find_mean(path: str | os.PathLike, plan: Plan, fine: Grid, coarse: Grid) -> Downscaler:
    """The network of the mean in a checkpoint, on the CPU.

    Raises `CheckpointError` for what is no whole checkpoint of a downscaling network, and `ValueError` for one that draws
    samples itself, of other fields, units, signs, levels or steps than a plan's, and from or to other grids.
    """
    found = load_downscaler(path, "cpu")
    if found.generative is not None:
        raise ValueError(f"Expected a network of kind deterministic as the mean, got one of kind generative in {path}")
    said = "Expected a mean network {} {} as this training has, got {} in {}".format
    for what, own, other in (("to the grid", fine, found.grid), ("from the grid", coarse, found.coarse_grid)):
        if not other.same_as(own):
            raise ValueError(said(what, own.describe(), other.describe(), path))
    wanted, got = _described(plan), _described(found.plan)
    if differing := next((what for what in wanted if wanted[what] != got.get(what, wanted[what])), None):
        raise ValueError(said(differing, wanted[differing], got[differing], path))
    return found


def _described(plan: Plan) -> dict[str, str]:
    """What the plans of two networks have to have in common, in words; levels only where a plan tells them."""
    hours = [f"{seconds / 3600:g} h" for seconds in (plan.seconds, plan.seconds * plan.steps)]
    flags = ((plan.inputs.names, plan.input_instants), (plan.targets.names, plan.fine_instants))
    instants = [[name for name, flag in zip(*each, strict=True) if flag] for each in flags]
    return {
        "of the targets": plan.targets.describe(),
        "given": plan.inputs.describe(),
        "with steps of": " in ".join(hours),
        "with instants of": " and ".join(", ".join(names) or "none" for names in instants),
        **{f"with {name} in": _unit(plan, name) for name in plan.targets.names},
        **{f"with {name} on levels": ", ".join(f"{v:g}" for v in values) for name, values in plan.levels.items()},
    }


def _unit(plan: Plan, name: str) -> str:
    """Units of a target, and which of its signs means what where that is a convention; the variable table's by default."""
    told, table = plan.attributes[name], known(name)
    units, sign = (str(told.get(key) or getattr(table, key, None) or "") for key in ("units", "sign"))
    return units.replace("**", "") + (f", {sign}" if sign else "")


def about_mean(mean: Downscaler) -> dict:
    """What a checkpoint that holds the network of its mean says of it."""
    config = mean.metadata["config"]
    told = {name: config[name] for name in ("network", "kind", "objective")}
    return {name: mean.metadata[name] for name in TOLD} | {"config": told}


def held_mean(output: str | os.PathLike) -> dict | None:
    """What the finished checkpoint of a training in a folder says of the mean that it holds; None where there is none."""
    finished = Path(output) / "checkpoint"
    return checkpoint.describe(finished).get("mean") if finished.exists() else None
