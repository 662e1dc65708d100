"""A plan as a store: its empty template, the slabs that it is filled by, and the checks on what goes in."""

import dataclasses
import logging
from collections.abc import Mapping

import numpy as np
import xarray as xr

from emulator.ingestion.fields import DerivedField, PlannedField, StorePlan
from emulator.ingestion.plausible import limits
from emulator.planet.calendar import seconds_between
from emulator.planet.projection import NAME as CRS
from emulator.planet.variables import COORDINATES, known, variable
from emulator.planet.vertical import VERTICAL
from emulator.store.analysis import ANALYSIS
from emulator.store.forecast import write_forecast_init
from emulator.store.marks import digest, mark, matches
from emulator.store.masks import cut, mask_of
from emulator.store.regions import write_region
from emulator.store.schema import horizontal_coordinates

SLAB_BYTES = 64 << 20  # of one field; with a few threads at work a stage stays well below a gigabyte

log = logging.getLogger(__name__)


def template(plan: StorePlan, attributes: Mapping[str, str]) -> xr.Dataset:
    """An analysis store (or, with leads, one forecast) without values but for coordinates and static fields."""
    coordinates = _coordinates(plan)
    space = plan.grid.dims
    variables: dict[str, tuple] = {}
    for name, field in plan.fields.items():
        dims = ("lead_time",) if plan.leads is not None else ("time",)
        dims += _own_dims(field) + space
        sizes = {d: len(c[1]) for d, c in coordinates.items() if c[0] == d} | dict(
            zip(space, plan.grid.shape, strict=True)
        )
        shape = tuple(sizes[d] for d in dims)
        variables[name] = (dims, np.broadcast_to(np.float32(0), shape), _attributes(name, field, plan))
    for name, field in plan.static.items():
        own = field.attrs if "units" in field.attrs else _attributes(name, None, plan) | field.attrs
        variables[name] = (field.dims, field.values, own)
    for name, series in plan.series.items():
        variables[name] = ("time", series.values, _attributes(name, None, plan) | series.attrs)
    area = {"units": "1", "long_name": "share of the sphere of each cell"}
    variables["cell_area"] = (space, plan.grid.cell_area, area)
    if plan.half_levels is not None:
        names = {"half_level_a": ("Pa", plan.half_levels[0]), "half_level_b": ("1", plan.half_levels[1])}
        variables |= {name: ("half_level", values, {"units": units}) for name, (units, values) in names.items()}
    for axis, values in plan.axes.items():
        if values.bounds is not None:
            variables[f"{axis}_bounds"] = ((axis, "bounds"), values.bounds, {"units": VERTICAL[axis].bounds})
    if plan.missing.any() and plan.leads is None:
        variables["missing"] = ("time", plan.missing, {"long_name": "no source has this time"})
    if plan.interpolated is not None:
        variables["interpolated"] = ("time", plan.interpolated, {"long_name": "a field is interpolated to this time"})
    steps = seconds_between(plan.leads) if plan.leads is not None else np.array([plan.step_seconds])
    own = {"emulator_schema": ANALYSIS, "time_step_seconds": float(steps[0]) if len(set(steps)) == 1 else 0.0}
    if plan.step.months:
        own["time_step_months"] = plan.step.months
    if plan.levels is not None:
        own["vertical_coordinate"] = plan.vertical
    if plan.missing.any():
        own["missing_times"] = int(plan.missing.sum())
    if plan.interpolated is not None:
        own["interpolated_times"] = int(plan.interpolated.sum())
    return xr.Dataset(variables, coordinates, {**own, **attributes})


def _coordinates(plan) -> dict:
    coordinates: dict[str, tuple] = {}
    grid = plan.grid
    if plan.leads is None:
        coordinates["time"] = ("time", plan.times, COORDINATES["time"])
        if plan.intervals and plan.step.seconds:
            coordinates["time"] = (*coordinates["time"][:2], COORDINATES["time"] | {"bounds": "time_bounds"})
            ends = np.stack([plan.step.later(plan.times, -1), plan.times], axis=1)
            coordinates["time_bounds"] = (("time", "bounds"), ends)
    else:
        coordinates["lead_time"] = ("lead_time", plan.leads)
    if plan.members is not None:
        coordinates["member"] = ("member", plan.members, COORDINATES["member"])
    if plan.levels is not None:
        coordinates["level"] = ("level", plan.levels, VERTICAL["level"].attributes(plan.vertical))
    for axis, values in plan.axes.items():
        bounds = {} if values.bounds is None else {"bounds": f"{axis}_bounds"}
        coordinates[axis] = (axis, values.values, VERTICAL[axis].attributes(values.kind) | bounds)
    return coordinates | horizontal_coordinates(grid)


def _own_dims(field: PlannedField | DerivedField) -> tuple[str, ...]:
    """Dimensions of a field between time and space."""
    return ("member",) * field.has_member + (() if field.vertical is None else (field.vertical,))


