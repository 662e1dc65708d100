"""Time axes: steps, periods, day of the year and hour, alike for datetime64 and cftime values."""

import datetime
import re

import numpy as np
import xarray as xr

_BEFORE = np.concatenate([[0], np.cumsum([31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30])])  # days before each month


def day_and_hour(times) -> tuple[np.ndarray, np.ndarray]:
    """Day of the year (1..366) and fractional hour of datetime64 or cftime values `(time,)`."""
    clock = xr.DataArray(np.asarray(times), dims="time").dt
    return clock.dayofyear.values, (clock.hour + clock.minute / 60 + clock.second / 3600).values


def hour_and_leap_day(times) -> tuple[np.ndarray, np.ndarray]:
    """Hour of the day, and day of a leap year: 1 ... 366, so that 1 March is 61 in every year; each `(time,)` int."""
    clock = xr.DataArray(np.asarray(times), dims="time").dt
    return np.asarray(clock.hour.values, int), _BEFORE[clock.month.values - 1] + clock.day.values


def later(times, seconds: float):
    """One time or an array of times, datetime64 or cftime, moved by some seconds (negative: earlier)."""
    if np.asarray(times).dtype.kind == "M":
        return times + np.timedelta64(round(seconds * 1e6), "us")
    return times + datetime.timedelta(seconds=seconds)


def valid_times(init_time: np.ndarray, lead_time: np.ndarray) -> np.ndarray:
    """Valid times, `(init, lead)`, for datetime64 or cftime initial times and timedelta64 leads."""
    if init_time.dtype != object:
        return init_time[:, None] + lead_time[None, :]
    seconds = lead_time / np.timedelta64(1, "s")
    valid = [[later(init, float(lead)) for lead in seconds] for init in init_time]
    return np.array(valid, object).reshape(len(init_time), len(lead_time))


def seconds_between(times: np.ndarray) -> np.ndarray:
    """Seconds between neighbours of `(time,)` datetime64, timedelta64 or cftime values: float64 `(time - 1,)`."""
    steps = np.diff(np.asarray(times))
    if steps.dtype == object:
        return np.array([step.total_seconds() for step in steps], np.float64)
    return steps / np.timedelta64(1, "s")


def uniform_step(times, name, path) -> float:
    """Seconds between neighbours of `times`; 0 for one. Raises `ValueError` naming the axis and the path if irregular."""
    steps = seconds_between(times)
    if len(steps) == 0:
        return 0.0
    if np.any(steps <= 0):
        at = int(np.argmax(steps <= 0))
        raise ValueError(f"Expected strictly increasing {name} in {path}, got {times[at]} then {times[at + 1]}")
    if np.any(np.abs(steps - steps[0]) > 1e-3):
        at = int(np.argmax(np.abs(steps - steps[0]) > 1e-3))
        raise ValueError(
            f"Expected a uniform {name} axis in {path}, got a step of {steps[0] / 3600:g} h and then {times[at]} to "
            f"{times[at + 1]} ({steps[at] / 3600:g} h)"
        )
    return float(steps[0])


def within(times, start=None, end=None) -> np.ndarray:
    """Which of some datetime64 or cftime values `(time,)` lie from `start` to `end`, both included: `(time,)` bool.

    A bound is a date, a datetime, a datetime64 or text of one (`2015`, `2015-12`, `2015-12-31`, `2015-12-31T06`); None is
    open. An end includes the whole of the smallest unit that it names: a bare date is that whole day.
    """
    times = np.asarray(times)
    kept = np.ones(len(times), bool)
    if not len(times):
        return kept
    if times.dtype != object:
        times = times.astype("datetime64[s]")  # in nanoseconds the year 9999 overflows
    if start is not None:
        kept &= times >= _instant(_parts(start), times)
    if end is not None:
        parts = _parts(end)
        if len(parts) < 3:
            year, month = divmod(12 * parts[0] + (parts[1] if len(parts) == 2 else 12), 12)
            kept &= times < _instant([year, month + 1], times)
        else:
            seconds = (86400, 3600, 60, 1)[len(parts) - 3]
            kept &= times < later(_instant(parts, times), seconds)
    return kept


def _parts(moment) -> list[int]:
    """Year, month, ... of a date or a datetime, as many as it names, at most to the second."""
    return [int(part) for part in re.findall(r"\d+", str(moment))][:6]


def _instant(parts: list[int], times: np.ndarray):
    """The first instant of a year, month, ... of the kind and calendar of some times."""
    whole = (*parts, *(1, 1, 0, 0, 0)[len(parts) - 1 :])
    if times.dtype != object:
        return np.datetime64(datetime.datetime(*whole), "s")
    import cftime

    return cftime.datetime(*whole, calendar=times[0].calendar)


def select_period(dataset: xr.Dataset, start=None, end=None, dimension: str = "time") -> xr.Dataset:
    """The part of a dataset from `start` to `end`, both included, as `within` has it. Raises `ValueError` for no times."""
    if start is None and end is None:
        return dataset
    times = dataset[dimension].values
    chosen = np.flatnonzero(within(times, start, end))
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
