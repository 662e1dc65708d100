"""The time axis of a store: ends of the intervals that means are of, its uniform step, and the means that fill a step.

A mean is placed at the end of its interval. Bounds tell the interval; without them the option `time_stamp` of the source
does, and calendar months also tell it by themselves where the stamps lie in their middle or on their last days.
"""

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np

from emulator.ingestion.fields import GAPS
from emulator.ingestion.term import Term
from emulator.planet.calendar import (
    TimeStep,
    day_and_hour,
    later,
    months_between,
    seconds_between,
    within,
)
from emulator.planet.months import days_of_month, month_numbers, month_starts, months_later
from emulator.sources.piece import Piece

STAMPS = ("start", "middle", "end")
log = logging.getLogger(__name__)


def is_mean(pieces: Sequence[Piece]) -> bool:
    """Whether a field's values are means over a step: by what it is, or because the source says so."""
    return pieces[0].meaning.cell == "mean" or any(p.averaged for p in pieces)


def at_ends(name: str, pieces: list[Piece]) -> list[Piece]:
    """All pieces of a term, those of means at the ends of their intervals.

    Raises `ValueError` for stamps of months that may be their starts or their ends, and for one stamp without an interval.
    """
    pieces = _by_bounds_and_stamp(pieces)
    stamped = [p for p in pieces if "lead_time" not in p.coordinates and p.starts is None]
    stamped = [p for p in stamped if p.stamp or is_mean([p])]
    if not stamped:
        return pieces
    times = sorted_times([p.coordinates["time"] for p in stamped], stamped)
    months = _months_of(times)
    if months or any(p.stamp for p in stamped):
        seconds = float(np.median(seconds_between(times))) if len(times) > 1 else 0.0
        return [_moved(p, months, seconds, times) if p in stamped else p for p in pieces]
    return pieces


def _by_bounds_and_stamp(pieces: list[Piece]) -> list[Piece]:
    """Where bounds are narrower or wider than the step, a stamp says which of their parts is the step's."""
    own = [p for p in pieces if p.stamp is not None and p.starts is not None]
    if not own or len(times := sorted_times([p.coordinates["time"] for p in own], own)) < 2:
        return pieces
    step = usual_step(times)
    return [_stretched(p, step) if p in own else p for p in pieces]


def _stretched(piece: Piece, step: TimeStep) -> Piece:
    ends, starts = piece.coordinates["time"], piece.starts
    if np.all(np.abs(piece.interval_seconds[:, 0] - step.lengths(ends)) < 1.0):
        return piece
    if piece.stamp == "start":
        ends = step.later(starts)
    elif piece.stamp == "end":
        starts = step.later(ends, -1)
    else:
        starts = later(starts + (ends - starts) / 2, -step.seconds / 2)
        ends = later(starts, step.seconds)
    return dataclasses.replace(piece, coordinates={**piece.coordinates, "time": ends}, starts=starts)


def sorted_times(axes, pieces: Sequence[Piece]) -> np.ndarray:
    """All times of some pieces once. Raises `ValueError` for more than one calendar."""
    kinds = {values.dtype == object for values in axes if len(values)}
    calendars = {values[0].calendar for values in axes if len(values) and values.dtype == object}
    if len(kinds) > 1 or len(calendars) > 1:
        raise ValueError(
            f"Expected one calendar in all sources of {pieces[0].name}, got several ({pieces[0].path}, ...)"
        )
    return np.unique(np.concatenate([values for values in axes if len(values)]))


def _months_of(times: np.ndarray) -> int:
    """Calendar months between stamps, which may lie anywhere in their months; 0 for steps of fixed length, and for one."""
    if len(times) < 2:
        return 0
    apart, seconds = np.diff(month_numbers(times)), seconds_between(times)
    months = int(apart.min())
    if months < 1 or np.any(apart % months) or (seconds / np.maximum(apart, 1)).min() < 28 * 86400:
        return 0
    uniform = len(times) > 3 and np.ptp(seconds) < 1e-3
    return 0 if uniform and months_between(times) is None else months


