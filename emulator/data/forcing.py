"""What a step is given besides the state: prescribed fields from a store, the clock, and noise."""

import logging
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from emulator.data.channels import Channels
from emulator.planet.calendar import day_and_hour, later
from emulator.planet.grid import Grid
from emulator.planet.insolation import clock_features
from emulator.store.schema import entry, grid_of, time_step_seconds

log = logging.getLogger(__name__)


class StepInputs(NamedTuple):
    """What a step is given besides the state.

    Attributes:
      forcing: prescribed fields, `(batch, channel, *space)`.
      clock: features of the time of day and year, `(batch, 5, *space)`.
      noise: random fields of a stochastic network, `(batch, channel, *space)`, else None.
    """

    forcing: Tensor
    clock: Tensor
    noise: Tensor | None = None


def clock_of(times, step_hours: float, grid: Grid) -> Tensor:
    """Clock features of the steps that start at some times, `(time, 5, *space)` (see `emulator.planet.insolation`)."""
    return torch.from_numpy(clock_features(*day_and_hour(times), step_hours, *grid.open_mesh()))


def is_snapshot(dataset: xr.Dataset, channels: Channels) -> Tensor:
    """For every channel of a store whether it is a snapshot, taken at the start of a step, or a mean, taken at its end."""
    point = [entry(dataset, name).cell in ("point", "fixed") for name in channels.names]
    return torch.as_tensor(np.repeat(point, channels.widths).astype(bool))


class Forcing:
    """Forcing fields and clock features at any time.

    Inside the store's period the fields are the store's own. Outside it they are those of the stored time whose day of the
    year and hour are nearest, so that a long run sees an annual cycle; this is logged once.
    """

    def __init__(self, dataset: xr.Dataset, channels: Channels):
        self.dataset, self.channels, self.grid = dataset, channels, grid_of(dataset)
        self.step_seconds = time_step_seconds(dataset)
        if not self.step_seconds > 0:
            raise ValueError("Expected a store of at least 2 times, which give the length of a step, got one time")
        self.times = dataset["time"].values
        day, hour = day_and_hour(self.times)
        self._phase = day + hour / 24
        self._hour = hour
        self._snapshot = is_snapshot(dataset, channels)
        self._warned = False
        self._memory: dict[int, Tensor] = {}

    def later(self, time, steps: int):
        """The time `steps` steps after `time`."""
        return later(time, steps * self.step_seconds)

    def inputs(self, times) -> StepInputs:
        """Of steps that start at `times`, a row each; no noise."""
        times = list(times)
        clock = clock_of(times, self.step_seconds / 3600, self.grid)
        if not self.channels.count:
            return StepInputs(torch.zeros(len(times), 0, *self.grid.shape), clock)
        first = torch.stack([self._fields(self._index(t)) for t in times])
        if self._snapshot.all():
            return StepInputs(first, clock)
        last = torch.stack([self._fields(self._index(self.later(t, 1))) for t in times])
        where = self._snapshot.view(1, -1, *[1] * len(self.grid.shape))
        return StepInputs(torch.where(where, first, last), clock)

    def _index(self, time) -> int:
        if self.times[0] <= time <= self.times[-1]:
            found = int(np.searchsorted(self.times, time))
            if self.times[found] == time:
                return found
        if not self._warned:
            self._warned = True
            log.warning("The store has no forcing for %s; using the nearest day of the year from here on", time)
        day, hour = (float(values[0]) for values in day_and_hour([time]))
        apart = np.abs(self._phase - day - hour / 24)
        apart = np.minimum(apart, 365.25 - apart) + 10.0 * (np.abs(self._hour - hour) > 1e-6)
        return int(np.argmin(apart))

    def _fields(self, index: int) -> Tensor:
        if index not in self._memory:
            if len(self._memory) > 64:
                self._memory.clear()
            part = self.dataset.isel(time=index)
            fields = {
                name: torch.from_numpy(np.asarray(part[name].values, np.float32))[None] for name in self.channels.names
            }
            self._memory[index] = self.channels.pack(fields)[0]
        return self._memory[index]
