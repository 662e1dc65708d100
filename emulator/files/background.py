"""Writing while computing: tasks in order on one thread, and an error that stops the whole."""

import queue
import threading
from collections.abc import Callable


class BackgroundWriter:
    """Runs tasks one after the other beside the caller's own work.

    At most `waiting` tasks are held, so that memory stays bounded when writing is slower than computing. The first error of
    a task is raised in the caller, by the next `submit` or at the end of the `with` block; no later task is run.
    """

    def __init__(self, waiting: int = 1):
        self._queue: queue.Queue = queue.Queue(maxsize=waiting)
        self._error: BaseException | None = None
        self._abandoned = False
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)

    def __enter__(self) -> "BackgroundWriter":
        self._thread.start()
        return self

    def submit(self, task: Callable, *arguments) -> None:
        """Queues `task(*arguments)`; waits while the queue is full. Raises the error of an earlier task."""
        while True:
            self._check()
            try:
                self._queue.put((task, arguments), timeout=0.2)
                return
            except queue.Full:
                continue

    def __exit__(self, kind, error, trace) -> None:
        self._abandoned = kind is not None
        while self._thread.is_alive():
            try:
                self._queue.put(None, timeout=0.2)
                break
            except queue.Full:
                continue
        self._thread.join()
        if kind is None:
            self._check()

    def _work(self) -> None:
        while (entry := self._queue.get()) is not None:
            if self._error is not None or self._abandoned:
                continue
            task, arguments = entry
            try:
                task(*arguments)
            except BaseException as error:  # handed to the caller, whatever it is
                self._error = error

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
