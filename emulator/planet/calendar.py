"""Time axes: steps of fixed length and of calendar months, periods, day of the year and hour.

All alike for datetime64 and cftime values. A calendar step is a whole number of months (a season has 3, a year 12): its
length in seconds differs from step to step, and leads along it are counted in months, as integers.
"""

import dataclasses
import datetime
import re

import numpy as np
import xarray as xr

from emulator.planet.dates import after_month, instant, is_past_month, parts_of
from emulator.planet.months import days_of_month, month_numbers, months_later

MONTH_SECONDS = 2629746.0  # nominal, in every calendar: a twelfth of the Gregorian year of 365.2425 days
UNITS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0, "week": 604800.0}  # spans of time, in seconds
MONTHS = {"month": 1, "season": 3, "year": 12}
_BEFORE = np.concatenate([[0], np.cumsum([31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30])])  # days before each month


def day_and_hour(times) -> tuple[np.ndarray, np.ndarray]:
    """Day of the year (1..366) and fractional hour of datetime64 or cftime values `(time,)`.

    Of 360-day calendars the day as a fraction that runs through a whole year of 365.25 days, as their sun does.
    """
    times = np.asarray(times)
    if times.dtype.kind == "M" and not np.isnat(times).any():  # as xarray, which takes 1 ms for it
        seconds = times.astype("datetime64[s]")
        date = seconds.astype("datetime64[D]")
        day = (date - date.astype("datetime64[Y]")).astype(np.int64) + 1
        minutes, second = np.divmod((seconds - date).astype(np.int64), 60)
        hour, minute = np.divmod(minutes, 60)
        return day, hour + minute / 60 + second / 3600
    clock = xr.DataArray(times, dims="time").dt
    day = clock.dayofyear.values
    if times.dtype == object and len(times) and times[0].calendar == "360_day":
        day = 1 + (day - 1) * (365.25 / 360)
    return day, (clock.hour + clock.minute / 60 + clock.second / 3600).values


def hour_and_leap_day(times) -> tuple[np.ndarray, np.ndarray]:
    """Hour of the day, and day of a leap year: 1 ... 366, so that 1 March is 61 in every year; each `(time,)` int.

    30 February of 360-day calendars is 60, as the 29th.
    """
    clock = xr.DataArray(np.asarray(times), dims="time").dt
    month, day = clock.month.values, np.asarray(clock.day.values, int)
    return np.asarray(clock.hour.values, int), _BEFORE[month - 1] + np.where(month == 2, np.minimum(day, 29), day)


def later(times, seconds: float):
    """One time or an array of times, datetime64 or cftime, moved by some seconds (negative: earlier)."""
    if np.asarray(times).dtype.kind == "M":
        return times + np.timedelta64(round(seconds * 1e6), "us")
    return times + datetime.timedelta(seconds=seconds)