def _attributes(name, field: PlannedField | None, plan) -> dict:
    entry = plan.entries.get(name) or variable(name) if field is None else field.meaning
    attributes = {"units": entry.units, "role": "static" if field is None else field.role}
    if entry.standard_name:
        attributes["standard_name"] = entry.standard_name
    if field is not None:
        length = str(plan.step) if plan.step.months else f"{plan.step_seconds / 3600:g} hours"
        interval = f" (interval: {length})" if plan.step_seconds else ""
        attributes["cell_methods"] = f"time: mean{interval}" if field.averaged else "time: point"
    if entry.sign:
        attributes["sign"] = entry.sign
    if entry != known(name):  # what the table will not tell
        own = {"long_name": entry.long_name or None, "short_name": entry.short or None}
        own |= {"minimum": entry.minimum, "maximum": entry.maximum}
        attributes |= {key: value for key, value in own.items() if value is not None}
    if field is not None and field.domain is not None:
        attributes["domain"] = field.domain
    if plan.grid.kind == "projected":
        attributes["grid_mapping"] = CRS
    return attributes


@dataclasses.dataclass(frozen=True)
class Slab:
    """The region of a store that one task writes.

    Times `start` to `stop` of one field; of a forecast one initial time of all fields (`name` is "").
    """

    name: str
    start: int
    stop: int

    @property
    def key(self) -> str:
        return f"{self.name}.{self.start:08d}" if self.name else f"init-{self.start:06d}"


