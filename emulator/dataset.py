"""Windows of a store as torch samples: states, step-mean diagnostics, forcing and clock features of k consecutive steps."""

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from emulator.calendar import day_and_hour, select_period
from emulator.channels import Channels, Layout
from emulator.chunk_reader import StoreReader
from emulator.forcing import is_snapshot
from emulator.insolation import clock_features
from emulator.store import grid_of, seconds_between, time_step_seconds

CLOCK_BYTES = 256 << 20
READ_BYTES = 64 << 20  # at a time, by Zarr

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Batch:
    """Consecutive steps of some samples, physical units, float32.

    Attributes:
      state: prognostic fields at the `steps + 1` times, `(batch, steps + 1, channel, *space)`.
      diagnostic: means over (or values at the end of) each step, `(batch, steps, channel, *space)`.
      forcing: `(batch, steps, channel, *space)`.
      clock: features of each step, `(batch, steps, 5, *space)`.
    """

    state: Tensor
    diagnostic: Tensor
    forcing: Tensor
    clock: Tensor

    def to(self, device: torch.device) -> "Batch":
        """On a device; itself where it is there already."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self._tensors()))

    def pinned(self) -> "Batch":
        """In page-locked memory, from which copies to a GPU run beside its work; itself on a machine without one."""
        if not torch.cuda.is_available():
            return self
        return Batch(*(tensor.pin_memory() for tensor in self._tensors()))

    def split(self, parts: int) -> list["Batch"]:
        """In equal parts of its samples, in order. Raises `ValueError` where they do not divide."""
        if len(self.state) % parts:
            raise ValueError(f"Expected samples that divide into {parts} parts, got {len(self.state)}")
        return [Batch(*part) for part in zip(*(tensor.chunk(parts) for tensor in self._tensors()), strict=True)]

    def _tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.state, self.diagnostic, self.forcing, self.clock


@dataclasses.dataclass(frozen=True, eq=False)
class _Part:
    """Consecutive times of one store: `first` is the position in time of its first in the store, `reader` reads that."""

    dataset: xr.Dataset
    reader: StoreReader | None
    first: int


class Samples:
    """Windows of consecutive times of one or several stores, read on demand or held in memory when they fit.

    A window never crosses a missing slot, the end of the period, or the seam of two stores that do not follow one another.
    Forcing that is a snapshot is taken at the start of a step, forcing that is a mean over the step at its end.

    Args:
      dataset: an analysis store opened with `emulator.store.open_analysis`, or several in the order of time, alike in
        grid, levels and step.
      layout: the channels to read.
      start, end: the period, both included; None is open.
      cache_bytes: hold the period in memory if it needs at most this many bytes.
      stores: where the datasets lie, one path each; chunks are then read and decompressed without Zarr's detours where the
        layout allows (`emulator.chunk_reader`). The datasets have to be those of the stores, unchanged.
      threads: that read and decompress at the same time.
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
    ):
        datasets = [dataset] if isinstance(dataset, xr.Dataset) else list(dataset)
        readers = [None] * len(datasets) if stores is None else [StoreReader(path, threads) for path in stores]
        self._parts = _parts_within(datasets, readers, start, end)
        self.dataset, self.layout = self._parts[0].dataset, layout
        self.grid, self.step_hours = (
            grid_of(self.dataset),
            max(time_step_seconds(part.dataset) / 3600 for part in self._parts),
        )
        self.times = np.concatenate([part.dataset["time"].values for part in self._parts])
        if len(self.times) < 2:
            raise ValueError(f"Expected at least 2 times from {start} to {end}, the store has {len(self.times)}")
        self._breaks = _breaks(self._parts, self.times, self.step_hours)
        self.missing = np.concatenate([_missing(part.dataset) for part in self._parts])
        self._edges = np.cumsum([0, *(part.dataset.sizes["time"] for part in self._parts)])
        self._at_start = is_snapshot(layout.forcing)
        self._day, self._hour = day_and_hour(self.times)
        self._mesh, self._clocks = self.grid.mesh(), {}
        count = sum(getattr(layout, g).count for g in ("prognostic", "diagnostic", "forcing"))
        size = 4 * count * len(self.times) * int(np.prod(self.grid.shape))
        self._cache = None
        if size <= cache_bytes:
            log.info("holding %d times x %d channels in memory (%.2f GB)", len(self.times), count, size / 1e9)
            everything = np.arange(len(self.times))
            self._cache = {
                name: self._read(getattr(layout, name), everything) for name in ("prognostic", "diagnostic", "forcing")
            }

    def __len__(self) -> int:
        return len(self.times)

    def _read(self, channels: Channels, times: np.ndarray) -> Tensor:
        """Fields at some positions in time, `(time, channel, *space)`."""
        out = torch.empty((len(times), channels.count, *self.grid.shape))
        owner = np.searchsorted(self._edges, times, side="right") - 1
        for number in np.unique(owner):
            rows = np.flatnonzero(owner == number)
            part, local = self._parts[number], times[rows] - self._edges[number]
            if part.reader is not None and part.reader.can_read(channels.names):
                self._read_chunks(part, channels, local, rows, out)
            else:
                self._read_zarr(part, channels, local, rows, out)
        return out

    def _read_chunks(self, part: _Part, channels: Channels, local, rows, out: Tensor) -> None:
        wanted = [
            (name, part.first + int(time), int(row), where.start, where.stop)
            for time, row in zip(local, rows, strict=True)
            for name, where in channels.slices.items()
        ]
        part.reader.read(wanted, out.numpy())

    def _read_zarr(self, part: _Part, channels: Channels, local, rows, out: Tensor) -> None:
        block = max(1, READ_BYTES // (4 * max(1, channels.count) * int(np.prod(self.grid.shape))))
        follow = np.flatnonzero(np.diff(local) != 1) + 1  # a slice is read faster than scattered times
        for run in np.split(np.arange(len(local)), follow):
            for first in range(0, len(run), block):
                some = run[first : first + block]
                chosen = part.dataset.isel(time=slice(int(local[some[0]]), int(local[some[-1]]) + 1))
                for name, where in channels.slices.items():
                    values = np.asarray(chosen[name].values, np.float32)
                    out[rows[some], where] = torch.from_numpy(values.reshape(len(some), -1, *self.grid.shape))

    def starts(self, steps: int) -> np.ndarray:
        """Indices of the times from which `steps` steps can be taken without crossing a missing slot or a seam."""
        bad = np.concatenate([[0], np.cumsum(self.missing)])
        seams = np.concatenate([[0], np.cumsum(self._breaks)])  # between a time and the next
        first = np.arange(len(self.times) - steps)
        return first[(bad[first + steps + 1] == bad[first]) & (seams[first + steps] == seams[first])]

    def batch(self, starts, steps: int) -> Batch:
        """The windows of `steps` steps that begin at the given indices, in page-locked memory where there is a GPU."""
        starts = np.asarray(starts, int)
        whole = starts[:, None] + np.arange(steps + 1)  # (batch, time)
        state = self._fields("prognostic", whole)
        diagnostic = self._fields("diagnostic", whole[:, 1:])
        forcing = self._fields("forcing", whole)
        where = self._at_start.view(1, 1, -1, *[1] * len(self.grid.shape))
        forcing = torch.where(where, forcing[:, :-1], forcing[:, 1:])
        clock = torch.stack([self._clock(int(time)) for time in whole[:, :-1].ravel()])
        return Batch(state, diagnostic, forcing, clock.view(len(starts), steps, *clock.shape[1:])).pinned()

    def _clock(self, index: int) -> Tensor:
        """Clock features of the step that starts at a time, `(5, *space)`; kept, as far as there is room for them."""
        found = self._clocks.get(index)
        if found is None:
            part = slice(index, index + 1)
            features = clock_features(self._day[part], self._hour[part], self.step_hours, *self._mesh)
            found = torch.from_numpy(features)[0]
            if (len(self._clocks) + 1) * found.nbytes <= CLOCK_BYTES:
                self._clocks[index] = found
        return found

    def state(self, index: int) -> Tensor:
        """Prognostic fields at one time, `(channel, *space)`."""
        return self._fields("prognostic", np.array([[index]]))[0, 0]

    def _fields(self, group: str, times: np.ndarray) -> Tensor:
        """`(batch, time, channel, *space)` for positions `(batch, time)`."""
        if self._cache is not None:
            return self._cache[group][torch.from_numpy(times)]
        channels = getattr(self.layout, group)
        return self._read(channels, times.ravel()).view(*times.shape, channels.count, *self.grid.shape)


def _parts_within(datasets, readers, start, end) -> list[_Part]:
    """The parts of stores that lie in the period. Raises `ValueError` where none does, or the stores are not alike."""
    if len(readers) != len(datasets):
        raise ValueError(f"Expected a path for each of {len(datasets)} stores, got {len(readers)}")
    parts, outside = [], None
    for dataset, reader in zip(datasets, readers, strict=True):
        try:
            chosen = select_period(dataset, start, end)
        except ValueError as error:
            outside = error
            continue
        first = int(np.searchsorted(dataset["time"].values, chosen["time"].values[0]))
        parts.append(_Part(chosen, reader, first))
    if not parts:
        raise outside
    for part in parts[1:]:
        same = grid_of(part.dataset).same_as(grid_of(parts[0].dataset))
        levels = [p.dataset["level"].values if "level" in p.dataset else None for p in (parts[0], part)]
        if not (same and np.array_equal(*levels)):
            raise ValueError(
                f"Expected stores of one grid and the same levels, got {grid_of(parts[0].dataset).describe()} and "
                f"{grid_of(part.dataset).describe()}"
            )
    return parts


def _breaks(parts, times, step_hours) -> np.ndarray:
    """Where a time is not one step before the next, `(time - 1,)`. Raises `ValueError` for overlaps and several steps."""
    steps = {time_step_seconds(part.dataset) / 3600 for part in parts if part.dataset.sizes["time"] > 1}
    if len(steps) > 1:
        raise ValueError(f"Expected stores of one time step, got {', '.join(f'{step:g} h' for step in sorted(steps))}")
    between = seconds_between(times) / 3600
    if (between <= 0).any():
        at = int(np.argmax(between <= 0))
        raise ValueError(f"Expected stores in the order of time, got {times[at]} and then {times[at + 1]}")
    return np.abs(between - step_hours) > 1e-6


def _missing(dataset) -> np.ndarray:
    return dataset["missing"].values.astype(bool) if "missing" in dataset else np.zeros(dataset.sizes["time"], bool)


def shuffled(count: int, batch_size: int, update: int, seed: tuple[int, ...]) -> np.ndarray:
    """Which of `count` samples the `update`-th batch holds: consecutive seeded permutations, cut into batches.

    A pure function of its arguments, so a resumed run needs no state to go on in the middle of an epoch.
    """
    position = np.arange(update * batch_size, (update + 1) * batch_size)
    epochs = position // count
    order = {e: np.random.default_rng([*seed, int(e)]).permutation(count) for e in np.unique(epochs)}
    return np.array([order[e][p % count] for e, p in zip(epochs, position, strict=True)])