@dataclasses.dataclass(frozen=True)
class TimeStep:
    """The step of a uniform time axis, or a span of time: of fixed length, or a number of calendar months.

    Attributes:
      seconds: length; of months the nominal one, which is the same in every calendar. 0: of one time alone.
      months: of a calendar step; 0 for a fixed length.
    """

    seconds: float = 0.0
    months: int = 0

    def __post_init__(self):
        if self.months < 0 or self.seconds < 0:
            raise ValueError(f"Expected a step of positive length, got {self.seconds:g} s and {self.months} months")
        if self.months:
            object.__setattr__(self, "seconds", self.months * MONTH_SECONDS)

    def __str__(self) -> str:
        if self.months:
            return f"{self.months} month{'s' * (self.months > 1)}"
        return f"{self.seconds / 3600:g} h"

    @classmethod
    def parse(cls, text: str) -> "TimeStep":
        """From `6 hours`, `1 day`, `month`, `3 months`, `1 year`, .... Raises `ValueError` with the units that there are."""
        found = re.fullmatch(r"\s*([0-9.]*)\s*([a-z]+?)s?\s*", str(text).lower())
        unit = {"h": "hour", "d": "day", "s": "second"}.get(found[2], found[2]) if found else None
        try:
            count = float(found[1] or 1) if found else 0.0
        except ValueError:
            count = 0.0
        if count > 0 and unit in MONTHS and count == round(count):
            return cls(months=MONTHS[unit] * round(count))
        if count > 0 and unit in UNITS:
            return cls(count * UNITS[unit])
        raise ValueError(
            f"Expected a number of {', '.join(f'{name}s' for name in (*UNITS, *MONTHS))} (whole ones of the last "
            f"{len(MONTHS)}), got {text!r}"
        )

    @classmethod
    def of(cls, dataset: xr.Dataset) -> "TimeStep":
        """Between neighbours of `time`, or of a forecast's `lead_time`; of one time as the attributes have it.

        Raises `ValueError` for an irregular axis.
        """
        name = "lead_time" if "lead_time" in dataset.dims else "time"
        if name == "time" and dataset.sizes.get("time") == 1 and (seconds := dataset.attrs.get("time_step_seconds")):
            return cls(float(seconds), int(dataset.attrs.get("time_step_months", 0)))
        return cls.along(dataset[name].values, name, "the dataset", bool(dataset.attrs.get("time_step_months")))

    @classmethod
    def along(cls, times, name, path, calendar: bool = False) -> "TimeStep":
        """The step of times, or of leads (timedelta64, or integers for months), `(time,)`; of no length for one.

        `calendar`: in months where both fit, as months of 30 days do. Raises `ValueError` naming the axis and the path for
        values that do not increase or are irregular.
        """
        times = np.asarray(times)
        if len(times) < 2:
            return cls()
        months = np.diff(times) if times.dtype.kind in "iu" else None
        steps = seconds_between(times) if months is None else months * MONTH_SECONDS
        if np.any(steps <= 0):
            at = int(np.argmax(steps <= 0))
            raise ValueError(f"Expected strictly increasing {name} in {path}, got {times[at]} then {times[at + 1]}")
        fixed = months is None and np.all(np.abs(steps - steps[0]) <= 1e-3)
        if not fixed or calendar:
            if months is None:
                months = months_between(times)
            if months is not None and np.all(months == months[0]):
                return cls(months=int(months[0]))
        if fixed:
            return cls(float(steps[0]))
        at = int(np.argmax(np.abs(steps - steps[0]) > 1e-3))
        raise ValueError(
            f"Expected a uniform {name} axis in {path}, got a step of {steps[0] / 3600:g} h and then {times[at]} to "
            f"{times[at + 1]} ({steps[at] / 3600:g} h)"
        )

    def later(self, time, count: int = 1):
        """One time or an array of times moved by `count` steps (negative: earlier)."""
        return months_later(time, count * self.months) if self.months else later(time, count * self.seconds)

    def lengths(self, times) -> np.ndarray:
        """True seconds of the step that ends at each of some times, float64 `(time,)`."""
        times = np.asarray(times)
        if not self.months or not len(times):
            return np.full(len(times), self.seconds)
        before = self.later(times, -1)
        return seconds_between(np.stack([before, times], axis=1).ravel())[::2]

    def times(self, count: int) -> "TimeStep":
        """So many of these steps as one."""
        return TimeStep(months=count * self.months) if self.months else TimeStep(count * self.seconds)

    def lengths_from(self, times) -> np.ndarray:
        """True seconds of the step that starts at each of some times, float64 `(time,)`."""
        times = np.asarray(times)
        return self.lengths(self.later(times)) if self.months else np.full(len(times), self.seconds)

    def middles(self, times) -> np.ndarray:
        """Middles of the steps that end at some times, `(time,)`."""
        times = np.asarray(times)
        moved = [later(times[n : n + 1], -seconds / 2) for n, seconds in enumerate(self.lengths(times))]
        return np.concatenate(moved) if moved else times

    def leads(self, numbers) -> np.ndarray:
        """Leads after some numbers of steps: months as int64, else timedelta64[ns]; `(lead,)`."""
        if self.months:
            return np.asarray(numbers, np.int64) * self.months
        return np.round(np.asarray(numbers) * self.seconds * 1e9).astype("timedelta64[ns]")

    def count(self, span: "TimeStep") -> float:
        """How many of these steps make a span of time. Raises `ValueError` for days of months, or months of days."""
        if not self.seconds or bool(self.months) != bool(span.months):
            kind = "months" if self.months else "hours or days"
            raise ValueError(f"Expected a span in {kind}, since the step is {self}; got {span}")
        return span.months / self.months if self.months else span.seconds / self.seconds


def months_between(times: np.ndarray) -> np.ndarray | None:
    """Whole calendar months between neighbours; None where they do not lie at one day and hour, which every month has."""
    if times.dtype.kind not in "MO":
        return None
    number = month_numbers(times)
    alike = days_of_month(times).max() <= 28 and np.all(months_later(times, number[0] - number) == times[0])
    return np.diff(number) if alike else None


def valid_times(init_time: np.ndarray, lead_time: np.ndarray) -> np.ndarray:
    """Valid times, `(init, lead)`, of datetime64 or cftime initial times and leads as timedelta64, or integers for months."""
    if lead_time.dtype.kind in "iu":
        valid = [months_later(init_time, int(lead)) for lead in lead_time]
        return np.stack(valid, axis=1) if valid else np.empty((len(init_time), 0), init_time.dtype)
    if init_time.dtype != object:
        return init_time[:, None] + lead_time[None, :]
    seconds = lead_time / np.timedelta64(1, "s")
    valid = [[later(init, float(lead)) for lead in seconds] for init in init_time]
    return np.array(valid, object).reshape(len(init_time), len(lead_time))


