"""How far the stage is that a process works on, noted in a file for `emulator status` to read while it works.

The process holds a lock on its note, which its end takes away, however it ends: so a note without a lock tells where a stage
was when it was killed.
"""

import contextlib
import errno
import fcntl
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

EVERY_SECONDS = 1.0
log = logging.getLogger(__name__)


class Note(NamedTuple):
    """`alive`: whether the process still works; `text`: how far it is, empty before its first word."""

    alive: bool
    text: str


class _Open:
    """The note of this process, if it keeps one."""

    file: IO[str] | None = None
    written = 0.0


@contextlib.contextmanager
def noting(path: Path) -> Iterator[None]:
    """Keeps the note at `path` while the block lasts; it is removed when the block ends well.

    Without a lock (another process works on the same stage, or the disk knows none) nothing is noted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            log.debug("%s: no lock (%s)", path, error)
            yield
            return
        _Open.file, _Open.written = file, 0.0
        _write({})
        try:
            yield
            path.unlink(missing_ok=True)
        finally:
            _Open.file = None


def note(title: str, done: int, total: int, left: float | None) -> None:
    """Writes how far the stage is, at most once a second; does nothing where no note is kept."""
    now = time.monotonic()
    if _Open.file is not None and (now - _Open.written >= EVERY_SECONDS or done >= total):
        _Open.written = now
        _write({"title": title, "done": done, "total": total, "left": left})


def _write(content: dict) -> None:
    with contextlib.suppress(OSError):  # a full disk is for the stage itself to tell
        _Open.file.seek(0)
        _Open.file.truncate()
        _Open.file.write(json.dumps(content))
        _Open.file.flush()


def read(path: Path) -> Note | None:
    """The note at `path`; None where there is none."""
    try:
        with open(path) as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                alive = False
            except OSError as error:
                alive = error.errno in (errno.EACCES, errno.EAGAIN)
            text = file.read()
    except OSError:
        return None
    try:
        content = json.loads(text)
        said = f"{content['title']} {content['done']} of {content['total']}" if content else ""
        left = content.get("left")
    except (ValueError, KeyError, TypeError, AttributeError):  # read in the middle of a word
        return Note(alive, "")
    return Note(alive, said + (f", about {left:.0f} s left" if alive and said and left is not None else ""))
