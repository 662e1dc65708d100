"""Windows of a store as torch samples: states, step-mean diagnostics, forcing and clock features of k consecutive steps."""

import dataclasses
import logging
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from emulator.data.channels import Channels, Layout
from emulator.data.forcing import StepInputs, is_snapshot
from emulator.data.held import Held
from emulator.kernels.reused import ReusedMemory
from emulator.planet.calendar import day_and_hour
from emulator.planet.insolation import CLOCK_FEATURES, clock_features
from emulator.store.analysis import AnalysisSeries, reader_of
from emulator.store.schema import grid_of

READ_BYTES = 64 << 20  # at a time, by Zarr
HELD = ("prognostic", "diagnostic", "forcing")  # groups that move, which a period in memory consists of

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Batch:
    """Consecutive steps of some samples, physical units, float32.

    Attributes:
      state: prognostic fields at the `steps + 1` times, `(batch, steps + 1, channel, *space)`.
      diagnostic: means over (or values at the end of) each step, `(batch, steps, channel, *space)`.
      forcing: `(batch, steps, channel, *space)`.
      clock: features of each step, `(batch, steps, 5, *space)`.
      noise: of a stochastic network, `(batch, steps, channel, *space)`, or None.
    """

    state: Tensor
    diagnostic: Tensor
    forcing: Tensor
    clock: Tensor
    noise: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """On a device; itself where it is there already."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self._tensors()))

    def for_members(self, members: int, noise: Tensor | None) -> "Batch":
        """Every sample `members` times, one after the other, with noise `(batch * members, steps, channel, *space)`."""
        rows = self._tensors() if members == 1 else [t.repeat_interleave(members, 0) for t in self._tensors()]
        return Batch(*rows[:4], noise)

    def pinned(self) -> "Batch":
        """In page-locked memory, from which copies to a GPU run beside its work; itself on a machine without one."""
        if not torch.cuda.is_available():
            return self
        return Batch(*(tensor.pin_memory() for tensor in self._tensors()))

    def inputs(self) -> Iterator[StepInputs]:
        """Of every step in turn."""
        for k in range(self.forcing.shape[1]):
            noise = None if self.noise is None else self.noise[:, k]
            yield StepInputs(self.forcing[:, k], self.clock[:, k], noise)

    def split(self, parts: int) -> list["Batch"]:
        """In equal parts of its samples, in order. Raises `ValueError` where they do not divide."""
        if len(self.state) % parts:
            raise ValueError(f"Expected samples that divide into {parts} parts, got {len(self.state)}")
        return [Batch(*part) for part in zip(*(tensor.chunk(parts) for tensor in self._tensors()), strict=True)]

    def _tensors(self) -> list[Tensor]:
        tensors = [self.state, self.diagnostic, self.forcing, self.clock]
        return tensors if self.noise is None else [*tensors, self.noise]


class Samples:
    """Windows of consecutive times of one or several stores, read on demand or held in memory when they fit.

    A window never crosses a missing slot, the end of the period, or the seam of two stores that do not follow one another.
    Forcing that is a snapshot is taken at the start of a step, forcing that is a mean over the step at its end.

    Args:
      dataset: an analysis store opened with `open_analysis`, or several in the order of time, alike in
        grid, levels and step.
      layout: the channels to read.
      start, end: the period, both included; None is open.
      cache_bytes: hold the period in memory if it needs at most this many bytes; see `emulator.data.held`.
      stores: where the datasets lie, one path each; chunks are then read and decompressed without Zarr's detours where the
        layout allows (`emulator.store.chunks`). The datasets have to be those of the stores, unchanged.
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
        if stores is not None and len(stores) != len(datasets):
            raise ValueError(f"Expected a path for each of {len(datasets)} stores, got {len(stores)}")
        groups = (layout.prognostic, layout.diagnostic, layout.forcing, layout.static)
        record = AnalysisSeries.of(datasets, start, end, [name for channels in groups for name in channels.names])
        self._record, self.dataset, self.layout = record, record.stretches[0].dataset, layout
        self._readers = [None if stores is None else reader_of(stores[s.store], threads) for s in record.stretches]
        self.grid, self.step = grid_of(self.dataset), record.step
        self.times, self.missing = record.times, record.missing
        self.fingerprints = [stretch.dataset.attrs.get("fingerprint") for stretch in record.stretches]
        if len(self.times) < 2:
            raise ValueError(f"Expected at least 2 times from {start} to {end}, the store has {len(self.times)}")
        self._at_start = is_snapshot(self.dataset, layout.forcing)
        self._day, self._hour = day_and_hour(self.times)
        self._step_hours = self.step.lengths_from(self.times) / 3600
        self._mesh, self._memory = self.grid.open_mesh(), ReusedMemory()
        count = sum(getattr(layout, g).count for g in HELD)
        size = 4 * count * len(self.times) * int(np.prod(self.grid.shape))
        self._held = None
        if size <= cache_bytes:
            log.info("holding %d times x %d channels in memory (%.2f GB)", len(self.times), count, size / 1e9)
            shapes = {g: (len(self.times), getattr(layout, g).count, *self.grid.shape) for g in HELD}
            self._held = Held(shapes, lambda group, times, out: self._read_into(getattr(layout, group), times, out))

    def __len__(self) -> int:
        return len(self.times)

    def _read(self, channels: Channels, times: np.ndarray) -> Tensor:
        """Fields at some positions in time, `(time, channel, *space)`."""
        out = self._memory.tensor((len(times), channels.count, *self.grid.shape))
        self._read_into(channels, times, out.numpy())
        return out

    def _read_into(self, channels: Channels, times: np.ndarray, out: np.ndarray) -> None:
        """As `_read`, into C-contiguous float32 `out`."""
        if not channels.count:
            return
        owner = np.searchsorted(self._record.edges, times, side="right") - 1
        for number in np.unique(owner):
            rows = np.flatnonzero(owner == number)
            stretch, reader = self._record.stretches[number], self._readers[number]
            local = times[rows] - self._record.edges[number]
            if reader is not None and reader.can_read(channels.names):
                _read_chunks(reader, channels, stretch.first + local, rows, out)
            else:
                self._read_zarr(stretch.dataset, channels, local, rows, out)

    def _read_zarr(self, dataset: xr.Dataset, channels: Channels, local, rows, out: np.ndarray) -> None:
        block = max(1, READ_BYTES // (4 * max(1, channels.count) * int(np.prod(self.grid.shape))))
        follow = np.flatnonzero(np.diff(local) != 1) + 1  # a slice is read faster than scattered times
        for run in np.split(np.arange(len(local)), follow):
            for first in range(0, len(run), block):
                some = run[first : first + block]
                chosen = dataset.isel(time=slice(int(local[some[0]]), int(local[some[-1]]) + 1))
                for name, where in channels.slices.items():
                    values = np.asarray(chosen[name].values, np.float32)
                    out[rows[some], where] = values.reshape(len(some), -1, *self.grid.shape)

    def starts(self, steps: int) -> np.ndarray:
        """Indices of the times from which `steps` steps can be taken without crossing a missing slot or a seam."""
        bad = np.concatenate([[0], np.cumsum(self.missing)])
        seams = np.concatenate([[0], np.cumsum(self._record.breaks)])  # between a time and the next
        first = np.arange(len(self.times) - steps)
        return first[(bad[first + steps + 1] == bad[first]) & (seams[first + steps] == seams[first])]

    def batch(self, starts, steps: int) -> Batch:
        """The windows of `steps` steps that begin at the given indices, in page-locked memory where there is a GPU."""
        starts = np.asarray(starts, int)
        whole = starts[:, None] + np.arange(steps + 1)  # (batch, time)
        state = self._fields("prognostic", whole)
        diagnostic = self._fields("diagnostic", whole[:, 1:])
        forcing = self._forcing(whole)
        clock = self._memory.tensor((len(starts), steps, len(CLOCK_FEATURES), *self.grid.shape))
        for out, time in zip(clock.flatten(0, 1).numpy(), whole[:, :-1].ravel(), strict=True):
            part = slice(time, time + 1)
            clock_features(self._day[part], self._hour[part], self._step_hours[part], *self._mesh, out=out[None])
        return Batch(state, diagnostic, forcing, clock).pinned()

    def _forcing(self, times: np.ndarray) -> Tensor:
        if not self.layout.forcing.count:
            return self._fields("forcing", times[:, 1:])
        fields = self._fields("forcing", times)
        where = self._at_start.view(1, 1, -1, *[1] * len(self.grid.shape))
        return torch.where(where, fields[:, :-1], fields[:, 1:])

    def state(self, index: int) -> Tensor:
        """Prognostic fields at one time, `(channel, *space)`."""
        return self._fields("prognostic", np.array([[index]]))[0, 0]

    def _fields(self, group: str, times: np.ndarray) -> Tensor:
        """`(batch, time, channel, *space)` for positions `(batch, time)`."""
        channels = getattr(self.layout, group)
        if not channels.count:
            return torch.empty((*times.shape, 0, *self.grid.shape))
        if self._held is not None and (held := self._held.fields(group, times)) is not None:
            return held
        return self._read(channels, times.ravel()).view(*times.shape, channels.count, *self.grid.shape)


def _read_chunks(reader, channels: Channels, times, rows, out: np.ndarray) -> None:
    wanted = [
        (name, int(time), int(row), where.start, where.stop)
        for time, row in zip(times, rows, strict=True)
        for name, where in channels.slices.items()
    ]
    reader.read(wanted, out)


def shuffled(count: int, batch_size: int, update: int, seed: tuple[int, ...]) -> np.ndarray:
    """Which of `count` samples the `update`-th batch holds: consecutive seeded permutations, cut into batches.

    A pure function of its arguments, so a resumed run needs no state to go on in the middle of an epoch.
    """
    position = np.arange(update * batch_size, (update + 1) * batch_size)
    epochs = position // count
    order = {e: np.random.default_rng([*seed, int(e)]).permutation(count) for e in np.unique(epochs)}
    return np.array([order[e][p % count] for e, p in zip(epochs, position, strict=True)])
