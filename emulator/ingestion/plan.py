"""From options to the plan of a store: sources opened, recognised and put together; no field is read yet."""

import dataclasses
import difflib
import json
import logging
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.ingestion.assemble import assemble
from emulator.ingestion.derive import SURFACE_PRESSURE, derive, even_edges, needed, to_layers, to_pressure
from emulator.ingestion.fields import StorePlan
from emulator.ingestion.fill import slab_length, template
from emulator.ingestion.left_out import SHOWN, label, warn_of_unknown
from emulator.ingestion.masks import VALID, domains_of, masked, with_domains
from emulator.ingestion.options import GridOptions, IngestOptions
from emulator.ingestion.series import with_series
from emulator.planet.calendar import TimeStep
from emulator.planet.constants import ERA5, Constants
from emulator.planet.grid import CLOSED, Grid
from emulator.planet.variables import VARIABLES, known, variable
from emulator.planet.vertical import interfaces_around
from emulator.sources.axes import common_interfaces, interfaces
from emulator.sources.entries import entries
from emulator.sources.harmonise import pieces, renamed
from emulator.sources.horizontal import on_the_sphere
from emulator.sources.members import with_members
from emulator.sources.open import Request, Source, open_source
from emulator.sources.options import SourceOptions
from emulator.sources.per_level import by_level
from emulator.sources.piece import Piece
from emulator.sources.recognise import PARTS
from emulator.sources.selection import canonical_dimension
from emulator.sources.series import is_series, series
from emulator.sources.unknown import bounds_in, unknown
from emulator.store.masks import mask_name
from emulator.store.schema import check_name

log = logging.getLogger(__name__)
HIGHEST_PRESSURE = 200.0  # hPa; models have fewer levels, and most records on pressure levels reach further down


@dataclasses.dataclass(frozen=True, eq=False)
class Work:
    """A store to be made: its plan, its empty template, and how many times are in a slab."""

    plan: StorePlan
    template: xr.Dataset
    length: int


def prepare(options: IngestOptions, paths: Sequence[Sequence[str]], fingerprint: str) -> Work:
    """Opens the sources, `paths` of each, and plans the store that is to have a fingerprint.

    Raises `ValueError` with one sentence that names the file.
    """
    wanted = _wanted(options)
    opened = [
        (source, [file for path in own for file in open_source(path, source.engine, _request(options, source, wanted))])
        for source, own in zip(options.sources, paths, strict=True)
    ]
    opened = _by_level(_by_member(opened), options)
    alike, every_piece, every_series = _settled(options, opened, wanted), [], []
    for source, files in opened:
        source = dataclasses.replace(source, **alike)
        own_series = [part for file in files for part in series(file, source)]
        every_piece += _pieces(files, source, alone=not own_series)
        every_series += own_series
    opened = [file for _, files in opened for file in files]
    if wanted is None:
        every_piece = _without_parts(every_piece)
    domains = domains_of(every_piece)
    if options.grid is not None:
        every_piece = _on_grid(masked(every_piece, domains), options.grid)
    gap = options.longest_gap if options.missing == "interpolate" else 0
    period = options.start, options.end
    step = (
        TimeStep.parse(options.step) if options.step else options.step_hours and TimeStep(3600.0 * options.step_hours)
    )
    plan = assemble(every_piece, options.roles, period, step, options.missing == "keep", gap)
    have = {*plan.fields, *plan.static, *options.derive, *(part.name for part in every_series)}
    if missing := [name for name in options.variables or () if name not in have]:
        raise ValueError(f"Expected {', '.join(missing)} in the sources, got {', '.join(sorted(have))}")
    _check_roles(options, have)
    attributes = _attributes(options, opened, paths) | {"fingerprint": fingerprint}
    gravity = Constants.from_json(attributes["constants"]).gravity
    plan = with_domains(_changed(_with_interfaces(plan, opened), options, gravity), domains)
    plan = with_series(plan, every_series, options.roles)
    for name in (*plan.fields, *plan.static, *plan.series):
        check_name(name, plan.grid.dims)
    length = slab_length(plan, options.times_per_chunk, options.times_per_region)
    return Work(plan, template(plan, attributes), length)


