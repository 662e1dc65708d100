"""Climatology of the truth: what anomalies are taken from, and the forecast that knows only the date.

By hour and day of year with a triangular window (WeatherBench 2's shape, whose two end days weigh zero) when the record
covers the year, in steps of up to half a window; the window widens when years are few. A record shorter than a year cannot
give an annual cycle: then the climatology is the mean by hour, and says so.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import xarray as xr

from emulator.planet.calendar import hour_and_leap_day, in_seconds, within

DAYS = 366
COVERED = 0.98  # share of the days of the year that a daily climatology must find in its record
FULL_WINDOW = 61  # days, WeatherBench 2
SHORTEST_DAYS = 30
LONGEST_STEP = 30.0  # days: the window of a day between two times of the record holds one of them, with some weight
BLOCK_BYTES = 2**25  # 2**27 was no faster and took 0.5 GB more
KEEP_BYTES = 2**28
SLOT_DAYS = 10  # quantiles are the same for so many days
HALF_WINDOW = 30  # days to both sides of the middle of the slot: 61 in all, as the climatology's
MOST_SAMPLES = 488  # 8 years of 61 days; of a longer record every n-th sample is taken


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a climatology is made, decided once for all variables from the times of its record.

    Attributes:
      kind: "daily" (hour and day of year), "monthly" (the date of a record of calendar steps) or "mean" (hour only).
      window: days of the triangular window, odd; 0 for the others.
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

    def nearest(self, day: np.ndarray) -> np.ndarray:
        """Positions of the nearest days of the year among those that the record has."""
        have = np.unique(self.day)
        return np.abs((np.asarray(day)[..., None] - have + DAYS / 2) % DAYS - DAYS / 2).argmin(axis=-1)

    def describe(self) -> str:
        if self.kind == "mean":
            return f"mean by hour of day over {self.years * 365.25:.0f} days (too short a record for an annual cycle)"
        if self.kind == "monthly":
            return f"calendar month, {len(np.unique(self.day))} in a year, {self.years:.1f} years"
        return f"hour and day of year, {self.window}-day triangular window, {self.years:.1f} years"


def record(time: np.ndarray, first_init, start=None, end=None, starts: np.ndarray | None = None) -> np.ndarray:
    """Positions of the times that the climatology is made from.

    From `start` to `end` where given (`starts` as of `within`); else all times before the first initial time, so that what is
    verified is not known beforehand; else, where those cover less than `SHORTEST_DAYS`, all times.
    """
    if start is not None or end is not None:
        return np.flatnonzero(within(time, start, end, starts))
    before = np.flatnonzero(time < first_init)
    if len(before) > 1:
        span = time[before[-1]] - time[before[0]]
        if in_seconds(span) / 86400 >= SHORTEST_DAYS:
            return before
    return np.arange(len(time))


def recipe(time: xr.DataArray, positions: np.ndarray, months: int = 0) -> Recipe:
    """The best climatology that the truth's times at `positions` can give. Raises `ValueError` when there are none.

    `months`: of a truth's calendar steps, which have dates of their own and need no window.
    """
    if not len(positions):
        raise ValueError("Expected truth in the period of the climatology, got no times")
    record = time[positions]
    hour, day = hour_and_leap_day(record.values)
    step = float(np.median(np.diff(record.values).astype("timedelta64[s]").astype(float))) if len(record) > 1 else 0.0
    span = record.values[-1] - record.values[0]
    years = (float(in_seconds(span)) + step) / (365.25 * 86400)
    if months and len(np.unique(day)) * months >= 12:
        return Recipe("monthly", 0, years, positions, hour, day)
    if _days_covered(day, step / 86400) < COVERED * 365:
        return Recipe("mean", 0, years, positions, hour, day)
    # Sampling error falls with years x window, smoothing of the annual cycle grows with the window: 121 days keep 91 % of
    # its amplitude, 91 days 95 %, 61 days 98 %.
    window = 121 if years < 2 else 91 if years < 4 else FULL_WINDOW
    return Recipe("daily", window, years, positions, hour, day)


def _days_covered(day: np.ndarray, step: float) -> int:
    """Days of the year that a record of some days of the year, a step of so many days apart, has a time for."""
    near = int(step // 2) if step <= LONGEST_STEP else 0
    have = (np.unique(day)[:, None] + np.arange(-near, near + 1) - 1) % DAYS
    return len(np.unique(have))


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
        when: tuple[np.ndarray, np.ndarray] | None = None,
    ):
        """`read`: positions in time -> truth `(time, level, cell)`, called in blocks; `area`: `(cell,)`.

        `when`: all hours and days that `at` will be asked for, `(n,)` each, which saves memory and time for a verification
        of one season; None for any.
        """
        self._hours, self._place, window, slot = _wanted(plan, when)
        shape = read(plan.positions[:1]).shape[1:]
        kept = bool(keep) and 4 * len(plan.positions) * len(keep) * shape[1] <= KEEP_BYTES
        self.record = np.empty((len(plan.positions), len(keep), shape[1]), np.float32) if kept else None
        total = np.zeros((len(self._hours), window.shape[1], *shape))
        count = np.zeros((len(self._hours), window.shape[1], shape[0], 1), np.int32)  # of cells where one is missing
        sums, squares, self.series = np.zeros(shape[0]), np.zeros(shape[0]), []
        lowest, highest = np.full(shape[0], np.inf), np.full(shape[0], -np.inf)
        block = max(1, BLOCK_BYTES // (8 * int(np.prod(shape))))
        for start in range(0, len(plan.positions), block):
            part = slice(start, start + block)
            values = np.asarray(read(plan.positions[part]), np.float64)
            if self.record is not None:
                self.record[part] = values[:, list(keep)]
            finite = np.isfinite(values)
            finite = None if finite.all() else finite
            if finite is not None and count.shape[-1] != shape[1]:
                count = np.repeat(count, shape[1], axis=-1)
            least = values if finite is None else np.where(finite, values, np.inf)
            most = values if finite is None else np.where(finite, values, -np.inf)
            lowest = np.minimum(lowest, least.min(axis=(0, 2)))
            highest = np.maximum(highest, most.max(axis=(0, 2)))
            del least, most
            if finite is not None:
                values = np.where(finite, values, 0.0)
            hours = np.searchsorted(self._hours, plan.hour[part]).clip(0, len(self._hours) - 1)
            for index, (hour, day) in enumerate(zip(hours, slot[plan.day[part] - 1], strict=True)):
                if day >= 0 and self._hours[hour] == plan.hour[start + index]:
                    total[hour, day] += values[index]
                    count[hour, day] += 1 if finite is None else finite[index]
            means = _nan_mean(values, finite, area)
            self.series.append(means)
            sums += np.nansum(means, axis=0)
            squares += np.nansum(_nan_mean(np.square(values, out=values), finite, area), axis=0)
        self.series = np.concatenate(self.series)
        samples = np.maximum(np.isfinite(self.series).sum(axis=0), 1)
        self.mean = sums / samples
        self.deviation = np.sqrt(np.maximum(squares / samples - self.mean**2, 0.0))
        with np.errstate(invalid="ignore", divide="ignore"):
            self.extreme = np.maximum(highest - self.mean, self.mean - lowest) / self.deviation
        self._field = _smooth(total, count, window) if plan.kind == "daily" else _quotient(total, count)

    def forget(self) -> None:
        """Lets go of the fields; what was reduced over cells stays."""
        self._field, self.record = None, None

    def at(self, hour: np.ndarray, day: np.ndarray) -> np.ndarray:
        """Climatology at hours of day and days of year, each `(n,)` -> `(n, level, cell)`, NaN where it has no data.

        An hour that the record lacks takes the nearest one that it has.
        """
        return self._field[_nearest(hour, self._hours), self._place[day - 1]]


def _nearest(hour: np.ndarray, hours: np.ndarray) -> np.ndarray:
    """Positions of the nearest hours of day."""
    return np.abs((np.asarray(hour)[:, None] - hours[None, :] + 12) % 24 - 12).argmin(axis=1)


def _wanted(plan: Recipe, when) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Hours kept; row of each day of the year among those asked for; weights `(row, slot day)`; place of each slot day.

    Rows and places are -1 for days that are not asked for, or have no weight in any that is.
    """
    hours = np.unique(plan.hour)
    if when is not None:
        hours = hours[np.unique(_nearest(when[0], hours))]
    if plan.kind == "mean":
        return hours, np.zeros(DAYS, np.int64), np.ones((1, 1)), np.zeros(DAYS, np.int64)
    if plan.kind == "monthly":
        row, slot, have = plan.nearest(np.arange(1, DAYS + 1)), np.full(DAYS, -1), np.unique(plan.day) - 1
        slot[have] = np.arange(len(have))
        return hours, row, np.eye(len(have)), slot
    days = np.arange(DAYS) if when is None else np.unique(when[1]) - 1
    half, window = plan.window // 2, np.zeros((len(days), DAYS))
    for offset, weight in zip(range(-half, half + 1), triangular_weights(plan.window), strict=True):
        window[np.arange(len(days)), (days + offset) % DAYS] += weight
    used = np.flatnonzero(window.any(axis=0))
    row, slot = np.full(DAYS, -1), np.full(DAYS, -1)
    row[days], slot[used] = np.arange(len(days)), np.arange(len(used))
    return hours, row, np.ascontiguousarray(window[:, used]), slot


