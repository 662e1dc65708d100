"""States that the network has reached itself, from which later samples go on: which do is a plan, the states are a pool."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from emulator.data.batch import Batch
from emulator.parallel.host_copies import to_device
from emulator.training.options.phases import Phase


@dataclasses.dataclass(frozen=True)
class Planned:
    """Where the samples of an update start.

    Attributes:
      starts: positions in time, `(batch,)`.
      onward: which of them go on from the pool, `(batch,)` bool; None where none ever do.
      slots: the place in the pool that each draws from and gives back to, `(batch,)`; None as `onward`.
      pairs: the stored forecasts that they start from, `(batch, 4)`; None where they start from the analysis.
    """

    starts: np.ndarray
    onward: np.ndarray | None = None
    slots: np.ndarray | None = None
    pairs: np.ndarray | None = None

    def map(self, change: Callable[[np.ndarray], np.ndarray]) -> "Planned":
        """With some change of all of these."""
        return Planned(*(None if part is None else change(part) for part in dataclasses.astuple(self)))


@dataclasses.dataclass(frozen=True)
class Replay:
    """A memory of one step: samples that go on from what the network itself has reached, without gradients through time.

    Every place of the batch has a pool of states of its own (the replay buffer of Aurora, Bodnar et al. 2024, which each of
    its workers has), so that the order is the same however many processes share a batch. At an update a place draws one of
    its states, trains on the window from there, and puts the window's end back. By chance, or every `phase.replay_refresh`
    updates, in turn of the pool, it takes a time of the data instead. So networks see their own errors many steps deep at the
    cost of single steps. Which samples go on is a function of the update's number alone; only the states have to be saved.

    Attributes:
      phase: its share of samples that goes on, so many windows in a row at most, and the size of its pools.
      seed: of the draws.
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

    def __post_init__(self):
        phase = self.phase
        reach = 4 * phase.replay_pool * max(phase.replay_most, phase.replay_refresh)  # updates back of most chains
        remembered = functools.lru_cache(max(4096, phase.batch_size * reach))
        object.__setattr__(self, "_drawn", remembered(self._drawn))
        object.__setattr__(self, "times", remembered(self.times))
        object.__setattr__(self, "fresh", functools.lru_cache(max(64, reach))(self.fresh))
        object.__setattr__(
            self, "plan", functools.lru_cache(4)(self.plan)
        )  # 10 ms for 32 pools of 20; asked for thrice

    def plan(self, update: int) -> Planned:
        """Of an update of the phase."""
        places = [self._place(update, place) for place in range(len(self.fresh(update)))]
        starts, ages, slots = (np.array(part) for part in zip(*places, strict=True))
        return Planned(starts, ages > 0, slots)

    def _place(self, update: int, place: int) -> tuple[int, int, int]:
        """Time, age and slot of one place, from the last update at which the slot's state surely was fresh on."""
        slot, fresh = self._drawn(update, place)
        chain, at = [update], update  # the updates at which the place drew this slot, the last one first
        while not fresh and at > self.first:
            at -= 1
            other, begun = self._drawn(at, place)
            if other == slot:
                chain.append(at)
                fresh = begun
        begin, *onwards = reversed(chain)
        start, age, before = int(self.fresh(begin)[place]), 0, begin
        for now in onwards:
            onward = start + self.times(before)
            if age + 1 < self.phase.replay_most and self.valid(onward):
                start, age = onward, age + 1
            else:
                start, age = int(self.fresh(now)[place]), 0
            before = now
        return start, age, slot

    def _drawn(self, update: int, place: int) -> tuple[int, bool]:
        """The slot that a place draws at an update, and whether it takes a time of the data into it."""
        phase, since = self.phase, update - self.first
        if phase.replay_refresh:
            turns, rest = divmod(since + place, phase.replay_refresh)
            if not rest:
                return turns % phase.replay_pool, True
        fresh = not phase.replay_refresh and self._number(update, place, 4) >= phase.replay
        slot = 0 if phase.replay_pool == 1 else int(self._number(update, place, 8) * phase.replay_pool)
        return slot, fresh

    def _number(self, update: int, place: int, purpose: int) -> float:
        return float(np.random.default_rng([self.seed, update, place, purpose]).random())


def put_in_place(batch: Batch, planned: Planned, pool: Tensor | None) -> None:
    """Has the rows of a batch that go on start from their states in the pool, as `taken` gives it."""
    if planned.onward is not None and planned.onward.any():
        rows = np.flatnonzero(planned.onward)
        batch.begin(rows, pool.index_select(0, _index(pool, planned, rows)))


def taken(pool: Tensor | None, planned: Planned, reached: Sequence[Tensor], size: int) -> Tensor | None:
    """The pool of a process's rows with the ends of their windows, `(row, [history,] channel, *space)` in parts.

    `size`: of each row's pool, whose states lie one after the other: `(row * size, [history,] channel, *space)`; so the
    parts of several processes make up the whole. None where nothing goes on.
    """
    if planned.slots is None:
        return None
    ends = torch.cat([part.detach() for part in reached])
    if size == 1:
        return ends
    if pool is None or len(pool) != len(ends) * size:  # the first update of a phase, of which no sample goes on
        pool = ends.new_zeros((len(ends) * size, *ends.shape[1:]))
    return pool.index_copy_(0, _index(pool, planned, np.arange(len(ends))), ends)


def _index(pool: Tensor, planned: Planned, rows: np.ndarray) -> Tensor:
    size = len(pool) // len(planned.slots)
    return to_device(torch.from_numpy(rows * size + planned.slots[rows]), pool.device)
