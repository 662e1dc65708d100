"""SIGTERM and SIGUSR1: preemption, the end of a job's time limit, an administrator. Both mean: save and stop.

So does Ctrl-C (SIGINT) where a loop asks; a second one, and the first elsewhere, ends at once.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

from emulator.files.interruption import Interrupted

STOP = (signal.SIGTERM, signal.SIGUSR1)


@contextlib.contextmanager
def stopping_at_once(restore: bool) -> Iterator[None]:
    """A signal raises `Interrupted` wherever the program is; what a stage has written by then, it finds again.

    A second signal is ignored, so that it does not disturb the cleaning up after the first. With `restore` false the
    handlers stay: when the first of several tasks has ended, srun terminates the others, and that must not change the
    exit code of one that is on its way out. Compiled code may answer what is raised within it with an error of its own, as
    torch does where it reads a sequence: after a signal that is `Interrupted` too.
    """
    received: list[Interrupted] = []

    def stop(number, frame):
        ignore()
        received.append(Interrupted(f"stopped by {signal.Signals(number).name}; start again to go on"))
        raise received[0]

    with _handled(stop, restore):
        try:
            yield
        except Exception as error:
            if received and not isinstance(error, Interrupted):
                raise received[0] from error
            raise


def ignore() -> None:
    """From here on no signal to stop has an effect."""
    for number in STOP:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def stopping_when_asked() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether a signal has come, for a loop that saves before it stops.

    The loop's `Interrupted` becomes a `KeyboardInterrupt` with the same words where it was Ctrl-C: what is queued again
    when told to stop is not what a person has stopped. A signal that the loop came to its end without heeding is sent again
    afterwards: what comes after the loop is to stop, too.
    """
    received: list[int] = []

    def note(number, frame):
        if number == signal.SIGINT:
            if signal.SIGINT in received:
                raise KeyboardInterrupt
            os.write(2, b"\nsaving; Ctrl-C again ends at once\n")  # a handler may not log: the log may be being written
        received.append(number)

    with _handled(note, True, (*STOP, signal.SIGINT)):
        try:
            yield lambda: bool(received)
        except Interrupted as stop:
            if signal.SIGINT in received:
                raise KeyboardInterrupt(str(stop)) from None
            raise
    if received:
        signal.raise_signal(received[-1])


@contextlib.contextmanager
def _handled(handler, restore: bool, numbers: tuple[int, ...] = STOP) -> Iterator[None]:
    before: dict[int, object] = {}
    for number in numbers:
        try:
            before[number] = signal.signal(number, handler)
        except ValueError:  # not the main thread, as in a test
            break
    try:
        yield
    finally:
        for number, old in before.items() if restore else ():
            signal.signal(number, old)
