"""Any sources to an analysis store (or a forecast store) in canonical names, units, signs and order."""

import collections
import dataclasses
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from emulator.ingestion.append import kept_slabs, link_slabs
from emulator.ingestion.cutout import cut_out
from emulator.ingestion.fields import StorePlan
from emulator.ingestion.fill import Slab, audit, fill, fill_forecast, slabs
from emulator.ingestion.join import join
from emulator.ingestion.options import IngestOptions
from emulator.ingestion.plan import Work, prepare
from emulator.ingestion.plausible import warn_of_global_means
from emulator.options import as_before
from emulator.parallel.tasks import Over, Report, one_by_one, silent
from emulator.sources.open import absolute, find, identity, limit_caches
from emulator.store.analysis import open_analysis
from emulator.store.forecast import create_forecast, finish_forecast, open_forecast
from emulator.store.marks import DiskError, erase, marks, progress_path, unmark
from emulator.store.regions import OtherTemplate, check_replaceable, create, discard, finish, finished_fingerprint
from emulator.store.schema import fingerprint

log = logging.getLogger(__name__)


def ingest(
    options: IngestOptions | str | Path | Sequence,
    output,
    part: tuple[int, int] | None = None,
    append: bool = False,
    over: Over = one_by_one,
    report: Report = silent,
) -> None:
    """Writes the store at `output`, or what is missing of it.

    Slabs (some times of a field) are independent tasks: each is read, checked, written, read back and marked, so a killed
    run goes on where it was and ends with the same bytes.

    Args:
      options: what to write, and from what; paths or patterns of the sources alone take all other options' defaults.
      output: folder of the store.
      part: `(i, n)`, 1 <= i <= n: only the i-th of n shares of the slabs, and the store is left unfinished. Parts run in
        any order, at the same time, or twice. Without it everything that is missing is written; slabs that other
        processes have written are compared with the digests of what their sources gave; and the store is finished.
      append: the finished store at the output is the beginning of this one: its slabs are taken over, and only new
        times are read. The result is the store that would have been made at once.
      over, report: see `emulator.parallel.tasks`.

    Raises `ValueError` with one sentence on bad input; nothing finished then lies at the output.
    """
    if part is not None and not 1 <= part[0] <= part[1]:
        raise ValueError(f"Expected a part i/N with 1 <= i <= N, got {part[0]}/{part[1]}")
    options = options if isinstance(options, IngestOptions) else IngestOptions(options)
    if options.kind == "joined":
        if part is not None or append:
            raise ValueError("Expected no part and no append with kind joined, which writes one small file, got one")
        join(options, output)
        return
    if options.kind == "cutout":
        if part is not None or append:
            raise ValueError("Expected no part and no append with kind cutout, got one")
        cut_out(options, output)
        return
    limit_caches()
    sources = [dataclasses.replace(source, path=absolute(source.path)) for source in options.sources]
    options = dataclasses.replace(options, sources=sources)
    paths = [find(source.path) for source in sources]
    files = [path for own in paths for path in own]
    check_replaceable(output)
    if any("://" not in path and Path(path).resolve() == Path(output).resolve() for path in files):
        raise ValueError(f"Expected an output beside the sources, got {output} for both")
    inputs = {path: identity(path) for path in files}
    settings = options.settings or json.dumps(as_before(options), default=str, sort_keys=True)
    own = fingerprint(settings, *(inputs[path] for path in files))
    before = finished_fingerprint(output)
    if before == own:
        log.info("%s is complete for these sources and settings", output)
        return
    work = prepare(options, paths, own)
    if not append and (before is not None or Path(output).exists()):
        log.warning("%s was made from other sources or settings and will be replaced", output)
    wanted = slabs(work.plan, work.length)
    kept = kept_slabs(output, work.template, work.plan, wanted) if append and before is not None else []
    try:
        chunks = {"time": options.times_per_chunk}
        chunks |= {"latitude": options.rows_per_chunk} if options.rows_per_chunk else {}
        _create(work, output, chunks, list(inputs.values()), shared=part is not None)
        link_slabs(output, kept)
        written = _fill(work.plan, output, _share(wanted, part), inputs, over, report)
        if part is None:
            _finish(work.plan, output, wanted, written, over)
            store = open_forecast(output) if work.plan.leads is not None else open_analysis(output)
            warn_of_global_means(store, work.plan.grid)
    except ValueError as error:
        if finished_fingerprint(output) == own:
            log.info("%s was finished by another process", output)
            return
        if part is None and not isinstance(error, DiskError):
            discard(output)  # a source has to change, and then nothing of this store would be kept
        raise
    _log_end(output, work.plan, wanted, part)


