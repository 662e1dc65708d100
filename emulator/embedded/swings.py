"""Sea temperatures that leave what the air is in balance with again and again: the same everywhere, and by smooth maps."""

import functools

import numpy as np

from emulator.embedded.options import Swings
from emulator.planet.constants import ERA5
from emulator.planet.grid import Grid
from emulator.sphere.random_fields import SphericalNoise, degrees_on, of_length


class Offsets:
    """What is added to the sea temperature by midnights, on a grid; between two midnights it runs along a line.

    Every turn's map has random numbers of its own, so that a simulation that goes on has the sea of one that was not stopped.
    """

    def __init__(self, swings: Swings, start: np.datetime64, grid: Grid):
        self._swings, self._start, self._grid = swings, start, grid
        length = 1e3 * swings.length_km / ERA5.earth_radius
        self._noise = SphericalNoise(grid, of_length(degrees_on(grid), length, lowest=1)) if swings.maps else None
        self._of_turn = functools.lru_cache(maxsize=2)(self._made)

    def at(self, moment: np.datetime64) -> np.ndarray:
        """K at a time, `(latitude, longitude)` float64."""
        passed = (moment - self._start) / np.timedelta64(1, "D")
        day = int(np.floor(passed))
        before, after = (self._of_turn(number // self._swings.days) for number in (day, day + 1))
        return before + (passed - day) * (after - before)

    def _made(self, turn: int) -> np.ndarray:
        swings = self._swings
        offset = np.full(self._grid.shape, float(swings.values[turn % len(swings.values)]))
        if self._noise is not None:
            drawn = self._noise.draw(np.random.default_rng([swings.seed, turn]), 1)[0]
            offset += swings.maps * drawn.double().numpy()
        return offset
