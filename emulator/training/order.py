"""Which samples an update trains on: functions of its number, so that a resumed run needs no state of a loader."""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from emulator.data.batch import Batch
from emulator.data.samples import Samples, shuffled
from emulator.model.noise import NetworkNoise, Seeds, update_key
from emulator.parallel.distributed import share
from emulator.parallel.processes import Processes
from emulator.training.forecasts import StoredForecasts
from emulator.training.masks import masked
from emulator.training.options.phases import Phase
from emulator.training.recipe import Recipe
from emulator.training.replay import Planned, Replay


class Order:
    """The samples of every update with the noise of their members, and this process's share of them.

    A sample's members are rows of the batch, one after the other. `noise` is None for a network that takes none; `forecasts`
    are those that all windows start from, None for the analysis.

    Raises `ValueError` for a batch that the processes cannot share, and for a period without a window of a phase's length.
    """

    def __init__(
        self,
        samples: Samples,
        recipe: Recipe,
        processes: Processes,
        noise: NetworkNoise | Seeds | None = None,
        forecasts: StoredForecasts | None = None,
    ):
        self.samples, self.recipe, self.processes, self.noise = samples, recipe, processes, noise
        self.forecasts = forecasts
        self._plans, first = [], 0
        for index, phase in enumerate(recipe.phases):
            share(range(phase.batch_size // phase.accumulate), processes)
            starts = samples.some_starts(phase.rollout_steps * recipe.horizon, max(recipe.lengths))
            self._plans.append(self._plan_of(phase, index, starts, first))
            first += phase.updates

    def _plan_of(self, phase: Phase, index: int, starts: np.ndarray, first: int) -> Callable[[int], Planned]:
        """What plans the updates of a phase that begins with update `first`, whose windows may start from some times."""
        recipe = self.recipe
        if self.forecasts is not None:
            pairs = self.forecasts.pairs(starts, max(recipe.lengths))
            chosen = functools.partial(_fresh, pairs, phase.batch_size, first, (recipe.seed, index))
            return lambda update: Planned((rows := chosen(update))[:, 0], pairs=rows)
        fresh = functools.partial(_fresh, starts, phase.batch_size, first, (recipe.seed, index))
        if not phase.replays:
            return lambda update: Planned(fresh(update))
        valid = set(starts.tolist()).__contains__
        return Replay(phase, recipe.seed, first, fresh, recipe.times, valid).plan

    def _plan(self, update: int) -> Planned:
        """Of all samples of an update."""
        return self._plans[self.recipe.locate(update)[0]](update)

    def rows(self, update: int) -> Planned:
        """Of this process's rows of an update."""
        return self._plan(update).map(
            lambda part: share(part, self.processes).repeat(self.recipe.members_at(update), 0)
        )

    def batch(self, update: int) -> Batch:
        """This process's rows of an update."""
        planned = self._plan(update)
        mine, length = planned.map(lambda part: share(part, self.processes)), self.recipe.length(update)
        places = share(range(len(planned.starts)), self.processes)
        batch = self.samples.batch(mine.starts, self.recipe.steps(update), length)
        if self.forecasts is not None:
            batch.begin(np.arange(len(places)), self.forecasts.states(mine.pairs, length))
        if (hiding := self.recipe.phase(update).masks) is not None:
            batch = masked(batch, hiding, self.samples, [(self.recipe.seed, update, place) for place in places])
        if self.recipe.members == 1 and self.noise is None:
            return batch
        noise = None if self.noise is None else self._drawn(update, places)
        return batch.for_members(self.recipe.members_at(update), noise).pinned()

    def _drawn(self, update: int, places: Sequence[int]) -> Tensor:
        """Noise of all members and steps of the samples at some places, `(row, steps, channel, *space)`."""
        seed, steps = self.recipe.seed, range(1, self.recipe.steps(update) // self.recipe.horizon + 1)
        rows = [(place, member) for place in places for member in range(self.recipe.members_at(update))]
        if self.recipe.phase(update).single:
            return self.noise.none(len(rows), len(steps))
        return torch.stack([self.noise.rows(update_key(seed, update, *row, step) for step in steps) for row in rows])


def _fresh(starts: np.ndarray, size: int, first: int, seed: tuple[int, int], update: int) -> np.ndarray:
    """What the samples of an update of the phase that begins with update `first` start from, `(batch, ...)` of `starts`."""
    return starts[shuffled(len(starts), size, update - first, seed)]
