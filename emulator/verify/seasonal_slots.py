"""Which times of the truth's record speak for an hour and a season: the samples of climatological quantiles."""

import dataclasses
from collections.abc import Callable

import numpy as np

from emulator.verify.climatology import DAYS, Recipe

BLOCK_DAYS = 10  # quantiles are the same for so many days
HALF_WINDOW = 30  # days to both sides of the middle of the block: 61 in all, as the climatology's
MOST_SAMPLES = 488  # 8 years of 61 days; of a longer record every n-th sample is taken


@dataclasses.dataclass(frozen=True, eq=False)
class Slots:
    """Hours of the record and blocks of ten days; one block for a record that is shorter than a year.

    Attributes:
      plan: the climatology's recipe, whose record is used.
      read: positions in the record `(n,)` -> truth `(n, level, cell)`.
    """

    plan: Recipe
    read: Callable[[np.ndarray], np.ndarray]

    def number(self, hour: np.ndarray, day: np.ndarray) -> np.ndarray:
        """Slot of each hour of day and day of year; an hour that the record lacks takes the nearest one."""
        hours = np.unique(self.plan.hour)
        nearest = np.abs((np.asarray(hour)[..., None] - hours + 12) % 24 - 12).argmin(axis=-1)
        blocks = -(-DAYS // BLOCK_DAYS)
        block = (np.asarray(day) - 1) // BLOCK_DAYS if self.plan.kind == "daily" else 0
        return nearest * blocks + block

    def samples(self, slot: int) -> np.ndarray:
        """Truth at the record's times that belong to a slot, `(n, level, cell)`."""
        blocks = -(-DAYS // BLOCK_DAYS)
        hour = np.unique(self.plan.hour)[slot // blocks]
        held = self.plan.hour == hour
        if self.plan.kind == "daily":
            middle = BLOCK_DAYS * (slot % blocks) + (BLOCK_DAYS + 1) / 2
            apart = np.abs((self.plan.day - middle + DAYS / 2) % DAYS - DAYS / 2)
            held &= apart <= HALF_WINDOW
        index = np.flatnonzero(held)
        return self.read(index[:: -(-len(index) // MOST_SAMPLES)])


class SlotFields:
    """Fields made from the samples of each slot, looked up by hour and day."""

    def __init__(self, slots: Slots, hour: np.ndarray, day: np.ndarray, make: Callable[[np.ndarray], np.ndarray]):
        """`hour`, `day`: all that will be asked for; `make`: samples `(n, level, cell)` -> `(..., level, cell)` float32."""
        self._slots = dataclasses.replace(slots, read=_forgotten)
        wanted = np.unique(slots.number(hour, day))
        self._place = {int(slot): index for index, slot in enumerate(wanted)}
        self._fields = np.stack([make(slots.samples(int(slot))) for slot in wanted]).astype(np.float32)

    def at(self, hour: np.ndarray, day: np.ndarray) -> np.ndarray:
        """The fields at hours and days, each `(n,)` -> `(n, ..., level, cell)`."""
        return self._fields[[self._place[int(slot)] for slot in self._slots.number(hour, day)]]


def _forgotten(index):
    raise ValueError("Expected the samples of a slot while its fields are made, got asked for them later")


def quantiles(samples: np.ndarray, probabilities) -> np.ndarray:
    """Quantiles over samples `(n, level, cell)` -> `(probability, level, cell)`, linear between order statistics."""
    if np.isfinite(samples).all():
        return np.quantile(samples, probabilities, axis=0)
    filled = np.isfinite(samples).any(axis=0)
    kept = np.where(filled, samples, 0.0)
    return np.where(filled, np.nanquantile(kept, probabilities, axis=0), np.nan)
