"""Dates as people write them, in the calendar of some times, and those that a calendar has not."""

import datetime
import re

import numpy as np

from emulator.planet.months import months_later

STANDARD = ("standard", "gregorian", "proleptic_gregorian")


def parts_of(moment) -> list[int]:
    """Year, month, ... of a date or a datetime, as many as it names, at most to the second. Raises `ValueError` for none."""
    if parts := [int(part) for part in re.findall(r"\d+", str(moment))][:6]:
        return parts
    raise ValueError(f"Expected a date such as 2001, 2001-12 or 2001-12-31T06, got {moment!r}")


def is_past_month(parts: list[int], times: np.ndarray) -> bool:
    """Whether a date lies beyond the end of its month in the calendar of some times, but not in another one."""
    if len(parts) < 3 or times.dtype != object or times[0].calendar in STANDARD:
        return False
    return 1 <= parts[1] <= 12 and instant(parts[:2], times).daysinmonth < parts[2] <= 31


def after_month(parts: list[int], times: np.ndarray):
    """The first instant after the month of a date."""
    return months_later(instant(parts[:2], times), 1)


def instant(parts: list[int], times: np.ndarray):
    """The first instant of a year, month, ... of the kind and calendar of some times."""
    whole = (*parts, *(1, 1, 0, 0, 0)[len(parts) - 1 :])
    try:
        if times.dtype != object:
            return np.datetime64(datetime.datetime(*whole), "s")
        import cftime

        return cftime.datetime(*whole, calendar=times[0].calendar)
    except ValueError as error:
        text = "-".join(f"{part:02d}" for part in parts[:3])
        raise ValueError(f"Expected a date of the calendar of the times, got {text}: {error}") from None
