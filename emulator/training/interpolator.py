"""The interpolator of a training of DYffusion: found, compared with the training, and its weights taken."""

import dataclasses
from pathlib import Path

from torch import Tensor

from emulator.data.channels import Layout
from emulator.generative.windows import DYFFUSION, INTERPOLATOR, windowed
from emulator.model import checkpoint, saved_model
from emulator.model.step import Step
from emulator.networks import registry
from emulator.planet.grid import Grid
from emulator.training.options import TrainOptions

# Of a step, what the interpolator's network sees and predicts by. Damping and the envelope are the forecaster's own.
SHARED = ("state_scale.", "diagnostic_scale.", "forcing_scale.", "change_std", "static", "exists", "diagnostic_exists")


def with_interpolator(options: TrainOptions) -> TrainOptions:
    """A training with what its objective has to know of the interpolator, where it needs one; any other as it is.

    Raises `CheckpointError` for what is no whole checkpoint, and `ValueError` for one of anything else and for a horizon,
    a network or a hash that are given and are not the interpolator's, and for a pairing of noise that it has not.
    """
    if options.objective["kind"] != DYFFUSION:
        return options
    path = options.objective["interpolator"]
    saved = checkpoint.describe(Path(path))
    config = saved.get("config", {})
    if config.get("objective", {}).get("kind") != INTERPOLATOR:
        raise ValueError(
            f"Expected a checkpoint of train.objective {{kind: {INTERPOLATOR}}} as the interpolator, got another in {path}"
        )
    known = {"horizon": config["objective"]["horizon"], "network": dict(config["network"]), "sha256": saved["sha256"]}
    asked = windowed(options.objective)
    for name in (name for name in known if getattr(asked, name)):
        value, read = getattr(asked, name), registry.options if name == "network" else str
        if read(value) != read(known[name]):
            raise ValueError(
                f"Expected train.objective.{name} as the interpolator in {path} has it, {known[name]}, got {value}; it need "
                "not be given"
            )
    if asked.pairing and not known["network"].get("noise"):
        raise ValueError(
            f"Expected an interpolator with network.noise for train.objective.pairing {asked.pairing:g}, got {path} without"
        )
    more = {"pairing": asked.pairing} if asked.pairing else {}  # as checkpoints were before there was a pairing
    return dataclasses.replace(options, objective={"kind": DYFFUSION, "interpolator": str(path)} | known | more)


def check_interpolator(options: TrainOptions, layout: Layout, grid: Grid, seconds: float) -> None:
    """Raises `ValueError` for an interpolator of other channels, another grid or another step than a training's."""
    if options.objective["kind"] != DYFFUSION:
        return
    path = options.objective["interpolator"]
    saved = checkpoint.describe(Path(path))
    other, own = Layout.from_json(saved["layout"]), layout

    def refuse(what, expected, got):
        raise ValueError(f"Expected an interpolator with {what} {expected} as this training has, got {got} in {path}")

    if not grid.same_as(found := saved_model.grid_from_json(saved["grid"])):
        refuse("the grid", grid.describe(), found.describe())
    if seconds != saved["step_seconds"]:
        refuse("a time step of", f"{seconds / 3600:g} h", f"{saved['step_seconds'] / 3600:g} h")
    for group in ("prognostic", "diagnostic", "forcing", "static"):
        ours, theirs = getattr(own, group), getattr(other, group)
        if ours != theirs:
            refuse(f"the {group} variables", ours.describe(), theirs.describe())
    for field in dataclasses.fields(Layout):
        ours, theirs = getattr(own, field.name), getattr(other, field.name)
        if field.compare and ours != theirs:
            refuse(field.name, ours, theirs)


def take_interpolator(options: TrainOptions, step: Step) -> None:
    """Puts the interpolator's weights into a step. Raises `ValueError` where it was normalised by other statistics."""
    if options.objective["kind"] != DYFFUSION:
        return
    path = options.objective["interpolator"]
    tensors, _ = saved_model.opened(path)
    own = step.state_dict()
    for name in (name for name in own if name.startswith(SHARED)):
        ours, theirs = own[name].cpu(), tensors.get(name)
        if theirs is None or not theirs.equal(ours):
            raise ValueError(
                "Expected an interpolator trained with the statistics of this training, whose "
                f"{name} is {_first_other(ours, theirs)}, got {_first_other(theirs, ours)} in {path}"
            )
    prefix = "network."
    weights = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    step.network.interpolator.load_state_dict(weights)


def _first_other(one: Tensor | None, other: Tensor | None) -> str:
    """Of a tensor the first number in which another differs, or its shape."""
    if one is None or other is None or one.shape != other.shape:
        return "none" if one is None else f"of shape {tuple(one.shape)}"
    place = (one != other).nonzero()[0].tolist()
    return f"{float(one[tuple(place)]):g} at {place}"
