"""A trained downscaling network in a checkpoint, restored."""

import os
from pathlib import Path

import torch

from emulator.downscaling.downscaler import Downscaler, Scales, make_downscaler
from emulator.downscaling.options import DOWNSCALING, PLACE
from emulator.downscaling.plan import Plan
from emulator.model import checkpoint
from emulator.model.saved_model import grid_from_json


def load_downscaler(path: str | os.PathLike, device: torch.device | str | None = None) -> Downscaler:
    """The downscaling network of a checkpoint, in evaluation mode, with what the checkpoint says of it as `metadata`.

    `device`: a GPU where there is one, by default. Raises `CheckpointError` for what is no whole checkpoint of one.
    """
    tensors, saved = checkpoint.load(Path(path))
    if saved.get("schema") != DOWNSCALING:
        raise checkpoint.CheckpointError(
            f"Expected a checkpoint of a downscaling network, of the schema {DOWNSCALING!r}, at {path}, got "
            f"{saved.get('schema')!r}"
        )
    plan = Plan.from_json(saved["plan"])
    fine, coarse = (grid_from_json(saved[name]) for name in ("grid", "coarse_grid"))

    def blank(told, mean=None):
        degrees = told.get("degrees", 0)  # of earlier versions none: white noise
        scales = Scales.blank(plan, told["static_features"], fine, degrees)
        return make_downscaler(told["config"], plan, fine, coarse, scales, mean)

    told_of_mean = saved.get("mean")  # in checkpoints of samples alone, and not in all of them
    step = blank(saved, None if told_of_mean is None else blank(told_of_mean))
    step.load_state_dict({name: tensor for name, tensor in tensors.items() if not name.startswith(PLACE)})
    step.metadata = saved
    step.places = {name: (tensors[f"{PLACE}{name}"], attributes) for name, attributes in saved["places"].items()}
    return step.eval().to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
