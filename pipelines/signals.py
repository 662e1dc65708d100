"""SIGTERM and SIGUSR1: preemption, the end of a job's time limit, an administrator. Both mean: save and stop."""

import contextlib
import signal
from collections.abc import Callable, Iterator

from emulator.interruption import Interrupted

STOP = (signal.SIGTERM, signal.SIGUSR1)


@contextlib.contextmanager
def stopping_at_once(restore: bool) -> Iterator[None]:
    """A signal raises `Interrupted` wherever the program is; what a stage has written by then, it finds again.

    A second signal is ignored, so that it does not disturb the cleaning up after the first. With `restore` false the
    handlers stay: when the first of several tasks has ended, srun terminates the others, and that must not change the
    exit code of one that is on its way out.
    """

    def stop(number, frame):
        ignore()
        raise Interrupted(f"told to stop by {signal.Signals(number).name}; start again to go on")

    with _handled(stop, restore):
        yield


def ignore() -> None:
    """From here on no signal to stop has an effect."""
    for number in STOP:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def stopping_when_asked() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether a signal has come, for a loop that saves before it stops."""
    received: list[int] = []
    with _handled(lambda number, frame: received.append(number), True):
        yield lambda: bool(received)


@contextlib.contextmanager
def _handled(handler, restore: bool) -> Iterator[None]:
    before: dict[int, object] = {}
    for number in STOP:
        try:
            before[number] = signal.signal(number, handler)
        except ValueError:  # not the main thread, as in a test
            break
    try:
        yield
    finally:
        for number, old in before.items() if restore else ():
            signal.signal(number, old)
