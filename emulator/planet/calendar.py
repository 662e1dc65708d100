"""Time axes: periods, day of the year and hour, alike for datetime64 and cftime values."""

import numpy as np
import xarray as xr


def day_and_hour(times) -> tuple[np.ndarray, np.ndarray]:
    """Day of the year (1..366) and fractional hour of datetime64 or cftime values `(time,)`."""
    clock = xr.DataArray(np.asarray(times), dims="time").dt
    return clock.dayofyear.values, (clock.hour + clock.minute / 60 + clock.second / 3600).values


def select_period(dataset: xr.Dataset, start=None, end=None, dimension: str = "time") -> xr.Dataset:
    """The part of a dataset from `start` to `end`, both included; None is open, and a bare date as the end is its whole day.

    Raises `ValueError` when no time is left.
    """
    if start is None and end is None:
        return dataset
    bounds = slice(*(None if moment is None else str(moment) for moment in (start, end)))
    part = dataset.sel({dimension: bounds})
    if not part.sizes[dimension]:
        have = dataset[dimension].values
        held = f"{have[0]} to {have[-1]}" if len(have) else "no times"
        raise ValueError(
            f"Expected times from {start or 'the beginning'} to {end or 'the end'}, the store holds {held}"
        )
    return part


def in_nanoseconds(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset with all times and leads among its coordinates in nanoseconds, whatever resolution its file recorded.

    The same instants in other resolutions have other numbers, texts and, as objects, other types, so that what compares
    them finds none shared. Dates that 64 bits cannot hold in nanoseconds (before 1678, after 2262) stay as they are.
    """
    found = {}
    for name, coordinate in dataset.coords.items():
        kind = coordinate.dtype.kind
        if kind not in "mM" or coordinate.dtype == f"{kind}8[ns]":
            continue
        seconds = coordinate.values.astype(f"{kind}8[s]").astype(np.int64)
        held = seconds[~np.isnat(coordinate.values)]
        if np.abs(held).max(initial=0) < np.iinfo(np.int64).max // 10**9:
            found[name] = (coordinate.dims, coordinate.values.astype(f"{kind}8[ns]"), coordinate.attrs)
    return dataset.assign_coords(found) if found else dataset
