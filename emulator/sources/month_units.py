"""Times counted in months or years since a date: calendar steps, and not the fixed spans that UDUNITS makes of them."""

import re

import numpy as np
import xarray as xr

from emulator.planet.calendar import MONTHS
from emulator.planet.months import months_later

_UNITS = re.compile(r"\s*(month|year)s?\s+since\s+(.+)", re.IGNORECASE)


def in_days(dataset: xr.Dataset) -> xr.Dataset:
    """An undecoded dataset whose times, and their bounds, in months or years since a date are days since it instead.

    Half a month is the middle of it. Raises `ValueError` naming the variable for other parts of a month.
    """
    changed = {}
    for name, variable in dataset.variables.items():
        if not (found := _UNITS.fullmatch(str(variable.attrs.get("units", "")))):
            continue
        attributes = dict(variable.attrs) | {"units": f"days since {found[2]}"}
        months = MONTHS[found[1].lower()]
        days = _days(variable.values * months, attributes["units"], attributes.get("calendar", "standard"), name)
        changed[name] = (variable.dims, days, attributes)
        bounds = variable.attrs.get("bounds")
        if bounds in dataset.variables and not dataset[bounds].attrs.get("units"):
            edges = dataset.variables[bounds]
            edges_days = _days(
                edges.values * months, attributes["units"], attributes.get("calendar", "standard"), bounds
            )
            changed[bounds] = (edges.dims, edges_days, edges.attrs)
    return dataset.assign(changed) if changed else dataset


def _days(months: np.ndarray, units: str, calendar: str, name) -> np.ndarray:
    """Days since the reference date of `units` for some numbers of months."""
    import cftime  # half a second, only where it is needed

    whole = np.floor(months + 1e-6)
    part = months - whole
    if np.any((np.abs(part) > 1e-3) & (np.abs(part - 0.5) > 1e-3)):
        odd = float(np.ravel(months)[np.argmax(np.abs(np.ravel(part) - np.round(2 * np.ravel(part)) / 2))])
        raise ValueError(f"Expected whole or half months in {name}, got {odd:g} {units.replace('days', 'months', 1)}")
    reference = cftime.num2date(0, units, calendar)
    first, following = (
        cftime.date2num([months_later(reference, int(n) + more) for n in whole.ravel()], units, calendar)
        for more in (0, 1)
    )
    first, following = (np.asarray(days, np.float64).reshape(months.shape) for days in (first, following))
    return first + np.round(2 * part) / 2 * (following - first)
