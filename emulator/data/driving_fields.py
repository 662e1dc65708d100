"""Fields of driving data at places, such as the cells of a frame, at any moment between their times.

Driving data are an analysis, or forecasts, of which the one from the same initial time is taken. In space they are
interpolated bilinearly, of a list of points the nearest, in time linearly.
"""

from collections import OrderedDict

import numpy as np
import xarray as xr

from emulator.data.channels import Channels
from emulator.planet.calendar import in_seconds, later, lead_seconds
from emulator.planet.grid import Grid
from emulator.planet.interpolation import interpolated, to_grid
from emulator.store.schema import grid_of, missing_times

READ_TIMES = 32  # at once, of one variable
MOST_BYTES = 1 << 30  # of fields that are kept in memory


class DrivingFields:
    """Variables of driving data at places.

    Args:
      dataset: opened with `open_analysis` or `open_forecast`.
      channels: the variables, which it has. places: a grid of any kind; `where`: what it is, for messages.
      name: of the store, for messages.
      delay: of forecasts, seconds from their initial time to that of the forecasts that they drive.
    Raises `ValueError` for places that it does not cover.
    """

    def __init__(
        self,
        dataset: xr.Dataset,
        channels: Channels,
        places: Grid,
        where: str,
        name: object = "the store",
        delay: float = 0,
    ):
        self.dataset, self.channels, self.name, self.delay, self.where = dataset, channels, name, delay, where
        self.grid, self.of_forecasts, self.count = grid_of(dataset), "lead_time" in dataset.dims, places.area.size
        self._places = [angle.ravel() for angle in places.mesh()]
        self._corners, covered = to_grid(self.grid, places)
        if not covered.all():
            raise ValueError(
                f"Expected driving data that cover the {where}, {name} ({self.grid.describe()}) lacks "
                f"{int((~covered).sum())} of its {covered.size} cells"
            )
        self._axis = self._seconds_of_axis()
        self._missing = np.zeros(len(self._axis), bool) if self.of_forecasts else missing_times(dataset)
        self._memory: OrderedDict[tuple, np.ndarray] = OrderedDict()

    def check(self, init, moment) -> None:
        """Raises `ValueError` unless there is a state at a moment of a forecast, as far as times tell."""
        self._around(self._run_of(init), init, moment)

    def at(self, init, moment) -> np.ndarray:
        """The state at a moment of a forecast from an initial time, `(channel, place)` float32, physical units.

        Raises `ValueError` for a time that is not there, and for missing values.
        """
        run = self._run_of(init)
        low, high, share = self._around(run, init, moment)
        first = self._stored(run, low)
        return first if low == high else first + np.float32(share) * (self._stored(run, high) - first)

    def unkept(self, time) -> np.ndarray:
        """The state of an analysis at a time, `(channel, place)` float64, of which nothing is kept or checked."""
        low, high, share = self._around(None, None, time)
        first, second = (self._read_one(None, position) for position in (low, high))
        return first + share * (second - first)

    def hold(self, times: np.ndarray) -> None:
        """Reads the states at some increasing times of an analysis at once, as far as memory for them goes."""
        wanted = sorted({at for time in times for at in self._around(None, None, time)[:2]})
        room = MOST_BYTES // (4 * self.channels.count * self.count) - len(self._memory)
        wanted = wanted[: max(room, 0)]
        for first in range(0, len(wanted), READ_TIMES):
            some = wanted[first : first + READ_TIMES]
            fields = self._read({"time": slice(some[0], some[-1] + 1)})
            for at in some:
                self._memory[None, at] = self._checked(fields[at - some[0]].astype(np.float32), at)

    def _seconds_of_axis(self) -> np.ndarray:
        """Times of an analysis since its first, or leads, in seconds."""
        if self.of_forecasts:
            return lead_seconds(self.dataset["lead_time"].values)
        times = self.dataset["time"].values
        return in_seconds(times - times[0])

    def _run_of(self, init) -> int | None:
        """Position of the forecast that drives one from an initial time; None of an analysis."""
        if not self.of_forecasts:
            return None
        started = later(np.array([init]), -self.delay)[0] if self.delay else init
        at = np.flatnonzero(self.dataset["init_time"].values == started)
        if not len(at):
            inits = self.dataset["init_time"].values
            raise ValueError(
                f"Expected a driving forecast from {started} in {self.name}, which has {len(inits)} from {inits[0]} to "
                f"{inits[-1]}"
            )
        return int(at[0])

    def _around(self, run: int | None, init, moment) -> tuple[int, int, float]:
        """Positions of the stored times, or leads, around a moment, and how far it lies from the first to the second."""
        if run is None:
            seconds = float(in_seconds(np.array([moment - self.dataset["time"].values[0]]))[0])
            what, ends = str(moment), [str(t) for t in self.dataset["time"].values[[0, -1]]]
        else:
            seconds = float(in_seconds(np.array([moment - init]))[0]) + self.delay
            what, ends = f"lead {seconds / 3600:g} h", [f"{s / 3600:g} h" for s in self._axis[[0, -1]]]
        if not self._axis[0] <= seconds <= self._axis[-1]:
            raise ValueError(
                f"Expected driving data that reach as far as the forecast, {what}, {self.name} has {ends[0]} to {ends[1]}"
            )
        high = int(np.searchsorted(self._axis, seconds))
        low = high if self._axis[high] == seconds else high - 1
        if lacking := [at for at in (low, high) if self._missing[at]]:
            raise ValueError(
                f"Expected driving data at {what}, {self.name} has no values at {self.dataset['time'].values[lacking[0]]}"
            )
        span = self._axis[high] - self._axis[low]
        return low, high, (seconds - self._axis[low]) / span if span else 0.0

    def _stored(self, run: int | None, position: int) -> np.ndarray:
        """At a stored time or lead, kept in memory."""
        found = self._memory.get((run, position))
        if found is None:
            field = self._read_one(run, position).astype(np.float32)
            found = self._checked(field, position)
            if 4 * field.size * (len(self._memory) + 1) > MOST_BYTES and self._memory:
                self._memory.popitem(last=False)  # the oldest; another thread may read while this one does
            self._memory[run, position] = found
        return found

    def _checked(self, field: np.ndarray, position: int) -> np.ndarray:
        if not np.isfinite(field).all():
            channel, cell = (int(at[0]) for at in np.nonzero(~np.isfinite(field)))
            north, east = (angle[cell] for angle in self._places)
            axis = "lead_time" if self.of_forecasts else "time"
            raise ValueError(
                f"Expected values at the whole {self.where}, {self.name} lacks some of "
                f"{self.channels.labels()[channel]} at {self.dataset[axis].values[position]}, first at latitude {north:.5g}, "
                f"longitude {east:.5g}"
            )
        return field

    def _read_one(self, run: int | None, position: int) -> np.ndarray:
        if run is None:
            return self._read({"time": slice(position, position + 1)})[0]
        return self._read({"init_time": run, "lead_time": slice(position, position + 1)})[0]

    def _read(self, where: dict) -> np.ndarray:
        """At some times, `(time, channel, place)` float64."""
        parts = []
        for name, levels in zip(self.channels.names, self.channels.levels, strict=True):
            values = np.asarray(self.dataset[name].isel(where).values)
            flat = values.reshape(len(values), max(1, levels), -1)
            parts.append(interpolated(flat, self._corners))
        return np.concatenate(parts, axis=1)
