"""The interpolator of a training of DYffusion: found, compared with the training, and its weights taken."""

import dataclasses
from pathlib import Path

from emulator.data.channels import Layout
from emulator.generative.windows import DYFFUSION, INTERPOLATOR
from emulator.model import checkpoint, saved_model
from emulator.model.step import Step
from emulator.planet.grid import Grid
from emulator.training.options import TrainOptions

# Of a step, what the interpolator's network sees and predicts by. Damping and the envelope are the forecaster's own.
SHARED = ("state_scale.", "diagnostic_scale.", "forcing_scale.", "change_std", "static", "exists", "diagnostic_exists")


def with_interpolator(options: TrainOptions) -> TrainOptions:
    """A training with what its objective has to know of the interpolator, where it needs one; any other as it is.

    Raises `CheckpointError` for what is no whole checkpoint, and `ValueError` for one of anything else.
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
    return dataclasses.replace(options, objective={"kind": DYFFUSION, "interpolator": str(path)} | known)


def check_interpolator(options: TrainOptions, layout: Layout, grid: Grid, seconds: float) -> None:
    """Raises `ValueError` for an interpolator of other channels, another grid or another step than a training's."""
    if options.objective["kind"] != DYFFUSION:
        return
    path = options.objective["interpolator"]
    saved = checkpoint.describe(Path(path))
    other, own = Layout.from_json(saved["layout"]), layout

    def refuse(what, expected, got):
        raise ValueError(f"Expected an interpolator with {what} {expected} as this training has, {path} has {got}")

    if not grid.same_as(found := saved_model.grid_from_json(saved["grid"])):
        refuse("the grid", grid.describe(), found.describe())
    if seconds != saved["step_seconds"]:
        refuse("a time step of", f"{seconds / 3600:g} h", f"{saved['step_seconds'] / 3600:g} h")
    for group in ("prognostic", "diagnostic", "forcing", "static"):
        ours, theirs = getattr(own, group), getattr(other, group)
        if ours != theirs:
            refuse(f"the {group} variables", ", ".join(ours.names), ", ".join(theirs.names) or "none")
    if own != other:
        refuse("the layout", "(moments of the forcing, masks)", "another")


def take_interpolator(options: TrainOptions, step: Step) -> None:
    """Puts the interpolator's weights into a step. Raises `ValueError` where it was normalised by other statistics."""
    if options.objective["kind"] != DYFFUSION:
        return
    path = options.objective["interpolator"]
    tensors, _ = saved_model.opened(path)
    own = step.state_dict()
    differ = [
        name
        for name in own
        if name.startswith(SHARED) and (name not in tensors or not tensors[name].equal(own[name].cpu()))
    ]
    if differ:
        raise ValueError(
            f"Expected an interpolator trained with the statistics of this training, got others in {path}: "
            f"{', '.join(differ)} differ"
        )
    prefix = "network."
    weights = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    step.network.interpolator.load_state_dict(weights)
