"""Climatology by hour and day of the year with a triangular window, from one pass over analysis stores, in any split.

WeatherBench 2's shape: the mean over years of every hour and day of the year, smoothed over 61 days with weights that fall
linearly to zero at both ends and run round the year. What is added up are sums and counts in float64, so blocks and years
merge by addition. The day of the year is counted in a leap year (29 February is 60, 1 March always 61).

Of a store of calendar steps (months, seasons) every day of the year has the mean of the step in which it lies, which ends
on that day or next after it, without a window.
"""

import dataclasses
import json
import logging
from collections.abc import Sequence

import numpy as np
import xarray as xr

from emulator.parallel.tasks import Over, Report, one_by_one, silent
from emulator.planet.calendar import hour_and_leap_day
from emulator.planet.vertical import VERTICAL, vertical_of
from emulator.store.analysis import AnalysisSeries, open_analysis
from emulator.store.marks import mark, marks
from emulator.store.masks import cut, domain_of
from emulator.store.regions import create, finish, finished_fingerprint, write_region
from emulator.store.schema import fingerprint, moving_variables

DAYS = 366
WINDOW = 61
FEWEST_DAYS = 355  # of the year, in a year: 360-day calendars lack six days of a leap year
BLOCK_BYTES = 32 << 20  # of float32 that are read at once
SCHEMA = "climatology-1"

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Sums:
    """Sums and counts of a field by hour of the day and day of the year.

    Attributes:
      hours: `(hour,)`, hours of the day in the series, increasing.
      total: `(hour, 366, ...)` float64; count: `(hour, 366, ...)` int32 of the values that are not missing, with `...` either
        the axes of the field or ones, where every value is there.
    """

    hours: np.ndarray
    total: np.ndarray
    count: np.ndarray

    @classmethod
    def none(cls, hours: np.ndarray, shape: tuple[int, ...]) -> "Sums":
        """Of no values of a field of some shape `(...)`."""
        count = np.zeros((len(hours), DAYS, *[1] * len(shape)), np.int32)
        return cls(hours, np.zeros((len(hours), DAYS, *shape)), count)

    @classmethod
    def of(cls, values: np.ndarray, times: np.ndarray, hours: np.ndarray) -> "Sums":
        """Of `(time, ...)` values at datetime64 or cftime `(time,)`; `hours` as for the whole series.

        Raises `ValueError` for a time at another hour.
        """
        return cls.none(hours, values.shape[1:]).plus(values, times)

    def plus(self, values: np.ndarray, times: np.ndarray) -> "Sums":
        """With more `(time, ...)` values. Adds in place: new sums for every block would cost more than reading it."""
        hour, day = hour_and_leap_day(times)
        slot = np.searchsorted(self.hours, hour)
        if np.any(slot == len(self.hours)) or np.any(self.hours[np.minimum(slot, len(self.hours) - 1)] != hour):
            raise ValueError(f"Expected times at the hours {list(self.hours)}, got {sorted(set(hour.tolist()))}")
        good = np.isfinite(values)
        whole, count = bool(good.all()), self.count
        if not whole and count.shape != self.total.shape:
            count = np.broadcast_to(count, self.total.shape).copy()
        for number, at in enumerate(zip(slot, day - 1, strict=True)):
            self.total[at] += values[number] if whole else np.where(good[number], values[number], 0.0)
            count[at] += 1 if whole else good[number]
        return Sums(self.hours, self.total, count)

    def climatology(self, window: int = WINDOW, weights: np.ndarray | None = None) -> np.ndarray:
        """The smoothed means, `(hour, 366, ...)` float64; NaN where the whole window has no value.

        `weights`: of the days around each day, `(366, 366)`, in place of the triangular window.
        """
        weights, out = window_matrix(window) if weights is None else weights, np.empty_like(self.total)
        for slot in range(len(out)):
            out[slot] = smoothed(self.total[slot], self.count[slot], weights)
        return out