def _share(wanted: Sequence[Slab], part: tuple[int, int] | None) -> Sequence[Slab]:
    """Of a part neighbours in time, which lie in the same files."""
    number, count = part or (1, 1)
    return wanted[len(wanted) * (number - 1) // count : len(wanted) * number // count]


def _create(work: Work, output, chunks: Mapping[str, int], inputs: list[str], shared: bool) -> None:
    """The empty store. Raises `OtherTemplate` naming the source that is another than when it was begun."""
    plan, store = work.plan, work.template
    record = progress_path(output) / "inputs"
    try:
        if plan.leads is not None:
            create_forecast(output, store, plan.times, plan.leads, store.attrs, shared)
        else:
            shards = {"time": work.length} if work.length > chunks["time"] else None
            if create(output, store, chunks, shards, shared=shared):
                log.info("going on with the unfinished store at %s", output)
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


def _fill(plan: StorePlan, output, share: Sequence[Slab], inputs: Mapping[str, str], over, report: Report) -> set[str]:
    """Writes the slabs that are not marked and returns their keys. Raises `ValueError` when a source changes meanwhile."""
    written = marks(output)
    left = [slab for slab in share if slab.key not in written]
    start = len(share) - len(left)
    report(start, len(share), "")
    tasks = [_task(plan, output, slab) for slab in left]
    lost = collections.Counter()
    for counts in over(_call, tasks, lambda count: report(start + count, len(share), "")):
        lost.update(counts)
    for name in sorted(+lost):
        log.warning(
            "%s has %d values where its first time has none: they lie outside its domain valid and are not in the store; a "
            "domain of its own (a static field, define) keeps them",
            name,
            lost[name],
        )
    if changed := [path for path, before in inputs.items() if identity(path) != before]:
        for slab in left:
            unmark(output, slab.key)
        raise ValueError(f"Expected {changed[0]} to stay as it is while it is read, got it changed; start again")
    return {slab.key for slab in left}


def _finish(plan: StorePlan, output, wanted: Sequence[Slab], mine: set[str], over: Over) -> None:
    """Compares what other processes have written with what its source gave, writes anew what differs, and finishes."""
    others = [slab for slab in wanted if slab.key not in mine]
    good = over(audit, [(output, slab) for slab in others], lambda count: None)
    wrong = [slab for slab, fits in zip(others, good, strict=True) if not fits]
    for slab in wrong:
        log.warning("%s of %s differs from what its source gave; written again", slab.key, output)
        unmark(output, slab.key)
        erase(output, slab.name, slab.start)
    over(_call, [_task(plan, output, slab) for slab in wrong], lambda count: None)
    if plan.leads is not None:
        finish_forecast(output)
    else:
        finish(output, [slab.key for slab in wanted])


def _task(plan: StorePlan, output, slab: Slab) -> tuple:
    shape = plan.grid.shape
    if plan.leads is not None:
        fields = {name: field.part(slab.start, slab.stop) for name, field in plan.fields.items()}
        space = dict(zip(plan.grid.dims, shape, strict=True))
        return (fill_forecast, output, fields, slab, plan.times[slab.start], plan.leads, space)
    field = plan.fields[slab.name].part(slab.start, slab.stop)
    return (fill, output, field, slab, plan.times[slab.start : slab.stop], shape)


def _call(function: Callable, *arguments) -> dict[str, int]:
    limit_caches()  # here because this may be another process
    return function(*arguments)


def _log_end(output, plan: StorePlan, wanted: Sequence[Slab], part) -> None:
    if part is None:
        log.info("%s: %d times on %s", output, len(plan.times), plan.grid.describe())
        return
    left = len({slab.key for slab in wanted} - marks(output)) if progress_path(output).exists() else 0
    rest = f"{left} of {len(wanted)} regions are left to other parts" if left else "all that is left is to finish it"
    log.info("part %d/%d of %s is written; %s", *part, output, rest)
