"""From a configuration to the plan of a store: sources found, opened, recognised and put together; nothing is read yet."""

import dataclasses
import datetime
import json
import logging
from importlib.metadata import version
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.ingest.assemble import assemble
from emulator.ingest.computed import with_fields
from emulator.ingest.derive import SURFACE_PRESSURE, derive, needed
from emulator.ingest.fields import Plan
from emulator.ingest.fill import region_length, template
from emulator.ingest.relevel import even_edges, to_layers, to_pressure
from emulator.planet.constants import ERA5, Constants
from emulator.planet.grid import Grid
from emulator.planet.variables import VARIABLES, variable
from emulator.sources.axes import on_the_sphere
from emulator.sources.coefficients import interfaces, of_selection
from emulator.sources.harmonise import Options, pieces, unknown
from emulator.sources.open import Source, open_source
from emulator.sources.piece import Piece
from pipelines.config import DaskConfig, GridConfig, IngestConfig, Period, SourceConfig
from pipelines.load import fingerprint

log = logging.getLogger(__name__)
HIGHEST_PRESSURE = 200.0  # hPa; models have fewer levels, and most records on pressure levels reach further down


@dataclasses.dataclass(frozen=True, eq=False)
class Work:
    """A store to be made: its plan, its empty template, and how many times are in a region."""

    plan: Plan
    template: xr.Dataset
    length: int


def prepare(config: IngestConfig, paths: list[list[str]], mark: str) -> Work:
    """Opens the sources of a configuration, `paths` of each, and plans the store whose fingerprint is `mark`.

    Raises `ValueError` with one sentence that names the file.
    """
    opened = [
        (s, [o for p in found for o in _open(p, s, config)]) for s, found in zip(config.sources, paths, strict=True)
    ]
    sources = [source for _, found in opened for source in found]
    attributes = _attributes(config, sources, paths) | {"fingerprint": mark}
    plan, half_levels = _vertical(_plan(opened, config), sources)
    plan, half_levels = _changed(plan, half_levels, config, Constants.from_json(attributes["constants"]).gravity)
    length = region_length(plan, config.times_per_chunk, config.times_per_region)
    return Work(plan, template(plan, attributes, half_levels), length)


def _open(path: str, source: SourceConfig, config: IngestConfig) -> list[Source]:
    return open_source(path, source.engine, _wanted(config), source.points)


def _plan(opened, config: IngestConfig) -> Plan:
    wanted = _wanted(config)
    static = [name for name, entry in VARIABLES.items() if config.roles.get(name, entry.role) == "static"]
    found: list[Piece] = []
    for source, files in opened:
        options = Options(
            source.rename,
            source.select,
            source.units,
            tuple(source.negate),
            source.interval_hours,
            config.kind == "forecast",
            wanted,
            tuple(static),
        )
        before = len(found)
        for file in files:
            found += pieces(file, options)
        if len(found) == before:
            names = sorted({str(name) for file in files for name in file.dataset.data_vars})
            if names and not any(on_the_sphere(array) for file in files for array in file.dataset.data_vars.values()):
                raise ValueError(
                    f"Expected variables with latitudes and longitudes in {source.path}, got none for {', '.join(names[:12])}"
                )
            raise ValueError(
                f"Expected variables of the table in {source.path}, got {', '.join(names[:12])}; see rename"
            )
        if wanted is None:
            _tell_left_out(files, options)
    if config.grid is not None:
        found = _on_grid(found, config.grid)
    plan = assemble(
        found,
        config.roles,
        lambda times: within(times, config.period),
        config.step_hours,
        config.missing == "keep",
        config.longest_gap if config.missing == "interpolate" else 0,
    )
    have = {*plan.fields, *plan.static, *config.derive}
    if missing := [name for name in config.variables or () if name not in have]:
        raise ValueError(f"Expected {', '.join(missing)} in the sources, got {', '.join(sorted(have))}")
    return plan


def _tell_left_out(files: list[Source], options: Options) -> None:
    """One line on the fields that the table does not know: nothing else would tell that they are not in the store."""
    held = {name: file.path for file in reversed(files) for name in unknown(file, options)}
    if held:
        names = [*sorted(held)[:12], *([f"{len(held) - 12} more"] if len(held) > 12 else [])]
        first = min(held)
        log.warning(
            "left out, as no variable of the table is meant: %s (%s); to take one, say which it is, as in rename: {%s: NAME}",
            ", ".join(names),
            held[first],
            first,
        )


def _wanted(config: IngestConfig) -> tuple[str, ...] | None:
    """Canonical names to read from the sources: those to keep, and those that others are computed from."""
    inputs = needed(config.derive)
    if config.variables is None:
        return None
    names = {variable(name).name for name in config.variables} - set(config.derive)
    return tuple(sorted(names | inputs | ({SURFACE_PRESSURE} if config.vertical else set())))


def _on_grid(found: list[Piece], asked: GridConfig) -> list[Piece]:
    if asked.kind == "gaussian":
        grid = Grid.gaussian(asked.rows, asked.columns)
    else:
        grid = Grid.equiangular(asked.rows, asked.columns, asked.poles)
    bilinear = {variable(name).name for name in asked.bilinear}
    return [piece.on(grid, "bilinear" if piece.name in bilinear else asked.method) for piece in found]