def smoothed(total: np.ndarray, count: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Means of days, smoothed: sums and counts `(day, ...)`, weights `(row, day)` -> `(row, ...)`, NaN without values.

    The mean of every day comes first and days without values are left out of the window, so that a record of thirteen
    months, which has one January twice, gives February its own weight.
    """
    days = len(total)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(count > 0, total / count, 0.0).reshape(days, -1)
        share = weights @ (count > 0).reshape(days, -1).astype(np.float64)
        return np.where(share > 0, (weights @ means) / share, np.nan).reshape(len(weights), *total.shape[1:])


def window_matrix(window: int = WINDOW) -> np.ndarray:
    """Weights of the days around each day, `(366, 366)`; rows sum to 1. Raises `ValueError` for an even window."""
    if window % 2 == 0 or not 3 <= window <= DAYS:
        raise ValueError(f"Expected an odd window of 3 to {DAYS} days, got {window}")
    half, day = window // 2, np.arange(DAYS)
    matrix = np.zeros((DAYS, DAYS))
    for offset in range(-half, half + 1):
        matrix[day, (day + offset) % DAYS] += 1 - abs(offset) / half
    return matrix / matrix.sum(axis=1, keepdims=True)


def step_matrix(ends: np.ndarray) -> np.ndarray:
    """Weights that give each day of the year the step that ends on it or next after it, `(366, 366)`; `ends`: 1 ... 366."""
    matrix = np.zeros((DAYS, DAYS))
    last = ends[np.searchsorted(ends, np.arange(1, DAYS + 1)) % len(ends)]
    matrix[np.arange(DAYS), last - 1] = 1.0
    return matrix


@dataclasses.dataclass(frozen=True)
class ClimatologyOptions:
    """What a climatology is of.

    Attributes:
      start, end: of the period, both included (see `emulator.planet.calendar.within`); None is open.
      window: days of the triangular window, odd.
      memory_gigabytes: for one field's sums; less takes its levels one after another. The result does not depend on it.
      settings: text of all that the values depend on, for the fingerprint; None: of the options above.
    """

    start: object = None
    end: object = None
    window: int = WINDOW
    memory_gigabytes: float = 2.0
    settings: str | None = None


def write_climatology(
    stores: Sequence, output, options: ClimatologyOptions, over: Over = one_by_one, report: Report = silent
) -> None:
    """Writes the climatology of analysis stores, one after another in time, as a store at `output`.

    It is written field by field, and level by level as memory allows; a killed run goes on where it was. Every value of the
    stores is read once where the sums of a whole field fit into the memory. Raises `ValueError` for a period that covers
    less than a year.
    """
    opened = [open_analysis(path) for path in stores]
    origin = ", ".join(str(each.attrs.get("fingerprint")) for each in opened)
    settings = options.settings or json.dumps([str(options.start), str(options.end), options.window])
    own = fingerprint(settings, origin)
    if finished_fingerprint(output) == own:
        log.info("%s is complete for this store and period", output)
        return
    series = AnalysisSeries.of(opened, options.start, options.end)
    first, last = series.times[0], series.times[-1]
    parts = [stretch.dataset for stretch in series.stretches]
    hours, days = map(np.unique, hour_and_leap_day(series.times))
    months = series.step.months
    if len(days) * months < 12 if months else len(days) < FEWEST_DAYS:
        raise ValueError(
            f"Expected a period of at least a year for a climatology of {stores[0]}, got {len(days)} days of the year from "
            f"{first} to {last}"
        )
    weights, space = step_matrix(days) if months else None, set(parts[0]["cell_area"].dims)
    names = [name for name in moving_variables(opened[0]) if space <= set(parts[0][name].dims)]  # a series has none
    template = _template(parts[0], names, hours).assign_attrs(
        emulator_schema=SCHEMA,
        fingerprint=own,
        window_days=0 if months else options.window,
        period_start=str(first),
        period_end=str(last),
        store_fingerprint=origin,
    )
    one = {axis: 1 for axis in VERTICAL if axis in template.dims}
    create(output, template, {"dayofyear": 1, **one}, {"dayofyear": DAYS, **one})
    shares = [share for name in names for share in _shares(parts[0][name], len(hours), options.memory_gigabytes)]
    written = marks(output)
    left = [share for share in shares if _key(*share) not in written]
    done = len(shares) - len(left)
    report(done, len(shares), "")
    for name, levels in left:
        axis = vertical_of(parts[0][name].dims)
        fields = [part[name] if axis is None else part[name].isel({axis: levels}) for part in parts]
        exists = domain_of(parts[0], name)
        exists = exists if axis is None or exists is None else exists[levels]
        values = cut(_sums(fields, hours, over).climatology(options.window, weights).astype(np.float32), exists)
        write_region(output, name, values, {} if axis is None else {axis: levels.start})
        mark(output, _key(name, levels))
        report(done := done + 1, len(shares), name)
    finish(output, [_key(*share) for share in shares])
    log.info("%s: %d fields, %s to %s", output, len(names), first, last)


def _shares(field: xr.DataArray, hours: int, gigabytes: float) -> list[tuple[str, slice | None]]:
    """A field whole, or some of its levels at a time: sums in float64, twice, and their smoothed means at once."""
    name, axis = str(field.name), vertical_of(field.dims)
    if axis is None:
        return [(name, None)]
    count = field.sizes[axis]
    one = 3 * 8 * hours * DAYS * field.isel({"time": 0, axis: 0}).size
    step = int(np.clip(gigabytes * 1e9 // one, 1, count))
    return [(name, slice(n, min(n + step, count))) for n in range(0, count, step)]


def _key(name: str, levels: slice | None) -> str:
    return name if levels is None else f"{name}.{levels.start:04d}-{levels.stop:04d}"


def _sums(fields: Sequence[xr.DataArray], hours: np.ndarray, over: Over) -> Sums:
    """Blocks are read by the workers and added up here, in their order: the result does not depend on who read what."""
    sums = Sums.none(hours, fields[0].isel(time=0).shape)
    for field in fields:
        times, length = field["time"].values, max(1, BLOCK_BYTES // (4 * field.isel(time=0).size))
        for first in range(0, len(times), 4 * length):
            edges = range(first, min(first + 4 * length, len(times)), length)
            tasks = [(field.variable, start, min(start + length, len(times))) for start in edges]
            for (_, start, stop), values in zip(tasks, over(_read, tasks, lambda count: None), strict=True):
                sums = sums.plus(values, times[start:stop])
    return sums


def _read(array: xr.Variable, start: int, stop: int) -> np.ndarray:
    return np.asarray(array.isel(time=slice(start, stop)).values, np.float32)


def _template(part: xr.Dataset, names, hours) -> xr.Dataset:
    fields = {}
    for name in names:
        dims = ("hour", "dayofyear", *part[name].dims[1:])
        shape = (len(hours), DAYS, *part[name].shape[1:])
        attributes = {"units": part[name].attrs.get("units", ""), "cell_methods": "time: mean over years"}
        fields[name] = (dims, np.broadcast_to(np.float32(0), shape), attributes)
    fields["cell_area"] = part["cell_area"].variable
    kept = {n: c.variable for n, c in part.coords.items() if n != "time" and "time" not in c.dims}
    coordinates = {"hour": hours.astype(np.int64), "dayofyear": np.arange(1, DAYS + 1), **kept}
    return xr.Dataset(fields, coordinates)