def _settled(options: IngestOptions, opened: Sequence[tuple[SourceOptions, list[Source]]], wanted) -> dict:
    """What all sources have alike. Raises `ValueError` for a name that nothing tells the meaning of."""
    forecast = options.kind == "forecast"
    fields = [
        new
        for source, files in opened
        for old, new in source.rename.items()
        if any(old in file.dataset and file.dataset[old].ndim > 1 for file in files)  # a coordinate may be named as one
    ]
    for name in (*options.define, *(options.variables or ()), *fields):
        check_name(name)
    masks = {mask_name(d) for name in options.define if (d := _domain(name, options)) not in ("all", VALID)}
    chosen = sorted({*(options.variables or ()), *masks} - set(options.derive))
    content = [
        (file.path, renamed(file, source), dataclasses.replace(source, forecast=forecast))
        for source, files in opened
        for file in files
    ]
    own = entries(content, options.define, chosen)
    for name, definition in options.define.items():
        if None not in (role := options.roles.get(name), definition.role) and role != definition.role:
            raise ValueError(f"Expected one role of {name}, got {definition.role} under define and {role} under roles")
        if name not in own and (wanted is None or name in wanted):
            raise ValueError(f"Expected {name}, which is defined, in the sources, got none of that name; see rename")
    for name in chosen:
        if name not in own and known(name) is None:
            if fields := [field for field, each in options.define.items() if each.domain == name]:
                raise ValueError(
                    f"Expected the domain of {fields[0]} (define) to be all, land, ocean, valid or a static field of the "
                    f"sources, got {name!r}"
                )
            variable(name)  # raises, with the nearest names
    roles = {name: entry.role for name, entry in (VARIABLES | own).items()} | dict(options.roles)
    static = tuple(name for name, role in roles.items() if role == "static")
    return {"forecast": forecast, "wanted": wanted, "static": static, "entries": own}


def _by_member(opened):
    """The sources with members by number."""
    renamed = {
        old for source, _ in opened for old, new in source.rename.items() if canonical_dimension(new) == "member"
    }
    parts = iter(with_members([file for _, files in opened for file in files], renamed))
    return [(source, [next(parts) for _ in files]) for source, files in opened]


def _by_level(opened, options: IngestOptions):
    """The sources with every level of fields that have a variable for each as a file of its own."""
    own = {*options.define, *(options.variables or ()), *(name for source, _ in opened for name in source.rename)}
    parts = iter(by_level([file for _, files in opened for file in files], own))
    return [(source, [part for _ in files for part in next(parts)]) for source, files in opened]


def _check_roles(options: IngestOptions, have: set[str]) -> None:
    """Raises `ValueError` for a role of a name that means nothing; of one that is not in the store the log tells."""
    for name in sorted({*options.roles} - have):
        if known(name) is None and name not in options.define:
            near = difflib.get_close_matches(name, have, n=3, cutoff=0.5)
            hint = f"; nearest: {', '.join(near)}" if near else ""
            raise ValueError(f"Expected names of fields of the store under roles, got {name!r}{hint}")
        log.warning("%s has a role under roles, but is not in the sources: it will not be in the store", name)


def _request(options: IngestOptions, source: SourceOptions, wanted) -> Request:
    own = frozenset({*source.rename, *options.define, *(options.variables or ())})
    units = {**source.units, **{old: source.units[new] for old, new in source.rename.items() if new in source.units}}
    return Request(wanted, source.points, own, source.interval_hours, units)


def _wanted(options: IngestOptions) -> tuple[str, ...] | None:
    """Names to read from the sources: those to keep, and those that others are computed from."""
    inputs = needed(options.derive)
    if options.variables is None:
        return None
    names = set(options.variables) - set(options.derive)
    names |= {mask_name(domain) for name in names if (domain := _domain(name, options)) not in ("all", VALID)}
    return tuple(sorted(names | inputs | ({SURFACE_PRESSURE} if options.vertical else set())))


def _domain(name: str, options: IngestOptions) -> str:
    """Where a field is said to exist, as far as that is known before its file is read."""
    defined = options.define[name].domain if name in options.define else None
    return defined or (table.domain if (table := known(name)) else "all")


def _pieces(files: Sequence[Source], options: SourceOptions, alone: bool) -> list[Piece]:
    """All pieces of the files of a source. Raises `ValueError` where there is none, and nothing else (`alone`) either."""
    if matched := [piece for file in files for piece in pieces(file, options)]:
        if options.wanted is None:
            warn_of_unknown(files, options)
        return matched
    if not alone:
        return []
    arrays = {str(name): array for file in reversed(files) for name, array in file.dataset.data_vars.items()}
    bounds = {name for file in files for name in bounds_in(file.dataset)}
    labels = {label(str(name), a) for file in files for name, a in file.dataset.data_vars.items() if name not in bounds}
    names, hint = ", ".join(sorted(labels)[:SHOWN]), ""
    if names and not any(on_the_sphere(array) for array in arrays.values()):
        if any(interfaces(file.dataset) is not None for file in files):
            return []  # coefficients of levels alone
        if own := sorted(name for name, array in arrays.items() if is_series(array) and options.wanted is None):
            hint = f"; a series that the table does not know is defined, as in define: {{{own[0]}: {{role: forcing}}}}"
        raise ValueError(
            f"Expected variables with latitudes and longitudes in {options.path}, got none for {names}{hint}"
        )
    if any(canonical_dimension(name) == "member" for name in options.select):
        raise ValueError(f"Expected the members of {dict(options.select)} in {options.path}, got others alone")
    reasons = [why for file in files for why in unknown(file, options).values() if why]
    reason = reasons[0] if reasons else "see rename and define"
    raise ValueError(f"Expected variables of the table in {options.path}, got {names}; {reason}")


