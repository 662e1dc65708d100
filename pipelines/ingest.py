"""Any sources to an analysis store (or a forecast store) in canonical names, units, signs and order."""

import datetime
import json
import logging
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

from emulator.assemble import assemble
from emulator.coefficients import interfaces, of_selection
from emulator.constants import ERA5, Constants
from emulator.fields import Plan
from emulator.filling import fill, fill_forecast, region_length, regions, template
from emulator.harmonise import Options, Piece, pieces
from emulator.sources import Source, find, identity, limit_caches, open_source
from emulator.store import (
    DiskError,
    create,
    create_forecast,
    discard,
    finish,
    finish_forecast,
    finished_fingerprint,
    marks,
)
from emulator.variables import VARIABLES, variable
from pipelines.config import DaskConfig, IngestConfig, Period, SourceConfig
from pipelines.engine import workers
from pipelines.load import fingerprint
from pipelines.progress import progress

log = logging.getLogger(__name__)


def ingest(config: IngestConfig) -> None:
    """Write the store, or what is missing of it.

    Regions are independent tasks: each is read, checked, written, read back and marked, so a killed stage goes on where it
    was and ends with the same bytes. Raises `ValueError` with one sentence on bad input; nothing then lies at the output.
    """
    limit_caches()
    paths = [find(source.path) for source in config.sources]
    mark = _fingerprint(config, [path for found in paths for path in found])
    if (before := finished_fingerprint(config.output)) == mark:
        log.info("%s is complete for these sources and settings", config.output)
        return
    opened = [
        (s, [o for p in found for o in _open(p, s, config)]) for s, found in zip(config.sources, paths, strict=True)
    ]
    plan = _plan(opened, config)
    sources = [source for _, found in opened for source in found]
    plan, half_levels = _vertical(plan, sources)
    attributes = _attributes(config, sources, paths) | {"fingerprint": mark}
    if before is not None or Path(config.output).exists():
        log.warning("%s was made from other sources or settings and will be replaced", config.output)
    length = region_length(plan, config.times_per_chunk, config.times_per_region)
    _create(plan, config, template(plan, attributes, half_levels), length)
    try:
        _fill(plan, config, regions(plan, length))
    except DiskError:
        raise
    except ValueError:
        discard(config.output)  # a source has to change, and then nothing of this store would be kept
        raise
    log.info("%s: %d times on %s", config.output, len(plan.times), plan.grid.describe())


def _create(plan: Plan, config: IngestConfig, store, length: int) -> None:
    if plan.leads is not None:
        create_forecast(config.output, store, plan.times, plan.leads, store.attrs)
        return
    shards = {"time": length} if length > config.times_per_chunk else None
    if create(config.output, store, {"time": config.times_per_chunk}, shards):
        log.info("going on with the unfinished store at %s", config.output)


def _fill(plan: Plan, config: IngestConfig, wanted) -> None:
    done = marks(config.output)
    left = [region for region in wanted if region.key not in done]
    shape = plan.grid.shape

    def task(region):
        part = slice(region.start, region.stop)
        if plan.leads is not None:
            fields = {name: field.part(region.start, region.stop) for name, field in plan.fields.items()}
            return (fill_forecast, config.output, fields, region, plan.times[region.start], plan.leads, shape)
        field = plan.fields[region.name].part(region.start, region.stop)
        return (fill, config.output, field, region, plan.times[part], shape)

    start = len(wanted) - len(left)
    with workers(config.dask) as over, progress("ingest", len(wanted), start) as report:
        over(_call, [task(region) for region in left], lambda count: report(start + count, ""))
    if plan.leads is not None:
        finish_forecast(config.output)
    else:
        finish(config.output, [region.key for region in wanted])


def _call(function: Callable, *arguments) -> None:
    limit_caches()  # here because this may be another process
    function(*arguments)


def _open(path: str, source: SourceConfig, config: IngestConfig) -> list[Source]:
    return open_source(path, source.engine, None if config.variables is None else tuple(config.variables))


def _plan(opened, config: IngestConfig) -> Plan:
    wanted = None if config.variables is None else tuple(variable(name).name for name in config.variables)
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
            raise ValueError(
                f"Expected variables of the table in {source.path}, got {', '.join(names[:12])}; see rename"
            )
    plan = assemble(
        found, config.roles, lambda times: within(times, config.period), config.step_hours, config.missing == "keep"
    )
    have = {*plan.fields, *plan.static}
    if missing := [name for name in wanted or () if name not in have]:
        raise ValueError(f"Expected {', '.join(missing)} in the sources, got {', '.join(sorted(have))}")
    return plan


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
    import dataclasses

    if plan.levels is None or plan.vertical == "pressure":
        return plan, None
    found = next((half for half in (interfaces(source.dataset) for source in sources) if half is not None), None)
    kinds = {str(source.dataset.attrs.get("vertical_coordinate", "")) for source in sources} - {""}
    if plan.vertical == "unknown" and found is None and not kinds & {"hybrid", "sigma"}:
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


def _fingerprint(config: IngestConfig, paths: list[str]) -> str:
    """Of everything that the bytes of the store depend on: not of where it lies, nor of who computes it."""
    plain = config.model_copy(update={"dask": DaskConfig(), "output": Path("store")})
    return fingerprint(plain, *[identity(path) for path in paths])