def slots(plan: Recipe, when) -> int:
    """Fields of one level that a climatology for some hours and days holds in memory."""
    hours, _, window, _ = _wanted(plan, when)
    return len(hours) * window.shape[1]


def _smooth(total: np.ndarray, count: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Climatology `(hour, row, level, cell)` from sums `(hour, slot day, level, cell)`, in their place, and counts of the
    same shape or with one cell for all.

    The window `(row, slot day)` is one matrix product for each hour: 0.6 s for 8 levels of 48 x 96 cells and all days,
    where a sum per day took minutes.
    """
    rows, days = window.shape
    for slot in range(len(total)):
        # The mean of every day comes first: a record of 13 months holds one January twice, which must not pull February.
        means = np.divide(total[slot], count[slot], out=total[slot], where=count[slot] > 0).reshape(days, -1)
        known = (count[slot] > 0).reshape(days, -1)
        alike = (known == known[:, :1]).all()  # no cell is missing alone
        share = window @ (known[:, :1] if alike else known).astype(np.float64)
        total[slot, :rows] = _quotient(window @ means, share).reshape(rows, *total.shape[2:])
    return total[:, :rows]


def _quotient(total, count):
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, total / count, np.nan)


def _nan_mean(values, finite, area):
    if finite is None:
        return values @ area
    with np.errstate(invalid="ignore", divide="ignore"):
        return (values @ area) / (finite.astype(np.float64) @ area)


class SlotFields:
    """Fields made from the record's samples of each slot: an hour of day, and ten days, or all of a record below a year.

    Of a record of calendar steps the slots are their dates.
    """

    def __init__(
        self,
        plan: Recipe,
        read: Callable[[np.ndarray], np.ndarray],
        hour: np.ndarray,
        day: np.ndarray,
        make: Callable[[np.ndarray], np.ndarray],
    ):
        """`plan`: the climatology's recipe, whose record is used. `read`: positions in it -> truth `(n, level, cell)`.

        `hour`, `day`: all that will be asked for; `make`: samples `(n, level, cell)` -> `(..., level, cell)` float32.
        """
        self._hours, self._kind = np.unique(plan.hour), plan.kind
        self._nearest = plan.nearest if plan.kind == "monthly" else None
        wanted = sorted(set(self._slots(hour, day)))
        self._place = {slot: index for index, slot in enumerate(wanted)}
        self._fields = np.stack([make(read(self._samples(plan, *slot))) for slot in wanted]).astype(np.float32)

    def _slots(self, hour: np.ndarray, day: np.ndarray) -> list[tuple[int, int]]:
        """Positions of the hour of day, the nearest that the record has, and of the ten days, or the date."""
        blocks = (np.asarray(day) - 1) // SLOT_DAYS * (self._kind == "daily")
        if self._kind == "monthly":
            blocks = self._nearest(day)
        return list(zip(_nearest(hour, self._hours).tolist(), blocks.tolist(), strict=True))

    def _samples(self, plan: Recipe, hour: int, block: int) -> np.ndarray:
        """Positions in the record of the times that belong to a slot."""
        belongs = plan.hour == self._hours[hour]
        if self._kind == "monthly":
            belongs &= self._nearest(plan.day) == block
        if self._kind == "daily":
            middle = SLOT_DAYS * block + (SLOT_DAYS + 1) / 2
            apart = np.abs((plan.day - middle + DAYS / 2) % DAYS - DAYS / 2)
            belongs &= apart <= HALF_WINDOW
        index = np.flatnonzero(belongs)
        return index[:: -(-len(index) // MOST_SAMPLES)]

    def at(self, hour: np.ndarray, day: np.ndarray) -> np.ndarray:
        """The fields at hours and days, each `(n,)` -> `(n, ..., level, cell)`."""
        return self._fields[[self._place[slot] for slot in self._slots(hour, day)]]
