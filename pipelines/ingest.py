"""Any sources to an analysis store (or a forecast store) in canonical names, units, signs and order."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from emulator.ingest.append import kept_regions, link_regions
from emulator.ingest.fields import Plan
from emulator.ingest.fill import Region, audit, fill, fill_forecast, regions
from emulator.sources.open import find, identity, limit_caches
from emulator.store.forecast import create_forecast, finish_forecast
from emulator.store.marks import DiskError, erase, marks, progress_path, unmark
from emulator.store.regions import OtherTemplate, check_replaceable, create, discard, finish, finished_fingerprint
from pipelines.config import DaskConfig, IngestConfig, SourceConfig
from pipelines.engine import workers
from pipelines.planning import Work, fingerprint_of, prepare
from pipelines.progress import progress

log = logging.getLogger(__name__)


def ingest(config: IngestConfig, part: tuple[int, int] | None = None, append: bool = False) -> None:
    """Write the store, or what is missing of it.

    Regions are independent tasks: each is read, checked, written, read back and marked, so a killed stage goes on where it
    was and ends with the same bytes.

    Args:
      config: what to write, and from what.
      part: `(i, n)`, 1 <= i <= n: only the i-th of n shares of the regions, and the store is left unfinished. Parts run in
        any order, at the same time, or twice. Without it everything that is missing is written; regions that other
        processes have written are compared with the digests of what their sources gave; and the store is finished.
      append: the finished store at the output is the beginning of this one: its regions are taken over, and only new
        times are read. The result is the store that would have been made at once.

    Raises `ValueError` with one sentence on bad input; nothing finished then lies at the output.
    """
    if part is not None and not 1 <= part[0] <= part[1]:
        raise ValueError(f"Expected a part i/N with 1 <= i <= N, got {part[0]}/{part[1]}")
    limit_caches()
    config = config.model_copy(update={"sources": [_absolute(source) for source in config.sources]})
    paths = [find(source.path) for source in config.sources]
    files = [path for found in paths for path in found]
    check_replaceable(config.output)
    if any("://" not in path and Path(path).resolve() == Path(config.output).resolve() for path in files):
        raise ValueError(f"Expected an output beside the sources, got {config.output} for both")
    inputs = [identity(path) for path in files]
    own = fingerprint_of(config, inputs)
    before = finished_fingerprint(config.output)
    if before == own:
        log.info("%s is complete for these sources and settings", config.output)
        return
    work = prepare(config, paths, own)
    if not append and (before is not None or Path(config.output).exists()):
        log.warning("%s was made from other sources or settings and will be replaced", config.output)
    wanted = regions(work.plan, work.length)
    kept = kept_regions(config.output, work.template, work.plan, wanted) if append and before is not None else []
    try:
        _create(work, config, inputs, shared=part is not None)
        link_regions(config.output, kept)
        written = _fill(
            work.plan, config, wanted if part is None else _share(wanted, part), dict(zip(files, inputs, strict=True))
        )
        if part is None:
            _finish(work.plan, config, wanted, written)
    except ValueError as error:
        if finished_fingerprint(config.output) == own:
            log.info("%s was finished by another process", config.output)
            return
        if part is None and not isinstance(error, DiskError):
            discard(config.output)  # a source has to change, and then nothing of this store would be kept
        raise
    _tell(config, work.plan, wanted, part)


def _absolute(source: SourceConfig) -> SourceConfig:
    """The source with full paths, by which it is the same from every working directory."""
    patterns = [source.path] if isinstance(source.path, str) else source.path
    full = [path if "://" in path else os.path.abspath(path) for path in patterns]
    return source.model_copy(update={"path": full[0] if isinstance(source.path, str) else full})


def _share(wanted: list[Region], part: tuple[int, int]) -> list[Region]:
    """Neighbours in time, which lie in the same files."""
    number, count = part
    return wanted[len(wanted) * (number - 1) // count : len(wanted) * number // count]


def _tell(config: IngestConfig, plan: Plan, wanted: list[Region], part) -> None:
    if part is None:
        log.info("%s: %d times on %s", config.output, len(plan.times), plan.grid.describe())
        return
    left = len({region.key for region in wanted} - marks(config.output)) if progress_path(config.output).exists() else 0
    log.info(
        "part %d/%d of %s is written; %s",
        *part,
        config.output,
        f"{left} of {len(wanted)} regions are left to other parts"
        if left
        else "nothing is left but to finish it: ingest",
    )


def _create(work: Work, config: IngestConfig, inputs: list[str], shared: bool) -> None:
    """The empty store. Raises `OtherTemplate` naming the source that is another than when it was begun."""
    plan, store = work.plan, work.template
    record = progress_path(config.output) / "inputs"
    try:
        if plan.leads is not None:
            create_forecast(config.output, store, plan.times, plan.leads, store.attrs, shared)
        else:
            shards = {"time": work.length} if work.length > config.times_per_chunk else None
            if create(config.output, store, {"time": config.times_per_chunk}, shards, shared=shared):
                log.info("going on with the unfinished store at %s", config.output)
    except OtherTemplate as error:
        before = record.read_text().splitlines() if record.exists() else inputs
        if changed := [line.split(" ")[0] for line in inputs if line not in before]:
            raise OtherTemplate(
                f"Expected {changed[0]} as it was when the unfinished store was begun, got it changed: {error}"
            ) from None
        raise
    try:
        if not record.exists():
            record.write_text("\n".join(inputs))
    except OSError as error:
        raise DiskError(f"Expected to write {record}, got: {error.strerror}") from error


def _fill(plan: Plan, config: IngestConfig, wanted: list[Region], inputs: dict[str, str]) -> set[str]:
    """Writes the regions that are not marked and returns their keys. Raises `ValueError` when a source changes meanwhile."""
    done = marks(config.output)
    left = [region for region in wanted if region.key not in done]
    start = len(wanted) - len(left)
    with workers(config.dask) as over, progress("ingest", len(wanted), start) as report:
        over(_call, [_task(plan, config, region) for region in left], lambda count: report(start + count, ""))
    if changed := [path for path, before in inputs.items() if identity(path) != before]:
        for region in left:
            unmark(config.output, region.key)
        raise ValueError(f"Expected {changed[0]} to stay as it is while it is read, got it changed; start again")
    return {region.key for region in left}


def _finish(plan: Plan, config: IngestConfig, wanted: list[Region], mine: set[str]) -> None:
    """Compares what other processes have written with what its source gave, writes anew what differs, and finishes."""
    others = [region for region in wanted if region.key not in mine]
    with workers(config.dask if others else DaskConfig(threads=config.dask.threads)) as over:
        good = over(audit, [(config.output, region) for region in others], lambda count: None)
        wrong = [region for region, fits in zip(others, good, strict=True) if not fits]
        for region in wrong:
            log.warning("%s of %s is not what its source gave; written anew", region.key, config.output)
            unmark(config.output, region.key)
            erase(config.output, region.name, region.start)
        over(_call, [_task(plan, config, region) for region in wrong], lambda count: None)
    if plan.leads is not None:
        finish_forecast(config.output)
    else:
        finish(config.output, [region.key for region in wanted])


def _task(plan: Plan, config: IngestConfig, region: Region) -> tuple:
    shape = plan.grid.shape
    if plan.leads is not None:
        fields = {name: field.part(region.start, region.stop) for name, field in plan.fields.items()}
        return (fill_forecast, config.output, fields, region, plan.times[region.start], plan.leads, shape)
    field = plan.fields[region.name].part(region.start, region.stop)
    return (fill, config.output, field, region, plan.times[region.start : region.stop], shape)


def _call(function: Callable, *arguments) -> None:
    limit_caches()  # here because this may be another process
    function(*arguments)
