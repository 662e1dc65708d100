"""Progress of a long stage: a live bar when a person watches, plain lines when not."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

log = logging.getLogger(__name__)
LINE_EVERY_SECONDS = 15.0

Report = Callable[[int, str], None]


@contextmanager
def progress(title: str, total: int, start: int = 0) -> Iterator[Report]:
    """Yields `report(done, text)`, where `done` counts up to `total` and `text` is a short remark such as the loss."""
    if sys.stderr.isatty():
        columns = (TextColumn("{task.description:10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        columns += (TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[text]}"))
        with Progress(*columns, console=Console(stderr=True), transient=False) as bar:
            task = bar.add_task(title, total=total, completed=start, text="")
            yield lambda done, text="": bar.update(task, completed=done, text=text)
        return
    began, last = time.monotonic(), [0.0]
    origin: list[int] = []

    def line(done: int, text: str = "") -> None:
        now = time.monotonic()
        origin.append(done) if not origin else None
        if now - last[0] < LINE_EVERY_SECONDS and done < total:
            return
        last[0] = now
        rate = (done - origin[0]) / max(now - began, 1e-9)
        left = f", about {(total - done) / rate:.0f} s left" if rate > 0 and done < total else ""
        log.info("%s %d of %d%s%s", title, done, total, left, f"; {text}" if text else "")

    yield line
