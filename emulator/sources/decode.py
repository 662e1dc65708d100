"""An undecoded dataset as it is meant: missing values NaN, packed numbers unpacked, times as times."""

import re
from collections.abc import Mapping

import numpy as np
import xarray as xr

from emulator.sources.fills import with_fills
from emulator.sources.month_units import in_days

TIME_CODER = xr.coders.CFDatetimeCoder(time_unit="ns")
_ABSOLUTE = re.compile(r"\s*day\s+as\s+%Y%m%d\.%f\s*")  # CDO's absolute time axis
_SINCE = "days since 1850-01-01"


def decoded(raw: xr.Dataset, path: str, units: Mapping[str, str], undeclared: bool = True) -> xr.Dataset:
    """A dataset with its values decoded.

    Args:
      units: of coordinates, in place of what the file says (times have to be decoded here, others are converted later).
      undeclared: whether NetCDF's own fill is one where none is declared.

    Raises `ValueError` naming the path for units of time that nothing decodes.
    """
    given = {name: text for name, text in units.items() if name in raw.variables and _is_time(text)}
    for name, text in given.items():
        raw = raw.assign({name: raw.variables[name]._replace(attrs=raw.variables[name].attrs | {"units": text})})
    raw = with_fills(in_days(_since_a_date(raw)), path, undeclared)
    try:
        return xr.decode_cf(raw, decode_times=TIME_CODER, decode_timedelta=False)
    except ValueError as error:
        names = [str(n) for n, v in raw.variables.items() if v.dtype.kind in "fiu" and _is_time(v.attrs.get("units"))]
        wrong = next((n for n in names if not _decodes(xr.Dataset({n: raw.variables[n]}))), None)
        if wrong is None:
            raise
        got, calendar = raw[wrong].attrs["units"], raw[wrong].attrs.get("calendar", "standard")
        raise ValueError(
            f"Expected units of {wrong} such as 'hours since 1900-01-01' in {path}, got {got!r} (calendar {calendar}); give "
            f"them under units: {{{wrong}: hours since 1900-01-01}}"
        ) from error


def _is_time(units) -> bool:
    return re.search(r"\bsince\b|\bas\s+%Y", str(units)) is not None


def _decodes(dataset: xr.Dataset) -> bool:
    try:
        xr.decode_cf(dataset, decode_times=TIME_CODER, decode_timedelta=False)
    except ValueError:
        return False
    return True


def _since_a_date(raw: xr.Dataset) -> xr.Dataset:
    """Times that are dates as numbers, 20010227.25, as days since a date."""
    changed = {}
    for name, variable in raw.variables.items():
        if not _ABSOLUTE.fullmatch(str(variable.attrs.get("units", ""))):
            continue
        for own in (name, variable.attrs.get("bounds")):
            if own in raw.variables:
                numbers = raw.variables[own]
                calendar = variable.attrs.get("calendar", "standard")
                days = _days(np.asarray(numbers.values, np.float64), calendar)
                changed[own] = (numbers.dims, days, numbers.attrs | {"units": _SINCE, "calendar": calendar})
    return raw.assign(changed) if changed else raw


def _days(dates: np.ndarray, calendar: str) -> np.ndarray:
    import cftime  # half a second, only where it is needed

    whole = np.floor(dates + 1e-9).astype(np.int64)
    moments = [cftime.datetime(n // 10000, n // 100 % 100, n % 100, calendar=calendar) for n in whole.ravel().tolist()]
    days = np.asarray(cftime.date2num(moments, _SINCE, calendar), np.float64).reshape(dates.shape)
    return days + np.round((dates - whole) * 86400) / 86400  # a float64 of eight digits knows seconds
