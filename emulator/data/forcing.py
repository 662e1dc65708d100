"""What a step is given besides the state: prescribed fields from a store, the clock, and noise."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from emulator.data.channels import Channels, Layout, outside_of
from emulator.data.trained_range import TrainedRange
from emulator.parallel.host_copies import to_device
from emulator.parallel.space import ALONE, Space, band_of
from emulator.planet.calendar import TimeStep, day_and_hour
from emulator.planet.grid import Grid
from emulator.planet.insolation import clock_features
from emulator.store.schema import ROWS, entry, grid_of, missing_times, own_rows
from emulator.store.untouched import UntouchedReader

log = logging.getLogger(__name__)


class StepInputs(NamedTuple):
    """What a step is given besides the state.

    Attributes:
      forcing: prescribed fields, `(batch, channel, *space)`, as `Layout.given` has them.
      clock: features of the time of day and year, `(batch, 5, *space)`.
      noise: random fields of a stochastic network, `(batch, channel, *space)`, else None.
      length: of the step, in steps of the store: a number of a network that makes steps of several lengths, `(batch,)`
        float64 of calendar steps, which differ by row; None where all steps are of the store's length.
      reference: climatology of the state at the end of the step, `(batch, channel, *space)`, where a network starts from it.
      ocean: what an ocean that the step is coupled with is given of its own, where there is one.
      boundary: of a limited area the state outside at the start and the end of the step, `(batch, 2 * channel, point)`.
      driving: of a limited area that is nudged the driving state over it at the end of the step, `(batch, channel, *space)`.
      outflow: of a limited area with closed budgets what leaves it by its sides, the mean over the step per unit of its area,
        outward positive, `(batch, budget)` float64 in the order of `Border.outflow`.
      surface: of an ocean whose fluxes answer its surface the store's at the start of the step, `(batch, field, *space)`.
    """

    forcing: Tensor
    clock: Tensor
    noise: Tensor | None = None
    length: Tensor | float | None = None
    reference: Tensor | None = None
    ocean: "StepInputs | None" = None
    boundary: Tensor | None = None
    driving: Tensor | None = None
    outflow: Tensor | None = None
    surface: Tensor | None = None

    def to(self, device: torch.device) -> "StepInputs":
        """On a device, which is not waited for."""
        return self._with(lambda part: to_device(part, device))

    def rows(self, index: Tensor) -> "StepInputs":
        """Some rows, by their positions on the same device, in their order."""
        return self._with(lambda part: part.index_select(0, index))

    def repeated(self, rows: int) -> "StepInputs":
        """A single row so many times."""
        return self._with(lambda part: part.expand(rows, *part.shape[1:]))

    def _with(self, change: Callable[[Tensor], Tensor]) -> "StepInputs":
        changed = StepInputs(*(change(part) if isinstance(part, Tensor) else part for part in self))
        return changed if self.ocean is None else changed._replace(ocean=self.ocean._with(change))

    def more(self) -> "dict[str, Tensor | float | StepInputs]":
        """What not every stepper takes, by the name under which it is called with it."""
        names = ("length", "reference", "ocean", "boundary", "driving", "outflow", "surface")
        return {n: value for n in names if (value := getattr(self, n)) is not None}


def told_length(several: bool, length: int, ratio: np.ndarray, step: TimeStep) -> Tensor | float | None:
    """The length of steps as `StepInputs` and batches have it, in steps of the store.

    `several`: whether a network makes steps of several lengths, of which this is `length`. `ratio`: their true lengths
    over the store's nominal one, of any shape, float64, which count of a calendar `step`.
    """
    if several:
        return float(length)
    return torch.from_numpy(ratio) if step.months else None


def clock_of(times, step_hours, grid: Grid, rows: slice | None = None) -> Tensor:
    """Clock features of the steps that start at some times, `(time, 5, *space)` (see `emulator.planet.insolation`).

    `step_hours`: their lengths, a number or `(time,)`. `rows`: of some rows of the grid alone.
    """
    return torch.from_numpy(clock_features(*day_and_hour(times), step_hours, *grid.open_mesh(rows)))


def means_of(dataset: xr.Dataset, channels: Channels) -> Tensor:
    """For every channel whether it is a mean over the step that ends at its time, or a snapshot, `(channel,)` bool."""
    means = [entry(dataset, name).cell not in ("point", "fixed") for name in channels.names]
    return torch.as_tensor(np.repeat(means, channels.widths).astype(bool))


def over_steps(fields: Tensor, means: Tensor, length: int) -> Tensor:
    """What belongs to the ends of steps of `length` times each: their mean of a field that is a mean, else the last.

    `fields`: `(row, step * length, channel, *space)`, `means`: `(channel,)`; gives `(row, step, channel, *space)`.
    """
    if length == 1 or not fields.shape[2]:
        return fields[:, length - 1 :: length]
    times = fields.unflatten(1, (-1, length))
    return torch.where(means.view(-1, *[1] * (fields.dim() - 3)), times.mean(2), times[:, :, -1])


def check_offsets(offsets: Mapping[str, float], forcing: Sequence[str]) -> None:
    """Raises `ValueError` for an offset of what is no forcing of a network."""
    if unknown := [name for name in offsets if name not in forcing]:
        raise ValueError(f"Expected offsets of the network's forcing ({', '.join(forcing)}), got one of {unknown[0]!r}")


class Moments:
    """Forcing fields at the times from the start of a step to its end, as the step is given them.

    A snapshot's mean over a step is the trapezoidal one of the stored times.

    Args:
      channels, moments: of the forcing, as in a `Layout`. means: see `means_of`.
    """

    def __init__(self, channels: Channels, moments: Sequence[str], means: Tensor):
        self._means, self._parts = (
            means,
            [(channels.slices[n], m) for n, m in zip(channels.names, moments, strict=True)],
        )
        starts = [moment == "start" for moment in moments]
        self.at_start = all(starts)
        self._chosen = torch.as_tensor(np.repeat(starts, channels.widths).astype(bool))
        self._plain = set(moments) <= {"start", "end"}

    def __call__(self, fields: Tensor, length: int = 1) -> Tensor:
        """`(row, step * length + 1, channel, *space)` to `(row, step, given, *space)`."""
        first = fields[:, :-1:length]
        if self.at_start:
            return first
        last = over_steps(fields[:, 1:], self._means, length)
        if self._plain:
            return torch.where(self._chosen.view(-1, *[1] * (fields.dim() - 3)), first, last)
        parts = []
        for where, moment in self._parts:
            start, end = first[:, :, where], last[:, :, where]
            if moment == "mean" and not self._means[where.start]:
                times = fields[:, :, where]
                halves = (times[:, :-1] + times[:, 1:]) / 2
                end = halves.unflatten(1, (-1, length)).mean(2)
            parts += {"start": [start], "both": [start, end]}.get(moment, [end])
        return torch.cat(parts, 2)


class Forcing:
    """Forcing fields and clock features at any time.

    Where the store has a time, the fields are its own. In place of a missing slot stand those of the nearest time with the
    same hour. Outside the store's period, and for a missing month, they are those of the time whose day of the year and hour
    are nearest, so that a long run sees an annual cycle. A series without space has a trend rather than a cycle, and keeps
    its last value (before its first time, its first). Each of these is logged once.

    Args:
      dataset: an analysis store.
      given: the layout, or the forcing's channels alone.
      length: of a step, in steps of the store.
      climatology: of the state, where a network starts from it.
      space: the processes that hold a state together; this one reads its rows, as `dataset` then is and `shape`
        tells. `grid` stays whole.
      offsets: by variable, in its units, what is added to it everywhere and always.
    Raises `ValueError` for a store of one time, or without times that are there, for a series that lacks one of those, and
    for an offset of what is no forcing.

    `trained` tells where fields go beyond what training has seen; whoever knows that sets it.
    """

    def __init__(
        self,
        dataset: xr.Dataset,
        given: Layout | Channels,
        length: int = 1,
        climatology=None,
        space: Space = ALONE,
        offsets: Mapping[str, float] | None = None,
    ):
        empty, self.climatology = Channels((), ()), climatology
        layout = given if isinstance(given, Layout) else Layout(empty, empty, given, empty)
        self.channels, self.grid = layout.forcing, grid_of(dataset)
        self._rows = band_of(self.grid, space)
        self.dataset = dataset = own_rows(dataset, self._rows)
        self.shape = self.grid.shape_of(self._rows)
        self.length, self._stored = length, TimeStep.of(dataset)
        self.step = self._stored.times(length)
        if not self.step_seconds > 0:
            raise ValueError("Expected a store of at least 2 times, which give the length of a step, got one time")
        self._several = layout.lengths != (1,)
        self.times = dataset["time"].values
        self._present = np.flatnonzero(~missing_times(dataset))
        if not len(self._present):
            raise ValueError(f"Expected a store with fields at some times, all {len(self.times)} of them are missing")
        self._series = self._read_series()
        self._untouched = UntouchedReader(dataset, [n for n in self.channels.names if n not in self._series])
        day, hour = day_and_hour(self.times)
        self._phase = day + hour / 24
        self._hour = hour
        self.offsets, self.trained = dict(offsets or {}), TrainedRange({})
        check_offsets(self.offsets, self.channels.names)
        self._moments = Moments(self.channels, layout.moments, means_of(dataset, self.channels))
        outside = outside_of(dataset, self.channels)
        self._outside = None if outside is None else torch.from_numpy(outside)
        self._warned: set[str] = set()
        self._memory: dict[tuple[int, int], Tensor] = {}

    @property
    def step_seconds(self) -> float:
        """Length of a step; nominal seconds of months."""
        return self.step.seconds

    def later(self, time, steps: int):
        """The time `steps` steps after `time`."""
        return self.step.later(time, steps)

    def inputs(self, times) -> StepInputs:
        """Of steps that start at `times`, a row each; no noise."""
        times = list(times)
        seconds = self.step.lengths_from(np.array(times))
        clock = clock_of(times, seconds / 3600, self.grid, self._rows)
        told = told_length(self._several, self.length, seconds / self._stored.seconds, self.step)
        reference = self.climatology and self.climatology.at([self.later(time, 1) for time in times])
        if not self.channels.count:
            return StepInputs(torch.zeros(len(times), 0, *self.shape), clock, None, told, reference)
        inner = range(1 if self._moments.at_start else self.length + 1)
        fields = [[self._fields(self._index(self._inside(time, k))) for k in inner] for time in times]
        fields = torch.stack([torch.stack(row) for row in fields])
        given = fields if self._moments.at_start else self._moments(fields, self.length)
        return StepInputs(given[:, 0], clock, None, told, reference)

    def _inside(self, time, stored: int):
        return self._stored.later(time, stored) if stored else time

    def _index(self, time) -> tuple[int, int]:
        """Positions of the times whose fields, and whose series without space, stand for a time."""
        at = int(np.searchsorted(self.times, time))
        stored = at < len(self.times) and self.times[at] == time
        place = int(np.searchsorted(self._present, at))
        if stored and place < len(self._present) and self._present[place] == at:
            return at, at
        held = int(self._present[max(place - 1, 0)])
        if self._series:
            self._warn("The store has no value of its series at %s; keeping that of %s", time, self.times[held])
        if len(self._series) == len(self.channels.names):
            return held, held
        day, hour = (float(values[0]) for values in day_and_hour([time]))
        other_hour = np.abs(self._hour - hour) > 1e-6
        if stored and not self._stored.months:
            apart = np.abs(np.arange(len(self.times)) - at) + len(self.times) * other_hour
            found = self._nearest(apart)
            self._warn("The store's fields are missing at %s; using the forcing of %s", time, self.times[found])
            return found, held
        self._warn("The store has no forcing for %s; using the nearest day of the year from here on", time)
        apart = np.abs(self._phase - day - hour / 24)
        return self._nearest(np.minimum(apart, 365.25 - apart) + 10.0 * other_hour), held

    def _nearest(self, apart: np.ndarray) -> int:
        """The position in time, of those that are there, that is least apart."""
        return int(self._present[np.argmin(apart[self._present])])

    def _warn(self, message: str, *about) -> None:
        """Once for each message."""
        if message not in self._warned:
            self._warned.add(message)
            log.warning(message, *about)

    def _fields(self, index: tuple[int, int]) -> Tensor:
        if index not in self._memory:
            if len(self._memory) > 64:
                self._memory.clear()
            values = np.empty((self.channels.count, *self.shape), np.float32)
            self._read(values, *index)
            for name, where in self.channels.slices.items():
                if name in self.offsets:
                    values[where] += np.float32(self.offsets[name])
                self.trained.see(name, values[where], self.times[index[0]])
            packed = torch.from_numpy(values)
            self._memory[index] = packed if self._outside is None else packed.masked_fill(self._outside, torch.nan)
        return self._memory[index]

    def _read(self, out: np.ndarray, field_time: int, series_time: int) -> None:
        """Forcing at the positions in time of fields and of series without space, into `out`, `(channel, *space)`."""
        slices = self.channels.slices
        for name in self._series:
            out[slices.pop(name)] = self._series[name][series_time]
        for name in self._untouched.read(field_time, slices, out):
            out[slices[name]] = self.dataset[name].isel(time=field_time).values.reshape(-1, *self.shape)

    def _read_series(self) -> dict[str, np.ndarray]:
        """The forcing without space at all times, by name."""
        series = {n: self.dataset[n].values for n in self.channels.names if not ROWS & set(self.dataset[n].dims)}
        for name, values in series.items():
            if (absent := self._present[~np.isfinite(values[self._present])]).size:
                raise ValueError(
                    f"Expected a value of {name} at every time, the store has none at {self.times[absent[0]]}"
                )
        return series
