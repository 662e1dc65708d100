"""Clock features of the steps of a time axis, computed once and kept as far as there is room for them."""

import itertools

import numpy as np

from emulator.calendar import day_and_hour
from emulator.grid import Grid
from emulator.insolation import CLOCK_FEATURES, clock_features

BYTES = 256 << 20


class ClockMemory:
    """Clock features (`emulator.insolation.clock_features`) of the steps that start at some times.

    They are kept in one block, whose pages the system hands out in large pieces: a fresh array for every time costs as much
    as its features.
    """

    def __init__(self, times, step_hours: float, grid: Grid):
        self._day, self._hour = day_and_hour(times)
        self._step_hours, self._mesh = step_hours, grid.open_mesh()
        self._shape = len(CLOCK_FEATURES), *grid.shape
        self._forget()

    def _forget(self) -> None:
        rows = min(len(self._day), BYTES // (4 * int(np.prod(self._shape))))
        self._kept = np.empty((rows, *self._shape), np.float32)
        self._places: dict[int, int] = {}
        self._free = itertools.count()

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name not in ("_kept", "_places", "_free")}

    def __setstate__(self, state):  # another process begins with none
        vars(self).update(state)
        self._forget()

    def write(self, index: int, out: np.ndarray) -> None:
        """The features of the step that starts at the time of a number, into contiguous float32 `out` `(5, *space)`."""
        if (place := self._places.get(index)) is not None:
            out[:] = self._kept[place]
            return
        part = slice(index, index + 1)
        clock_features(self._day[part], self._hour[part], self._step_hours, *self._mesh, out=out[None])
        if len(self._places) < len(self._kept) and (place := next(self._free)) < len(self._kept):
            self._kept[place] = out
            self._places[index] = place  # last: another thread may look it up
