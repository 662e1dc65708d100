"""Means over the steps of a store from values that cover other intervals: hours in six hours, running totals, running means.

A value at the time `t` that covers the interval from `s` to `t` is the amount (total, or mean times length) from `s` to `t`.
The amount over a step from `p` to `t` is made of those: what a value covers before `p` is taken away, and what it leaves
out after `p` is added, by the values at the times where these parts end. So totals from the start of a forecast or from
midnight (ERA5-Land), means over 0-3 and 0-6 h in turn (GFS), and shorter intervals that fill a step come out exactly.
"""

import logging
from collections.abc import Mapping

import numpy as np

from emulator.ingestion.term import Sums, Term
from emulator.ingestion.times import usual_step
from emulator.planet.calendar import TimeStep

TOLERANCE = 1.0  # s; bounds in days are rounded to microseconds, some in single precision to more
DEEPEST = 800  # values that make one: hours of a month
log = logging.getLogger(__name__)
PROBED = 50  # steps after which values that never added up are taken never to do so


def sums_of_leads(name: str, term: Term, leads: np.ndarray) -> Sums | None:
    """Of a forecast, whose steps are those between its leads; None where every value covers its step and is a mean over it.

    Args:
      leads: `(lead,)` timedelta64. The step before the first is as long as the next one; a lead alone has the interval of its
        own value.

    Raises `ValueError` naming the file for values that nowhere add up to the steps.
    """
    lengths, totals = intervals(term)
    if np.isnan(lengths).all():
        return None
    ends = np.round(leads / np.timedelta64(1, "s")).astype(np.int64)
    before = np.concatenate([[max(0, 2 * ends[0] - ends[1]) if len(ends) > 1 else -1], ends[:-1]])  # -1: its own start
    if not totals.any() and _fit(lengths, np.broadcast_to(np.where(before < 0, np.nan, ends - before), lengths.shape)):
        return None
    rows = []
    for length, total, owner in zip(lengths, totals, term.owner, strict=True):
        there = (owner >= 0).all(axis=(1, 2))
        starts = ends - np.where(np.isfinite(length), np.round(length), 0).astype(np.int64)
        values = {int(e): (n, int(s), bool(t)) for n, (e, s, t) in enumerate(zip(ends, starts, total, strict=True))
                  if there[n] and np.isfinite(length[n])}  # fmt: skip
        row = []
        for end, start in zip(ends.tolist(), before.tolist(), strict=True):
            begin = values[end][1] if start < 0 and end in values else start
            row.append((_parts(values, end, begin), end - begin) if end > 0 and end > begin >= 0 else ((), np.nan))
        rows.append(row)
    sums = _packed(rows, across=False)
    if ends[0] > 0 and np.isfinite(lengths[:, 0]).any() and not np.isfinite(sums.seconds[:, 0]).any():
        log.warning(
            "%s has no value at the first lead, %g h: its sources have none over that step", name, ends[0] / 3600
        )
    if len(leads) > 1 and not np.isfinite(sums.seconds[:, 1:]).any():
        _refuse(name, term, lengths, f"{(ends[1] - ends[0]) / 3600:g} h between leads")
    return sums


def sums_of_times(name: str, term: Term, step: TimeStep, wanted: np.ndarray) -> Sums | None:
    """Of an analysis; None where nothing tells the intervals, or all of them are as long as the term's own times are apart.

    Args:
      step: of the store. wanted: slots that end steps of it.

    Raises `ValueError` naming the file for values that nowhere add up to the step.
    """
    lengths, totals = intervals(term)
    if np.isnan(lengths).all() or len(term.times) < 2 or not step.seconds:
        return None
    own = usual_step(term.times)
    if not totals.any() and _fit(lengths, own.lengths(term.times)[:, None]):
        return None
    ends = np.round(_seconds(term.times - term.times[0])).astype(np.int64)
    starts = ends - np.where(np.isfinite(lengths[:, 0]), np.round(lengths[:, 0]), 0).astype(np.int64)
    there = (term.owner >= 0).all(axis=(1, 2, 3)) & np.isfinite(lengths[:, 0])
    values = {int(ends[n]): (n, int(starts[n]), bool(totals[n, 0])) for n in np.flatnonzero(there)}
    steps = np.round(step.lengths(term.times)).astype(np.int64)
    rows: list = [[((), np.nan)] for _ in term.times]
    for count, slot in enumerate(wanted):
        begin = int(ends[slot] - steps[slot])
        rows[slot] = [(_parts(values, int(ends[slot]), begin), float(steps[slot]))]
        if count + 1 in (PROBED, len(wanted)) and not any(rows[n][0][0] for n in wanted[: count + 1]):
            _refuse(name, term, lengths, str(step))
    return _packed(rows, across=True)


