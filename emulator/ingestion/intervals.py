"""Means over the steps of a forecast from amounts and means over other intervals that end at its leads.

Centres write rain and radiation from the initial time on, or over intervals that start anew every few steps (GFS: 0-3, 0-6,
6-9, 6-12 h). What a value is over is a property of the series, which no single file of it may tell: of one that holds the
value at 12 h alone, 0-12 h is a step of 12 h as well as a sum since the start.
"""

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np

from emulator.sources.piece import Piece

SAME = 1e-3  # seconds
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Intervals:
    """How the mean over the step that ends at each lead is made from what ends at this lead and earlier ones.

    Attributes:
      seconds: from the start of each step to its lead, `(lead,)`.
      parts: for every lead the positions of what is added up and its sign, and empty where no step ends.
      lengths: `(lead,)` that means are multiplied with to be amounts; None for amounts.
    """

    seconds: np.ndarray
    parts: tuple[tuple[tuple[int, int], ...], ...]
    lengths: np.ndarray | None

    def needed(self, chosen: np.ndarray) -> np.ndarray:
        """Positions of leads to read for the steps that end at the leads `chosen`."""
        return np.unique(np.concatenate([chosen, *([j for j, _ in self.parts[lead]] for lead in chosen)])).astype(int)

    def means(self, values: np.ndarray, read: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Means over the steps that end at `chosen` from values at the leads `read`, `(time, lead, ...)`; NaN without one."""
        out = np.full((len(values), len(chosen), *values.shape[2:]), np.nan, np.float32)
        place = {lead: at for at, lead in enumerate(read.tolist())}
        for at, lead in enumerate(chosen.tolist()):
            total = None
            for other, sign in self.parts[lead]:
                one = values[:, place[other]]
                if self.lengths is not None and len(self.parts[lead]) > 1:
                    one = one * self.lengths[other]
                total = one if total is None else total + one if sign > 0 else total - one
            if total is not None:
                direct = self.lengths is not None and len(self.parts[lead]) == 1
                out[:, at] = total if direct else total / self.seconds[lead]
        return out


def over_steps(name: str, terms: dict[str, list[Piece]], leads: np.ndarray) -> tuple[dict, Intervals | None]:
    """The pieces of a field's terms, and how its means over the steps between `leads` (timedeltas) come from them.

    None where every value is over its step, or nothing is known of it. Raises `ValueError` naming the lead and the file where
    the sources say what their values are over and no sum of them is over a step.
    """
    pieces = [piece for some in terms.values() for piece in some]
    if pieces[0].meaning.cell != "mean" or all(piece.lead_starts is None for piece in pieces):
        return terms, None
    ends = leads / np.timedelta64(1, "s")
    starts, where = _starts(name, pieces, leads)
    begins = np.concatenate([[max(0.0, 2 * ends[0] - ends[1]) if len(ends) > 1 else 0.0], ends[:-1]])
    if len(ends) == 1 and np.isfinite(starts[0]):
        begins[0] = starts[0]
    known = np.isfinite(starts) & (ends > 0)
    direct = np.abs(starts - begins) < SAME
    if np.all(direct | ~known) and all(piece.divided != 1.0 for piece in pieces):
        return terms, None
    parts = []
    for lead in range(len(ends)):
        made = _parts(lead, begins[lead], starts, ends) if known[lead] else ((lead, 1),) * int(ends[lead] > 0)
        if made is None and lead > 0:
            raise ValueError(
                f"Expected {name} over the step from {begins[lead] / 3600:g} to {ends[lead] / 3600:g} h, or what that is the "
                f"difference of, got it from {starts[lead] / 3600:g} h in {where[lead]}; add the files of the leads between, "
                "or leave it out (variables)"
            )
        if made is None:
            log.warning(
                "%s has no value at the first lead, %g h: it is over %g to %g h in %s, not over the step that ends there",
                name, ends[0] / 3600, starts[0] / 3600, ends[0] / 3600, where[0],
            )  # fmt: skip
        parts.append(made or ())
    amounts = {piece.divided is not None for piece in pieces}
    if len(amounts) > 1:
        raise ValueError(f"Expected amounts of {name}, or its means, in all sources, got both ({pieces[0].path}, ...)")
    whole = {key: [_undivided(piece) for piece in some] for key, some in terms.items()}
    return whole, Intervals(ends - begins, tuple(parts), None if amounts.pop() else ends - starts)


def _undivided(piece: Piece) -> Piece:
    if piece.divided in (None, 1.0):
        return piece
    return dataclasses.replace(piece, scale=piece.scale * piece.divided, divided=1.0)


def _starts(name: str, pieces: Sequence[Piece], leads: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Where what ends at each lead starts, in seconds, NaN where nothing does or tells; and in which file it is."""
    starts, where = np.full(len(leads), np.nan), [pieces[0].path] * len(leads)
    for piece in pieces:
        if piece.lead_starts is None:
            continue
        for at, start in zip(np.searchsorted(leads, piece.coordinates["lead_time"]), piece.lead_starts, strict=True):
            if np.isfinite(start) and np.isfinite(starts[at]) and abs(starts[at] - start) > SAME:
                raise ValueError(
                    f"Expected {name} at {leads[at] / np.timedelta64(1, 'h'):g} h over one interval in all sources, got it "
                    f"from {starts[at] / 3600:g} h in {where[at]} and from {start / 3600:g} h in {piece.path}"
                )
            if np.isfinite(start):
                starts[at], where[at] = start, piece.path
    return starts, where


def _parts(lead: int, begin: float, starts, ends) -> tuple[tuple[int, int], ...] | None:
    """What makes the step that ends at a lead: its own value less those that fill the time before the step; None: nothing."""
    parts, reached = [(lead, 1)], begin
    at = {round(end / SAME): place for place, end in enumerate(ends)}
    while reached - starts[lead] > SAME:
        before = at.get(round(reached / SAME))
        if before is None or not np.isfinite(starts[before]) or starts[lead] - starts[before] > SAME:
            break
        parts.append((before, -1))
        reached = starts[before]
    return tuple(parts) if abs(reached - starts[lead]) < SAME else None
