"""Pieces of sources put together: one grid, one time axis, and for every field the piece that each slot is read from."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from emulator.ingestion.fields import GAPS, PlannedField, StorePlan
from emulator.ingestion.term import Term
from emulator.ingestion.vertical import common_axis, common_vertical, places, vertical_of_pieces
from emulator.planet.calendar import day_and_hour, later, seconds_between, within
from emulator.planet.grid import Grid
from emulator.planet.vertical import VERTICAL
from emulator.sources.horizontal import grid_from
from emulator.sources.piece import Piece

log = logging.getLogger(__name__)


def assemble(
    pieces: Sequence[Piece],
    roles: Mapping[str, str],
    period: tuple = (None, None),
    step_hours: float | None = None,
    keep_missing: bool = False,
    longest_gap: int = 0,
) -> StorePlan:
    """The plan of a store from all pieces of all sources.

    Args:
      pieces: from `harmonise.pieces`; of a forecast all with `lead_time`, of an analysis none.
      roles: canonical name -> role, for the names whose role is not the table's.
      period: first and last time, both included (see `emulator.planet.calendar.within`).
      step_hours: step of the store; None takes the one of the sources. A longer one takes snapshots at whole multiples
        of it after midnight and averages the means in between.
      keep_missing: leave slots that no source has empty instead of refusing them.
      longest_gap: interpolate up to so many missing times in a row (of an analysis).

    Raises `ValueError` naming the file, the field and the time: mixed grids or levels, a field twice or missing, an
    irregular time axis, means that do not fill the step.
    """
    if not pieces:
        raise ValueError("Expected variables of the table in the sources, got none")
    grid = _common_grid(pieces)
    groups = _terms_of(pieces)
    forecast = any("lead_time" in p.coordinates for p in pieces)
    meaning = {name: next(iter(terms.values()))[0].meaning for name, terms in groups.items()}
    role = {name: roles.get(name) or meaning[name].role for name in groups}
    fixed = {name: terms for name, terms in sorted(groups.items()) if role[name] == "static"}
    moving = {name: terms for name, terms in groups.items() if role[name] != "static"}
    if not groups:
        half = ", ".join(sorted({f"the {p.term}ward part of {p.name} ({p.path})" for p in pieces}))
        raise ValueError(f"Expected both parts of a net flux in the sources, got only {half}")
    if not moving:
        raise ValueError("Expected variables that change in time in the sources, got static ones alone")
    axes = common_vertical(fixed | moving)
    static = {name: _static(terms, grid, axes) for name, terms in fixed.items()}
    members = common_axis([p for terms in moving.values() for t in terms.values() for p in t], "member")
    leads = None
    if forecast:
        leads = np.unique(
            np.concatenate([p.coordinates["lead_time"] for t in moving.values() for q in t.values() for p in q])
        )
    built = {
        name: {key: _term(name, some, leads, members, axes, period) for key, some in sorted(terms.items())}
        for name, terms in sorted(moving.items())
    }
    axis = _Axis.of(built, forecast, step_hours, keep_missing or longest_gap > 0)
    fields = {name: _field(name, role[name], list(terms.values()), axis, leads) for name, terms in built.items()}
    axis, fields = _without_first_windows(axis, fields)
    if longest_gap and not forecast:
        fields = {name: field.filled(longest_gap) for name, field in fields.items()}
    missing = np.any([~field.present for field in fields.values()], axis=0)
    interpolated = np.any([field.interpolated for field in fields.values()], axis=0)
    if not keep_missing:
        for field in fields.values():
            field.check_present(axis.times)
    level = axes.pop("level", None)
    levels = (None, None) if level is None else (level.values, level.kind)
    shared = (axis.times, leads, members, *levels, grid, fields, static, axis.step)
    entries = {name: meaning[name] for name in fixed}
    return StorePlan(*shared, missing, interpolated if interpolated.any() else None, axes=axes, entries=entries)


def _without_first_windows(axis, fields):
    """Without the first times, where the means before them that would fill the step are not in the sources."""
    late = [np.argmax(f.slots >= 0) for f in fields.values() if f.window > 1 and (f.slots >= 0).any()]
    first = max(late, default=0)
    if first == 0:
        return axis, fields
    log.info("The first %d times are left out: the means of the step before them are not in the sources", first)
    fields = {name: dataclasses.replace(field, slots=field.slots[first:]) for name, field in fields.items()}
    return dataclasses.replace(axis, times=axis.times[first:]), fields


def _terms_of(pieces) -> dict[str, dict[str, list[Piece]]]:
    groups: dict[str, dict[str, list[Piece]]] = {}
    for piece in pieces:
        groups.setdefault(piece.name, {}).setdefault(piece.term, []).append(piece)
    for name, terms in list(groups.items()):
        if "" in terms:
            groups[name] = {"": terms[""]}
        elif set(terms) != {"down", "up"}:
            log.info("%s is left out: the sources have only its %sward part", name, next(iter(terms)))
            del groups[name]
    return groups


def _common_grid(pieces) -> Grid:
    first, grid = pieces[0], None
    for piece in pieces:
        here, there = piece.coordinates, first.coordinates
        if grid is not None and all(np.array_equal(here[n], there[n]) for n in ("latitude", "longitude")):
            continue
        try:
            own = grid_from(here)
        except ValueError as error:
            raise ValueError(f"{error} ({piece.path})") from None
        if grid is None:
            grid = own
        elif not own.same_as(grid):
            raise ValueError(
                f"Expected one grid, got {grid.describe()} in {first.path} and {own.describe()} in {piece.path}"
            )
    return grid


def _static(terms, grid, axes) -> xr.Variable:
    """A field that does not change, `([vertical,] *space)`."""
    total, pieces = 0.0, [some[0] for some in terms.values()]
    vertical = pieces[0].axis
    levels = np.zeros(1) if vertical is None else axes[vertical].values
    for piece in pieces:
        values = piece.read([0])[0, 0, 0]
        if len(values) != len(levels):
            raise ValueError(
                f"Expected {piece.name} on all {len(levels)} {VERTICAL[vertical].label} in one file, got {len(values)} in "
                f"{piece.path}"
            )
        total = total + values.astype(np.float64).reshape(len(levels), *grid.shape)
    total = total.astype(np.float32)
    return xr.Variable(grid.dims, total[0]) if vertical is None else xr.Variable((vertical, *grid.dims), total)


def _term(name, pieces, leads, members, vertical_axes, period) -> Term:
    vertical = vertical_of_pieces(name, pieces)
    levels = np.zeros(1) if vertical is None else vertical_axes[vertical].values
    own_members = members if common_axis(pieces, "member") is not None else None
    axes = {"member": own_members if own_members is not None else np.zeros(1, np.int64)}
    masks = [within(p.coordinates["time"], *period) for p in pieces]
    if not any(mask.any() for mask in masks):
        raise ValueError(f"Expected times of {name} in the period, got none (first source: {pieces[0].path})")
    times = _sorted_times([p.coordinates["time"][mask] for p, mask in zip(pieces, masks, strict=True)], pieces)
    count = 1 if leads is None else len(leads)
    owner = np.full((len(times), count, len(axes["member"]), len(levels)), -1, np.int32)
    place = np.zeros((len(times), count, 2), np.int32)
    for number, (piece, mask) in enumerate(zip(pieces, masks, strict=True)):
        if not mask.any():
            continue
        kept = np.flatnonzero(mask)
        rows = np.searchsorted(times, piece.coordinates["time"][kept])
        columns = np.zeros(1, int) if leads is None else np.searchsorted(leads, piece.coordinates["lead_time"])
        member = np.zeros(1, int) if own_members is None else np.searchsorted(own_members, piece.coordinates["member"])
        level = np.zeros(1, int) if piece.axis is None else places(levels, piece.coordinates[piece.axis])
        box = np.ix_(rows, columns, member, level)
        if len(np.unique(rows)) < len(rows) or (owner[box] >= 0).any():
            twice = rows[1:][rows[1:] == rows[:-1]] if len(np.unique(rows)) < len(rows) else rows[:1]
            other = pieces[int(owner[box].max())].path if (owner[box] >= 0).any() else piece.path
            also = f" and in {other}" if other != piece.path else " twice"
            raise ValueError(f"Expected {name} once for {times[twice[0]]}, got it in {piece.path}{also}")
        owner[box] = number
        place[np.ix_(rows, columns, [0])] = kept[:, None, None]
        place[np.ix_(rows, columns, [1])] = np.arange(len(columns))[None, :, None]
    return Term(pieces, times, owner, place, axes["member"], levels, own_members is not None, vertical)


def _sorted_times(axes, pieces) -> np.ndarray:
    kinds = {values.dtype == object for values in axes if len(values)}
    calendars = {values[0].calendar for values in axes if len(values) and values.dtype == object}
    if len(kinds) > 1 or len(calendars) > 1:
        raise ValueError(
            f"Expected one calendar in all sources of {pieces[0].name}, got several ({pieces[0].path}, ...)"
        )
    return np.unique(np.concatenate([values for values in axes if len(values)]))


@dataclasses.dataclass(frozen=True, eq=False)
class _Axis:
    """The time axis of the store: of the snapshots where there are any, else of the means."""

    times: np.ndarray
    step: float

    @classmethod
    def of(cls, built, forecast, step_hours, keep_missing) -> "_Axis":
        snapshots = [t for name, terms in built.items() for t in terms.values() if not is_mean(name, t)]
        terms = snapshots or [t for some in built.values() for t in some.values()]
        times = np.unique(np.concatenate([t.times for t in terms]))
        where = terms[0].pieces[0].path
        if forecast:
            return cls(times, 0.0)
        if step_hours is not None:
            times = _at_multiples(times, step_hours * 3600, where)
        steps = seconds_between(times)
        if not len(steps):
            return cls(times, 0.0)
        step = step_hours * 3600 if step_hours else float(np.median(steps))
        irregular = np.flatnonzero(np.abs(steps - step) > 1e-3)
        if len(irregular) and not keep_missing:
            at = irregular[0]
            raise ValueError(
                f"Expected a uniform time axis, got a step of {step / 3600:g} h and {steps[at] / 3600:g} h from "
                f"{times[at]} to {times[at + 1]} ({where}{', ...' if len(terms[0].pieces) > 1 else ''}); "
                f"to take gaps: {GAPS}"
            )
        if len(irregular):
            step = float(steps.min())
            count = np.concatenate([[0], np.cumsum(steps)]) / step
            if np.abs(count - np.round(count)).max() > 1e-6:
                at = int(np.argmax(np.abs(steps / step - np.round(steps / step)) > 1e-6))
                raise ValueError(
                    f"Expected gaps of whole steps of {step / 3600:g} h, got {steps[at] / 3600:g} h from {times[at]} to "
                    f"{times[at + 1]} ({where})"
                )
            times = np.array([later(times[:1], step * n)[0] for n in range(round(count[-1]) + 1)])
        return cls(times, step)


def _at_multiples(times, step, where) -> np.ndarray:
    since = day_and_hour(times[:1])[1] * 3600 + np.concatenate([[0.0], np.cumsum(seconds_between(times))])
    kept = times[np.abs(since / step - np.round(since / step)) < 1e-6]
    if not len(kept):
        raise ValueError(f"Expected times at multiples of {step / 3600:g} h after midnight, got {times[:3]} ({where})")
    return kept


def is_mean(name: str, term: Term) -> bool:
    """Whether a field's values are means over a step: by what it is, or because the source says so."""
    return term.pieces[0].meaning.cell == "mean" or any(p.averaged for p in term.pieces)


