"""Quality control: which observations cannot be used and why. Every rejected row has one reason, and reasons are counted."""

import collections

import numpy as np

from emulator.assimilation.geometry import Geometry
from emulator.assimilation.observations import Observations
from emulator.assimilation.operators import OPERATORS
from emulator.assimilation.options import QualityOptions
from emulator.assimilation.weights import level_within, seen
from emulator.planet.variables import known

NO_NUMBER, NO_OPERATOR, NO_VARIABLE = "no number", "unknown operator", "unknown variable"
NO_ERROR, OUTSIDE_GRID = "error not positive", "outside the grid"
DUPLICATE, BELOW_GROUND, GROSS = "duplicate", "below the ground", "gross error"
REASONS = (NO_NUMBER, NO_OPERATOR, NO_VARIABLE, NO_ERROR, OUTSIDE_GRID, BELOW_GROUND, DUPLICATE, GROSS)

NORMAL = 1.4826  # standard deviation of a normal distribution over its median absolute deviation
ENOUGH = 20  # departures of a kind, for a spread of their own
SAME_PLACE = 1e-4  # degrees, within which two reports are of one place


def screen(
    observations: Observations,
    geometry: Geometry,
    options: QualityOptions = QualityOptions(),  # noqa: B008 (frozen)
) -> np.ndarray:
    """Reasons for which rows cannot be used, `(row,)` text: "" of good ones, else one of `REASONS`, the first that holds.

    What needs the background, gross errors and pressure levels below the ground, is `screen_background`'s.
    """
    reasons = np.full(len(observations), "", f"U{max(map(len, REASONS))}")

    def reject(bad: np.ndarray, reason: str) -> None:
        reasons[bad & (reasons == "")] = reason

    rows = observations
    reject(~np.isfinite(rows.value) | np.isnat(rows.time), NO_NUMBER)
    reject(~np.isin(rows.operator, OPERATORS.names()), NO_OPERATOR)
    reject(~np.isin(rows.variable, geometry.channels.names), NO_VARIABLE)
    reject(~_takes(rows, geometry), NO_VARIABLE)
    reject(~((rows.error > 0) & np.isfinite(rows.error)), NO_ERROR)
    reject(~geometry.inside(rows.latitude, rows.longitude), OUTSIDE_GRID)
    for name, at in ((n, rows.variable == n) for n in geometry.at):
        outside = np.zeros(len(rows), bool)
        outside[at] = ~level_within(geometry, name, rows.level[at])
        reject(outside, OUTSIDE_GRID)
    _reject_unseen(rows, geometry, reasons)
    reject(_impossible(rows, options.gross), GROSS)
    good = np.flatnonzero(reasons == "")
    height = rows.elevation[good] - geometry.ground_at(rows.latitude[good], rows.longitude[good])
    reasons[good[height < -options.below_ground]] = BELOW_GROUND
    good = np.flatnonzero(reasons == "")
    reasons[good[_repeated(rows.where(good))]] = DUPLICATE
    return reasons


def screen_background(
    observations: Observations,
    background: np.ndarray,
    spread: np.ndarray | None = None,
    surface_pressure: np.ndarray | None = None,
    options: QualityOptions = QualityOptions(),  # noqa: B008 (frozen)
) -> np.ndarray:
    """As `screen`, of rows that it let pass, by the background's equivalents `(row,)`.

    Args:
      spread: standard deviation of the background's equivalents, `(row,)`. None: what is expected of a departure is the
        spread that the departures of its system, variable and level have themselves (from their median), or the
        observation's error where that is larger: a background that is poor everywhere does not lose all its observations.
      surface_pressure: of the background at every row, Pa, for levels that are pressures; None: there are none.
    """
    reasons = np.full(len(observations), "", f"U{max(map(len, REASONS))}")
    departure = observations.value - background
    if spread is None:
        expected = np.maximum(observations.error, _spread_of(observations, departure))
    else:
        expected = np.hypot(observations.error, spread)
    reasons[np.abs(departure) > options.gross * expected] = GROSS
    reasons[~np.isfinite(departure)] = NO_NUMBER
    if surface_pressure is not None:
        reasons[100 * observations.level > surface_pressure] = BELOW_GROUND
    return reasons


def counts(reasons: np.ndarray) -> dict[str, int]:
    """How many rows were rejected for which reason, in the order of `REASONS`; those that were for none are left out."""
    found = collections.Counter(np.asarray(reasons).tolist())
    return {reason: found[reason] for reason in REASONS if found[reason]}


def _takes(rows: Observations, geometry: Geometry) -> np.ndarray:
    """Whether every row's operator can observe its variable; of operators that are unknown True."""
    result = np.ones(len(rows), bool)
    for name, operator in OPERATORS.all().items():
        here = rows.operator == name
        if operator.column:
            result &= ~here | np.isin(rows.variable, list(geometry.at))
        if operator.variables:
            result &= ~here | np.isin(rows.variable, list(operator.variables))
    return result


def _reject_unseen(rows: Observations, geometry: Geometry, reasons: np.ndarray) -> None:
    if geometry.exists is None:
        return
    for name, operator in OPERATORS.all().items():
        here = np.flatnonzero((rows.operator == name) & (reasons == ""))
        own = rows.where(here)
        reasons[here[~seen(geometry, own, *operator.channels(geometry, own))]] = OUTSIDE_GRID


def _impossible(rows: Observations, gross: float) -> np.ndarray:
    """Rows further outside the bounds that the variable table has than errors of their own size explain."""
    result = np.zeros(len(rows), bool)
    for name in sorted(set(rows.variable.tolist())):
        entry, here = known(name), rows.variable == name
        if entry is not None:
            low = -np.inf if entry.minimum is None else entry.minimum
            high = np.inf if entry.maximum is None else entry.maximum
            margin = gross * rows.error[here]
            result[here] = (rows.value[here] < low - margin) | (rows.value[here] > high + margin)
    return result


def _repeated(rows: Observations) -> np.ndarray:
    """Rows that repeat an earlier one: the same system, station, variable, operator, time, level, width and place."""
    seen_already, result = set(), np.zeros(len(rows), bool)
    place = np.round(np.stack([rows.latitude, rows.longitude], -1) / SAME_PLACE).astype(np.int64)
    level, width = (np.where(np.isfinite(each), each, -1.0).tolist() for each in (rows.level, rows.width))
    names = (rows.operator, rows.variable, rows.station, rows.system)
    texts = (column.tolist() for column in names)
    keys = zip(*texts, rows.time.tolist(), level, width, *place.T.tolist(), strict=True)
    for n, key in enumerate(keys):
        result[n] = key in seen_already
        seen_already.add(key)
    return result


def _spread_of(rows: Observations, departure: np.ndarray) -> np.ndarray:
    """Spread of the departures of every row's system, variable and level, `(row,)`; of few: of all by their errors."""
    result = rows.error * _spread(departure / rows.error)
    level = np.where(np.isfinite(rows.level), rows.level, -1.0)
    for kind in sorted(set(zip(rows.system.tolist(), rows.variable.tolist(), level.tolist(), strict=True))):
        here = (rows.system == kind[0]) & (rows.variable == kind[1]) & (level == kind[2])
        if here.sum() >= ENOUGH:
            result[here] = _spread(departure[here])
    return result


def _spread(values: np.ndarray) -> float:
    """Standard deviation about the median, and that; neither depends on a few wrong ones."""
    if not len(values):
        return 0.0
    middle = np.median(values)
    return float(NORMAL * np.median(np.abs(values - middle)) + np.abs(middle))
