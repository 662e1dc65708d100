"""Windows of a store as torch samples: states, step-mean diagnostics, forcing and clock features of k consecutive steps."""

import dataclasses
import logging

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from emulator.calendar import select_period
from emulator.channels import Channels, Layout
from emulator.forcing import clock_of, is_snapshot
from emulator.store import grid_of, time_step_seconds

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

    def split(self, parts: int) -> list["Batch"]:
        """In equal parts of its samples, in order. Raises `ValueError` where they do not divide."""
        if len(self.state) % parts:
            raise ValueError(f"Expected samples that divide into {parts} parts, got {len(self.state)}")
        return [Batch(*part) for part in zip(*(tensor.chunk(parts) for tensor in self._tensors()), strict=True)]

    def _tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.state, self.diagnostic, self.forcing, self.clock


class Samples:
    """Windows of a store's consecutive times, read on demand or held in memory when they fit.

    A window never crosses a missing slot or the end of the period. Forcing that is a snapshot is taken at the start of a
    step, forcing that is a mean over the step at its end.

    Args:
      dataset: an analysis store opened with `emulator.store.open_analysis`.
      layout: the channels to read.
      start, end: the period, both included; None is open.
      cache_bytes: hold the period in memory if it needs at most this many bytes.
    """

    def __init__(self, dataset: xr.Dataset, layout: Layout, start=None, end=None, cache_bytes: int = 3 << 30):
        if start is not None or end is not None:
            dataset = select_period(dataset, start, end)
        if dataset.sizes["time"] < 2:
            raise ValueError(f"Expected at least 2 times from {start} to {end}, the store has {dataset.sizes['time']}")
        self.dataset, self.layout, self.grid = dataset, layout, grid_of(dataset)
        self.step_hours = time_step_seconds(dataset) / 3600
        self.times = dataset["time"].values
        self.missing = (
            dataset["missing"].values.astype(bool) if "missing" in dataset else np.zeros(len(self.times), bool)
        )
        self._at_start = is_snapshot(layout.forcing)
        count = sum(getattr(layout, g).count for g in ("prognostic", "diagnostic", "forcing"))
        size = 4 * count * len(self.times) * int(np.prod(self.grid.shape))
        self._cache = None
        if size <= cache_bytes:
            log.info("holding %d times x %d channels in memory (%.2f GB)", len(self.times), count, size / 1e9)
            self._cache = {
                name: self._read_cached(getattr(layout, name)) for name in ("prognostic", "diagnostic", "forcing")
            }

    def __len__(self) -> int:
        return len(self.times)

    def _read_cached(self, channels: Channels) -> Tensor:
        out = torch.empty((len(self.times), channels.count, *self.grid.shape))
        block = max(1, (64 << 20) // (4 * max(1, channels.count) * int(np.prod(self.grid.shape))))
        for start in range(0, len(self.times), block):
            out[start : start + block] = self._read(channels, slice(start, start + block))
        return out

    def _read(self, channels: Channels, times: slice) -> Tensor:
        """Fields of some times, `(time, channel, *space)`."""
        part = self.dataset.isel(time=times)
        out = torch.empty((part.sizes["time"], channels.count, *self.grid.shape))
        for name, where in channels.slices.items():
            values = np.asarray(part[name].values, np.float32)
            out[:, where] = torch.from_numpy(values.reshape(len(out), -1, *self.grid.shape))
        return out

    def starts(self, steps: int) -> np.ndarray:
        """Indices of the times from which `steps` steps can be taken without crossing a missing slot."""
        bad = np.concatenate([[0], np.cumsum(self.missing)])
        first = np.arange(len(self.times) - steps)
        return first[bad[first + steps + 1] == bad[first]]

    def batch(self, starts, steps: int) -> Batch:
        """The windows of `steps` steps that begin at the given indices."""
        parts = [self._window(int(start), steps) for start in starts]
        return Batch(*(torch.stack(tensors) for tensors in zip(*parts, strict=True)))

    def state(self, index: int) -> Tensor:
        """Prognostic fields at one time, `(channel, *space)`."""
        if self._cache is not None:
            return self._cache["prognostic"][index]
        return self._read(self.layout.prognostic, slice(index, index + 1))[0]

    def _window(self, start: int, steps: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        whole = slice(start, start + steps + 1)
        if self._cache is not None:
            state, diagnostic, forcing = (self._cache[g][whole] for g in ("prognostic", "diagnostic", "forcing"))
        else:
            state, diagnostic, forcing = (
                self._read(getattr(self.layout, g), whole) for g in ("prognostic", "diagnostic", "forcing")
            )
        where = self._at_start.view(1, -1, *[1] * len(self.grid.shape))
        forcing = torch.where(where, forcing[:-1], forcing[1:]) if self._at_start.any() else forcing[1:]
        return state, diagnostic[1:], forcing, clock_of(self.times[start : start + steps], self.step_hours, self.grid)


def shuffled(count: int, batch_size: int, update: int, seed: tuple[int, ...]) -> np.ndarray:
    """Which of `count` samples the `update`-th batch holds: consecutive seeded permutations, cut into batches.

    A pure function of its arguments, so a resumed run needs no state to go on in the middle of an epoch.
    """
    position = np.arange(update * batch_size, (update + 1) * batch_size)
    epochs = position // count
    order = {e: np.random.default_rng([*seed, int(e)]).permutation(count) for e in np.unique(epochs)}
    return np.array([order[e][p % count] for e, p in zip(epochs, position, strict=True)])