def _moved(piece: Piece, months: int, seconds: float, times: np.ndarray) -> Piece:
    """A piece of means with their ends as times and the starts of their intervals."""
    own, stamp = piece.coordinates["time"], piece.stamp
    if months:
        first = month_starts(own)
        day = days_of_month(own)
        if stamp is None and months % 2:
            stamp = "middle" if np.all((day > 13) & (day < 19)) else "end" if np.all(day >= 28) else None
        if stamp is None:
            raise ValueError(
                f"Expected time bounds with the monthly means of {piece.name}, or time_stamp: start, middle or end, got "
                f"neither for {times[0]}, {times[1]}, ... ({piece.path})"
            )
        if stamp == "end":
            ends = np.where(own == first, first, months_later(first, 1))
            starts = months_later(ends, -months)
        else:
            starts = first if stamp == "start" else months_later(first, -(months // 2))
            ends = months_later(starts, months)
    elif stamp is None:
        return piece
    elif not seconds:
        raise ValueError(
            f"Expected at least two times of {piece.name}, or time bounds, to know what its means are over; got {own[0]} "
            f"alone ({piece.path})"
        )
    else:
        ends = later(own, {"start": 1.0, "middle": 0.5, "end": 0.0}[stamp] * seconds)
        starts = later(ends, -seconds)
    return dataclasses.replace(piece, coordinates={**piece.coordinates, "time": ends}, starts=starts)


def in_period(piece: Piece, period: tuple, intervals: bool) -> np.ndarray:
    """Which times of a piece lie in a period, `(time,)` bool: of `intervals` those that lie in it as a whole."""
    return within(piece.coordinates["time"], *period, piece.starts if intervals else None)


def of_intervals(moving) -> bool:
    """Whether all fields, name -> term -> pieces, are means whose intervals are known: then the store's times end them."""
    return all(
        is_mean(some) and all(p.starts is not None for p in some)
        for name, terms in moving.items()
        for some in terms.values()
    )


@dataclasses.dataclass(frozen=True, eq=False)
class TimeAxis:
    """The time axis of the store: of the snapshots where there are any, else of the means.

    Attributes:
      times: `(time,)`; step: between neighbours, of no length for one time and for forecasts' initial times.
    """

    times: np.ndarray
    step: TimeStep

    @classmethod
    def of(cls, built, forecast: bool, asked: TimeStep | None, keep_missing: bool) -> "TimeAxis":
        """Of terms by name and key. Raises `ValueError` naming a file for a step that is not uniform."""
        snapshots = [t for name, terms in built.items() for t in terms.values() if not is_mean(t.pieces)]
        terms = snapshots or [t for some in built.values() for t in some.values()]
        times = np.unique(np.concatenate([t.times for t in terms]))
        where = terms[0].pieces[0].path
        if forecast:
            return cls(times, TimeStep())
        if asked is not None:
            times = _at_multiples(times, asked, where)
        step = asked or usual_step(times)
        if len(times) < 2:
            return cls(times, TimeStep())
        irregular = np.flatnonzero(np.abs(seconds_between(times) - step.lengths(times[1:])) > 1e-3)
        if not len(irregular):
            return cls(times, step)
        at = irregular[0]
        if not keep_missing:
            raise ValueError(
                f"Expected a uniform time axis, got a step of {step} and {seconds_between(times)[at] / 3600:g} h from "
                f"{times[at]} to {times[at + 1]} ({where}{', ...' if len(terms[0].pieces) > 1 else ''}); "
                f"to take gaps: {GAPS}"
            )
        return cls(_without_gaps(times, step, where), _shortest(times, step))


def usual_step(times: np.ndarray) -> TimeStep:
    """Calendar months where all times fit them, else the median of the lengths; of gaps the rest is left to others."""
    if len(times) < 2:
        return TimeStep()
    months = months_between(times)
    if months is not None and months.min() > 0:
        return TimeStep(months=int(months.min()))
    return TimeStep(float(np.median(seconds_between(times))))


def _shortest(times: np.ndarray, step: TimeStep) -> TimeStep:
    return step if step.months else TimeStep(float(seconds_between(times).min()))


def _without_gaps(times: np.ndarray, step: TimeStep, where: str) -> np.ndarray:
    """All times of a uniform axis from the first to the last. Raises `ValueError` for gaps that are not whole steps."""
    shortest, between = _shortest(times, step), seconds_between(times)
    if step.months:
        steps = np.diff(month_numbers(times)) / step.months
        off = np.asarray(months_between(times) is None) | (np.abs(steps - np.round(steps)) > 1e-6)
    else:
        steps = between / shortest.seconds
        total = np.concatenate([[0], np.cumsum(between)]) / shortest.seconds
        off = (
            np.abs(steps - np.round(steps)) > 1e-6
            if np.abs(total - np.round(total)).max() > 1e-6
            else np.zeros(1, bool)
        )
    if off.any():
        at = int(np.argmax(off))
        raise ValueError(
            f"Expected gaps of whole steps of {shortest}, got {between[at] / 3600:g} h from {times[at]} to "
            f"{times[at + 1]} ({where})"
        )
    return np.array([shortest.later(times[:1], n)[0] for n in range(round(steps.sum()) + 1)])


def _at_multiples(times: np.ndarray, step: TimeStep, where: str) -> np.ndarray:
    """Those at whole multiples of a step after midnight; of months at their beginnings, of seasons those of DJF, MAM, ...."""
    if step.months:
        phase = 2 if step.months == 3 else 0  # a season ends with February, May, August or November
        kept = times[(times == month_starts(times)) & (month_numbers(times) % step.months == phase)]
        what = f"the beginnings of every {step}"
    else:
        since = day_and_hour(times[:1])[1] * 3600 + np.concatenate([[0.0], np.cumsum(seconds_between(times))])
        kept = times[np.abs(since / step.seconds - np.round(since / step.seconds)) < 1e-6]
        what = f"multiples of {step} after midnight"
    if not len(kept):
        raise ValueError(f"Expected times at {what}, got {times[:3]} ({where})")
    return kept


def window(name: str, term: Term, axis: TimeAxis) -> tuple[int, np.ndarray | None, np.ndarray | None]:
    """How many means of the source make one of the store; of calendar steps that of the step that ends at each slot.

    Returns the largest number, and for calendar steps the numbers `(slot,)`, 0 where none fill a step, and the seconds that
    each mean of the source is over, `(slot,)`. Raises `ValueError` when they do not fill the step.
    """
    if len(term.times) < 2 or not axis.step.seconds:
        return 1, None, None
    own = usual_step(term.times)
    if not axis.step.months or own == axis.step:
        ratio = axis.step.seconds / own.seconds
        if bool(own.months) == bool(axis.step.months) and ratio > 1 - 1e-6 and abs(ratio - round(ratio)) < 1e-6:
            return round(ratio), None, None
    elif not own.months or axis.step.months % own.months == 0:
        lengths, starts = own.lengths(term.times), axis.step.later(term.times, -1)
        first = np.searchsorted(term.times, own.later(starts))
        numbers = np.arange(1, len(term.times) + 1) - first
        filled = np.array([lengths[a : a + n].sum() for a, n in zip(first, numbers, strict=True)])
        numbers = np.where(np.abs(filled - axis.step.lengths(term.times)) < 1e-3, numbers, 0)
        return max(1, int(numbers.max())), numbers, lengths
    raise ValueError(
        f"Expected means of {name} whose step divides {axis.step}, got {own} in {term.pieces[0].path}; set step_hours or step"
    )