def intervals(term: Term) -> tuple[np.ndarray, np.ndarray]:
    """Seconds that each value covers, NaN where nothing tells, and whether it is a total: each `(slot, lead)`."""
    owner = term.owner.max(axis=(2, 3))
    lengths, totals = np.full(owner.shape, np.nan), np.zeros(owner.shape, bool)
    for number in np.unique(owner[owner >= 0]):
        piece, mine = term.pieces[number], owner == number
        totals[mine] = piece.totals
        if (own := piece.interval_seconds) is not None:
            place = term.place[mine]
            lengths[mine] = own[place[:, 0], np.minimum(place[:, 1], own.shape[1] - 1)]
    return lengths, totals


def _seconds(spans: np.ndarray) -> np.ndarray:
    if spans.dtype == object:
        return np.array([span.total_seconds() for span in spans])
    return spans / np.timedelta64(1, "s")


def _fit(lengths: np.ndarray, steps: np.ndarray) -> bool:
    known = np.isfinite(lengths) & np.isfinite(steps)
    return bool((np.abs(lengths - steps)[known] < TOLERANCE).all())


def _parts(values: Mapping[int, tuple[int, int, bool]], end: int, begin: int) -> list[tuple[int, float]] | None:
    """Values, and their factors, that add up to the amount from `begin` to `end`; None where none do.

    Args:
      values: by the second at which they end: their index, the second at which they begin, and whether they are totals.
    """
    parts, sign = [], 1
    while end - begin > TOLERANCE:
        near = next((second for second in (end, end - 1, end + 1) if second in values), None)
        if near is None or len(parts) == DEEPEST:
            return None
        index, start, total = values[near]
        parts.append((index, sign * (1.0 if total else float(near - start))))
        if start > begin + TOLERANCE:  # what lies between the beginning and this value's is left to be added
            end = start
        elif start < begin - TOLERANCE:  # what this value covers before the beginning is to be taken away
            begin, end, sign = start, begin, -sign
        else:
            break
    return parts


def _packed(rows: list, across: bool) -> Sums:
    """Of `(slot, lead)` lists of parts (None: they do not add up) and seconds."""
    shape = len(rows), len(rows[0])
    count = max([1, *(len(parts or ()) for row in rows for parts, _ in row)])
    index, factor = np.full((*shape, count), -1, np.int32), np.zeros((*shape, count))
    seconds = np.full(shape, np.nan)
    for slot, row in enumerate(rows):
        for lead, (parts, length) in enumerate(row):
            if parts:
                index[slot, lead, : len(parts)], factor[slot, lead, : len(parts)] = zip(*parts, strict=True)
                seconds[slot, lead] = length
    return Sums(index, factor, seconds, across)


def _refuse(name: str, term: Term, lengths: np.ndarray, steps: str) -> None:
    where = np.argwhere(np.isfinite(lengths))
    hours = ", ".join(f"{h:g}" for h in np.unique(np.round(lengths[np.isfinite(lengths)] / 3600, 4))[:4])
    path = term.pieces[int(term.owner[tuple(where[-1])].max())].path
    raise ValueError(
        f"Expected values of {name} over intervals that make up the steps of {steps}, got intervals of {hours} h ({path}); "
        "sources with the times between them make the step whole, or time_stamp says where in its step a mean with other "
        "bounds lies"
    )
