"""Which samples an update trains on: functions of its number, so that a resumed run needs no state of a loader."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from emulator.data.samples import Batch, Samples, shuffled
from emulator.model.noise import NetworkNoise, update_key
from emulator.parallel.distributed import share
from emulator.parallel.processes import Processes
from emulator.training.options import Phase
from emulator.training.recipe import Recipe


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
            self._plans.append(replay.plan if phase.replay else lambda update, fresh=fresh: (fresh(update), None))
            first += phase.updates

    def _plan(self, update: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Times from which all samples of an update start, and which go on, both `(batch,)`; None where none ever do."""
        return self._plans[self.recipe.locate(update)[0]](update)

    def starts(self, update: int) -> np.ndarray:
        """Times from which this process's rows of an update start, as positions, `(row,)`."""
        return share(self._plan(update)[0], self.processes).repeat(self.recipe.members)

    def onward(self, update: int) -> np.ndarray | None:
        """Which of this process's rows go on from the network's own states, `(row,)`; None where none ever do."""
        _, onward = self._plan(update)
        return None if onward is None else share(onward, self.processes).repeat(self.recipe.members)

    def batch(self, update: int) -> Batch:
        """This process's rows of an update."""
        chosen, _ = self._plan(update)
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


@dataclasses.dataclass(frozen=True)
class Replay:
    """A memory of one step: samples that go on from what the network itself has reached, without gradients through time.

    A sample of a batch either starts fresh, from the truth, or where the same place of the batch before it ended. So
    networks see their own errors many steps deep at the cost of single steps (the replay buffer of published emulators,
    with one entry for each place). Which samples go on is a function of the update's number alone; only the states have to
    be saved.

    Attributes:
      phase: whose share of samples goes on, so many windows in a row at most. seed: of the draws.
      first: the phase's first update, which starts fresh.
      fresh: of an update, the times that its samples start from if they start fresh, `(batch,)`.
      times: of an update, the length of its windows in times of the store. valid: whether a window may start from a time.
    """

    phase: Phase
    seed: int
    first: int
    fresh: Callable[[int], np.ndarray]
    times: Callable[[int], int]
    valid: Callable[[int], bool]

    def plan(self, update: int) -> tuple[np.ndarray, np.ndarray]:
        """Times that the samples start from, and which of them go on from the network's own state, both `(batch,)`."""
        places = [self._place(update, place) for place in range(len(self.fresh(update)))]
        return np.array([start for start, _ in places]), np.array([age > 0 for _, age in places])

    def _place(self, update: int, place: int) -> tuple[int, int]:
        """Time and age of one place, from the last update at which it surely started fresh on."""
        begin = update
        while begin > self.first and self._draw(begin, place) < self.phase.replay:
            begin -= 1
        start, age = int(self.fresh(begin)[place]), 0
        for at in range(begin + 1, update + 1):
            onward = start + self.times(at - 1)
            if age + 1 < self.phase.replay_most and self.valid(onward):
                start, age = onward, age + 1
            else:
                start, age = int(self.fresh(at)[place]), 0
        return start, age

    def _draw(self, update: int, place: int) -> float:
        return float(np.random.default_rng([self.seed, update, place, 4]).random())
