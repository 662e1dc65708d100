"""Which samples an update trains on: functions of its number, so that a resumed run needs no state of a loader."""

import functools

import numpy as np

from emulator.dataset import Batch, Samples, shuffled
from emulator.distributed import share
from emulator.training.recipe import Recipe
from emulator.training.replay import Replay
from emulator.world import World


class Order:
    """The samples of every update, and this process's share of them.

    Raises `ValueError` for a batch that the processes cannot share, and for a period without a window of a phase's length.
    """

    def __init__(self, samples: Samples, recipe: Recipe, world: World):
        self.samples, self.recipe, self.world = samples, recipe, world
        self._starts, self._replays = [], []
        for index, phase in enumerate(recipe.phases):
            share(range(phase.batch_size // phase.accumulate), world)
            starts = samples.starts(phase.rollout_steps)
            if not len(starts):
                raise ValueError(
                    f"Expected windows of {phase.rollout_steps} steps, the period has {len(samples)} times"
                )
            self._starts.append(starts)
            self._replays.append(self._replay(index) if phase.replay else None)

    def batch(self, update: int) -> Batch:
        """This process's samples of an update."""
        index, _ = self.recipe.locate(update)
        replay = self._replays[index]
        chosen = replay.plan(update)[0] if replay else self._fresh(index, update)
        return self.samples.batch(share(chosen, self.world), self.recipe.steps(update))

    def onward(self, update: int) -> np.ndarray | None:
        """Which of this process's samples go on from the network's own states, `(batch,)`; None where none ever do."""
        replay = self._replays[self.recipe.locate(update)[0]]
        return share(replay.plan(update)[1], self.world) if replay else None

    def _fresh(self, index: int, update: int) -> np.ndarray:
        starts, size = self._starts[index], self.recipe.phases[index].batch_size
        _, within = self.recipe.locate(update)
        return starts[shuffled(len(starts), size, within, (self.recipe.seed, index))]

    def _replay(self, index: int) -> Replay:
        phase, first = self.recipe.phases[index], sum(phase.updates for phase in self.recipe.phases[:index])
        valid = set(self._starts[index].tolist()).__contains__
        fresh = functools.partial(self._fresh, index)
        return Replay(phase.replay, phase.replay_most, self.recipe.seed, first, fresh, self.recipe.steps, valid)