def _field(name, role, terms, axis: _Axis, leads) -> PlannedField:
    """The field on the store's axis; a slot is -1 where a member, level, lead or mean of the window is missing."""
    first = terms[0]
    averaged = is_mean(name, first)
    window = _window(name, first, axis) if averaged and leads is None else 1
    for term in terms[1:]:
        if not np.array_equal(term.times, first.times):
            raise ValueError(f"Expected the terms of {name} at the same times, got others in {term.pieces[0].path}")
    needed = slice(1 if leads is not None and averaged and leads[0] == np.timedelta64(0) else 0, None)  # none ends at 0
    complete = np.all([(t.owner[:, needed] >= 0).all(axis=(1, 2, 3)) for t in terms], axis=0)
    at = np.minimum(np.searchsorted(first.times, axis.times), len(first.times) - 1)
    complete_at = first.times[at] == axis.times
    for back in range(window):
        source = np.maximum(at - back, 0)
        complete_at &= (at >= back) & complete[source]
        if back:
            complete_at &= first.times[source] == later(axis.times, -back * axis.step / window)
    return PlannedField(
        name,
        role,
        terms,
        window,
        np.where(complete_at, at, -1),
        first.has_member,
        first.vertical,
        averaged,
        any(p.from_start for p in first.pieces),
        None if leads is None else leads / np.timedelta64(1, "s"),
        entry=first.pieces[0].entry,
    )


def _window(name, term, axis) -> int:
    """How many means of the source make one of the store. Raises `ValueError` when they do not fill the step."""
    steps = seconds_between(term.times)
    if not len(steps) or axis.step == 0:
        return 1
    own = float(np.median(steps))
    ratio = axis.step / own
    if ratio < 1 - 1e-6 or abs(ratio - round(ratio)) > 1e-6:
        raise ValueError(
            f"Expected means of {name} whose step divides {axis.step / 3600:g} h, got {own / 3600:g} h in "
            f"{term.pieces[0].path}; set step_hours"
        )
    return round(ratio)