def slab_length(plan: StorePlan, times_per_chunk: int, times_per_region: int | None = None) -> int:
    """Times in a slab: as given, or as many as make about 64 MB of the largest field, at most 64; whole chunks."""
    largest = 4 * plan.grid.area.size * max([1, *(plan.count(field.vertical) for field in plan.fields.values())])
    largest *= len(plan.members if plan.members is not None else [0])
    length = times_per_region or min(64, max(1, SLAB_BYTES // largest))
    return max(1, length // times_per_chunk) * times_per_chunk


def slabs(plan: StorePlan, length: int) -> list[Slab]:
    """All slabs, in the order of time so that sources are read once from the beginning to the end."""
    if plan.leads is not None:
        return [Slab("", i, i + 1) for i in range(len(plan.times))]
    starts = range(0, len(plan.times), length)
    return [Slab(name, s, min(s + length, len(plan.times))) for s in starts for name in plan.fields]


def _is_valid(field: PlannedField | DerivedField) -> bool:
    """Whether the domain of a field is where its first time has values."""
    return field.domain is not None and field.domain == mask_of(field.name)


def _read(field: PlannedField, start: int, stop: int, shape: tuple[int, ...], leads=None) -> tuple[np.ndarray, int]:
    """Values as `PlannedField.read` has them, and how many were cut for being where the first time has none."""
    if not _is_valid(field):
        return field.read(start, stop, shape, leads), 0
    values = dataclasses.replace(field, exists=None, domain=None).read(start, stop, shape, leads)
    kept = cut(values, field.exists)
    return kept, int(np.isfinite(values).sum() - np.isfinite(kept).sum())


def fill(path, field: PlannedField, slab: Slab, times: np.ndarray, shape: tuple[int, ...]) -> dict[str, int]:
    """Reads a slab from the sources, checks it, writes it, reads it back, and marks it.

    Args:
      field: `PlannedField.part` of the slab; times: `(time,)` of the slab; shape: of the grid.

    Returns by name how many values lie where the first time has none (domain `valid`), and are not in the store. Raises
    `ValueError` naming the field and the time for missing or impossible values.
    """
    values, lost = _read(field, 0, slab.stop - slab.start, shape)
    check_values(field, values, times, field.present)
    write_region(path, field.name, values, {"time": slab.start})
    mark(path, slab.key, digest(values))
    return {field.name: lost}


def audit(path, slab: Slab) -> bool:
    """Whether a marked slab of an unfinished store holds what its source gave (see `emulator.store.marks.matches`)."""
    return matches(path, slab.key, slab.name, {"time": slice(slab.start, slab.stop)})


def fill_forecast(
    path, fields: Mapping[str, PlannedField], slab: Slab, init, leads: np.ndarray, space: Mapping[str, int]
) -> dict[str, int]:
    """Reads all fields of one initial time, some leads at a time, checks and writes them, and marks the initial time.

    `space`: the grid's dimensions and their sizes. Returns what `fill` does.
    """
    shape, lost = tuple(space.values()), dict.fromkeys(fields, 0)
    for field in fields.values():
        levels = np.prod([len(field.terms[0].levels), len(field.terms[0].members), *shape], dtype=int)
        block = max(1, int(SLAB_BYTES // (4 * levels)))
        for first in range(0, len(leads), block):
            chosen = np.arange(first, min(first + block, len(leads)))
            (values,), count = _read(field, 0, 1, shape, chosen)
            lost[field.name] += count
            there = np.full(len(chosen), field.slots[0] >= 0)
            if field.averaged and leads[chosen[0]] == np.timedelta64(0):
                there[0] = False  # no step ends at lead 0
            check_values(field, values, [f"{init} + {leads[c] / np.timedelta64(1, 'h'):g} h" for c in chosen], there)
            dims = ("lead_time", *_own_dims(field), *space)
            part = xr.Dataset({field.name: (dims, values)}, {"lead_time": leads[chosen]})
            write_forecast_init(path, part, slab.start, done=False)
    mark(path, slab.key)
    return lost


def check_values(field: PlannedField, values: np.ndarray, times, there: np.ndarray) -> None:
    """Refuses missing values of a prognostic field, and values beyond its bounds (`emulator.ingestion.plausible`).

    Bounds of 0 are only checked to a hundredth of the largest value: packing and spectral fitting make small negative
    precipitation. Values `(time, ...)`; `there`: `(time,)`, which of the times the sources have.
    """
    entry = field.meaning
    if field.role == "prognostic":
        lacking = np.isnan(values) if field.exists is None else np.isnan(values) & field.exists
        count = lacking.reshape(len(values), -1).sum(axis=1) * there
        if count.any():
            at = int(np.argmax(count > 0))
            where, hint = "everywhere", "one that exists in places alone has a domain (define)"
            if field.domain is not None:
                where = f"everywhere in its domain {field.domain}"
                hint = "domain: valid (define) is where its first time has values, above a sea floor too"
            hint = "" if _is_valid(field) else hint + ", "
            raise ValueError(
                f"Expected values of {field.name} {where}, got {int(count[at])} missing ones at {times[at]} "
                f"({_paths(field, at)}); {hint}one with gaps can be a forcing (roles)"
            )
        _check_zeros(field, values, times)
    gaps = np.isnan(values)
    if field.role == "diagnostic" and gaps.any():
        _tell_of_gaps(field, gaps if field.exists is None else gaps & field.exists, times, there)
    known = values[~gaps] if gaps.any() else values
    if not known.size:
        return
    low, high = float(known.min()), float(known.max())
    if not np.isfinite([low, high]).all():
        at = int(np.argwhere(np.isinf(values))[0][0])
        raise ValueError(
            f"Expected finite values of {field.name}, got infinite ones at {times[at]} ({_paths(field, at)})"
        )
    slack = max(1e-6, 1e-2 * max(abs(low), abs(high)))
    lowest, highest = limits(entry)
    for beyond, outside in (
        (lowest is not None and low < lowest - slack, low),
        (highest is not None and high > highest + slack, high),
    ):
        if beyond:
            at = int(np.argwhere(values == np.float32(outside))[0][0])
            raise ValueError(
                f"Expected {field.name} in {entry.units} between {lowest} and {highest}, got {outside:.6g} at {times[at]} "
                f"({_paths(field, at)}); are its units, its sign or its missing values others?"
            )


def _tell_of_gaps(field: PlannedField, gaps: np.ndarray, times, there: np.ndarray) -> None:
    """Logs missing values, at times that the sources have, of a field that a network is to predict."""
    count = gaps.reshape(len(gaps), -1).sum(axis=1) * there
    if count.any():
        at, some = int(np.argmax(count > 0)), int((count > 0).sum())
        log.warning(
            "%s has %d missing values at %s, and some at %d of %d times of this part (%s): no network can be trained on it",
            field.name, int(count[at]), times[at], some, len(times), _paths(field, at),
        )  # fmt: skip


def _check_zeros(field: PlannedField, values: np.ndarray, times) -> None:
    """A missing chunk of a Zarr store reads as its fill value, which is 0 unless its maker chose NaN.

    Clouds and humidity may well be 0 on a whole level where there is next to none of them at any time: in the stratosphere of
    some models. Levels that never reach a hundredth of the field's largest value are let pass.
    """
    flat = values.reshape(len(values), *values.shape[1 : 1 + len(_own_dims(field))], -1)
    if field.exists is None and not (flat[..., 0] == 0).any():
        return
    zero = ((flat == 0) | np.isnan(flat)).all(axis=-1) & (flat == 0).any(axis=-1)
    at_once = {"geopotential", "u_component_of_wind", "v_component_of_wind"} if field.vertical == "level" else set()
    odd = zero if field.name in at_once and flat.shape[-1] > 1 else zero & ~zero.all(axis=0)
    if field.name not in at_once:
        largest = np.nan_to_num(np.abs(flat)).max(axis=(0, -1))
        odd &= largest > 1e-2 * largest.max()
    if odd.any():
        at = int(np.argwhere(odd)[0][0])
        raise ValueError(
            f"Expected values of {field.name} everywhere, got nothing but zeros at {times[at]} ({_paths(field, at)}); is a "
            "part of the source missing?"
        )


def _paths(field, at: int) -> str:
    """The files that a time of a field comes from; all of its files where that is not known."""
    sources = []
    for term in field.terms:
        slot = field.slots[at] if isinstance(field, PlannedField) and at < len(field.slots) else -1
        owner = np.unique(term.owner[slot]) if 0 <= slot < len(term.owner) else np.zeros(0, int)
        sources += [term.pieces[n].path for n in owner[owner >= 0]] or [piece.path for piece in term.pieces]
    paths = sorted(set(sources))
    return paths[0] if len(paths) == 1 else f"{paths[0]}, ..." if paths else "no source"
