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
from emulator.planet.calendar import TimeStep, in_seconds
from emulator.sources.running import runs_from_midnight, runs_from_start, some_times

TOLERANCE = 1.0  # s; bounds in days are rounded to microseconds, some in single precision to more
DEEPEST = 800  # values that make one: hours of a month
PROBED = 50  # steps after which values that never added up are taken never to do so

log = logging.getLogger(__name__)


def sums_of_leads(name: str, term: Term, leads: np.ndarray) -> Sums | None:
    """Of a forecast, whose steps are those between its leads; None where every value covers its step and is a mean over it.

    Args:
      leads: `(lead,)` timedelta64.

    Raises `ValueError` naming the lead and the file for values that do not add up to a step.
    """
    lengths, totals = intervals(term)
    if np.isnan(lengths).all():
        return None
    ends = np.round(leads / np.timedelta64(1, "s")).astype(np.int64)
    # The step before the first lead is as long as the next one, and that of one lead alone its value's interval.
    first = max(0, 2 * ends[0] - ends[1]) if len(ends) > 1 else -1
    begins = np.concatenate([[first], ends[:-1]])
    steps = np.broadcast_to(np.where(ends > begins, ends - begins, np.nan), lengths.shape)
    if not totals.any() and (len(ends) == 1 or _fit(lengths, steps)):
        return None
    rows = []
    for slot in range(len(term.times)):
        there = (term.owner[slot] >= 0).all(axis=(1, 2)) & np.isfinite(lengths[slot])
        starts = ends - np.where(there, np.round(np.nan_to_num(lengths[slot])), 0).astype(np.int64)
        values = {int(ends[n]): (n, int(starts[n]), bool(totals[slot, n])) for n in np.flatnonzero(there)}
        row: list = [((), np.nan) for _ in ends]
        for lead in np.flatnonzero(there & (ends > 0)):
            begin = int(starts[lead] if begins[lead] < 0 else begins[lead])
            parts = _parts(values, int(ends[lead]), begin)
            if parts is None:
                _tell_of_lead(name, term, slot, lead, (begin, int(starts[lead]), int(ends[lead])))
            row[lead] = (parts, float(ends[lead] - begin))
        rows.append(row)
    return _packed(rows, across=False)


def _tell_of_lead(name: str, term: Term, slot: int, lead: int, seconds: tuple[int, int, int]) -> None:
    """Logs that there is no value at a first lead. Raises `ValueError` naming the file for any other one.

    `seconds`: the beginning of the step, that of the value, and the end of both.
    """
    begin, start, end = (second / 3600 for second in seconds)
    path = term.pieces[int(term.owner[slot, lead].max())].path
    if lead == 0:
        log.warning(
            "%s has no value at the first lead, %g h: it is over %g to %g h in %s, not over the step that ends there",
            name, end, start, end, path,
        )  # fmt: skip
        return
    raise ValueError(
        f"Expected {name} over the step from {begin:g} to {end:g} h, or what that is the difference of, got it from "
        f"{start:g} h in {path}; add the files of the leads between, or leave it out (variables)"
    )


def sums_of_times(name: str, term: Term, step: TimeStep, wanted: np.ndarray) -> Sums | None:
    """Of an analysis; None where nothing tells the intervals, or all of them are as long as the term's own times are apart.

    Args:
      step: of the store. wanted: slots that end steps of it.

    Raises `ValueError` naming the file for values that nowhere add up to the step.
    """
    lengths, totals = intervals(term)
    if np.isnan(lengths).all() or (not totals.any() and (len(term.times) < 2 or not step.seconds)):
        return None
    if len(term.times) < 2 or not step.seconds:  # totals that nothing is added to
        return _packed([[([(n, 1.0)], float(own))] for n, own in enumerate(lengths[:, 0])], across=True)
    own = usual_step(term.times)
    if not totals.any() and _fit(lengths, own.lengths(term.times)[:, None]):
        return None
    ends = np.round(in_seconds(term.times - term.times[0])).astype(np.int64)
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


def check_running(name: str, term: Term, leads: np.ndarray | None) -> None:
    """Looks at a few cells where an option or bounds alone say what amounts are over.

    Raises `ValueError` naming the file for totals that run on, with the option that says so.
    """
    if not any(piece.assumed for piece in term.pieces):
        return
    if leads is None:
        stretches = [(term.times[at], term.some_cells(at, np.zeros(1, int))[:, 0]) for at in some_times(term.times)]
        found = ("midnight", "since 00 UTC, and begin anew after it") if runs_from_midnight(stretches) else None
    else:
        after = np.flatnonzero(leads > np.timedelta64(0))
        whole = np.flatnonzero((term.owner[:, after] >= 0).all(axis=(1, 2, 3)))[:4]
        values = term.some_cells(whole, after) if len(whole) and len(after) else np.zeros((0, 0, 0))
        found = ("start", "since the initial time") if runs_from_start(values) else None
    if found:
        raise ValueError(
            f"Expected {name} over the interval that interval_hours or time bounds give in {term.pieces[0].path}, got values "
            f"that rise {found[1]}, as totals do that run on; to take them for such: totals_from: {found[0]} in place of "
            "interval_hours"
        )


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
