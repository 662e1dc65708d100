"""Climatology by hour and day of the year with a triangular window, from one pass over a store, in any split.

WeatherBench 2's shape: the mean over years of every hour and day of the year, smoothed over 61 days with weights that fall
linearly to zero at both ends and run round the year. What is added up are sums and counts in float64, so blocks, processes
and years merge by addition. The day of the year is counted in a leap year (29 February is 60, 1 March always 61).
"""

import dataclasses

import numpy as np
import xarray as xr

DAYS = 366
WINDOW = 61
_BEFORE = np.concatenate([[0], np.cumsum([31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30])])  # days before each month


@dataclasses.dataclass(frozen=True, eq=False)
class Sums:
    """Sums and counts of a field by hour of the day and day of the year.

    Attributes:
      hours: `(hour,)`, hours of the day in the record, increasing.
      total: `(hour, 366, ...)` float64; count: `(hour, 366, ...)` int32 of the values that are not missing, with `...` either
        the axes of the field or ones, where every value is there.
    """

    hours: np.ndarray
    total: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, times: np.ndarray, hours: np.ndarray) -> "Sums":
        """Of `(time, ...)` values at datetime64 or cftime `(time,)`; `hours` as for the whole record.

        Raises `ValueError` for a time at another hour.
        """
        hour, day = hour_and_day(times)
        slot = np.searchsorted(hours, hour)
        if np.any(slot == len(hours)) or np.any(hours[np.minimum(slot, len(hours) - 1)] != hour):
            raise ValueError(f"Expected times at the hours {list(hours)}, got {sorted(set(hour.tolist()))}")
        good = np.isfinite(values)
        whole = bool(good.all())
        rest = values.shape[1:]
        total = np.zeros((len(hours), DAYS, *rest))
        count = np.zeros((len(hours), DAYS, *([1] * len(rest) if whole else rest)), np.int32)
        for number in range(len(values)):
            at = slot[number], day[number] - 1
            total[at] += values[number] if whole else np.where(good[number], values[number], 0.0)
            count[at] += 1 if whole else good[number]
        return cls(hours, total, count)

    def merge(self, other: "Sums") -> "Sums":
        """Of the values of both."""
        return Sums(self.hours, self.total + other.total, self.count + other.count)

    def climatology(self, window: int = WINDOW) -> np.ndarray:
        """The smoothed means, `(hour, 366, ...)` float64; NaN where the whole window has no value.

        The mean of every day comes first and days without values are left out of the window, so that a record of thirteen
        months, which has one January twice, gives February its own weight.
        """
        weights = window_matrix(window)
        out = np.empty_like(self.total)
        for slot in range(len(self.total)):
            total, count = self.total[slot], self.count[slot]
            with np.errstate(invalid="ignore", divide="ignore"):
                means = np.where(count > 0, total / count, 0.0).reshape(DAYS, -1)
                share = weights @ (count > 0).reshape(DAYS, -1).astype(np.float64)
                smooth = np.where(share > 0, (weights @ means) / share, np.nan)
            out[slot] = smooth.reshape(total.shape)
        return out


def hour_and_day(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hour of the day and day of a leap year, 1 ... 366, of datetime64 or cftime values `(time,)`."""
    clock = xr.DataArray(np.asarray(times), dims="time").dt
    return np.asarray(clock.hour.values, int), _BEFORE[clock.month.values - 1] + clock.day.values


def window_matrix(window: int = WINDOW) -> np.ndarray:
    """Weights of the days around each day, `(366, 366)`; rows sum to 1. Raises `ValueError` for an even window."""
    if window % 2 == 0 or not 3 <= window <= DAYS:
        raise ValueError(f"Expected an odd window of 3 to {DAYS} days, got {window}")
    half, day = window // 2, np.arange(DAYS)
    matrix = np.zeros((DAYS, DAYS))
    for offset in range(-half, half + 1):
        matrix[day, (day + offset) % DAYS] += 1 - abs(offset) / half
    return matrix / matrix.sum(axis=1, keepdims=True)
