"""Fields of a store to be: where every slot is read from, how it is read, and what is computed from others."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import xarray as xr

from emulator.ingestion.term import Term
from emulator.ingestion.vertical import VerticalValues
from emulator.planet.calendar import TimeStep
from emulator.planet.grid import Grid
from emulator.planet.variables import Variable, variable
from emulator.planet.vertical import Levels
from emulator.store.masks import cut

GAPS = "missing: keep or missing: interpolate"  # the option of the stage's configuration


@dataclasses.dataclass(frozen=True, eq=False)
class PlannedField:
    """One canonical field of the store that is read from sources.

    Attributes:
      name: canonical; role: of the store.
      terms: summed; usually one.
      vertical: the field's vertical dimension, or None.
      window: how many slots of the source are averaged into one of the store (1: none).
      slots: the last of those for every time of the store, `(time,)`, -1 where it is missing.
      averaged: a mean over the step rather than a snapshot.
      domain: where it exists (`emulator.store.masks`); None for everywhere, as `exists`.
      exists: that on the store's grid, `([vertical,] *space)` bool.
      entry: what the field is, where that is not in the variable table.
      numbers: of a store of calendar steps `(slot,)`: how many slots are averaged into the step that ends at each, at most
        `window`; seconds: `(slot,)`, what those slots are means over. Else None.
      between: for times to interpolate the slots before and after, -1 elsewhere, and the share of the latter: each `(time,)`.
    """

    name: str
    role: str
    terms: Sequence[Term]
    window: int
    slots: np.ndarray
    has_member: bool
    vertical: str | None
    averaged: bool
    between: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    domain: str | None = None
    exists: np.ndarray | None = None
    entry: Variable | None = None
    numbers: np.ndarray | None = None
    seconds: np.ndarray | None = None

    @property
    def meaning(self) -> Variable:
        """What the field is: the entry of its own, or the variable table's."""
        return self.entry or variable(self.name)

    @property
    def interpolated(self) -> np.ndarray:
        """`(time,)`: which values are interpolated in time."""
        return np.zeros(len(self.slots), bool) if self.between is None else self.between[0] >= 0

    @property
    def present(self) -> np.ndarray:
        """`(time,)`: which times have values, interpolated or not."""
        return (self.slots >= 0) | self.interpolated

    def read(self, start: int, stop: int, shape: tuple[int, ...], leads: np.ndarray | None = None) -> np.ndarray:
        """Times `start` to `stop` (and leads) as stored: `(time, [lead,] [member,] [level,] *space)` float32."""
        chosen = np.arange(1) if leads is None else leads
        wanted = self.slots[start:stop]
        good = np.flatnonzero(wanted >= 0)
        values = self._at(wanted[good], chosen, shape)
        out = values
        if len(good) < stop - start:
            out = np.full((stop - start, *values.shape[1:]), np.nan, np.float32)
            out[good] = values
        if len(gaps := np.flatnonzero(self.interpolated[start:stop])):
            earlier, later, share = (part[start:stop][gaps] for part in self.between)
            share = share.reshape(-1, *[1] * (out.ndim - 1))
            out[gaps] = (1 - share) * self._at(earlier, chosen, shape) + share * self._at(later, chosen, shape)
        kept = ((1, leads is not None), (2, self.has_member), (3, self.vertical is not None))
        drop = tuple(axis for axis, there in kept if not there)
        return cut(out.squeeze(drop).astype(np.float32, copy=False), self.exists)

    def _at(self, wanted: np.ndarray, chosen: np.ndarray, shape) -> np.ndarray:
        """Values whose last slots are `wanted`, at the chosen leads: `(time, lead, member, level, *space)`."""
        out: np.ndarray | None = None
        for term in self.terms:
            values = np.zeros((0, len(chosen), len(term.members), len(term.levels), *shape), np.float32)
            if len(wanted) and term.sums is not None:
                values = term.means(wanted, chosen, shape)
            elif len(wanted) and self.numbers is not None:
                values = np.concatenate([self._mean(term, last, chosen, shape) for last in wanted])
            elif len(wanted):
                slots = (wanted[:, None] - np.arange(self.window)[::-1]).ravel()
                some = term.read(slots, chosen, shape)
                some = some.reshape(len(wanted), self.window, *some.shape[1:])
                values = some[:, 0] if self.window == 1 else some.mean(axis=1, dtype=np.float64).astype(np.float32)
            out = values if out is None else out + values
        return out

    def _mean(self, term: Term, last: int, leads: np.ndarray, shape) -> np.ndarray:
        """The mean over the calendar step that ends with a slot, weighted by the slots' lengths: `(1, lead, ...)`."""
        slots = np.arange(last + 1 - self.numbers[last], last + 1)
        some = term.read(slots, leads, shape)
        return np.average(some, axis=0, weights=self.seconds[slots]).astype(np.float32)[None]

    def check_present(self, times: np.ndarray) -> None:
        """Raises `ValueError` naming the first of the store's times `(time,)` that has no values, and the file."""
        if not (lacking := ~self.present).any():
            return
        before = f" (and the {self.window - 1} means before it)" if self.window > 1 else ""
        first, term = times[np.argmax(lacking)], self.terms[0]
        at = np.flatnonzero(term.times == first)
        owner = np.unique(term.owner[at]) if len(at) else np.zeros(0, int)
        partly = [term.pieces[n].path for n in owner[owner >= 0]]  # has it on some levels or for some members
        paths = partly or [piece.path for piece in term.pieces]
        raise ValueError(
            f"Expected {self.name} at every time, got nothing complete for {first}{before}, {int(lacking.sum())} times in "
            f"all ({paths[0]}{', ...' if len(paths) > 1 else ''}); to take gaps: {GAPS}"
        )

    def part(self, start: int, stop: int) -> "PlannedField":
        """The field at times `start` to `stop` of the store alone."""
        used = [self.slots[start:stop]]
        if self.between is not None:
            used += [part[start:stop] for part in self.between[:2]]
        good = np.unique(np.concatenate(used))
        good = good[good >= 0]
        plain = any(term.sums is None for term in self.terms)
        widths = np.full(len(good), self.window if plain else 1) if self.numbers is None else self.numbers[good]
        made = [term.sums.used(good, [0]) for term in self.terms if term.sums is not None and term.sums.across]
        slots = np.unique(
            np.concatenate([*(np.arange(g + 1 - n, g + 1) for g, n in zip(good, widths, strict=True)), good, *made])
        )
        moved = [np.where(wanted >= 0, np.searchsorted(slots, wanted), -1) for wanted in used]
        between = None if self.between is None else (*moved[1:], self.between[2][start:stop])
        terms = [term.part(slots) for term in self.terms]
        calendar = {} if self.numbers is None else {"numbers": self.numbers[slots], "seconds": self.seconds[slots]}
        return dataclasses.replace(self, terms=terms, slots=moved[0], between=between, **calendar)

    def filled(self, longest: int) -> "PlannedField":
        """The field with gaps of at most `longest` times interpolated linearly in time. Longer ones stay gaps."""
        there = np.flatnonzero(self.slots >= 0)
        earlier, later = np.full(len(self.slots), -1), np.full(len(self.slots), -1)
        share = np.zeros(len(self.slots))
        for first, last in zip(there[:-1], there[1:], strict=True):
            if 1 < last - first <= longest + 1:
                gap = slice(first + 1, last)
                earlier[gap], later[gap] = self.slots[first], self.slots[last]
                share[gap] = np.arange(1, last - first) / (last - first)
        return dataclasses.replace(self, between=(earlier, later, share)) if (earlier >= 0).any() else self


