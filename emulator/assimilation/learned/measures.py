"""What the inputs of a learned analysis are measured by, from the truth of its training."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from emulator.assimilation.geometry import Geometry
from emulator.assimilation.learned.backgrounds import Backgrounds
from emulator.assimilation.learned.gridding import Gridding, RawChannel
from emulator.assimilation.learned.model import Measures
from emulator.assimilation.learned.options import LearnOptions
from emulator.assimilation.observations import Observations

SAMPLES = 24  # times of the truth
APART_SECONDS = 86400.0  # over which the truth changes as much as backgrounds are wrong by, in order of magnitude
FIRST = -1  # in place of an update's number, for the places of observations that are only measured


def measured(
    backgrounds: Backgrounds,
    geometry: Geometry,
    options: LearnOptions,
    observed: Callable[[int, list], list[Observations]],
) -> Measures:
    """The measures of a training.

    Args:
      backgrounds: with the truth. geometry: of its states. options: of the training.
      observed: what is observed at some times, of a number of an update.
    The scale of the background's errors is the root mean square of what a day changes. Raises `ValueError` for observations
    of which the network can make nothing, and for a period shorter than that.
    """
    steps = max(1, round(APART_SECONDS / backgrounds.forecasts.forcing.step_seconds))
    usable = backgrounds.usable
    pairs = np.flatnonzero(usable[:-steps] & usable[steps:])
    if not len(pairs):
        raise ValueError(f"Expected times {steps} steps apart to learn analyses from, got none in the period")
    chosen = pairs[np.linspace(0, len(pairs) - 1, min(SAMPLES, len(pairs))).round().astype(int)]
    now, then = (backgrounds.truth(at).double() for at in (chosen, chosen + steps))
    mean, std = now.mean((0, 2, 3)), now.std((0, 2, 3))
    scale = (then - now).square().mean((0, 2, 3)).sqrt()
    rows = Observations.concat(observed(FIRST, [backgrounds.times[k] for k in chosen]))
    raw, raw_mean, raw_std = _raw(rows.where(np.isin(rows.system, options.raw)))
    least = torch.finfo(torch.float32).tiny
    return Measures(
        mean,
        std.clamp(min=least),
        scale.clamp(min=least),
        _fixed(geometry),
        _channels(geometry, scale, rows.where(~np.isin(rows.system, options.raw))),
        raw,
        torch.from_numpy(raw_mean),
        torch.from_numpy(raw_std),
    )


def _channels(geometry: Geometry, scale: Tensor, rows: Observations) -> Tensor:
    """Which channels are observed as departures, `(channel,)` bool."""
    given = Gridding(geometry, scale.numpy())(rows.where(rows.error > 0), np.zeros(len(rows)))
    return given.confidence[0].flatten(1).amax(1) > 0


def _raw(rows: Observations) -> tuple[tuple[RawChannel, ...], np.ndarray, np.ndarray]:
    """Channels of raw systems, and mean and standard deviation of their values."""
    keys = [
        RawChannel(*key) for key in zip(rows.system.tolist(), rows.variable.tolist(), rows.level.tolist(), strict=True)
    ]
    names = np.array([str(key) for key in keys])
    known = {str(key): key for key in keys}
    parts = {name: rows.value[names == name] for name in sorted(known)}
    mean = np.array([values.mean() for values in parts.values()])
    std = np.array([max(values.std(), np.finfo(np.float32).tiny) for values in parts.values()])
    return tuple(known[name] for name in parts), mean.astype(float), std.astype(float)


def _fixed(geometry: Geometry) -> Tensor:
    """The sine of latitude, and the height of the ground in units of its largest, `(field, *space)`."""
    latitude, _ = geometry.grid.mesh()
    fields = [np.sin(np.radians(np.broadcast_to(latitude, geometry.grid.shape)))]
    if geometry.ground is not None:
        fields.append(geometry.ground / max(np.abs(geometry.ground).max(), 1.0))
    return torch.from_numpy(np.stack(fields).astype(np.float32))
