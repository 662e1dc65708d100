"""One process at a time in a folder: a lock that its holder's end takes away, however it ends."""

import contextlib
import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)
NAME = ".lock"


class Busy(ValueError):
    """Another process works in a folder; the message names it."""


@contextlib.contextmanager
def one_writer(folder: Path, patience_seconds: float = 60.0) -> Iterator[None]:
    """Holds a folder, which is made where it is absent, for the time of a `with` block.

    The lock is the system's, of the file `.lock` in the folder, so nothing has to be removed after a kill. Another holder is
    waited for as long as `patience_seconds`: a job that was put back into the queue may start before its last process has
    gone. Raises `Busy` after that. A disk that knows no locks is trusted to have one writer.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + patience_seconds
    with open(folder / NAME, "a+") as file:
        while not _taken(file):
            file.seek(0)
            other = file.read().strip() or "another process"
            if time.monotonic() >= end:
                raise Busy(f"Expected to be alone in {folder}, {other} works there")
            log.warning("waiting for %s, which works in %s", other, folder)
            time.sleep(min(5.0, max(0.1, end - time.monotonic())))
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def _taken(file) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock's, no child that lives on inherits it
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        log.warning("%s knows no locks: only one process may write there", file.name)
    return True