def _changed(plan: Plan, half_levels, config: IngestConfig, gravity: float):
    """The plan with derived variables, on the levels asked for, without what was only needed on the way."""
    plan = derive(plan, config.derive, half_levels, gravity)
    if (asked := config.vertical) is not None:
        if asked.pressure is not None:
            plan, half_levels = to_pressure(plan, half_levels, asked.pressure), None
        else:
            count = 0 if plan.levels is None else len(plan.levels)
            plan, half_levels = to_layers(plan, half_levels, asked.edges or even_edges(count, asked.layers))
    if config.variables is not None:
        kept = {variable(name).name for name in config.variables} | set(config.derive)
        plan = with_fields(plan, {name: field for name, field in plan.fields.items() if name in kept})
        if not any(field.has_level for field in plan.fields.values()):
            plan, half_levels = dataclasses.replace(plan, levels=None, vertical=None), None
    roles = {name: role for name, role in config.roles.items() if name in config.derive}
    fields = {n: dataclasses.replace(f, role=roles[n]) if n in roles else f for n, f in plan.fields.items()}
    return with_fields(plan, fields), half_levels


def within(times: np.ndarray, period: Period) -> np.ndarray:
    """Which of some datetime64 or cftime values `(time,)` lie in a period; a bare date at its end is that whole day."""
    kept = np.ones(len(times), bool)
    for moment, is_end in ((period.start, False), (period.end, True)):
        if moment is None:
            continue
        bare = not isinstance(moment, datetime.datetime)
        values = (moment.year, moment.month, moment.day) + (() if bare else (moment.hour, moment.minute, moment.second))
        if times.dtype == object:
            import cftime

            bound = cftime.datetime(*values, calendar=times[0].calendar)
        else:
            bound = np.datetime64(datetime.datetime(*values), "ns")
        if is_end and bare:
            kept &= times < bound + (datetime.timedelta(days=1) if times.dtype == object else np.timedelta64(1, "D"))
        else:
            kept &= (times <= bound) if is_end else (times >= bound)
    return kept


def _vertical(plan: Plan, sources: list[Source]):
    """The kind of levels, settled, and their interface coefficients. Raises `ValueError` when those are needed and absent."""
    if plan.levels is None or plan.vertical == "pressure":
        return plan, None
    found = next((half for half in (interfaces(source.dataset) for source in sources) if half is not None), None)
    kinds = {str(source.dataset.attrs.get("vertical_coordinate", "")) for source in sources} - {""}
    if plan.vertical == "unknown" and found is None and not kinds & {"hybrid", "sigma"}:
        if len(plan.levels) > 1 and plan.levels.max() < HIGHEST_PRESSURE:
            raise ValueError(
                f"Expected units of the levels {plan.levels[0]:g} to {plan.levels[-1]:g} in {sources[0].path}, got none, and "
                "they may be hPa or numbers of model levels; say which: units: {level: hPa} or {level: hybrid_sigma_pressure}"
            )
        log.warning("The levels %s have no units; taken as hPa", " ".join(f"{level:g}" for level in plan.levels))
        return dataclasses.replace(plan, vertical="pressure"), None
    kind = "hybrid" if plan.vertical == "unknown" and not kinds else (kinds or {plan.vertical}).pop()
    if found is None:
        raise ValueError(
            f"Expected interface coefficients of the {kind} levels (half_level_a and half_level_b, or CF bounds), got none "
            f"in {sources[0].path}; a file that holds them can be one more source"
        )
    if kind == "hybrid" and np.all(found[0] == 0):
        kind = "sigma"
    return dataclasses.replace(plan, vertical=kind), of_selection(*found, plan.levels)


def _attributes(config: IngestConfig, sources: list[Source], paths) -> dict[str, str]:
    recorded = next((s.dataset.attrs["constants"] for s in sources if "constants" in s.dataset.attrs), None)
    constants = Constants.from_json(recorded) if recorded else ERA5
    constants = Constants.from_json(json.dumps(json.loads(constants.to_json()) | config.constants))
    texts = {str(s.dataset.attrs[key]) for s in sources for key in ("source",) if key in s.dataset.attrs}
    names = ", ".join(f"{Path(found[0]).name}{f' and {len(found) - 1} more' * (len(found) > 1)}" for found in paths)
    past = [str(s.dataset.attrs["history"]) for s in sources[:1] if "history" in s.dataset.attrs]
    return {
        "Conventions": "CF-1.11",
        "constants": constants.to_json(),
        "source": "; ".join(sorted(texts)) or names,
        "history": "\n".join([f"emulator {version('emulator')} ingest of {names}", *past]),
    }


def fingerprint_of(config: IngestConfig, inputs: list[str]) -> str:
    """Of everything that the bytes of the store depend on: not of where it lies, nor of who computes it.

    `inputs`: `emulator.sources.open.identity` of every source.
    """
    plain = config.model_copy(update={"dask": DaskConfig(), "output": Path("store")})
    return fingerprint(plain, *inputs)
