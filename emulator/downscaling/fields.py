"""Coarse fields on a fine grid: bilinear in space, on a line between instants in time, and the clock of an interval."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from emulator.downscaling.plan import Plan
from emulator.planet.calendar import day_and_hour, later
from emulator.planet.grid import Grid
from emulator.planet.insolation import clock_features
from emulator.sphere.regrid import Regridder


class Interpolation:
    """Fields of a coarse grid interpolated to a fine one, float32.

    Raises `ValueError` for a coarse grid that does not cover the fine one, and for grids without rows and columns.
    """

    def __init__(self, coarse: Grid, fine: Grid):
        self._regridder = None if coarse.same_as(fine) else Regridder(coarse, fine, "bilinear")

    def __call__(self, fields: Tensor) -> Tensor:
        """`(..., *coarse)` -> `(..., *fine)`."""
        if self._regridder is None:
            return fields
        return torch.from_numpy(self._regridder(fields.numpy()).astype(np.float32))


def given_to(plan: Plan, start: Tensor, end: Tensor) -> Tensor:
    """What a network is given of an interval, `(batch, given channel, *space)`, as `Plan.given` names it.

    `start`, `end`: inputs `(batch, input channel, *space)` at its start, of which means are not looked at, and its end.
    """
    if plan.steps == 1:
        return end
    where = plan.inputs.slices
    chosen = [where[name] for name, instant in zip(plan.inputs.names, plan.input_instants, strict=True) if instant]
    return torch.cat([*(start[:, part] for part in chosen), end], dim=1)


def first_guess(plan: Plan, given: Tensor) -> Tensor:
    """Targets of every fine step from interpolated inputs `(batch, given channel, *fine)`: `(batch, step, channel, *fine)`.

    Instants lie on a line from the start of the interval to its end; means are the same throughout it.
    """
    where, steps = plan.given.slices, []
    for number in range(1, plan.steps + 1):
        share, parts = number / plan.steps, []
        for name, instant in zip(plan.targets.names, plan.instants, strict=True):
            end = given[:, where[name]]
            parts.append(torch.lerp(given[:, where[f"{name}@start"]], end, share) if instant and share < 1 else end)
        steps.append(torch.cat(parts, dim=1))
    return torch.stack(steps, dim=1)


def clock_of(ends: Sequence, plan: Plan, grid: Grid) -> Tensor:
    """Features of the time of day and year of the intervals that end at some times: `(batch, 5, *grid)`."""
    seconds = plan.steps * plan.seconds
    starts = later(np.asarray(ends), -seconds)
    return torch.from_numpy(clock_features(*day_and_hour(starts), seconds / 3600, *grid.open_mesh()))
