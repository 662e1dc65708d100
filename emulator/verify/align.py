"""Alignment: every forecast on the same initial times, leads, levels and grid; truth read at valid time."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import xarray as xr

from emulator.planet.calendar import valid_times, within
from emulator.planet.grid import Grid
from emulator.planet.variables import VARIABLES
from emulator.planet.vertical import VERTICAL, vertical_of


@dataclasses.dataclass(frozen=True)
class Alignment:
    """Where forecasts and truth meet.

    Attributes:
      init_time: `(init,)`, increasing; every forecast has them and the truth has the analysis.
      lead_time: `(lead,)` timedelta64[ns], increasing; every forecast has them.
      truth_init: `(init,)` positions of the initial times in the truth.
      truth_valid: `(init, lead)` positions of the valid times in the truth, -1 where the truth has none.
      dropped_inits: initial times of each forecast that another forecast or the truth lacks.
      dropped_leads: leads of each forecast that another forecast lacks.
    """

    init_time: np.ndarray
    lead_time: np.ndarray
    truth_init: np.ndarray
    truth_valid: np.ndarray
    dropped_inits: dict[str, int]
    dropped_leads: dict[str, int]

    def at(self, index) -> "Alignment":
        """The same for some of the initial times, by position."""
        index = np.asarray(index, np.int64)
        return dataclasses.replace(
            self,
            init_time=self.init_time[index],
            truth_init=self.truth_init[index],
            truth_valid=self.truth_valid[index],
        )

    @property
    def missing_truth(self) -> int:
        """Pairs of initial time and lead whose valid time the truth lacks."""
        return int((self.truth_valid < 0).sum())


def align(truth: Mapping, times: dict[str, tuple[np.ndarray, np.ndarray]], start=None, end=None) -> Alignment:
    """Common initial times (from `start` to `end`, both included) and leads of all forecasts, found in the truth.

    `truth`: time -> position. `times`: forecast name -> initial times and leads. Initial times without any truth, at the
    start or later, are dropped for all. Raises `ValueError` when the forecasts share no initial time or lead, or the truth
    covers none of them.
    """
    inits = {name: _vector(pair[0], "initial times", name) for name, pair in times.items()}
    inits = {name: moments[within(moments, start, end)] for name, moments in inits.items()}
    leads = {name: _vector(pair[1], "leads", name) for name, pair in times.items()}
    common_inits, common_leads = _common(inits), _common(leads)
    if not len(common_inits):
        raise ValueError(f"Expected forecasts with common initial times, got {_spans(inits)}")
    if not len(common_leads):
        raise ValueError(f"Expected forecasts with common leads, got {_spans(leads)}")
    known = [time for time in common_inits if time in truth]
    valid = valid_times(np.array(known, common_inits.dtype), common_leads)
    places = np.array([[truth.get(time, -1) for time in row] for row in valid]).reshape(valid.shape)
    if not np.any(places >= 0):
        raise ValueError(
            f"Expected a truth that covers the forecasts' initial and valid times, {common_inits[0]} to "
            f"{common_inits[-1]} and later, got truth {_span(list(truth))}"
        )
    useful = (places >= 0).any(axis=1)
    known = [time for time, use in zip(known, useful, strict=True) if use]
    return Alignment(
        np.array(known, common_inits.dtype),
        common_leads,
        np.array([truth[time] for time in known]),
        places[useful],
        {name: len(values) - len(known) for name, values in inits.items()},
        {name: len(values) - len(common_leads) for name, values in leads.items()},
    )


def check_grids(grids: dict[str, Grid]) -> Grid:
    """The common grid. Raises `ValueError` naming two grids that differ: scores on different grids are not comparable."""
    (first, grid), *rest = grids.items()
    for name, other in rest:
        if not grid.same_as(other):
            raise ValueError(
                f"Expected one grid for all stores, got {grid.describe()} in {first} and {other.describe()} in {name}; "
                "regrid one of them first"
            )
    return grid


def check_calendars(times: dict[str, np.ndarray]) -> None:
    """Raises `ValueError` naming two stores whose times are on different calendars: their dates do not mean the same."""
    names = {name: _calendar(values) for name, values in times.items() if len(values)}
    (first, calendar), *rest = names.items()
    for name, other in rest:
        if other != calendar:
            raise ValueError(f"Expected one calendar for all stores, got {calendar} in {first} and {other} in {name}")


def _calendar(times) -> str:
    values = np.asarray(times)
    if values.dtype != object:
        return "standard"
    calendar = getattr(values[0], "calendar", "standard")
    return "standard" if calendar in ("gregorian", "proleptic_gregorian", "standard") else str(calendar)


def check_units(variable: str, arrays: dict[str, xr.DataArray]) -> str:
    """The common units of one variable, or "" when no store names them. Raises `ValueError` where they differ.

    Spellings do not count: `m**2 s**-2` is `m2 s-2`. The table's spelling is returned where it means the same.
    """
    units = {name: str(array.attrs["units"]) for name, array in arrays.items() if array.attrs.get("units")}
    (first, unit), *rest = units.items() or [("", "")]
    if variable in VARIABLES and _same_units(unit, VARIABLES[variable].units):
        unit = VARIABLES[variable].units
    for name, other in rest:
        if not _same_units(other, unit):
            raise ValueError(
                f"Expected {variable} in one unit, got {unit!r} in {first} and {other!r} in {name}; emulator ingest converts"
            )
    return unit


def _same_units(one: str, other: str) -> bool:
    if one == other or not one or not other:
        return one == other
    from emulator.planet.units import linear  # half a second, only for spellings that differ

    try:
        return linear(one, other) == (1.0, 0.0)
    except ValueError:
        return False


def common_levels(variable: str, arrays: dict[str, xr.DataArray]) -> np.ndarray | None:
    """Levels that all arrays of a variable have, in the first one's order; None where it has no vertical axis.

    Raises `ValueError` where some lack levels, the axes are of different kinds, or no level is common.
    """
    axes = {name: vertical_of(array.dims) for name, array in arrays.items()}
    with_level = [name for name, axis in axes.items() if axis is not None]
    if not with_level:
        return None
    if len(with_level) < len(arrays):
        without = sorted(set(arrays) - set(with_level))
        raise ValueError(f"Expected levels of {variable} in every store, got none in {', '.join(without)}")
    if len(set(axes.values())) > 1:
        kinds = "; ".join(f"{VERTICAL[axis].label} in {name}" for name, axis in axes.items())
        raise ValueError(f"Expected {variable} on one vertical axis in all stores, got {kinds}")
    levels = {name: np.asarray(array[axes[name]].values, np.float64) for name, array in arrays.items()}
    first, *rest = levels.values()
    common = np.array([value for value in first if all(np.isclose(other, value, rtol=1e-6).any() for other in rest)])
    if not len(common):
        raise ValueError(f"Expected common levels of {variable}, got {_spans(levels)}")
    return common


def _vector(values, what, forecast):
    values = np.asarray(values)
    if len(values) == 0:
        raise ValueError(f"Expected {what} in the forecast {forecast!r}, got none")
    if len(set(values.tolist())) < len(values):
        raise ValueError(f"Expected distinct {what} in the forecast {forecast!r}, got repeated ones")
    return np.sort(values)


def _common(vectors):
    shared = set.intersection(*(set(values) for values in vectors.values()))
    first = next(iter(vectors.values()))
    return np.array(sorted(shared), first.dtype)


def _spans(vectors):
    return "; ".join(f"{_span(values)} in {name}" for name, values in vectors.items())


def _span(values):
    return f"{values[0]} to {values[-1]} ({len(values)})" if len(values) else "none"
