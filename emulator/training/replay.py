"""A memory of one step: samples that go on from what the network itself has reached, without gradients through time.

A sample of a batch either starts fresh, from the truth, or where the same place of the batch before it ended. So networks
see their own errors many steps deep at the cost of single steps (the replay buffer of published emulators, with one entry
for each place). Which samples go on is a function of the update's number alone; only the states have to be saved.
"""

import functools
from collections.abc import Callable

import numpy as np


class Replay:
    """Which samples of an update go on, and from which time.

    Args:
      share: probability that a place goes on, below 1. most: windows in a row that it may.
      seed: of the draws. first: the first update, which starts fresh.
      fresh: of an update, the times that its samples start from if they start fresh, `(batch,)`.
      steps: of an update, the length of its windows in times of the store.
      valid: whether a window may start from a time.
    """

    def __init__(
        self,
        share: float,
        most: int,
        seed: int,
        first: int,
        fresh: Callable[[int], np.ndarray],
        steps: Callable[[int], int],
        valid: Callable[[int], bool],
    ):
        if not 0 <= share < 1:
            raise ValueError(f"Expected a share of samples that go on of at least 0 and below 1, got {share}")
        self._share, self._most, self._seed, self._first = share, most, seed, first
        self._steps, self._valid = steps, valid
        self._fresh = functools.lru_cache(maxsize=64)(fresh)

    def plan(self, update: int) -> tuple[np.ndarray, np.ndarray]:
        """Times that the samples start from, and which of them go on from the network's own state, both `(batch,)`."""
        places = [self._place(update, place) for place in range(len(self._fresh(update)))]
        return np.array([start for start, _ in places]), np.array([age > 0 for _, age in places])

    def _place(self, update: int, place: int) -> tuple[int, int]:
        """Time and age of one place, from the last update at which it surely started fresh on."""
        begin = update
        while begin > self._first and self._draw(begin, place) < self._share:
            begin -= 1
        start, age = int(self._fresh(begin)[place]), 0
        for at in range(begin + 1, update + 1):
            onward = start + self._steps(at - 1)
            if age + 1 < self._most and self._valid(onward):
                start, age = onward, age + 1
            else:
                start, age = int(self._fresh(at)[place]), 0
        return start, age

    def _draw(self, update: int, place: int) -> float:
        return float(np.random.default_rng([self._seed, update, place, 4]).random())
