"""Which samples an update trains on: functions of its number, so that a resumed run needs no state of a loader."""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from emulator.data.samples import Batch, Samples, shuffled
from emulator.model.noise import NetworkNoise, update_key
from emulator.parallel.distributed import share
from emulator.parallel.processes import Processes
from emulator.training.recipe import Recipe
from emulator.training.replay import Planned, Replay


class Order:
    """The samples of every update with the noise of their members, and this process's share of them.

    A sample's members are rows of the batch, one after the other. `noise` is None for a network that takes none.

    Raises `ValueError` for a batch that the processes cannot share, and for a period without a window of a phase's length.
    """

    def __init__(self, samples: Samples, recipe: Recipe, processes: Processes, noise: NetworkNoise | None = None):
        self.samples, self.recipe, self.processes, self.noise = samples, recipe, processes, noise
        self._plans, first = [], 0
        for index, phase in enumerate(recipe.phases):
            share(range(phase.batch_size // phase.accumulate), processes)
            starts = samples.some_starts(phase.rollout_steps, max(recipe.lengths))
            fresh = functools.partial(_fresh, starts, phase.batch_size, first, (recipe.seed, index))
            valid = set(starts.tolist()).__contains__
            replay = Replay(phase, recipe.seed, first, functools.lru_cache(64)(fresh), recipe.times, valid)
            self._plans.append(replay.plan if phase.replays else lambda update, fresh=fresh: Planned(fresh(update)))
            first += phase.updates

    def _plan(self, update: int) -> Planned:
        """Of all samples of an update."""
        return self._plans[self.recipe.locate(update)[0]](update)

    def rows(self, update: int) -> Planned:
        """Of this process's rows of an update."""
        return self._plan(update).map(lambda part: share(part, self.processes).repeat(self.recipe.members))

    def batch(self, update: int) -> Batch:
        """This process's rows of an update."""
        chosen = self._plan(update).starts
        batch = self.samples.batch(share(chosen, self.processes), self.recipe.steps(update), self.recipe.length(update))
        if self.recipe.members == 1 and self.noise is None:
            return batch
        noise = None if self.noise is None else self._drawn(update, share(range(len(chosen)), self.processes))
        return batch.for_members(self.recipe.members, noise).pinned()

    def _drawn(self, update: int, places: Sequence[int]) -> Tensor:
        """Noise of all members and steps of the samples at some places, `(row, steps, channel, *space)`."""
        seed, steps = self.recipe.seed, range(1, self.recipe.steps(update) + 1)
        rows = [(place, member) for place in places for member in range(self.recipe.members)]
        return torch.stack([self.noise.rows(update_key(seed, update, *row, step) for step in steps) for row in rows])


def _fresh(starts: np.ndarray, size: int, first: int, seed: tuple[int, int], update: int) -> np.ndarray:
    """Times that the samples of an update of the phase that begins with update `first` start from, `(batch,)`."""
    return starts[shuffled(len(starts), size, update - first, seed)]
