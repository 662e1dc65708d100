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

from emulator.model.stepper import Stepper, StepResult
from emulator.planet.grid import Grid
from emulator.planet.plane_waves import waves_of


class Nudging(nn.Module):
    """States whose waves from a length on are drawn towards driving ones.

    Args:
      domain: a box or a map. channels: of the state, that driving states have in this order.
      length: of the shortest wave that is drawn, m. share: of the departure that a step takes off, 0 to 1.
      free: cells that may change, of the domain's shape, bool; those that a boundary prescribes may not.
    Raises `ValueError` for a length below two cells, and one that only the mean of the domain has.
    """

    def __init__(self, domain: Grid, channels: Sequence[int], length: float, share: float, free: np.ndarray):
        super().__init__()
        north, east, wavelength = waves_of(domain)
        shortest, longest = wavelength.min(), np.partition(wavelength.ravel(), -2)[-2]
        if not shortest < length <= longest:
            raise ValueError(
                f"Expected nudging.length_km above {shortest / 1e3:.0f}, the shortest wave of {domain.describe()}, and up to "
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
        nudged = own + self.share * self.large(driving - own)
        return state.index_copy(1, self.channels, torch.where(self.free, nudged, own))

    def large(self, fields: Tensor) -> Tensor:
        """What of fields `(..., *space)` is as long as the length or longer."""
        waves = self.kept * (self.north @ fields @ self.east.T)
        return self.north.T @ waves @ self.east


def share_of(hours: float, seconds: float) -> float:
    """Of a departure that falls to 1/e in so many hours, what a step of so many seconds takes off; 1 for 0 hours."""
    return -math.expm1(-seconds / 3600 / hours) if hours else 1.0


class Nudged:
    """A stepper whose states are nudged at the end of each step, and kept within its bounds after that.

    Args:
      stepper: of a limited area, with `lower` and `upper` as `emulator.model.step.Step` has them.
    """

    def __init__(self, stepper: Stepper, nudging: Nudging):
        self.stepper, self.nudging = stepper, nudging
        self.layout, self.noise, self.device = stepper.layout, stepper.noise, stepper.device

    def at(self, number: int) -> "Nudged":
        return Nudged(self.stepper.at(number), self.nudging)

    def anchor(self, state: Tensor):
        return self.stepper.anchor(state)

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
