"""Spectral nudging of a limited area: its large scales are drawn towards those of the data that drive it.

A boundary alone lets the large scales inside a domain drift from those that drive it; drawing them back at every step leaves
to the domain what its own grid adds, scales below a length (von Storch, Langenberg and Feser 2000, Mon. Wea. Rev. 128, 3664;
Waldron, Paegle and Horel 1996). Scales are those of waves in the domain's plane (`emulator.planet.plane_waves`).
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from emulator.model.stepper import Stepper, StepResult, Wrapped
from emulator.planet.frame import part_of
from emulator.planet.grid import Grid
from emulator.planet.plane_waves import waves_of


class Nudging(nn.Module):
    """States whose waves from a length on are drawn towards driving ones.

    Args:
      domain: a box or a map. channels: of the state, that driving states have in this order.
      length: of the shortest wave that is drawn, m. share: of the departure that a step takes off, 0 to 1.
      free: cells that may change, all between some rows and columns, of the domain's shape, bool; those that a boundary
        prescribes may not, and the waves are those of the cells that may alone.
    Raises `ValueError` for fewer than two rows or columns that may change, for a length that is not above the shortest wave,
    which runs across both rows and columns (1.4 cells where these are squares), and for one that only the mean has.
    """

    def __init__(self, domain: Grid, channels: Sequence[int], length: float, share: float, free: np.ndarray):
        super().__init__()
        self.rows, self.columns = (slice(*np.flatnonzero(free.any(axis))[[0, -1]] + (0, 1)) for axis in (1, 0))
        if min(free[self.rows, self.columns].shape) < 2:
            raise ValueError(
                "Expected two rows and columns or more that the boundary leaves of the domain for nudging, got "
                f"{' x '.join(map(str, free[self.rows, self.columns].shape))}"
            )
        inner = part_of(domain, self.rows, self.columns)
        north, east, wavelength = waves_of(inner)
        shortest, longest = wavelength.min(), np.partition(wavelength.ravel(), -2)[-2]
        if not shortest < length <= longest:
            raise ValueError(
                f"Expected nudging.length_km above {shortest / 1e3:.0f}, the shortest wave of {inner.describe()}, and up to "
                f"{longest / 1e3:.0f}, its longest, got {length / 1e3:g}"
            )
        self.share = share
        for name, values in {"north": north, "east": east, "kept": wavelength >= length}.items():
            self.register_buffer(name, torch.from_numpy(np.asarray(values, np.float32)), persistent=False)
        self.register_buffer("channels", torch.as_tensor(list(channels)), persistent=False)
        self.register_buffer("free", torch.from_numpy(free), persistent=False)

    def forward(self, state: Tensor, driving: Tensor) -> Tensor:
        """`(batch, channel, *space)` and `(batch, nudged channel, *space)`, physical units -> the state nudged."""
        own = state[:, self.channels]
        nudged, inner = own.clone(), (..., self.rows, self.columns)
        nudged[inner] += self.share * self.large((driving - own)[inner])
        return state.index_copy(1, self.channels, nudged)

    def large(self, fields: Tensor) -> Tensor:
        """What of fields `(..., row, column)`, of the cells that may change, is as long as the length or longer."""
        waves = self.kept * (self.north @ fields @ self.east.T)
        return self.north.T @ waves @ self.east


def share_of(hours: float, seconds: float) -> float:
    """Of a departure that falls to 1/e in so many hours, what a step of so many seconds takes off; 1 for 0 hours."""
    return -math.expm1(-seconds / 3600 / hours) if hours else 1.0


class Nudged(Wrapped):
    """A stepper whose states are nudged at the end of each step, and kept within its bounds after that.

    Args:
      stepper: of a limited area, with `lower` and `upper` as `emulator.model.step.Step` has them.
    """

    def __init__(self, stepper: Stepper, nudging: Nudging):
        super().__init__(stepper)
        self.nudging = nudging

    def __call__(
        self,
        state: Tensor,
        forcing: Tensor,
        clock: Tensor,
        anchor=None,
        noise: Tensor | None = None,
        *,
        driving: Tensor,
        **more,
    ) -> StepResult:
        """A step; `driving`: the driving state over the domain at its end, `(batch, nudged channel, *space)`."""
        result = self.stepper(state, forcing, clock, anchor, noise, **more)
        nudged = self.nudging(result.state, driving)
        bounded = torch.clamp(nudged, self.stepper.lower, self.stepper.upper)
        return dataclasses.replace(result, state=torch.where(self.nudging.free, bounded, result.state))
