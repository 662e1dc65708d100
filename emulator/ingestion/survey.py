"""A look into a person's files before anything is written: what ingest makes of them, and what it has to be told for it."""

import contextlib
import dataclasses
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emulator.ingestion.fields import StorePlan
from emulator.ingestion.options import GridOptions, IngestOptions
from emulator.ingestion.plan import prepare
from emulator.planet.calendar import seconds_between
from emulator.planet.grid import CLOSED
from emulator.planet.quantities.registry import quantities
from emulator.sources.open import absolute, find, format_of, limit_caches
from emulator.sources.options import SourceOptions

MOST_REMEDIES = 8  # of which there are seven, each tried once
BUDGETS = ("dry_air", "water", "energy")  # that a training closes where nothing is said


@dataclasses.dataclass(frozen=True, eq=False)
class Survey:
    """What files hold, as ingest would put it into one store.

    Attributes:
      options: with which the files can be ingested. remedies: what of these had to be said, option -> why.
      plan: the store to be. closed: whether nothing passes the sides of a region.
      said: what ingest would warn of, unknown variables among it. passed_over: files of given folders that are no data.
    """

    options: IngestOptions
    remedies: Mapping[str, str]
    plan: StorePlan
    closed: bool
    said: tuple[str, ...]
    passed_over: tuple[str, ...]

    @property
    def names(self) -> dict[str, list[str]]:
        """Names of the store's fields by role, sorted."""
        roles: dict[str, list[str]] = {role: [] for role in ("prognostic", "forcing", "diagnostic", "static")}
        for name, field in self.plan.fields.items():
            roles[field.role].append(name)
        roles["static"] += list(self.plan.static)
        roles["forcing"] += list(self.plan.series)
        return {role: sorted(names) for role, names in roles.items()}

    @property
    def channels(self) -> int:
        """Numbers that a cell has at one time."""
        counts = [self.plan.count(field.vertical) for field in self.plan.fields.values()]
        return sum(counts) + len(self.plan.series)

    def lacking(self, budget: str) -> list[str]:
        """What a budget needs that the store would not have, in words of its fields; none: it can be closed."""
        have = {*self.plan.fields, *self.plan.static}
        absent = [name for name in quantities()[budget].needed if name not in have]
        if self.plan.levels is None or len(self.plan.levels) < 2:
            absent.append("two levels or more")
        if not self.plan.grid.is_global() and not self.closed:
            absent.append("the whole sphere")
        return absent


def survey(given: Sequence[str | os.PathLike], source: Mapping[str, Any] | None = None) -> Survey:
    """Looks into files, folders, patterns and URLs of any format that ingest opens; reads no field that changes in time.

    Where ingest names the option that takes them as they are, that option is tried: gaps in time, the initial states of
    forecasts or forecasts as such, points of reduced grids, one member of several, a grid with whole poles.

    Args:
      given: paths, patterns, URLs. source: options of `SourceOptions` that the files do not tell, for all of them.

    Raises `ValueError` with one sentence that names the file where there is no such option, or none helps.
    """
    limit_caches()
    paths, passed_over = _paths([str(each) for each in given])
    options, remedies = IngestOptions(tuple(SourceOptions.of({"path": path, **(source or {})}) for path in paths)), {}
    for _ in range(MOST_REMEDIES):
        try:
            with _heard() as said:
                work = prepare(options, [find(source.path) for source in options.sources], "survey")
            again = _told_by_plan(options, work.plan)
        except ValueError as error:
            if (again := _told(options, remedies, str(error))) is None:
                raise
        if again is None:
            closed = bool(work.template.attrs.get(CLOSED))
            return Survey(options, remedies, work.plan, closed, tuple(said), tuple(passed_over))
        options, name, why = again
        remedies = {key: other for key, other in remedies.items() if name != "kind"} | {name: why}
    raise AssertionError("every remedy is tried once")


