"""Progress of a long stage: a live bar when a person watches, plain lines when not."""

import datetime
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pipelines.running import note

log = logging.getLogger(__name__)
LINE_EVERY_SECONDS = 15.0

Report = Callable[..., None]


@contextmanager
def progress(title: str, total: int, start: int = 0) -> Iterator[Report]:
    """Yields `report(done, text="", left=None)`, where `done` counts from `start` up to `total`.

    `text` is a short remark such as the loss. `left` are the seconds still to go, for a stage that knows better than that
    all counts take equally long.
    """
    first: list[
        tuple[float, int]
    ] = []  # the first step compiles and warms up, so the pace is that of the steps after it

    def seconds_left(done: int, left: float | None) -> float | None:
        now = time.monotonic()
        if not first and done > start:
            first.append((now, done))
        if left is None and first and done > first[0][1]:
            left = (now - first[0][0]) * (total - done) / (done - first[0][1])
        note(title, done, total, left)
        return left

    if sys.stderr.isatty():
        columns = (TextColumn("{task.description:10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        columns += (TextColumn("{task.fields[left]}"), TextColumn("{task.fields[text]}"))
        with Progress(*columns, console=Console(stderr=True), transient=False) as bar:
            task = bar.add_task(title, total=total, completed=start, text="", left="")

            def move(done: int, text: str = "", left: float | None = None) -> None:
                seconds = seconds_left(done, left)
                remaining = "" if seconds is None else f"left {datetime.timedelta(seconds=round(seconds))}"
                bar.update(task, completed=done, text=text, left=remaining)

            yield move
        return
    last = [0.0]

    def line(done: int, text: str = "", left: float | None = None) -> None:
        now, seconds = time.monotonic(), seconds_left(done, left)
        if now - last[0] < LINE_EVERY_SECONDS and done < total:
            return
        last[0] = now
        remaining = f", about {seconds:.0f} s left" if seconds is not None and done < total else ""
        log.info("%s %d of %d%s%s", title, done, total, remaining, f"; {text}" if text else "")

    yield line


@contextmanager
def of_updates(title: str, updates: int, remark: Callable[[dict], str]) -> Iterator[Callable[[dict], None]]:
    """Yields a function of the rows of a training's log, whose remark is the text."""
    with progress(title, updates) as report:
        yield lambda row: report(row["update"], remark(row), row["remaining_seconds"])
