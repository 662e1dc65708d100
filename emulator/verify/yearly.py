"""A record of one field by whole years, from one pass over it: what trends, variability from year to year and a
reference's own spread are made of."""

import dataclasses
from collections.abc import Callable

import numpy as np
import xarray as xr

from emulator.planet.calendar import TimeStep, hour_and_leap_day, seconds_between
from emulator.planet.grid import Grid
from emulator.verify.climate import BLOCK_BYTES, MONTHS, month_of
from emulator.verify.metrics.spectra import power_spectrum, spectrum_kind

WHOLE = 359.5  # days that a year lasts at least, of 360-day calendars too
SPECTRA = 73  # of a year, evenly: more would cost as much as reading it, and neighbours are alike
DETRENDED = 5  # years from which on a line is taken out before the spread from year to year
MONTH_SLACK = 3  # days by which the middles of one month differ from year to year


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """The times of a record, as its reduction needs them.

    Attributes:
      year: `(time,)` the calendar year in which the year of each time begins; -1 outside of whole years.
      month: 0 ... 11 `(time,)`. phase: of the annual cycle, in radians `(time,)`.
      index: departures of a series that fields are regressed on `(time,)`; None without one.
    """

    year: np.ndarray
    month: np.ndarray
    phase: np.ndarray
    index: np.ndarray | None = None

    @classmethod
    def of(cls, times, first_day: int) -> "Moments":
        """Of datetime64 or cftime values; `first_day`: of a leap year, 1 ... 366, on which years begin (see
        `year_start`).
        """
        return cls(year_numbers(times, first_day), month_of(times), _phase(times))

    @property
    def years(self) -> np.ndarray:
        """Labels of the whole years, `(year,)`."""
        return np.unique(self.year[self.year >= 0])


def year_start(times, step: TimeStep) -> int:
    """The day of a leap year on which the years of a record begin, so that its first year is whole."""
    day = int(hour_and_leap_day(times[:1])[1][0])
    return max(1, day - MONTH_SLACK) if step.months else day


def year_numbers(times, first_day: int) -> np.ndarray:
    """The year that each time belongs to, -1 where the record does not have it whole: `(time,)` int.

    Years begin on `first_day` of a leap year, and are called by the calendar year in which they do.
    """
    times = np.asarray(times)
    if len(times) < 2:
        return np.full(len(times), -1)
    number = xr.DataArray(times, dims="time").dt.year.values - (hour_and_leap_day(times)[1] < first_day)
    spacing = np.median(seconds_between(times)) / 86400
    for label in np.unique(number):
        own = np.flatnonzero(number == label)
        span = seconds_between(times[own[[0, -1]]])[0] / 86400 + spacing
        if span < WHOLE or len(own) < 0.95 * span / spacing:
            number[own] = -1
    return number


def _phase(times) -> np.ndarray:
    return 2 * np.pi * hour_and_leap_day(times)[1] / 366.0


@dataclasses.dataclass(frozen=True, eq=False)
class Years:
    """Whole years of one record of one field on some cells.

    Attributes:
      label: `(year,)` int. mean, highest: of every year, `(year, cell)`.
      cycle: first harmonic of the annual cycle, `(year, cell)` complex: its size is the amplitude.
      monthly: area means of the calendar months, `(year, 12)`, NaN where there are none.
      power: mean power by wavenumber, `(year, wavenumber)`; None without a spectrum.
      along: sum over a year of the field's departures from its mean months times the index, `(year, cell)`, and of the
        index squared, `(year,)`; None without.
    """

    label: np.ndarray
    mean: np.ndarray
    highest: np.ndarray
    cycle: np.ndarray
    monthly: np.ndarray
    power: np.ndarray | None = None
    along: tuple[np.ndarray, np.ndarray] | None = None

    def chosen(self, which: np.ndarray) -> "Years":
        """Some of the years, by a boolean mask."""
        power = None if self.power is None else self.power[which]
        along = None if self.along is None else tuple(part[which] for part in self.along)
        parts = (self.label, self.mean, self.highest, self.cycle, self.monthly)
        return Years(*(part[which] for part in parts), power, along)


