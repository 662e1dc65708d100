"""Finds and opens sources of any format, on disk or at a URL; reads no field yet.

A file in `emulator/sources/formats` is one format: its name is what `engine` calls it, and it registers itself. To add one,
write `NAME.py` there that ends in `register(Format("NAME", ...))`; nothing else has to know it.
"""

import contextlib
import dataclasses
import glob
import os
from collections.abc import Callable, Iterable, Iterator, Mapping

import fsspec
import xarray as xr

from emulator.registry import Registry
from emulator.sources.other_files import is_packed, is_page, what

DEFAULT_OF_URLS = "netcdf"  # of which neither first bytes nor files are looked at
FIRST_BYTES = 64


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked of a file, for formats that have to look through it.

    Attributes:
      names: canonical names of the variables; None for all.
      own: names in the file that are wanted whatever they mean.
      points: take reduced grids as lists of points.
      interval_hours: of accumulations over several intervals in one place, those over this.
    """

    names: tuple[str, ...] | None = None
    points: bool = False
    own: frozenset[str] = frozenset()
    interval_hours: float | None = None
    units: Mapping[str, str] = dataclasses.field(default_factory=dict)


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
      holds: whether what lies at a path or URL is this format's, where others have the same files or suffixes; None where it
        is by its files and suffix.
      reads_urls: whether URLs are opened as they are; else they are copied here first.
    """

    name: str
    label: str
    opens: Callable[[str, str, Request], list[xr.Dataset]]
    begins: Callable[[bytes], bool] = lambda start: False
    folder_files: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    reads_urls: bool = False
    holds: Callable[[str], bool] | None = None


FORMATS: Registry[Format] = Registry("source format", "emulator.sources.formats")


def register(entry: Format) -> None:
    """Makes a format known, under its name. Raises `ValueError` for a name that is taken."""
    FORMATS.register(entry.name, entry)


def format_of(path: str) -> Format:
    """The format of what lies at a path: of a folder by its files, of a file by its first bytes, of a URL by its suffix.

    Raises `ValueError` naming the path where it is none.
    """
    remote, bare = "://" in path, path.rstrip("/")
    # Formats that have to look inside come first, but at a URL, where that is left to `open_source`.
    known = sorted(FORMATS.all().values(), key=lambda entry: (entry.holds is None) != remote)
    for entry in known:
        fits = bare.endswith(entry.suffixes) and (remote or entry.folder_files)
        if fits and (remote or entry.holds is None or entry.holds(path)):
            return entry
    if remote:
        return FORMATS[DEFAULT_OF_URLS]
    if os.path.isdir(path):
        for entry in known:
            there = any(os.path.exists(os.path.join(path, file)) for file in entry.folder_files)
            if there and (entry.holds is None or entry.holds(path)):
                return entry
        files = " or ".join(dict.fromkeys(file for entry in known for file in entry.folder_files))
        raise ValueError(f"Expected a file or a Zarr store at {path}, got a folder without {files}")
    try:
        with open(path, "rb") as file:
            start = file.read(FIRST_BYTES)
    except OSError as error:
        raise ValueError(f"Expected a file that can be read at {path}, got: {error.strerror}") from None
    if not is_packed(start):
        for entry in known:
            if entry.begins(start):
                return entry
    *labels, last = (entry.label for entry in known if entry.holds is None)
    raise ValueError(f"Expected {', '.join(labels)} or {last} at {path}, got {what(path, start)}")


def _inside(entry: Format, url: str) -> Format:
    """Of the formats that share the suffix of a URL the one that holds what lies there."""
    for other in FORMATS.all().values():
        if other.holds is not None and {*other.suffixes} & {*entry.suffixes} and other.holds(url):
            return other
    return entry


@contextlib.contextmanager
def decoding(label: str, path: str) -> Iterator[None]:
    """Turns whatever xarray and its engines raise for broken data into one sentence."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, OverflowError, AttributeError) as error:
        if isinstance(error, ValueError) and path in str(error):
            raise
        raise ValueError(f"Expected {label} data that opens at {path}, got: {short(error)}") from error


def short(error: BaseException) -> str:
    """An error's text as one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


