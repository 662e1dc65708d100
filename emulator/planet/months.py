"""Calendar months of datetime64 and cftime values: moved by some, counted, and where they begin."""

import numpy as np
import xarray as xr


def months_later(times, months):
    """One time, or an array of times, moved by calendar months (negative: earlier), of which there may be one for each time.

    To the same day and hour, or to the month's last day where it has no such day.
    """
    if np.asarray(times).dtype.kind == "M":
        kind, date = np.asarray(times).dtype, times.astype("datetime64[D]")
        first = times.astype("datetime64[M]")
        then = first + np.asarray(months).astype("timedelta64[M]")
        last = (then + np.timedelta64(1, "M")).astype("datetime64[D]") - np.timedelta64(1, "D")
        moved = np.minimum(then.astype("datetime64[D]") + (date - first.astype("datetime64[D]")), last)
        return moved.astype(kind) + (times - date.astype(kind))
    if isinstance(times, np.ndarray):
        pairs = zip(times.ravel(), np.broadcast_to(months, times.shape).ravel(), strict=True)
        moved = np.empty(times.size, object)
        moved[:] = [months_later(time, int(count)) for time, count in pairs]
        return moved.reshape(times.shape)
    year, month = divmod(12 * times.year + times.month - 1 + months, 12)
    first = times.replace(year=year, month=month + 1, day=1)
    return first.replace(day=min(times.day, first.daysinmonth))


def month_numbers(times) -> np.ndarray:
    """Calendar months since January of the year 0 in which datetime64 or cftime values lie, int64 `(time,)`."""
    times = np.asarray(times)
    if times.dtype.kind == "M":
        return times.astype("datetime64[M]").astype(np.int64) + 12 * 1970
    return np.array([12 * time.year + time.month - 1 for time in times], np.int64)


def days_of_month(times) -> np.ndarray:
    """Day of the month, 1 ... 31, `(time,)` int."""
    return np.asarray(xr.DataArray(np.asarray(times), dims="time").dt.day.values, int)


def month_starts(times: np.ndarray) -> np.ndarray:
    """The first instants of the months in which some times lie, `(time,)`."""
    if times.dtype.kind == "M":
        return times.astype("datetime64[M]").astype(times.dtype)
    first = np.empty(len(times), object)
    first[:] = [time.replace(day=1, hour=0, minute=0, second=0, microsecond=0) for time in times]
    return first