def years_of(
    read: Callable[[slice], np.ndarray], moments: Moments, area: np.ndarray, grid: Grid | None, members: int = 1
) -> list[Years]:
    """Reduces the whole years of a record, for every member.

    `read` gives `(member, time, cell)`, `area` `(cell,)` sums to 1; `grid`: of the cells, for spectra, None: without.
    """
    labels, cells = moments.years, len(area)
    shape, spectra = (members, len(labels), cells), grid is not None and spectrum_kind(grid) is not None
    total, highest, along = np.zeros(shape), np.full(shape, -np.inf), np.zeros(shape)
    cycle, monthly = np.zeros(shape, complex), np.zeros((members, len(labels), MONTHS))
    season = np.zeros((members, MONTHS, cells))
    power = [[[] for _ in labels] for _ in range(members)]
    stride = {label: -(-int((moments.year == label).sum()) // SPECTRA) for label in labels}
    block = max(1, BLOCK_BYTES // (8 * cells * members))
    for start in range(0, len(moments.year), block):
        part = slice(start, min(start + block, len(moments.year)))
        if (moments.year[part] < 0).all():
            continue
        values = np.asarray(read(part), np.float64)
        for at, label in enumerate(labels):
            own = np.flatnonzero(moments.year[part] == label)
            if not len(own):
                continue
            fields, place = values[:, own], start + own
            total[:, at] += fields.sum(axis=1)
            np.maximum(highest[:, at], fields.max(axis=1), out=highest[:, at])
            cycle[:, at] += np.einsum("mtc,t->mc", fields, np.exp(-1j * moments.phase[place]))
            means = fields @ area
            for month in np.unique(moments.month[place]):
                monthly[:, at, month] += means[:, moments.month[place] == month].sum(axis=1)
            if moments.index is not None:
                along[:, at] += np.einsum("mtc,t->mc", fields, moments.index[place])
                for month in np.unique(moments.month[place]):
                    season[:, month] += fields[:, moments.month[place] == month].sum(axis=1)
            if spectra:
                for member in range(members):
                    some = fields[member, place % stride[label] == 0].reshape(-1, *grid.shape)
                    power[member][at].append(power_spectrum(some, grid))
    if moments.index is not None:
        along -= _of_season(moments, season)
    return [_year_means(moments, *arrays) for arrays in zip(total, highest, along, cycle, monthly, power, strict=True)]


def _of_season(moments: Moments, season: np.ndarray) -> np.ndarray:
    """What the mean annual cycle, `(member, 12, cell)` as sums, has of the fields times the index: 0 over all years."""
    inside = moments.year >= 0
    own = [[(moments.year == label) & (moments.month == month) for month in range(MONTHS)] for label in moments.years]
    weight = np.array([[moments.index[some].sum() for some in year] for year in own])
    count = np.bincount(moments.month[inside], minlength=MONTHS)
    return np.einsum("ym,kmc->kyc", weight / np.maximum(count, 1), season)


def _year_means(moments: Moments, total, highest, along, cycle, monthly, power) -> Years:
    labels = moments.years
    count = np.array([(moments.year == label).sum() for label in labels])
    by_month = [[((moments.year == n) & (moments.month == m)).sum() for m in range(MONTHS)] for n in labels]
    by_month = np.array(by_month).reshape(-1, MONTHS)
    seasonal, mean = count[:, None] >= MONTHS, total / count[:, None]  # fewer samples of a year have no cycle
    # years without a leap day do not go round: their mean is no part of the wave
    wave = np.array([np.exp(-1j * moments.phase[moments.year == n]).sum() for n in labels])
    cycle = cycle - wave[:, None] * mean
    squares = (
        None if moments.index is None else np.array([(moments.index[moments.year == n] ** 2).sum() for n in labels])
    )
    return Years(
        labels,
        mean,
        highest,
        np.where(seasonal, 2 * cycle / count[:, None], np.nan),
        np.where(by_month > 0, monthly / np.maximum(by_month, 1), np.nan),
        np.stack([np.concatenate(p).mean(axis=0) for p in power]) if len(power) and power[0] else None,
        None if squares is None else (along, squares),
    )


def line(values: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least-squares line of `(year, ...)`: value in the middle of the years, slope per year, standard error of the slope.

    The error takes years as independent; NaN with less than three.
    """
    x = label - label.mean()
    middle, size = values.mean(axis=0), float(x @ x)
    slope = np.tensordot(x, values, 1) / size if size else np.full_like(middle, np.nan)
    rest = values - middle - x.reshape(-1, *[1] * middle.ndim) * slope
    freedom = len(label) - 2
    error = np.sqrt((rest**2).sum(axis=0) / (freedom * size)) if freedom > 0 else np.full_like(middle, np.nan)
    return middle, slope, error


def residuals(values: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, int]:
    """Departures of `(year, ...)` from their mean, or from their line where there are enough years, and degrees of
    freedom.
    """
    middle = values.mean(axis=0)
    if len(label) < DETRENDED:
        return values - middle, len(label) - 1
    slope = line(values, label)[1]
    x = (label - label.mean()).reshape(-1, *[1] * middle.ndim)
    return values - middle - x * slope, len(label) - 2


def spread(values: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Standard deviation from year to year of `(year, ...)`, without a trend from five years on; NaN of one year."""
    rest, freedom = residuals(values, label)
    return np.sqrt((rest**2).sum(axis=0) / freedom) if freedom > 0 else np.full(values.shape[1:], np.nan)
