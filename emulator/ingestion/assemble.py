"""Pieces of sources put together: one grid, one time axis, and for every field the piece that each slot is read from."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from emulator.ingestion.fields import PlannedField, StorePlan
from emulator.ingestion.intervals import check_running, sums_of_leads, sums_of_times
from emulator.ingestion.term import Sums, Term
from emulator.ingestion.times import TimeAxis, at_ends, in_period, is_mean, of_intervals, sorted_times, window
from emulator.ingestion.vertical import common_axis, common_vertical, places, vertical_of_pieces
from emulator.planet.calendar import TimeStep, later
from emulator.planet.grid import Grid
from emulator.planet.variables import known
from emulator.planet.vertical import VERTICAL
from emulator.sources.horizontal import grid_from
from emulator.sources.piece import Piece, check_fixed
from emulator.store.schema import time_cell

log = logging.getLogger(__name__)
MEMBERS = (
    "; members of an ensemble are told by a coordinate (number, realization), by CMIP's variant_label or by the file's name "
    "(r1i1p1f1, member01)"
)


def assemble(
    pieces: Sequence[Piece],
    roles: Mapping[str, str],
    period: tuple = (None, None),
    step: TimeStep | None = None,
    keep_missing: bool = False,
    longest_gap: int = 0,
) -> StorePlan:
    """The plan of a store from all pieces of all sources.

    Args:
      pieces: from `harmonise.pieces`; of a forecast all with `lead_time`, of an analysis none.
      roles: canonical name -> role, for the names whose role is not the table's.
      period: first and last time, both included (see `emulator.planet.calendar.within`); of a store of means alone, whose
        intervals are known, those intervals that lie in it as a whole.
      step: of the store; None takes the one of the sources. A longer one takes snapshots at whole multiples of it after
        midnight, or at the beginnings of months, and averages the means in between.
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
    moving = {name: {key: at_ends(name, some) for key, some in terms.items()} for name, terms in moving.items()}
    if not forecast:
        for name, terms in moving.items():
            _check_cells(name, [piece for some in terms.values() for piece in some])
    intervals = not forecast and of_intervals(moving)
    axes = common_vertical(fixed | moving)
    static = {name: _static(terms, grid, axes) for name, terms in fixed.items()}
    members = common_axis([p for terms in moving.values() for t in terms.values() for p in t], "member")
    leads = None
    if forecast:
        leads = np.unique(
            np.concatenate([p.coordinates["lead_time"] for t in moving.values() for q in t.values() for p in q])
        )
    built = {}
    for name, terms in sorted(moving.items()):
        masks = {key: [in_period(p, period, intervals) for p in some] for key, some in terms.items()}
        built[name] = {key: _term(name, some, leads, members, axes, masks[key]) for key, some in sorted(terms.items())}
    for name, terms in built.items():
        for term in terms.values():
            check_running(name, term, leads)
    axis = TimeAxis.of(built, forecast, step, keep_missing or longest_gap > 0)
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
    shared = (axis.times, leads, members, *levels, grid, fields, static, axis.step.seconds)
    own = {"axes": axes, "intervals": intervals, "step_months": axis.step.months}
    own["entries"] = {name: meaning[name] for name in fixed}
    return StorePlan(*shared, missing, interpolated if interpolated.any() else None, **own)


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
        for term, own in terms.items():  # the pressure itself rather than its logarithm
            terms[term] = [piece for piece in own if not piece.logarithm] or own
        if "" in terms:
            groups[name] = {"": terms[""]}
        elif set(terms) != {"down", "up"}:
            log.info("%s is left out: the sources have only its %sward part", name, next(iter(terms)))
            del groups[name]
    return groups


def _check_cells(name: str, pieces: Sequence[Piece]) -> None:
    """Raises `ValueError` where one file has snapshots of a field and another means, unless the table says which it is."""
    table, paths = known(name), {}
    for piece in pieces:
        cell = "mean" if piece.averaged else time_cell(piece.array.attrs)
        paths.setdefault(cell or (piece.meaning.cell if table is None else None), piece.path)
    if {"point", "mean"} <= set(paths) and (table is None or table.cell == "point"):
        raise ValueError(
            f"Expected snapshots or means of {name} in all files, got snapshots in {paths['point']} and means in "
            f"{paths['mean']}"
        )


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
    for first, *_, last in (some * 2 for some in terms.values()):
        for moment in first.moments[1:]:
            check_fixed(first.name, first.moments[0], moment, first.path)
        if last is not first and first.axis == last.axis:  # files of several times
            check_fixed(first.name, first.read([0]), last.read([0]), last.path)
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


