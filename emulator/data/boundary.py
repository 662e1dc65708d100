"""The state outside a limited area, from a store of driving data of any grid and step.

Driving data are an analysis, of whose times a step takes those that it starts and ends at; or forecasts, of which it takes
the one from the same initial time, at the same leads. In space they are interpolated to the cells of the frame (bilinear, of
a list of points the nearest), in time linearly where their step is longer.
"""

import copy
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from emulator.data.border import TIMES, Border, same_levels
from emulator.data.channels import Channels
from emulator.data.normalisation import Normalizer
from emulator.planet.calendar import in_seconds, later, lead_seconds
from emulator.planet.grid import Grid
from emulator.planet.interpolation import Corners, interpolated, to_grid
from emulator.store.schema import grid_of, levels_at, missing_times

READ_TIMES = 32  # at once, of one variable
MOST_BYTES = 1 << 30  # of fields at the frame that are kept in memory
MOMENT_TIMES = 64  # from which mean and spread are taken


class Boundary:
    """Driving data at the frame of a domain.

    Args:
      dataset: opened with `open_analysis` or `open_forecast`.
      border: what is taken of it. domain: the grid of the limited area.
      name: of the store, for messages.
      delay: of forecasts, seconds from their initial time to that of the forecasts that they drive.
    Raises `ValueError` for a variable or levels that the store lacks, members, and a frame that it does not cover.
    """

    def __init__(self, dataset: xr.Dataset, border: Border, domain: Grid, name: object = "the store", delay: float = 0):
        self.dataset, self.border, self.name, self.delay = dataset, border, name, delay
        self.frame, self.channels = border.frame(domain), Channels(border.names, border.levels)
        self.grid, self.of_forecasts = grid_of(dataset), "lead_time" in dataset.dims
        self._check_variables()
        self._corners = self._to(self.frame.points)
        self._axis = self._seconds_of_axis()
        self._missing = np.zeros(len(self._axis), bool) if self.of_forecasts else missing_times(dataset)
        self._memory: OrderedDict[tuple, np.ndarray] = OrderedDict()

    def check(self, inits: Sequence, begins: Sequence, ends: Sequence) -> None:
        """Raises `ValueError` unless the store has states for steps, as `given` takes them."""
        for init, *moments in zip(inits, begins, ends, strict=True):
            run = self._run_of(init)
            for moment in moments:
                self._around(run, init, moment)

    def given(self, inits: Sequence, begins: Sequence, ends: Sequence) -> Tensor:
        """The states at the start and the end of steps, along channels: `(step, 2 * channel, point)`, physical units.

        Args:
          inits: the initial time of each step's forecast, which of an analysis does not matter. begins, ends: of the steps.
        Raises `ValueError` for a time that is not there, and for states that stay the same over two steps.
        """
        rows = []
        for init, begin, end in zip(inits, begins, ends, strict=True):
            run = self._run_of(init)
            first, last = self._state(run, init, begin), self._state(run, init, end)
            if np.array_equal(first, last):
                self._refuse_standing_still(run, init, begin, end, last)
            rows.append(np.concatenate([first, last]))
        return torch.from_numpy(np.stack(rows))

    def over_domain(self, names: Sequence[str]) -> "Boundary":
        """The same driving data, some of their variables, at the cells of the domain, not of the frame: `at` gives them."""
        inner, levels = copy.copy(self), dict(zip(self.channels.names, self.channels.levels, strict=True))
        inner.channels = Channels(tuple(names), tuple(levels[name] for name in names))
        inner._corners, inner._memory = self._to(self.frame.domain), OrderedDict()
        return inner

    def at(self, inits: Sequence, moments: Sequence) -> Tensor:
        """The states at moments of forecasts from initial times, `(moment, channel, point)`, physical units.

        Raises `ValueError` for a time that is not there.
        """
        pairs = zip(inits, moments, strict=True)
        return torch.from_numpy(np.stack([self._state(self._run_of(init), init, moment) for init, moment in pairs]))

    def scale(self, times: np.ndarray) -> Normalizer:
        """Normalisation of what a step is given by the driving data's own mean and spread, over the domain and its frame.

        `times`: of a training, of some of which, evenly spread, it is taken.
        """
        whole = self.frame.whole
        corners = self._to(whole)
        weight = (whole.area / whole.area.sum()).ravel()
        some = times[np.unique(np.linspace(0, len(times) - 1, min(len(times), MOMENT_TIMES)).round().astype(int))]
        sums = np.zeros((2, self.channels.count))
        for time in some:
            low, high, share = self._around(None, None, time)
            fields = [self._at(corners, None, position) for position in (low, high)]
            field = fields[0] + share * (fields[1] - fields[0])
            sums += np.stack([field @ weight, field**2 @ weight])
        mean, square = sums / len(some)
        std = np.sqrt(np.maximum(square - mean**2, 0))
        return Normalizer(*(torch.from_numpy(np.tile(values, TIMES)) for values in (mean, std)))

    def hold(self, times: np.ndarray) -> None:
        """Reads the states at some increasing times of an analysis at once, as far as memory for them goes."""
        wanted = sorted({at for time in times for at in self._around(None, None, time)[:2]})
        room = MOST_BYTES // (4 * self.channels.count * len(self.frame.index)) - len(self._memory)
        wanted = wanted[: max(room, 0)]
        for first in range(0, len(wanted), READ_TIMES):
            some = wanted[first : first + READ_TIMES]
            fields = self._read(self._corners, {"time": slice(some[0], some[-1] + 1)})
            for at in some:
                self._memory[None, at] = self._checked(fields[at - some[0]].astype(np.float32), at)

    def _to(self, places: Grid) -> Corners:
        """From the driving data's cells to those of another grid. Raises `ValueError` where they do not reach so far."""
        corners, covered = to_grid(self.grid, places)
        if not covered.all():
            raise ValueError(
                f"Expected driving data that cover the boundary, {self.border.width} cells {self.border.place} "
                f"{self.frame.domain.describe()}, {self.name} ({self.grid.describe()}) lacks {int((~covered).sum())} of its "
                f"{covered.size} cells"
            )
        return corners

    def _check_variables(self) -> None:
        for name, levels in zip(self.channels.names, self.channels.levels, strict=True):
            if name not in self.dataset:
                known = ", ".join(sorted(map(str, self.dataset.data_vars)))
                raise ValueError(f"Expected {name} at the boundary, {self.name} has only {known}")
            found = Channels.of(self.dataset, [name]).levels[0]
            if found != levels:
                raise ValueError(f"Expected {name} on {levels} levels at the boundary, {self.name} has it on {found}")
            trained, found = self.border.at_of(name), levels_at(self.dataset, name)
            if not same_levels(trained, found):
                trained, found = (", ".join(f"{value:g}" for value in places) for places in (trained, found))
                raise ValueError(
                    f"Expected {name} at the boundary on the levels {trained}, {self.name} has it on {found}"
                )

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

    def _state(self, run: int | None, init, moment) -> np.ndarray:
        """At the frame at a moment, `(channel, point)` float32."""
        low, high, share = self._around(run, init, moment)
        first = self._stored(run, low)
        return first if low == high else first + np.float32(share) * (self._stored(run, high) - first)

    def _stored(self, run: int | None, position: int) -> np.ndarray:
        """At the frame at a stored time or lead, kept in memory."""
        found = self._memory.get((run, position))
        if found is None:
            field = self._at(self._corners, run, position).astype(np.float32)
            found = self._checked(field, position)
            if 4 * field.size * (len(self._memory) + 1) > MOST_BYTES and self._memory:
                self._memory.popitem(last=False)  # the oldest; another thread may read while this one does
            self._memory[run, position] = found
        return found

    def _checked(self, field: np.ndarray, position: int) -> np.ndarray:
        if not np.isfinite(field).all():
            channel = self.channels.labels()[int(np.argmax(~np.isfinite(field).all(1)))]
            axis = "lead_time" if self.of_forecasts else "time"
            raise ValueError(
                f"Expected values at the whole boundary, {self.name} lacks some of {channel} at "
                f"{self.dataset[axis].values[position]}"
            )
        return field

    def _at(self, corners: Corners, run: int | None, position: int) -> np.ndarray:
        if run is None:
            return self._read(corners, {"time": slice(position, position + 1)})[0]
        return self._read(corners, {"init_time": run, "lead_time": slice(position, position + 1)})[0]

    def _read(self, corners: Corners, where: dict) -> np.ndarray:
        """At places at some times, `(time, channel, place)` float64."""
        parts = []
        for name, levels in zip(self.channels.names, self.channels.levels, strict=True):
            values = np.asarray(self.dataset[name].isel(where).values)
            flat = values.reshape(len(values), max(1, levels), -1)
            parts.append(interpolated(flat, corners))
        return np.concatenate(parts, axis=1)

    def _refuse_standing_still(self, run, init, begin, end, state: np.ndarray) -> None:
        """Raises `ValueError` where the states before or after those of a step, which are the same, are the same too."""
        for moment in (end + (end - begin), begin - (end - begin)):
            try:
                beside = self._state(run, init, moment)
            except ValueError:  # beyond the store: nothing to compare with
                continue
            if np.array_equal(beside, state):
                raise ValueError(
                    f"Expected driving data that change, {self.name} has the same values at the whole boundary over two "
                    f"steps about {begin}"
                )