@dataclasses.dataclass(frozen=True, eq=False)
class DerivedField:
    """One field of the store that is computed from others: a derived variable, or a field on other levels.

    Attributes:
      name, role: canonical, and of the store.
      inputs: fields on the same time axis.
      function: from the inputs' values, each `(time, [lead,] [member,] [level,] *space)`, and the moments that they are of
        (nanoseconds or cftime, with leads added) to those of this field. Sent to other processes, so of module level.
      moments: `(time,)` of the store.
      vertical, domain, exists, entry: as of `PlannedField`.
    """

    name: str
    role: str
    inputs: Sequence["PlannedField | DerivedField"]
    function: Callable
    moments: np.ndarray
    has_member: bool
    vertical: str | None
    averaged: bool
    domain: str | None = None
    exists: np.ndarray | None = None
    entry: Variable | None = None

    @property
    def meaning(self) -> Variable:
        """As of `PlannedField`."""
        return self.entry or variable(self.name)

    @property
    def slots(self) -> np.ndarray:
        """`(time,)`, -1 where an input is missing."""
        return np.where(self.present, 0, -1)

    @property
    def present(self) -> np.ndarray:
        """`(time,)`: which times have values."""
        return np.all([np.ones(len(self.moments), bool), *(field.present for field in self.inputs)], axis=0)

    @property
    def terms(self) -> list[Term]:
        return [term for field in self.inputs for term in field.terms]

    @property
    def window(self) -> int:
        return max((field.window for field in self.inputs), default=1)

    def read(self, start: int, stop: int, shape: tuple[int, ...], leads: np.ndarray | None = None) -> np.ndarray:
        """Times `start` to `stop` (and leads) as stored, float32; float64 inside."""
        values = [field.read(start, stop, shape, leads) for field in self.inputs]
        out = self.function(values, self.moments[start:stop], shape)
        missing = ~self.present[start:stop]
        if missing.any():
            out = np.array(out, np.float32)
            out[missing] = np.nan
        return cut(np.asarray(out, np.float32), self.exists)

    def part(self, start: int, stop: int) -> "DerivedField":
        """The field at times `start` to `stop` of the store alone."""
        inputs = [field.part(start, stop) for field in self.inputs]
        return dataclasses.replace(self, inputs=inputs, moments=self.moments[start:stop])