def lead_seconds(lead_time) -> np.ndarray:
    """Seconds of leads, timedelta64 or integers for months, whose nominal length counts: float64."""
    leads = np.asarray(lead_time)
    return leads * MONTH_SECONDS if leads.dtype.kind in "iu" else leads / np.timedelta64(1, "s")


def lead_text(lead) -> str:
    """A lead as text: `36 h`, or `3 months`."""
    months = np.asarray(lead).dtype.kind in "iu"
    return f"{int(lead)} month{'s' * (int(lead) != 1)}" if months else f"{float(lead_seconds(lead)) / 3600:g} h"


def seconds_between(times: np.ndarray) -> np.ndarray:
    """Seconds between neighbours of `(time,)` datetime64, timedelta64 or cftime values: float64 `(time - 1,)`."""
    return in_seconds(np.diff(np.asarray(times)))


def in_seconds(spans) -> np.ndarray:
    """Differences of datetime64 or cftime values, one or `(n,)`, in seconds: float64 of the same shape."""
    spans = np.asarray(spans)
    if spans.dtype == object:
        return np.array([span.total_seconds() for span in spans.ravel()], np.float64).reshape(spans.shape)
    return spans / np.timedelta64(1, "s")


def interval_starts(dataset: xr.Dataset) -> np.ndarray | None:
    """Starts of the intervals that the times of a dataset end, `(time,)`; None where it has no `time_bounds`."""
    return dataset["time_bounds"].values[:, 0] if "time_bounds" in dataset.variables else None


def within(times, start=None, end=None, starts=None) -> np.ndarray:
    """Which of some datetime64 or cftime values `(time,)` lie from `start` to `end`, both included: `(time,)` bool.

    `starts`: of intervals that end at the times, which then have to lie in the period whole. A bound is a date, a datetime,
    a datetime64 or text of one (`2015`, `2015-12`, `2015-12-31`, `2015-12-31T06`); None is open. An end includes the
    whole of the smallest unit that it names: a bare date is that whole day. A day that a month of another calendar than the
    standard one has not (31 December of 360 days, 29 February of years without a leap day) means the end of that month.

    Raises `ValueError` for a date that no calendar has.
    """
    times = np.asarray(times)
    if starts is not None:
        return within(starts, start, None) & within(later(times, -1), None, end)
    kept = np.ones(len(times), bool)
    if not len(times):
        return kept
    if times.dtype != object:
        times = times.astype("datetime64[s]")  # in nanoseconds the year 9999 overflows
    if start is not None:
        parts = parts_of(start)
        kept &= times >= (after_month(parts, times) if is_past_month(parts, times) else instant(parts, times))
    if end is not None:
        parts = parts_of(end)
        if is_past_month(parts, times):
            kept &= times < after_month(parts, times)
        elif len(parts) < 3:
            year, month = divmod(12 * parts[0] + (parts[1] if len(parts) == 2 else 12), 12)
            kept &= times < instant([year, month + 1], times)
        else:
            seconds = (86400, 3600, 60, 1)[len(parts) - 3]
            kept &= times < later(instant(parts, times), seconds)
    return kept


def select_period(dataset: xr.Dataset, start=None, end=None, dimension: str = "time") -> xr.Dataset:
    """The part of a dataset from `start` to `end`, both included, as `within` has it. Raises `ValueError` for no times.

    Of means, whose times are the ends of the intervals in `time_bounds`, those intervals that lie in it as a whole.
    """
    if start is None and end is None:
        return dataset
    times = dataset[dimension].values
    starts = interval_starts(dataset) if dimension == "time" else None
    chosen = np.flatnonzero(within(times, start, end, starts))
    if not len(chosen):
        have = f"{times[0]} to {times[-1]}" if len(times) else "no times"
        raise ValueError(
            f"Expected times from {start or 'the beginning'} to {end or 'the end'}, the store holds {have}"
        )
    return dataset.isel({dimension: slice(chosen[0], chosen[-1] + 1)})


def in_nanoseconds(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset with all times and leads among its coordinates in nanoseconds, whatever resolution its file recorded.

    The same instants in other resolutions have other numbers, texts and, as objects, other types, so that what compares
    them finds none shared. Dates that 64 bits cannot hold in nanoseconds (before 1678, after 2262) stay as they are.
    """
    changed = {}
    for name, coordinate in dataset.coords.items():
        kind = coordinate.dtype.kind
        if kind not in "mM" or coordinate.dtype == f"{kind}8[ns]":
            continue
        seconds = coordinate.values.astype(f"{kind}8[s]").astype(np.int64)
        seconds = seconds[~np.isnat(coordinate.values)]
        if np.abs(seconds).max(initial=0) < np.iinfo(np.int64).max // 10**9:
            changed[name] = (coordinate.dims, coordinate.values.astype(f"{kind}8[ns]"), coordinate.attrs)
    return dataset.assign_coords(changed) if changed else dataset
