"""Climatology of the truth: what anomalies are taken from, and the forecast that knows only the date.

By hour and day of year with a triangular window (WeatherBench 2's shape, whose two end days weigh zero) when the record
covers the year; the window widens when years are few. A record shorter than a year cannot give an annual cycle: then the
climatology is the mean by hour, and says so.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import xarray as xr

from emulator.verify.align import times_within

DAYS = 366
COVERED = 0.98  # share of the days of the year that a daily climatology must find in its record
FULL_WINDOW = 61  # days, WeatherBench 2
SHORTEST_DAYS = 30
BLOCK_BYTES = 2**27
KEEP_BYTES = 2**28


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a climatology is made, decided once for all variables from the times of its record.

    Attributes:
      kind: "daily" (hour and day of year) or "mean" (hour only).
      window: days of the triangular window, odd; 0 for "mean".
      years: length of the record in years.
      positions: positions of the record's times in the truth store.
      hour, day: hour of day and day of year (1 ... 366, 29 February always 60) of every time of the record.
    """

    kind: str
    window: int
    years: float
    positions: np.ndarray
    hour: np.ndarray
    day: np.ndarray

    def describe(self) -> str:
        if self.kind == "mean":
            return f"mean by hour of day over {self.years * 365.25:.0f} days (too short a record for an annual cycle)"
        return f"hour and day of year, {self.window}-day triangular window, {self.years:.1f} years"


def record(time: np.ndarray, first_init, start=None, end=None) -> np.ndarray:
    """Positions of the times that the climatology is made from.

    From `start` to `end` where given; else all times before the first initial time, so that what is verified is not known
    beforehand; else, where those cover less than `SHORTEST_DAYS`, all times.
    """
    if start is not None or end is not None:
        return np.flatnonzero(np.isin(time, times_within(time, start, end)))
    before = np.flatnonzero(time < first_init)
    if len(before) > 1:
        span = time[before[-1]] - time[before[0]]
        days = span.total_seconds() / 86400 if time.dtype == object else span / np.timedelta64(1, "D")
        if days >= SHORTEST_DAYS:
            return before
    return np.arange(len(time))


def recipe(time: xr.DataArray, positions: np.ndarray) -> Recipe:
    """The best climatology that the truth's times at `positions` can give. Raises `ValueError` when there are none."""
    if not len(positions):
        raise ValueError("Expected truth in the period of the climatology, got no times")
    record = time[positions]
    hour, day = hour_of_day(record), day_of_year(record)
    step = float(np.median(np.diff(record.values).astype("timedelta64[s]").astype(float))) if len(record) > 1 else 0.0
    span = record.values[-1] - record.values[0]
    seconds = span / np.timedelta64(1, "s") if record.dtype != object else span.total_seconds()
    years = (seconds + step) / (365.25 * 86400)
    if len(np.unique(day)) < COVERED * 365:
        return Recipe("mean", 0, years, positions, hour, day)
    # Sampling error falls with years x window, smoothing of the annual cycle grows with the window: 121 days keep 91 % of
    # its amplitude, 91 days 95 %, 61 days 98 %.
    window = 121 if years < 2 else 91 if years < 4 else FULL_WINDOW
    return Recipe("daily", window, years, positions, hour, day)


def hour_of_day(time: xr.DataArray) -> np.ndarray:
    return np.asarray(time.dt.hour.values, np.int64)


def day_of_year(time: xr.DataArray) -> np.ndarray:
    """Day of a leap year, 1 ... 366, so that 1 March is 61 in every year and a date always means the same season."""
    month, day = np.asarray(time.dt.month.values), np.asarray(time.dt.day.values)
    before = np.concatenate([[0], np.cumsum([31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30])])
    return before[month - 1] + day


def triangular_weights(window: int) -> np.ndarray:
    """Weights of the days -window//2 ... window//2 around a date, summing to 1, zero at both ends."""
    half = window // 2
    weights = 1.0 - np.abs(np.arange(-half, half + 1)) / half
    return weights / weights.sum()