def _without_parts(every_piece: list[Piece]) -> list[Piece]:
    """Without the downward and upward parts of net fluxes that are made of both, which `variables` takes as well."""
    terms: dict[str, set[str]] = {}
    for piece in every_piece:
        terms.setdefault(piece.name, set()).add(piece.term)
    parts = {part for net, both in PARTS.items() if {"down", "up"} <= terms.get(net, set()) for part in both}
    return [piece for piece in every_piece if piece.name not in parts]


def _on_grid(every_piece: list[Piece], asked: GridOptions) -> list[Piece]:
    if asked.kind == "box":
        grid = Grid.box(asked.rows, asked.columns, (asked.south, asked.north, asked.west, asked.east))
    elif asked.kind == "gaussian":
        grid = Grid.gaussian(asked.rows, asked.columns)
    else:
        grid = Grid.equiangular(asked.rows, asked.columns, asked.poles)
    have = {piece.name for piece in every_piece}
    bilinear = {name if name in have else variable(name).name for name in asked.bilinear}
    return [piece.on(grid, "bilinear" if piece.name in bilinear else asked.method) for piece in every_piece]


def _with_interfaces(plan: StorePlan, sources: list[Source]) -> StorePlan:
    """The plan with the kind of levels settled, and their interfaces. Raises `ValueError` where those are absent."""
    if plan.levels is None or plan.vertical == "pressure":
        return plan
    half_levels = common_interfaces((source.path, source.dataset) for source in sources)
    kinds = {str(source.dataset.attrs.get("vertical_coordinate", "")) for source in sources} - {""}
    if plan.vertical == "unknown" and half_levels is None and not kinds & {"hybrid", "sigma"}:
        if len(plan.levels) > 1 and plan.levels.max() < HIGHEST_PRESSURE:
            raise ValueError(
                f"Expected units of the levels {plan.levels[0]:g} to {plan.levels[-1]:g} in {sources[0].path}, got none, and "
                "they may be hPa or numbers of model levels; say which: units: {level: hPa} or {level: hybrid_sigma_pressure}"
            )
        log.warning("The levels %s have no units; taken as hPa", " ".join(f"{level:g}" for level in plan.levels))
        return dataclasses.replace(plan, vertical="pressure")
    kind = "hybrid" if plan.vertical == "unknown" and not kinds else (kinds or {plan.vertical}).pop()
    if half_levels is None:
        raise ValueError(
            f"Expected interface coefficients of the {kind} levels (half_level_a and half_level_b, or CF bounds), got none "
            f"in {sources[0].path}; a file that holds them can be one more source"
        )
    if kind == "hybrid" and np.all(half_levels[0] == 0):
        kind = "sigma"
    return dataclasses.replace(plan, vertical=kind, half_levels=interfaces_around(*half_levels, plan.levels))


def _changed(plan: StorePlan, options: IngestOptions, gravity: float) -> StorePlan:
    """The plan with derived variables, on the levels asked for, without what was only needed on the way."""
    plan = derive(plan, options.derive, gravity)
    if (asked := options.vertical) is not None:
        if asked.pressure is not None:
            plan = to_pressure(plan, asked.pressure)
        else:
            count = 0 if plan.levels is None else len(plan.levels)
            plan = to_layers(plan, asked.edges or even_edges(count, asked.layers))
    if options.variables is not None:
        kept = set(options.variables) | set(options.derive)
        plan = plan.with_fields({name: field for name, field in plan.fields.items() if name in kept})
        used = {field.vertical for field in plan.fields.values()} | {d for v in plan.static.values() for d in v.dims}
        plan = dataclasses.replace(plan, axes={dim: axis for dim, axis in plan.axes.items() if dim in used})
        if "level" not in used:
            plan = dataclasses.replace(plan, levels=None, vertical=None, half_levels=None)
    roles = {name: role for name, role in options.roles.items() if name in options.derive}
    fields = {n: dataclasses.replace(f, role=roles[n]) if n in roles else f for n, f in plan.fields.items()}
    return plan.with_fields(fields)


def _attributes(options: IngestOptions, sources: list[Source], paths) -> dict[str, str]:
    recorded = next((s.dataset.attrs["constants"] for s in sources if "constants" in s.dataset.attrs), None)
    constants = Constants.from_json(recorded) if recorded else ERA5
    constants = Constants.from_json(json.dumps(json.loads(constants.to_json()) | dict(options.constants)))
    texts = {str(s.dataset.attrs["source"]) for s in sources if "source" in s.dataset.attrs}
    names = ", ".join(f"{Path(own[0]).name}{f' and {len(own) - 1} more' * (len(own) > 1)}" for own in paths)
    past = [str(s.dataset.attrs["history"]) for s in sources[:1] if "history" in s.dataset.attrs]
    whole = options.grid is None and not any(source.select for source in options.sources)
    closed = whole and all(s.dataset.attrs.get(CLOSED) for s in sources)
    return ({CLOSED: 1} if closed else {}) | {
        "Conventions": "CF-1.11",
        "constants": constants.to_json(),
        "source": "; ".join(sorted(texts)) or names,
        "history": "\n".join([f"emulator {version('emulator')} ingest of {names}", *past]),
    }
