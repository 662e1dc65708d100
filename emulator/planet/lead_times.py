"""Lead times as files write them, of any type and unit of time, as timedelta64[ns].

Scaled in a wide type: hours as int8 reach only 127, and nanoseconds of a day need 47 bits.
"""

import numpy as np

SECOND = 10**9  # nanoseconds
SPANS = {
    "ns": 1,
    "us": 10**3,
    "ms": 10**6,
    "s": SECOND,
    "min": 60 * SECOND,
    "h": 3600 * SECOND,
    "d": 86400 * SECOND,
    "w": 7 * 86400 * SECOND,
}
# Every unit by the names that xarray, cfgrib, UDUNITS and pandas have for it; plurals of the long ones besides.
NAMES = {
    "ns": ("nanosecond", "nsec"),
    "us": ("microsecond", "microsec", "usec", "µs"),
    "ms": ("millisecond", "millisec", "msec"),
    "s": ("second", "sec"),
    "min": ("minute", "m"),
    "h": ("hour", "hr"),
    "d": ("day",),
    "w": ("week",),
}
SINGULAR = {name: unit for unit, names in NAMES.items() for name in (unit, *names)}
UNITS = {f"{name}s": unit for name, unit in SINGULAR.items() if len(name) > 1} | SINGULAR  # ms: no metres, no minutes


def as_timedelta(values, units=None, path="") -> np.ndarray:
    """Lead times `(lead,)` as timedelta64[ns]: numbers in `units`, or timedeltas of any resolution. `path`: for messages.

    Numbers with a fraction are rounded to whole seconds where their type holds no more: 0.1 hours as float32 are 360 s.
    Raises `ValueError` for units that are no span of fixed length, for what is no number, and beyond 292 years.
    """
    values = np.asarray(values)
    where = f" in {path}" if path else ""
    if values.dtype.kind == "m":
        return values.astype("timedelta64[ns]")
    if (unit := _unit(units)) is None:
        raise ValueError(f"Expected lead times with units of time{where}, as hours, got {units!r}")
    span = SPANS[unit]
    if values.dtype.kind not in "iuf" or not np.all(np.isfinite(values)):
        raise ValueError(
            f"Expected lead times as finite numbers of {units}{where}, got {values.ravel()[:4]} ({values.dtype})"
        )
    if len(values.ravel()) and np.abs(values.astype(np.float64)).max() * span >= 2.0**63:
        raise ValueError(f"Expected lead times below 292 years{where}, got up to {values.max()} {units}")
    if values.dtype.kind in "iu":
        return (values.astype(np.int64) * span).astype("timedelta64[ns]")
    wide = values.astype(np.float64)
    exact = wide * span
    seconds = np.round(exact / SECOND) * SECOND
    known = np.spacing(np.abs(values)).astype(np.float64) * span  # what the last bit of each stands for
    near = np.abs(exact - seconds) <= known
    return np.where(near, seconds, np.round(exact)).astype(np.int64).astype("timedelta64[ns]")


def _unit(units) -> str | None:
    text = str(units).strip()
    return UNITS.get(text) or UNITS.get(text.lower())
