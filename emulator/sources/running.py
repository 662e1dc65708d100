"""Whether accumulations are totals that run on, from midnight (ERA5-Land) or from the start of a forecast, by their values.

A plain NetCDF file does not say it. What is stored as the amount of each interval is then wrong by more the later in the day
it is, so that values which rise all day and begin anew after 00 UTC are refused unless the options say what they are.
"""

from collections.abc import Iterable
from math import lgamma, log

import numpy as np

from emulator.planet.calendar import day_and_hour, seconds_between

PLACES = (0.0, 0.5, 1.0)  # of the record, at each of which a day is looked at
SURE, SURE_OF_LEADS = log(1e4), log(100)  # orders in which the values of one cell could come, if chance decided
LEAST = 1e-4  # share of the largest value: packing rounds
RESETS, JUMP = 0.6, 3.0  # share of values that fall after 00 UTC; how much larger the change there is


def some_times(times: np.ndarray) -> list[np.ndarray]:
    """Positions of the times of a day and the next ones, at a few places of a record: increasing `(n,)` each."""
    if len(times) < 4 or (step := float(np.median(seconds_between(times)))) > 28800:
        return []
    count = min(len(times), round(86400 / step) + 2)
    starts = {round(place * (len(times) - count)) for place in PLACES}
    return [np.arange(start, start + count) for start in sorted(starts)]


def runs_from_midnight(stretches: Iterable[tuple[np.ndarray, np.ndarray]]) -> bool:
    """Whether values rise from 00 UTC to 00 UTC and begin anew, of `(times, values)`, `(time,)` and `(time, cell)` each.

    Either none is below the one before it in its day, in size, and most are at the beginning of one; or the change after
    00 UTC is much larger than any other, as of a heat flux whose sign changes from day to night.
    """
    monotone, jumps, others, chances = True, [], [], 0.0
    for times, values in stretches:
        values = values[:, np.isfinite(values).all(axis=0)].astype(np.float64)
        size = np.abs(values)
        slack = LEAST * size.max(initial=0.0)
        seconds = day_and_hour(times[:1])[1] * 3600 + np.concatenate([[0.0], np.cumsum(seconds_between(times))])
        day = np.ceil(np.round(seconds) / 86400)  # a total to 00 UTC is of the day before
        new = np.diff(day) > 0
        change, large = np.diff(size, axis=0), size[:-1][new] > slack
        monotone &= bool((change[~new] >= -slack).all())
        monotone &= not large.any() or float((change[new][large] < -slack).mean()) > RESETS
        moved = np.abs(np.diff(values, axis=0)).mean(axis=1)
        jumps, others = [*jumps, *moved[new]], [*others, *moved[~new]]
        for own in (size[day == number] for number in np.unique(day)):
            chances += lgamma(len(own) + 1) if (np.ptp(own, axis=0) > slack).any() else 0.0
    return chances >= SURE and (monotone or (len(jumps) > 1 and min(jumps) > JUMP * max(others)))


def runs_from_start(values: np.ndarray) -> bool:
    """Whether no value is below the one of the lead before it, in size: `(initial time, lead, cell)`, leads above 0."""
    size = np.abs(values[..., np.isfinite(values).all(axis=(0, 1))].astype(np.float64))
    slack = LEAST * size.max(initial=0.0)
    if size.shape[1] < 4 or not slack:
        return False
    rising = (np.ptp(size, axis=1) > slack).any(axis=1).sum()
    return bool((np.diff(size, axis=1) >= -slack).all() and rising * lgamma(size.shape[1] + 1) >= SURE_OF_LEADS)
