"""Pairs of coarse and fine fields as batches, read as windows of an analysis are."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from emulator.data.batch import Batch
from emulator.data.channels import Layout
from emulator.data.samples import Samples
from emulator.downscaling.fields import Interpolation, clock_of, given_to
from emulator.downscaling.plan import Plan
from emulator.store.masks import domain_of


@dataclasses.dataclass(frozen=True)
class PairBatch(Batch):
    """Intervals: `forcing` is what the network is given, `diagnostic` the fine truth of all steps as channels.

    Attributes:
      coarse: the targets' coarse fields, `(batch, channel, *coarse)`.
    """

    coarse: Tensor | None = None


class Pairs:
    """Intervals of a coarse store of which a fine store has all steps, in the place of `Samples`.

    Args:
      fine, coarse: stores opened with `open_analysis`. plan: the fields. start, end: the period; None is open.
      paths: where both lie. cache_bytes: of each store that is held in memory. threads: that read.

    Raises `ValueError` for fields that do not exist everywhere, and stores without a common interval.
    """

    def __init__(
        self,
        fine: xr.Dataset,
        coarse: xr.Dataset,
        plan: Plan,
        period: tuple,
        paths: Sequence = (),
        cache_bytes: int = 3 << 30,
        threads: int = 1,
    ):
        for kind, store, names in (("fine", fine, plan.targets.names), ("coarse", coarse, plan.inputs.names)):
            if masked := [name for name in names if domain_of(store, name) is not None]:
                raise ValueError(
                    f"Expected fields that exist everywhere to downscale, {masked[0]} of the {kind} store does not"
                )
        self.plan, groups = plan, ((plan.targets, plan.fine_instants), (plan.inputs, plan.input_instants))
        own = [
            Samples(store, _layout(store, channels.names, flags), *period, cache_bytes, path and [path], threads)
            for store, (channels, flags), path in zip((fine, coarse), groups, paths or (None, None), strict=True)
        ]
        self.fine, self.coarse = own
        self.grid, self.times = self.fine.grid, self.coarse.times
        self._interpolation = Interpolation(self.coarse.grid, self.grid)
        read = [name for flag in (True, False) for name in _named(plan.targets.names, plan.fine_instants, flag)]
        where = _positions(read, dict(zip(plan.targets.names, plan.targets.widths, strict=True)))
        self._order = torch.tensor([n for name in plan.targets.names for n in where[name]])
        places = {time: n for n, time in enumerate(self.fine.times)}
        self._first = np.array([places.get(time, -1) for time in self.times])
        known = set(self.fine.starts(plan.steps).tolist())
        ends = [places.get(time, -1) for time in self.times]
        self._starts = np.array(
            [
                n
                for n in self.coarse.starts(1)
                if self._first[n] in known and ends[n + 1] == self._first[n] + plan.steps
            ],
            int,
        )
        if not len(self._starts):
            spans = [f"{own.times[0]} to {own.times[-1]}" for own in (self.fine, self.coarse)]
            raise ValueError(
                f"Expected stores with intervals of the same times, got {spans[0]} in the fine one, {spans[1]} in the other"
            )

    def __len__(self) -> int:
        return len(self._starts)

    def some_starts(self, steps: int = 1, length: int = 1) -> np.ndarray:
        """Positions in `times` at which an interval begins that both stores have."""
        return self._starts

    def batch(self, starts, steps: int = 1, length: int = 1) -> PairBatch:
        """The intervals that begin at some positions."""
        starts, plan = np.asarray(starts, int), self.plan
        coarse, fine = self.coarse.batch(starts, 1), self.fine.batch(self._first[starts], plan.steps)
        begin, end = (torch.cat([coarse.state[:, number], coarse.diagnostic[:, 0]], dim=1) for number in (0, 1))
        truth = torch.cat([fine.state[:, 1:], fine.diagnostic], dim=2)[:, :, self._order]
        return PairBatch(
            state=truth.new_zeros(len(starts), 2, 0, *self.grid.shape),
            diagnostic=truth.flatten(1, 2).unsqueeze(1),
            forcing=self._interpolation(given_to(plan, begin, end)).unsqueeze(1),
            clock=clock_of(self.times[starts + 1], plan, self.grid).unsqueeze(1),
            coarse=end[:, plan.target_inputs],
        ).pinned()


def _layout(store: xr.Dataset, names: Sequence[str], instants: Sequence[bool]) -> Layout:
    groups = {"prognostic": _named(names, instants, True), "diagnostic": _named(names, instants, False), "forcing": []}
    return Layout.of(store, groups)


def _named(names, flags, wanted: bool) -> list[str]:
    return [name for name, flag in zip(names, flags, strict=True) if flag is wanted]


def _positions(names: Sequence[str], widths: dict[str, int]) -> dict[str, range]:
    found, first = {}, 0
    for name in names:
        found[name] = range(first, first + widths[name])
        first += widths[name]
    return found
