"""The random fields that a stochastic network is given at every step.

Every field is drawn from a sequence of random numbers of its own, named by what it is for: the seed, the initial time (or
the update and the place in its batch), the member and the step. So it is the same whatever is computed beside it, in which
process and after which restart, and a training or a forecast that goes on needs no state of a generator.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from emulator.constants import ERA5
from emulator.grid import Grid
from emulator.random_fields import as_coefficients, degrees_on, number_of, of_length, sizes
from emulator.spherical import SphericalTransform

Key = tuple[int, ...]
NEGLIGIBLE = 1e-10  # share of the variance beyond the degrees that are drawn
# The last number of a key tells what it is for. (A key must not end in 0: numpy pads keys with zeros.)
FORECAST, UPDATE = 5, 6


def forecast_key(seed: int, time, member: int, step: int) -> Key:
    """Of the `step`-th step, counted from 1, of one member of the forecast from `time`."""
    return seed, number_of(time), member, step, FORECAST


def update_key(seed: int, update: int, place: int, member: int, step: int) -> Key:
    """Of a step, counted from 1, of one member of the sample at a place in the whole batch of an update of the training."""
    return seed, update, place, member, step, UPDATE


class NetworkNoise:
    """Gaussian random fields of unit variance and several length scales.

    Args:
      grid: global, Gaussian or equal-angle.
      length_scales: in km along the Earth's surface, where the correlation has fallen to exp(-1/2); 0 is white noise.
      channels: independent fields of every length scale.
    Raises `ValueError` for another grid, and for a length that is negative.
    """

    def __init__(self, grid: Grid, length_scales: Sequence[float], channels: int):
        if min(length_scales, default=-1.0) < 0 or channels < 1:
            raise ValueError(
                f"Expected length scales of at least 0 and at least one channel, got {list(length_scales)} and {channels}"
            )
        lengths = [1e3 * length / ERA5.earth_radius for length in length_scales]
        power = np.stack([of_length(degrees_on(grid), length) for length in lengths])
        beyond = 1 - power.cumsum(-1).min(0)  # of the shortest length, whose spectrum reaches furthest
        needed = min(int((beyond > NEGLIGIBLE).sum()) + 1, power.shape[1])
        share = power[:, :needed] / power[:, :needed].sum(-1, keepdims=True)
        self.count = len(lengths) * channels
        self._size = sizes(share.repeat(channels, 0)).astype(np.float32)
        self._transform = SphericalTransform(*grid.shape, grid.kind, grid.has_poles, needed)

    def draw(self, key: Key) -> Tensor:
        """The fields of a key, `(count, nlat, nlon)` float32: all channels of the first length scale, then the next."""
        values = np.random.default_rng(key).standard_normal(self._size.shape, np.float32) * self._size
        return self._transform.synthesis(as_coefficients(values)).movedim(-1, 0).contiguous()

    def rows(self, keys: Iterable[Key]) -> Tensor:
        """Fields of several keys, `(row, count, nlat, nlon)`; each made alone, so that its bits depend on its key only."""
        return torch.stack([self.draw(key) for key in keys])
