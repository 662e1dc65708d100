"""Windows of a store as torch samples: states, step-mean diagnostics, forcing and clock features of k consecutive steps."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from emulator.data.batch import Batch
from emulator.data.boundary import Boundary
from emulator.data.channels import Layout, outside_of
from emulator.data.climatology import Climatology
from emulator.data.forcing import Moments, means_of, over_steps, told_length
from emulator.data.held import Held
from emulator.kernels.reused import ReusedMemory
from emulator.parallel.space import ALONE, Space, band_of
from emulator.planet.calendar import day_and_hour
from emulator.planet.insolation import CLOCK_FEATURES, clock_features
from emulator.store.analysis import AnalysisSeries, reader_of
from emulator.store.schema import ROWS, grid_of, own_rows

READ_BYTES = 64 << 20  # at a time, by Zarr
HELD = ("prognostic", "diagnostic", "forcing")  # groups that move, which a period in memory consists of

log = logging.getLogger(__name__)


class Samples:
    """Windows of consecutive times of one or several stores, read on demand or held in memory when they fit.

    A window never crosses a missing slot, the end of the period, or the seam of two stores that do not follow one another.
    Forcing is taken at the moments of a step that the layout says. A series without space is the same everywhere.

    Args:
      dataset: an analysis store opened with `open_analysis`, or several in the order of time, alike in
        grid, levels and step; behind them any that are `apart`.
      layout: the channels to read.
      start, end: the period, both included; None is open.
      cache_bytes: hold the period in memory if it needs at most this many bytes; see `emulator.data.held`.
      stores: where the datasets lie, one path each; chunks are then read and decompressed without Zarr's detours where the
        layout allows (`emulator.store.chunks`). The datasets have to be those of the stores, unchanged.
      threads: that read and decompress at the same time.
      climatology: of the prognostic channels, for a network that predicts departures from it.
      space: the processes that hold a state together; this one reads its rows. `grid` and `dataset` stay whole.
      boundary: of a limited area, driving data that have all times of the period.

    Over eight parameters, the last two by name alone. Raises `ValueError` for rows that processes cannot share out.
    """

    def __init__(
        self,
        dataset: xr.Dataset | Sequence[xr.Dataset],
        layout: Layout,
        start=None,
        end=None,
        cache_bytes: int = 3 << 30,
        stores: Sequence | None = None,
        threads: int = 1,
        climatology: Climatology | None = None,
        *,
        space: Space = ALONE,
        boundary: Boundary | None = None,
    ):
        self.climatology, self.boundary = climatology, boundary
        datasets = [dataset] if isinstance(dataset, xr.Dataset) else list(dataset)
        if stores is not None and len(stores) != len(datasets):
            raise ValueError(f"Expected a path for each of {len(datasets)} stores, got {len(stores)}")
        groups = (layout.prognostic, layout.diagnostic, layout.forcing, layout.static)
        record = AnalysisSeries.of(datasets, start, end, [name for channels in groups for name in channels.names])
        self._record, self.dataset, self.layout = record, record.stretches[0].dataset, layout
        self._readers = [None if stores is None else reader_of(stores[s.store], threads) for s in record.stretches]
        self.grid, self.step, self.space = grid_of(self.dataset), record.step, space
        self._rows = band_of(self.grid, space)
        own, self.shape = own_rows(self.dataset, self._rows), self.grid.shape_of(self._rows)
        self.times, self.missing = record.times, record.missing
        self.fingerprints = [stretch.dataset.attrs.get("fingerprint") for stretch in record.stretches]
        if len(self.times) < 2:
            raise ValueError(f"Expected at least 2 times from {start} to {end}, the store has {len(self.times)}")
        self._moments = Moments(layout.forcing, layout.moments, means_of(self.dataset, layout.forcing))
        self._outside = {group: outside_of(own, getattr(layout, group)) for group in HELD}
        self._means, self._series = means_of(self.dataset, layout.diagnostic), self._read_series(layout)
        self._day, self._hour = day_and_hour(self.times)
        self._seconds = self.step.lengths_from(self.times)
        self._mesh, self._memory = self.grid.open_mesh(self._rows), ReusedMemory()
        count = sum(getattr(layout, g).count for g in HELD)
        size = 4 * count * len(self.times) * int(np.prod(self.shape))
        self._held = None
        if size <= cache_bytes:
            log.info("holding %d times x %d channels in memory (%.2f GB)", len(self.times), count, size / 1e9)
            shapes = {g: (len(self.times), getattr(layout, g).count, *self.shape) for g in HELD}
            self._held = Held(shapes, self._read_into)

    def __len__(self) -> int:
        return len(self.times)

    def _read(self, group: str, times: np.ndarray) -> Tensor:
        """Fields of a group at some positions in time, `(time, channel, *space)`."""
        out = self._memory.tensor((len(times), getattr(self.layout, group).count, *self.shape))
        self._read_into(group, times, out.numpy())
        return out

    def _read_into(self, group: str, times: np.ndarray, out: np.ndarray) -> None:
        """As `_read`, into C-contiguous float32 `out`."""
        slices = getattr(self.layout, group).slices
        for name in self._series.keys() & slices.keys():
            where = slices.pop(name)
            out[:, where] = self._series[name][times].reshape(-1, *[1] * (out.ndim - 1))
        owner = np.searchsorted(self._record.edges, times, side="right") - 1
        for number in np.unique(owner) if slices else ():
            rows = np.flatnonzero(owner == number)
            stretch, reader = self._record.stretches[number], self._readers[number]
            local = times[rows] - self._record.edges[number]
            if reader is not None and reader.can_read(slices):
                _read_chunks(reader, slices, stretch.first + local, rows, out, self._rows)
            else:
                self._read_zarr(own_rows(stretch.dataset, self._rows), slices, local, rows, out)
        if self._outside[group] is not None:
            np.copyto(out, np.nan if group == "forcing" else 0.0, where=self._outside[group])

    def _read_zarr(self, dataset: xr.Dataset, slices: Mapping[str, slice], local, rows, out: np.ndarray) -> None:
        block = max(1, READ_BYTES // (4 * out[0].size))
        follow = np.flatnonzero(np.diff(local) != 1) + 1  # a slice is read faster than scattered times
        for run in np.split(np.arange(len(local)), follow):
            for first in range(0, len(run), block):
                some = run[first : first + block]
                chosen = dataset.isel(time=slice(int(local[some[0]]), int(local[some[-1]]) + 1))
                for name, where in slices.items():
                    values = np.asarray(chosen[name].values, np.float32)
                    out[rows[some], where] = values.reshape(len(some), -1, *self.shape)

    def _read_series(self, layout: Layout) -> dict[str, np.ndarray]:
        """Values of the forcing without space at all times. Raises `ValueError` where one lacks a time that is there."""
        found = {}
        for name in layout.forcing.names:
            if ROWS & set(self.dataset[name].dims):
                continue
            parts = [stretch.dataset[name].values for stretch in self._record.stretches]
            found[name] = np.concatenate(parts).astype(np.float32)
            if (absent := ~np.isfinite(found[name]) & ~self.missing).any():
                raise ValueError(
                    f"Expected a value of {name} at every time, got none at {self.times[np.argmax(absent)]}"
                )
        return found

    def starts(self, steps: int, length: int = 1) -> np.ndarray:
        """Indices of the times from which `steps` steps of `length` times can be taken.

        Neither they nor the input times before cross a missing slot or a seam.
        """
        bad = np.concatenate([[0], np.cumsum(self.missing)])
        seams = np.concatenate([[0], np.cumsum(self._record.breaks)])  # between a time and the next
        before, after = length * (self.layout.history - 1), length * steps
        at = np.arange(before, len(self.times) - after)
        first, last = at - before, at + after
        return at[(bad[last + 1] == bad[first]) & (seams[last] == seams[first])]

    def some_starts(self, steps: int, length: int = 1) -> np.ndarray:
        """As `starts`. Raises `ValueError` where there is none, with the longest stretch that a window may lie in."""
        if len(found := self.starts(steps, length)):
            return found
        history, apart = self.layout.history, self._record.breaks | self.missing[1:] | self.missing[:-1]
        ends = np.flatnonzero(np.concatenate([[True], apart, [True]]))
        longest = np.diff(ends)[~self.missing[ends[:-1]]].max(initial=0)
        inputs = f" with {history} input times" if history > 1 else ""
        raise ValueError(
            f"Expected windows of {steps} steps{inputs}, the period has {len(self)} times, of which at most {longest} follow "
            f"one another without a gap; a window takes {length * (history - 1 + steps) + 1}"
        )

    def batch(self, starts, steps: int, length: int = 1) -> Batch:
        """The windows of `steps` steps that begin at the given indices, in page-locked memory where there is a GPU.

        `length`: of a step, in times of the store.
        """
        starts = np.asarray(starts, int)
        whole = starts[:, None] + np.arange(length * steps + 1)  # (batch, time)
        state = self._fields("prognostic", starts[:, None] + length * np.arange(1 - self.layout.history, steps + 1))
        diagnostic = over_steps(self._fields("diagnostic", whole[:, 1:]), self._means, length)
        forcing = self._forcing(whole, length)
        clock = self._memory.tensor((len(starts), steps, len(CLOCK_FEATURES), *self.shape))
        seconds = self._seconds if length == 1 else self.step.times(length).lengths_from(self.times)
        for out, time in zip(clock.flatten(0, 1).numpy(), whole[:, :-1:length].ravel(), strict=True):
            part = slice(time, time + 1)
            clock_features(self._day[part], self._hour[part], seconds[part] / 3600, *self._mesh, out=out[None])
        several, reference = self.layout.lengths != (1,), None
        told = told_length(several, length, seconds[whole[:, :-1:length]] / self.step.seconds, self.step)
        if self.climatology is not None:
            found = self.climatology.at(self.times[whole[:, length::length].ravel()])
            reference = found.unflatten(0, (len(starts), steps))
        outside, left = None, None
        if self.boundary is not None:
            begins, ends = (self.times[each.ravel()] for each in (whole[:, :-1:length], whole[:, length::length]))
            taken = [None] * len(begins), begins, ends
            outside = self.boundary.given(*taken).unflatten(0, (len(starts), steps))
            if (left := self.boundary.left(*taken)) is not None:
                left = left.unflatten(0, (len(starts), steps))
        return Batch(state, diagnostic, forcing, clock, None, told, reference, outside, left).pinned()

    def _forcing(self, times: np.ndarray, length: int) -> Tensor:
        if not self.layout.forcing.count:
            return self._fields("forcing", times[:, 1::length])
        return self._moments(self._fields("forcing", times), length)

    def state(self, index: int) -> Tensor:
        """Prognostic fields at one time, `(channel, *space)`."""
        return self._fields("prognostic", np.array([[index]]))[0, 0]

    def _fields(self, group: str, times: np.ndarray) -> Tensor:
        """`(batch, time, channel, *space)` for positions `(batch, time)`."""
        channels = getattr(self.layout, group)
        if not channels.count:
            return torch.empty((*times.shape, 0, *self.shape))
        if self._held is not None and (held := self._held.fields(group, times)) is not None:
            return held
        return self._read(group, times.ravel()).view(*times.shape, channels.count, *self.shape)


def _read_chunks(reader, slices: Mapping[str, slice], times, rows, out: np.ndarray, band: slice | None) -> None:
    wanted = [
        (name, int(time), int(row), where.start, where.stop)
        for time, row in zip(times, rows, strict=True)
        for name, where in slices.items()
    ]
    reader.read(wanted, out, band)


def evenly(starts: np.ndarray, count: int) -> np.ndarray:
    """At most so many of some positions, spread evenly over them from the first to the last."""
    return starts[np.unique(np.linspace(0, len(starts) - 1, min(count, len(starts))).round().astype(int))]


def shuffled(count: int, batch_size: int, update: int, seed: tuple[int, ...]) -> np.ndarray:
    """Which of `count` samples the `update`-th batch holds: consecutive seeded permutations, cut into batches.

    A pure function of its arguments, so a resumed run needs no state to go on in the middle of an epoch.
    """
    position = np.arange(update * batch_size, (update + 1) * batch_size)
    epochs = position // count
    order = {e: np.random.default_rng([*seed, int(e)]).permutation(count) for e in np.unique(epochs)}
    return np.array([order[e][p % count] for e, p in zip(epochs, position, strict=True)])
