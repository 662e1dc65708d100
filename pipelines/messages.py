"""How messages reach a person: the log on standard error, a fault in one sentence, times as people write them."""

import logging
import os
import re
import select
import sys

from rich.console import Console
from rich.logging import RichHandler


def plain(text: str) -> str:
    """Times in a text to the second, as people write them: numpy's have nine more digits, nearly always zeros."""
    return re.sub(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.0{9}(?!\d)", r"\1", text)


def sentence(error: BaseException) -> str:
    """What an expected fault says, on one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return plain(" ".join(str(error).split())) or type(error).__name__


def print_error(command: str, error: BaseException) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]error[/]: {command}: ", end="")
    print(sentence(error), file=sys.stderr)


def log_to_stderr(verbose: bool) -> None:
    """Log in colour where a person watches, in plain lines where not; debug messages too if `verbose`."""
    if sys.stderr.isatty():
        handler: logging.Handler = RichHandler(console=Console(stderr=True), show_path=False, show_level=False)
        handler.setFormatter(_Formatter("%(message)s", datefmt="%H:%M:%S"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(_Formatter("%(asctime)s %(levelname).1s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    level = logging.DEBUG if verbose or os.environ.get("EMULATOR_DEBUG") else logging.INFO
    for name in ("emulator", "pipelines"):
        logging.getLogger(name).setLevel(level)
    # s3fs and gcsfs leave sessions to be collected, and asyncio would complain of them between these messages
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record))


def output_is_closed() -> bool:
    """Whether the reader of standard output has gone, as `head` does; if so, Python does not complain of it at its end."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    closed = any(event & select.POLLERR for _, event in output.poll(0))
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return closed