class Climatology:
    """Climatology of one variable at the hours and days it is asked for.

    Attributes:
      mean, deviation: per level `(level,)`, over cells (by area) and the times of the record.
      extreme: largest departure from `mean` of any cell at any time, in units of `deviation`, `(level,)`.
      series: area mean at every time of the record, `(time, level)`.
      record: the record itself at the levels `keep`, float32 `(time, level, cell)`; None without any or above `KEEP_BYTES`.
    """

    def __init__(
        self,
        read: Callable[[np.ndarray], np.ndarray],
        plan: Recipe,
        area: np.ndarray,
        keep: tuple[int, ...] = (),
    ):
        """`read`: positions in time -> truth `(time, level, cell)`, called in blocks; `area`: `(cell,)`."""
        self._plan = plan
        self._hours = np.unique(plan.hour)
        shape = read(plan.positions[:1]).shape[1:]
        held = bool(keep) and 4 * len(plan.positions) * len(keep) * shape[1] <= KEEP_BYTES
        self.record = np.empty((len(plan.positions), len(keep), shape[1]), np.float32) if held else None
        days = DAYS if plan.kind == "daily" else 1
        total = np.zeros((len(self._hours), days, *shape))
        count = np.zeros((len(self._hours), days, *shape), np.int32)
        sums, squares, self.series = np.zeros(shape[0]), np.zeros(shape[0]), []
        lowest, highest = np.full(shape[0], np.inf), np.full(shape[0], -np.inf)
        block = max(1, BLOCK_BYTES // (8 * int(np.prod(shape))))
        for start in range(0, len(plan.positions), block):
            part = slice(start, start + block)
            values = np.asarray(read(plan.positions[part]), np.float64)
            slots = (
                np.searchsorted(self._hours, plan.hour[part]),
                (plan.day[part] - 1 if days > 1 else 0 * plan.day[part]),
            )
            if self.record is not None:
                self.record[part] = values[:, list(keep)]
            finite = np.isfinite(values)
            lowest = np.minimum(lowest, np.where(finite, values, np.inf).min(axis=(0, 2)))
            highest = np.maximum(highest, np.where(finite, values, -np.inf).max(axis=(0, 2)))
            values = np.where(finite, values, 0.0)
            for index, (hour, day) in enumerate(zip(*slots, strict=True)):
                total[hour, day] += values[index]
                count[hour, day] += finite[index]
            means = _nan_mean(values, finite, area)
            self.series.append(means)
            sums += np.nansum(means, axis=0)
            squares += np.nansum(_nan_mean(values**2, finite, area), axis=0)
        self.series = np.concatenate(self.series)
        samples = np.maximum(np.isfinite(self.series).sum(axis=0), 1)
        self.mean = sums / samples
        self.deviation = np.sqrt(np.maximum(squares / samples - self.mean**2, 0.0))
        with np.errstate(invalid="ignore", divide="ignore"):
            self.extreme = np.maximum(highest - self.mean, self.mean - lowest) / self.deviation
        self._field = self._smooth(total, count)

    def forget(self) -> None:
        """Lets go of the fields; what was reduced over cells stays."""
        self._field, self.record = None, None

    def _smooth(self, total: np.ndarray, count: np.ndarray) -> np.ndarray:
        """Climatology `(hour, day, level, cell)` from sums and counts, in the place of the sums.

        The window is one matrix product over the days of the year for each hour: 0.6 s for 8 levels of 48 x 96 cells, where
        a sum per day took minutes.
        """
        if self._plan.kind == "mean":
            return _quotient(total, count)
        half = self._plan.window // 2
        window = np.zeros((DAYS, DAYS))
        day = np.arange(DAYS)
        for offset, weight in zip(range(-half, half + 1), triangular_weights(self._plan.window), strict=True):
            window[day, (day + offset) % DAYS] += weight
        for slot in range(len(total)):
            # The mean of every day comes first: a record of 13 months holds one January twice, which must not pull February.
            means = np.divide(total[slot], count[slot], out=total[slot], where=count[slot] > 0).reshape(DAYS, -1)
            held = (count[slot] > 0).reshape(DAYS, -1)
            alike = (held == held[:, :1]).all()  # no cell is missing alone
            share = window @ (held[:, :1] if alike else held).astype(np.float64)
            total[slot] = _quotient(window @ means, share).reshape(total[slot].shape)
        return total

    def at(self, hour: np.ndarray, day: np.ndarray) -> np.ndarray:
        """Climatology at hours of day and days of year, each `(n,)` -> `(n, level, cell)`, NaN where it has no data.

        An hour that the record lacks takes the nearest one that it has.
        """
        distance = np.abs((hour[:, None] - self._hours[None, :] + 12) % 24 - 12)
        slot = distance.argmin(axis=1)
        return self._field[slot, day - 1 if self._field.shape[1] > 1 else 0 * day]


def _quotient(total, count):
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, total / count, np.nan)


def _nan_mean(values, finite, area):
    if finite.all():
        return values @ area
    with np.errstate(invalid="ignore", divide="ignore"):
        return (values @ area) / (finite.astype(np.float64) @ area)