@dataclasses.dataclass(frozen=True)
class Source:
    """One opened file (or one variable of a GRIB file): its path for messages, and its content, lazily."""

    path: str
    dataset: xr.Dataset


@contextlib.contextmanager
def reaching(path: str):
    """Turns whatever a protocol's library raises for a URL into one sentence; of local files all errors pass."""
    try:
        yield
    except ValueError as error:
        if "://" not in path or path in str(error):
            raise
        raise ValueError(f"Expected data that can be reached at {path}, got: {short(error)}") from error
    # botocore's and aiohttp's errors are neither OSError nor ValueError, and those libraries not installed everywhere
    except Exception as error:
        if "://" not in path:
            raise
        raise ValueError(f"Expected data that can be reached at {path}, got: {short(error)}") from error


def find(patterns: str | Iterable[str]) -> list[str]:
    """Paths and URLs that the patterns stand for, sorted within each. Raises `ValueError` for one without a file."""
    locations: list[str] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        if "://" in pattern and "*" in pattern:
            with reaching(pattern):
                system, path = fsspec.core.url_to_fs(pattern)
                protocol = pattern.split("://", 1)[0]
                paths = [f"{protocol}://{p}" for p in sorted(system.glob(path))]
        elif "://" in pattern:
            paths = [pattern]
        else:
            paths = sorted(glob.glob(pattern)) or [pattern] * os.path.exists(pattern)
        if not paths:
            raise ValueError(f"Expected files at {pattern}, got none")
        locations += paths
    return locations


def identity(path: str) -> str:
    """Path, size and date of a file, or of a store's metadata: equal when the source has not changed.

    Raises `ValueError` naming the path when nothing can be reached there.
    """
    with reaching(path):
        return _identity(path)


def _identity(path: str) -> str:
    system, inner = fsspec.core.url_to_fs(path)
    inside = [file for entry in FORMATS.all().values() for file in entry.folder_files]
    for name in ("", *(f"/{file}" for file in inside)):
        try:
            info = system.info(inner.rstrip("/") + name)
        except (OSError, ValueError):
            continue
        if info.get("type") == "file":
            dates = [str(info[key]) for key in ("mtime", "updated", "LastModified", "ETag", "etag") if key in info]
            return " ".join([path, str(info.get("size")), *dates[:1]])
    return path


def limit_caches() -> None:
    """Few files open and small chunk caches in this process: 23 files of 22 variables took 1.9 GB without, 0.4 GB with."""
    import netCDF4

    xr.set_options(file_cache_maxsize=4)
    netCDF4.set_chunk_cache(8 << 20)


def open_source(path: str, engine: str = "auto", request: Request | None = None) -> list[Source]:
    """The content of one file, store or URL, in the format that `engine` names ("auto": by what lies there).

    Packed integers are unpacked by the file's own scale, missing values become NaN, times are decoded (cftime for calendars
    other than the standard one). Raises `ValueError` with one sentence naming the path when it cannot be read.
    """
    with reaching(path):
        entry = format_of(path) if engine == "auto" else FORMATS[engine]
        entry = _inside(entry, path) if engine == "auto" and "://" in path else entry
        fetched = "://" in path and not entry.reads_urls
        location = fsspec.open_local(f"simplecache::{path}") if fetched else path
        if (engine != "auto" or fetched) and os.path.isfile(location):
            _check_begins(entry, location, path)
        return [Source(path, dataset) for dataset in entry.opens(location, path, request or Request())]


def _check_begins(entry: Format, location: str, path: str) -> None:
    """Raises `ValueError` for archives and pages that are said to be of a format, before its library tells of them."""
    with open(location, "rb") as file:
        start = file.read(FIRST_BYTES)
    if not entry.begins(start) and (is_packed(start) or is_page(start)):
        raise ValueError(f"Expected {entry.label} at {path}, got {what(location, start)}")


def absolute(patterns: str | Iterable[str]) -> str | list[str]:
    """Paths or patterns as they are from every working directory; URLs stay as they are."""
    if isinstance(patterns, str):
        return patterns if "://" in patterns else os.path.abspath(patterns)
    return [absolute(pattern) for pattern in patterns]