def _term(name, pieces, leads, members, vertical_axes, masks) -> Term:
    """The pieces of a term at those of their times that `masks` leaves."""
    vertical = vertical_of_pieces(name, pieces)
    levels = np.zeros(1) if vertical is None else vertical_axes[vertical].values
    own_members = members if common_axis(pieces, "member") is not None else None
    axes = {"member": own_members if own_members is not None else np.zeros(1, np.int64)}
    if not any(mask.any() for mask in masks):
        raise ValueError(f"Expected times of {name} in the period, got none (first source: {pieces[0].path})")
    times = sorted_times([p.coordinates["time"][mask] for p, mask in zip(pieces, masks, strict=True)], pieces)
    count = 1 if leads is None else len(leads)
    owner = np.full((len(times), count, len(axes["member"]), len(levels)), -1, np.int32)
    place = np.zeros((len(times), count, 2), np.int32)
    for number, (piece, mask) in enumerate(zip(pieces, masks, strict=True)):
        if not mask.any():
            continue
        kept = np.flatnonzero(mask)
        rows = np.searchsorted(times, piece.coordinates["time"][kept])
        columns = np.zeros(1, int) if leads is None else np.searchsorted(leads, piece.coordinates["lead_time"])
        member = np.zeros(1, int) if own_members is None else _places_of_members(own_members, piece)
        level = np.zeros(1, int) if piece.axis is None else places(levels, piece.coordinates[piece.axis])
        box = np.ix_(rows, columns, member, level)
        if len(np.unique(rows)) < len(rows) or (owner[box] >= 0).any():
            twice = rows[1:][rows[1:] == rows[:-1]] if len(np.unique(rows)) < len(rows) else rows[:1]
            other = pieces[int(owner[box].max())] if (owner[box] >= 0).any() else piece
            alike = np.array_equal(other.coordinates["time"], piece.coordinates["time"])
            also = f" and in {other.path}{MEMBERS if alike else ''}" if other.path != piece.path else " twice"
            raise ValueError(f"Expected {name} once for {times[twice[0]]}, got it in {piece.path}{also}")
        owner[box] = number
        place[np.ix_(rows, columns, [0])] = kept[:, None, None]
        place[np.ix_(rows, columns, [1])] = np.arange(len(columns))[None, :, None]
    return Term(pieces, times, owner, place, axes["member"], levels, own_members is not None, vertical)


def _places_of_members(members: np.ndarray, piece: Piece) -> np.ndarray:
    if "member" not in piece.coordinates:
        raise ValueError(
            f"Expected the number of a member with {piece.name} in all files, since some have one, got none in {piece.path}"
        )
    return np.searchsorted(members, piece.coordinates["member"])


def _field(name, role, terms, axis: TimeAxis, leads) -> PlannedField:
    """The field on the store's axis; a slot is -1 where a member, level, lead or mean of the window is missing."""
    first = terms[0]
    averaged = is_mean(first.pieces)
    for term in terms[1:]:
        if not np.array_equal(term.times, first.times):
            raise ValueError(f"Expected the terms of {name} at the same times, got others in {term.pieces[0].path}")
    terms = [dataclasses.replace(t, sums=_sums(name, t, axis, leads)) for t in terms] if averaged else terms
    made = [t.sums for t in terms if t.sums is not None]
    plain = averaged and leads is None and len(made) < len(terms)
    width, numbers, seconds = window(name, first, axis) if plain else (1, None, None)
    needed = slice(1 if leads is not None and averaged and leads[0] == np.timedelta64(0) else 0, None)  # none ends at 0
    complete = np.all([(t.owner[:, needed] >= 0).all(axis=(1, 2, 3)) for t in terms], axis=0)
    at = np.minimum(np.searchsorted(first.times, axis.times), len(first.times) - 1)
    complete_at = first.times[at] == axis.times
    for sums in made:
        complete_at &= _complete_sums(sums, complete)[at]
    if numbers is not None:
        missing = np.concatenate([[0], np.cumsum(~complete)])
        complete_at &= (numbers[at] > 0) & (missing[at + 1] == missing[at + 1 - numbers[at]])
    for back in range(width if numbers is None else 0):
        source = np.maximum(at - back, 0)
        complete_at &= (at >= back) & complete[source]
        if back:
            complete_at &= first.times[source] == _earlier(axis, back, width)
    if made and not plain and leads is None:
        width = max(2, *(sums.index.shape[-1] for sums in made))
    return PlannedField(
        name,
        role,
        terms,
        width,
        np.where(complete_at, at, -1),
        first.has_member,
        first.vertical,
        averaged,
        entry=first.pieces[0].entry,
        numbers=numbers,
        seconds=seconds,
    )


def _sums(name, term, axis: TimeAxis, leads):
    """How a term's values add up to means over the store's steps; None where they are such means, or nothing tells."""
    if leads is not None:
        return sums_of_leads(name, term, leads)
    return sums_of_times(name, term, axis.step, np.flatnonzero(np.isin(term.times, axis.times)))


def _complete_sums(sums: Sums, complete: np.ndarray) -> np.ndarray:
    """`(slot,)`: whether the means over the steps that end there can be made of values that there are."""
    if not sums.across:
        return np.isfinite(sums.seconds).any(axis=1)  # of a forecast's leads all but the first have been checked
    there = complete[np.maximum(sums.index[:, 0], 0)] | (sums.index[:, 0] < 0)
    return np.isfinite(sums.seconds[:, 0]) & there.all(axis=1)


def _earlier(axis: TimeAxis, back: int, width: int) -> np.ndarray:
    """Where the `back`-th mean before each of the axis's times ends, of `width` in a step."""
    return later(axis.times, -back * axis.step.seconds / width)