@dataclasses.dataclass(frozen=True, eq=False)
class StorePlan:
    """Everything that a store will hold; `leads` is None in an analysis.

    Attributes:
      levels, vertical: values of `level` and what they are; axes: the other vertical axes, by dimension.
      static: fields that do not change, `([vertical,] *space)`, and what those are, `entries`.
      series: fields without space, `(time,)`.
      missing: `(time,)`, times at which a field has no values.
      interpolated: `(time,)`, times at which a field has values that are interpolated; None for none.
      step_seconds: nominal ones of months; step_months: of a calendar step, else 0.
      intervals: its times are the ends of known intervals, one step each, that all fields are means over.
      half_levels: interface coefficients (a in Pa, b), each `(level + 1,)`; None on pressure levels.
    """

    times: np.ndarray
    leads: np.ndarray | None
    members: np.ndarray | None
    levels: np.ndarray | None
    vertical: str | None
    grid: Grid
    fields: Mapping[str, PlannedField | DerivedField]
    static: Mapping[str, xr.Variable]
    step_seconds: float
    missing: np.ndarray
    interpolated: np.ndarray | None = None
    half_levels: tuple[np.ndarray, np.ndarray] | None = None
    axes: Mapping[str, VerticalValues] = dataclasses.field(default_factory=dict)
    series: Mapping[str, xr.Variable] = dataclasses.field(default_factory=dict)
    entries: Mapping[str, Variable] = dataclasses.field(default_factory=dict)
    intervals: bool = False
    step_months: int = 0

    @property
    def step(self) -> TimeStep:
        """Between neighbouring times; of no length for one, and of a forecast."""
        return TimeStep(self.step_seconds, self.step_months)

    def count(self, vertical: str | None) -> int:
        """How many values a vertical dimension has; 1 for none."""
        if vertical is None:
            return 1
        return len(self.levels) if vertical == "level" else len(self.axes[vertical].values)

    def column(self) -> Levels:
        """The levels with their interfaces; on pressure levels those half-way between. Raises `ValueError` without levels."""
        if self.levels is None:
            raise ValueError("Expected fields on levels, got none")
        if self.half_levels is None:
            return Levels.pressure(self.levels)
        return Levels(self.vertical, self.levels, *self.half_levels)

    def with_fields(self, fields: Mapping[str, "PlannedField | DerivedField"]) -> "StorePlan":
        """The plan with other fields, in the order of their names."""
        return dataclasses.replace(self, fields=dict(sorted(fields.items())))
