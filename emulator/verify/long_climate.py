"""Scores of long runs by years: each a file of `emulator/verify/climates/` that registers itself.

A score is a function of a `Pair` and gives arrays by name, which stand in the scores as `climate_<name>`. Every one
sets the run beside what the reference's own years do.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import xarray as xr

from emulator.planet.grid import Grid
from emulator.registry import Registry
from emulator.verify.yearly import Years, spread

RECORD, YEAR, MEMBER, WAVE = "climate_record", "climate_year", "climate_member", "climate_wavenumber"
Score = Callable[["Pair"], dict[str, tuple]]
SCORES: Registry[Score] = Registry("score of long runs", "emulator.verify.climates")


def climate_score(function: Score) -> Score:
    """Registers a function of a `Pair` that gives `name -> (dims, values)`; dims are those of the grid and those above."""
    return SCORES.register(f"{function.__module__}.{function.__name__}", function)


@dataclasses.dataclass(frozen=True, eq=False)
class Pair:
    """One field of a long run beside its reference.

    Attributes:
      members: the run's members, of the same years. whole: all years of the reference.
      grid, exists: where the field is, `(*space)` bool, None: everywhere. area: of its cells, `(cell,)`, sum 1.
    """

    members: list[Years]
    whole: Years
    grid: Grid
    area: np.ndarray
    exists: np.ndarray | None = None

    @property
    def label(self) -> np.ndarray:
        """The run's years."""
        return self.members[0].label

    @property
    def years(self) -> np.ndarray:
        """Years of the run, of the reference, or of both."""
        return np.union1d(self.label, self.whole.label)

    def by_year(self, values: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Values `(..., year)` of some years on all `years`, NaN on the others."""
        padded = np.full((*values.shape[:-1], len(self.years)), np.nan)
        padded[..., np.searchsorted(self.years, label)] = values
        return padded

    @property
    def same_years(self) -> bool:
        """Whether the reference has every year of the run."""
        return bool(np.isin(self.label, self.whole.label).all())

    @functools.cached_property
    def reference(self) -> Years:
        """The reference over the run's years where it has them, else over all of its own."""
        return self.whole.chosen(np.isin(self.whole.label, self.label)) if self.same_years else self.whole

    def of_members(self, name: str) -> np.ndarray:
        """An attribute of the years of all members, `(member, year, ...)`."""
        return np.stack([getattr(member, name) for member in self.members])

    @functools.cached_property
    def mean(self) -> np.ndarray:
        """Mean over members and years, `(cell,)`."""
        return self.of_members("mean").mean(axis=(0, 1))

    @functools.cached_property
    def spread(self) -> np.ndarray:
        """The reference's standard deviation from year to year, over all of its years, `(cell,)`."""
        return spread(self.whole.mean, self.whole.label)

    def map(self, *fields: np.ndarray) -> tuple:
        """Maps on the grid, NaN where the field does not exist: of one field, or of run and reference."""
        maps = []
        for values in fields:
            field = np.full(self.grid.shape, np.nan)
            field[np.ones(self.grid.shape, bool) if self.exists is None else self.exists.reshape(self.grid.shape)] = (
                values
            )
            maps.append(field)
        return (self.grid.dims, maps[0]) if len(maps) == 1 else ((RECORD, *self.grid.dims), np.stack(maps))

    def size(self, values: np.ndarray) -> float:
        """Root of the area mean of the square of `(cell,)`."""
        return float(np.sqrt(values**2 @ self.area))

    def correlation(self, one: np.ndarray, other: np.ndarray) -> float:
        """Area-weighted correlation of two patterns `(cell,)` about their means; NaN where one is flat."""
        a, b = one - one @ self.area, other - other @ self.area
        size = self.size(a) * self.size(b)
        return float((a * b) @ self.area / size) if size > 0 else float("nan")


def yearly_scores(pair: Pair) -> xr.Dataset:
    """All scores of one field; empty where run or reference has no whole year."""
    if not len(pair.label) or not len(pair.whole.label):
        return xr.Dataset()
    found: dict[str, tuple] = {}
    for score in SCORES.all().values():
        found |= score(pair)
    return xr.Dataset({f"climate_{name}": entry for name, entry in found.items()}, {YEAR: pair.years})
