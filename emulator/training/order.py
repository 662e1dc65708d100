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
from emulator.training.replay import Replay


class Order:
    """The samples of every update with the noise of their members, and this process's share of them.

    A sample's members are rows of the batch, one after the other. `noise` is None for a network that takes none.

    Raises `ValueError` for a batch that the processes cannot share, and for a period without a window of a phase's length.
    """

    def __init__(self, samples: Samples, recipe: Recipe, processes: Processes, noise: NetworkNoise | None = None):
        self.samples, self.recipe, self.processes, self.noise = samples, recipe, processes, noise
        self._starts, self._replays = [], []
        for index, phase in enumerate(recipe.phases):
            share(range(phase.batch_size // phase.accumulate), processes)
            starts = samples.starts(phase.rollout_steps, max(recipe.lengths))
            if not len(starts):
                raise ValueError(
                    f"Expected windows of {phase.rollout_steps} steps, the period has {len(samples)} times"
                )
            self._starts.append(starts)
            self._replays.append(self._replay(index) if phase.replay else None)

    def _chosen(self, update: int) -> np.ndarray:
        """Times from which all samples of an update start, `(batch,)`."""
        index, _ = self.recipe.locate(update)
        replay = self._replays[index]
        return replay.plan(update)[0] if replay else self._fresh(index, update)

    def starts(self, update: int) -> np.ndarray:
        """Times from which this process's rows of an update start, as positions, `(row,)`."""
        return share(self._chosen(update), self.processes).repeat(self.recipe.members)

    def batch(self, update: int) -> Batch:
        """This process's rows of an update."""
        chosen = self._chosen(update)
        batch = self.samples.batch(share(chosen, self.processes), self.recipe.steps(update), self.recipe.length(update))
        members, noise = self.recipe.members, None
        if members == 1 and self.noise is None:
            return batch
        if self.noise is not None:
            noise = self._drawn(update, share(range(len(chosen)), self.processes))
        return batch.for_members(members, noise).pinned()

    def _drawn(self, update: int, places: Sequence[int]) -> Tensor:
        """Noise of all members and steps of the samples at some places, `(row, steps, channel, *space)`."""
        seed, steps = self.recipe.seed, range(1, self.recipe.steps(update) + 1)
        rows = [(place, member) for place in places for member in range(self.recipe.members)]
        return torch.stack([self.noise.rows(update_key(seed, update, *row, step) for step in steps) for row in rows])

    def onward(self, update: int) -> np.ndarray | None:
        """Which of this process's rows go on from the network's own states, `(row,)`; None where none ever do."""
        replay = self._replays[self.recipe.locate(update)[0]]
        return share(replay.plan(update)[1], self.processes).repeat(self.recipe.members) if replay else None

    def _fresh(self, index: int, update: int) -> np.ndarray:
        starts, size = self._starts[index], self.recipe.phases[index].batch_size
        _, within = self.recipe.locate(update)
        return starts[shuffled(len(starts), size, within, (self.recipe.seed, index))]

    def _replay(self, index: int) -> Replay:
        phase, first = self.recipe.phases[index], sum(phase.updates for phase in self.recipe.phases[:index])
        valid = set(self._starts[index].tolist()).__contains__
        fresh = functools.partial(self._fresh, index)
        recipe = self.recipe

        def times(update: int) -> int:
            return recipe.steps(update) * recipe.length(update)

        return Replay(phase.replay, phase.replay_most, recipe.seed, first, fresh, times, valid)
