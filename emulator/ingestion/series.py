"""Series without space on the time axis of a store."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from emulator.ingestion.fields import StorePlan
from emulator.planet.calendar import in_seconds
from emulator.sources.series import Series, joined


def with_series(plan: StorePlan, found: Sequence[Series], roles: Mapping[str, str]) -> StorePlan:
    """The plan with series `(time,)`, each with a value at every time.

    Raises `ValueError` naming the series and the time where one has none, for values that cannot be, for a role other than
    forcing, for a name that a field on the sphere has, and for forecasts.
    """
    groups: dict[str, list[Series]] = {}
    for part in found:
        groups.setdefault(part.name, []).append(part)
    series = {}
    for name, parts in sorted(groups.items()):
        if plan.leads is not None:
            raise ValueError(f"Expected an analysis for the series {name} ({parts[0].path}), got forecasts")
        if name in plan.fields or name in plan.static:
            raise ValueError(f"Expected {name} once, got a field on the sphere and a series ({parts[0].path})")
        if (role := roles.get(name, "forcing")) != "forcing":
            raise ValueError(f"Expected the role forcing for the series {name} ({parts[0].path}), got {role}")
        whole = joined(parts)
        method = "mean" if whole.averaged and not whole.interpolate else "point"
        attributes = {"role": "forcing", "cell_methods": f"time: {method}"}
        series[name] = xr.Variable("time", at_times(whole, plan.times, ~plan.missing).astype(np.float32), attributes)
    entries = {name: parts[0].entry for name, parts in groups.items()}
    return dataclasses.replace(plan, series=series, entries={**plan.entries, **entries})


def at_times(series: Series, times: np.ndarray, needed: np.ndarray | None = None) -> np.ndarray:
    """Values `(time,)` at times of the same calendar: the series' own, or linear between the middles of its intervals.

    `needed`: `(time,)`, which times must have one, None: all; the others are NaN where the series has none. Raises
    `ValueError` naming the first time that lacks its value.
    """
    if (series.times.dtype == object) != (times.dtype == object) or _calendar(series.times) != _calendar(times):
        raise ValueError(
            f"Expected {series.name} in the calendar of the store, {_calendar(times)}, got {_calendar(series.times)} "
            f"({series.path})"
        )
    own = series.middles if series.interpolate else series.times
    here, wanted = in_seconds(own - own[0]), in_seconds(times - own[0])
    if series.interpolate:
        there = (wanted >= here[0]) & (wanted <= here[-1])
        values = np.interp(wanted, here, series.values)
    else:
        at = np.minimum(np.searchsorted(here, wanted), len(here) - 1)
        there, values = np.abs(here[at] - wanted) < 1e-3, series.values[at]
    there &= np.isfinite(values)
    lacking = ~there if needed is None else needed & ~there
    if lacking.any():
        first, hint = times[int(np.argmax(lacking))], "; interpolate: linear takes values between its times"
        raise ValueError(
            f"Expected {series.name} at every time of the store, got no value for {first} ({int(lacking.sum())} times in "
            f"all) from {own[0]} to {own[-1]} in {series.path}{'' if series.interpolate else hint}"
        )
    values = np.where(there, values, np.nan)
    _check_bounds(series, values, times)
    return values


def _check_bounds(series, values, times) -> None:
    entry = series.entry
    low, high = (
        -np.inf if entry.minimum is None else entry.minimum,
        np.inf if entry.maximum is None else entry.maximum,
    )
    outside = (values < low) | (values > high)
    if outside.any():
        at = int(np.argmax(outside))
        raise ValueError(
            f"Expected {series.name} in {entry.units} between {entry.minimum} and {entry.maximum}, got {values[at]:.6g} at "
            f"{times[at]} ({series.path}); are its units others?"
        )


def _calendar(times: np.ndarray) -> str:
    return getattr(times[0], "calendar", "standard")
