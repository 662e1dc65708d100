"""Formats of sources. A file in this folder is one format: its name is what `engine` calls it, and it registers itself.

To add one, write `NAME.py` that ends in `register(Format("NAME", ...))`; nothing else has to know it.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator

import xarray as xr

from emulator.files.registry import Registry

DEFAULT_OF_URLS = "netcdf"  # of which neither first bytes nor files are looked at
FIRST_BYTES = 64


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked of a file, for formats that have to look through it.

    Attributes:
      names: canonical names of the variables; None for all.
      points: take reduced grids as lists of points.
    """

    names: tuple[str, ...] | None = None
    points: bool = False


@dataclasses.dataclass(frozen=True)
class Format:
    """One format of files or stores.

    Attributes:
      name: as `engine` names it; label: for messages.
      opens: from a location (a path, or a URL where `reads_urls`), the path for messages and a `Request` to datasets,
        lazily: packed numbers unpacked, missing values NaN, times decoded in nanoseconds (cftime for calendars other than
        the standard one). Raises `ValueError` naming the path.
      begins: whether the first bytes of a file are this format's.
      folder_files: names of files of which a folder of this format has one; empty for formats that are no folders.
      suffixes: of URLs, and of folders.
      reads_urls: whether URLs are opened as they are; else they are copied here first.
    """

    name: str
    label: str
    opens: Callable[[str, str, Request], list[xr.Dataset]]
    begins: Callable[[bytes], bool] = lambda start: False
    folder_files: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    reads_urls: bool = False


FORMATS: Registry[Format] = Registry("source format", __name__)


def register(entry: Format) -> None:
    """Makes a format known, under its name. Raises `ValueError` for a name that is taken."""
    FORMATS.register(entry.name, entry)


def format_of(path: str) -> Format:
    """The format of what lies at a path: of a folder by its files, of a file by its first bytes, of a URL by its suffix.

    Raises `ValueError` naming the path where it is none.
    """
    known = [FORMATS[name] for name in FORMATS.names()]
    remote, bare = "://" in path, path.rstrip("/")
    for entry in known:
        if bare.endswith(entry.suffixes) and (remote or entry.folder_files):
            return entry
    if remote:
        return FORMATS[DEFAULT_OF_URLS]
    if os.path.isdir(path):
        for entry in known:
            if any(os.path.exists(os.path.join(path, file)) for file in entry.folder_files):
                return entry
        files = " or ".join(file for entry in known for file in entry.folder_files)
        raise ValueError(f"Expected a file or a Zarr store at {path}, got a folder without {files}")
    try:
        with open(path, "rb") as file:
            start = file.read(FIRST_BYTES)
    except OSError as error:
        raise ValueError(f"Expected a file that can be read at {path}, got: {error.strerror}") from None
    for entry in known:
        if entry.begins(start):
            return entry
    *labels, last = (entry.label for entry in known)
    raise ValueError(f"Expected {', '.join(labels)} or {last} at {path}, got a file that begins with {start[:8]!r}")


TIME_CODER = xr.coders.CFDatetimeCoder(time_unit="ns")


@contextlib.contextmanager
def decoding(label: str, path: str) -> Iterator[None]:
    """Turns whatever xarray and its engines raise for broken data into one sentence."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, OverflowError, AttributeError) as error:
        raise ValueError(f"Expected {label} data that opens at {path}, got: {short(error)}") from error


def short(error: BaseException) -> str:
    """An error's text as one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
