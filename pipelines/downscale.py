"""Downscale: a coarse store to a fine one by a trained network, and by interpolation beside it; resumable."""

from pathlib import Path

import numpy as np

from emulator.downscaling import apply
from emulator.downscaling.options import ApplyOptions
from emulator.downscaling.saved import load_downscaler
from emulator.kernels import freed_memory
from pipelines.config import DownscaleConfig
from pipelines.progress import progress

OWN = {"checkpoint", "store", "output", "bilinear"}  # of the stage


def downscale(config: DownscaleConfig) -> None:
    """Writes `output` and `bilinear`, each as far as it is not there. Raises `ValueError` for a store that does not fit."""
    freed_memory.keep()
    step, options = load_downscaler(config.checkpoint), config.model_dump(exclude=OWN)
    for path, method in ((config.output, "network"), (config.bilinear, "bilinear")):
        if path is not None:
            apply.downscale(step, config.store, path, progress, **options, method=method)


def check(config: DownscaleConfig, made: set[Path]) -> str:
    """What would be written, in words. Raises `ValueError`."""
    making = apply.planned(config.checkpoint, config.store, ApplyOptions.of(config.model_dump(exclude=OWN)))
    axis = "time" if making.axis == "time" else "init_time"
    times = making.dataset[axis].values
    what = "analyses" if axis == "time" else "forecasts"
    members = f", {config.members} members of each" if config.members > 1 else ""
    first, last = (np.datetime64(time, "s") if isinstance(time, np.datetime64) else time for time in times[[0, -1]])
    return f"{len(times)} {what} from {first} to {last} to {making.step.grid.describe()}{members}"