def _told(options: IngestOptions, remedies: Mapping[str, str], text: str) -> tuple[IngestOptions, str, str] | None:
    """The options with what a refusal itself names as its remedy, its name and why; None for a refusal without one."""
    source = options.sources[0]
    if "select: {lead_time: 0}" in text and "lead_time" not in source.select:
        return _with_select(options, lead_time=0), "select.lead_time", "the files are forecasts: their initial states"
    if "Expected a lead time of 0 h" in text and "select.lead_time" in remedies:
        plain = tuple(dataclasses.replace(each, select=_without_lead(each.select)) for each in options.sources)
        options = dataclasses.replace(options, sources=plain, kind="forecast")
        return options, "kind", "forecasts without their initial states: a store of forecasts, which verify scores"
    if "points: true" in text and not source.points:
        every = tuple(dataclasses.replace(each, points=True) for each in options.sources)
        return dataclasses.replace(options, sources=every), "points", "the grid is reduced: its cells as points"
    if "missing: interpolate" in text and options.missing != "keep":
        how = "interpolate" if options.missing == "refuse" else "keep"
        why = {"interpolate": "times are missing: single ones are interpolated", "keep": "times are missing: left out"}
        return dataclasses.replace(options, missing=how), "missing", why[how]
    return None


def _told_by_plan(options: IngestOptions, plan: StorePlan) -> tuple[IngestOptions, str, str] | None:
    """The same for what ingest takes, and a training would refuse."""
    if options.kind == "forecast":
        return None
    if plan.members is not None and "member" not in options.sources[0].select:
        first, count = plan.members[0].item(), len(plan.members)
        why = f"of {count} member{'s' * (count > 1)} one, since a network has one state at a time"
        return _with_select(options, member=first), "select.member", why
    if options.grid is None and (whole := re.search(r"rows: (\d+), columns: (\d+)", plan.grid.remedy)):
        grid = GridOptions(rows=int(whole[1]), columns=int(whole[2]), poles=True)
        return dataclasses.replace(options, grid=grid), "grid", "the files lack rows at a pole, which networks need"
    return None


def _with_select(options: IngestOptions, **more) -> IngestOptions:
    every = tuple(dataclasses.replace(each, select={**each.select, **more}) for each in options.sources)
    return dataclasses.replace(options, sources=every)


def _without_lead(select: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in select.items() if name != "lead_time"}


@contextlib.contextmanager
def _heard() -> Iterator[list[str]]:
    """What the library warns of meanwhile, in place of its log."""
    log, said = logging.getLogger("emulator"), []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING and (text := record.getMessage()) not in said:
                said.append(text)

    listener, before = Listener(), log.propagate
    log.addHandler(listener)
    log.propagate = False
    try:
        yield said
    finally:
        log.removeHandler(listener)
        log.propagate = before


def _paths(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """Full paths of the sources, a folder's files by pattern; and what of folders is no data.

    Raises `ValueError` where there is nothing.
    """
    if not given:
        raise ValueError("Expected files, folders, patterns or URLs to look into, got none")
    single, patterns, passed_over = [], [], []
    for each in given:
        if "://" in each or not os.path.isdir(each) or _is_data(each):
            single.append(absolute(each))
            continue
        files = sorted(path for path in Path(absolute(each)).iterdir() if not path.name.startswith("."))
        data = [path for path in files if _is_data(str(path))]
        if not data:
            raise ValueError(f"Expected files that ingest can read in the folder {each}, got none")
        passed_over += [str(path) for path in files if path not in data]
        patterns += _patterns(data)
    if len(single) > 1 and (together := _patterns([Path(path) for path in single])) != single:
        single = together
    return [*single, *patterns], passed_over


def _patterns(paths: Sequence[Path]) -> list[str]:
    """Patterns that stand for these paths and no other, by folder and ending; the paths where there is none."""
    groups: dict[tuple[Path, str], list[Path]] = {}
    for path in paths:
        groups.setdefault((path.parent, path.suffix), []).append(path)
    found = []
    for (folder, suffix), own in groups.items():
        pattern = f"{folder}/*{suffix}"
        alone = len(own) > 1 and suffix and "://" not in pattern and find(pattern) == sorted(map(str, own))
        found += [pattern] if alone else list(map(str, own))
    return found


def _is_data(path: str) -> bool:
    """Whether ingest has a format for what lies at a path."""
    try:
        format_of(path)
    except ValueError:
        return False
    return True


def time_labels(plan: StorePlan) -> np.ndarray:
    """`(time,)` text: a date of every time by which a period takes it: its day, month or year, or the moment within a day.

    Of means over known intervals that in which the interval begins, since periods take intervals whole.
    """
    times = np.asarray(plan.times)
    starts = plan.step.later(times, -1) if plan.intervals and plan.step.seconds else times
    whole = plan.step.months or len(times) < 2 or seconds_between(times[[0, -1]])[0] > 20 * 86400
    length = 7 if plan.step.months else 10 if whole else 16
    return np.array([str(time).replace(" ", "T")[:length] for time in starts])
