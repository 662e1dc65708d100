"""Opens a source of any format: NetCDF 3 and 4, GRIB 1 and 2, Zarr 2 and 3, on disk or at a URL; reads no field yet."""

import contextlib
import dataclasses
import glob
import logging
import os
import warnings
from collections.abc import Iterable

import fsspec
import xarray as xr
from xarray.backends import NetCDF4BackendEntrypoint

from emulator.sources.grib import open_grib
from emulator.sources.hdf5_chunks import with_direct_chunks

NAMES = {"netcdf4": "NetCDF", "zarr": "zarr"}
ZARR_FILES = ("zarr.json", ".zgroup", ".zmetadata")

log = logging.getLogger(__name__)


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
        raise ValueError(f"Expected data that can be reached at {path}, got: {_short(error)}") from error
    # botocore's and aiohttp's errors are neither OSError nor ValueError, and those libraries not installed everywhere
    except Exception as error:
        if "://" not in path:
            raise
        raise ValueError(f"Expected data that can be reached at {path}, got: {_short(error)}") from error


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def find(patterns: str | Iterable[str]) -> list[str]:
    """Paths and URLs that the patterns stand for, sorted within each. Raises `ValueError` for one without a file."""
    found: list[str] = []
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
        found += paths
    return found


def identity(path: str) -> str:
    """Path, size and date of a file, or of a store's metadata: equal when the source has not changed.

    Raises `ValueError` naming the path when nothing can be reached there.
    """
    with reaching(path):
        return _identity(path)


def _identity(path: str) -> str:
    system, inner = fsspec.core.url_to_fs(path)
    for name in ("", *(f"/{file}" for file in ZARR_FILES)):
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


def open_source(path: str, engine: str = "auto", wanted=None, points: bool = False) -> list[Source]:
    """The content of one file, store or URL. `wanted`: canonical names that GRIB messages are looked through for;
    `points`: take GRIB's reduced grids as lists of points.

    Packed integers are unpacked by the file's own scale, missing values become NaN, times are decoded (cftime for calendars
    other than the standard one). Raises `ValueError` with one sentence naming the path when it cannot be read.
    """
    with reaching(path):
        return _opened(path, format_of(path) if engine == "auto" else engine, wanted, points)


def _opened(path: str, engine: str, wanted, points) -> list[Source]:
    if engine == "zarr":
        return [Source(path, _decoded(path, "zarr", path))]
    local = path
    if "://" in path:
        local = fsspec.open_local(f"simplecache::{path}")
    if engine == "grib":
        try:
            return [Source(path, dataset) for dataset in open_grib(local, wanted, points)]
        except OSError as error:
            raise ValueError(f"Expected a file that can be read at {path}, got: {error.strerror}") from None
    return [Source(path, _decoded(local, "netcdf4", path))]


def _decoded(location, engine, path) -> xr.Dataset:
    coder = xr.coders.CFDatetimeCoder(time_unit="ns")
    try:
        with warnings.catch_warnings():
            # A variable with two fill values is masked by both, and times beyond datetime64 become cftime: both right.
            warnings.simplefilter("ignore", category=xr.SerializationWarning)
            if engine == "netcdf4":
                raw = with_direct_chunks(_undecoded(location), location)
                return xr.decode_cf(raw, decode_times=coder, decode_timedelta=False)
            options = {"decode_times": coder, "decode_timedelta": False, "chunks": None, "cache": False}
            return xr.open_dataset(location, engine=engine, **options)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, OverflowError, AttributeError) as error:
        raise ValueError(f"Expected {NAMES[engine]} data that opens at {path}, got: {_short(error)}") from error


def _undecoded(location: str) -> xr.Dataset:
    """A NetCDF file as it is, by the engine itself: given its name, xarray loads every engine that is installed."""
    return NetCDF4BackendEntrypoint().open_dataset(
        location,
        mask_and_scale=False,
        decode_times=False,
        concat_characters=False,
        decode_coords=False,
        use_cftime=None,
        decode_timedelta=False,
    )


def format_of(path: str) -> str:
    """The format, "zarr", "netcdf" or "grib": of a folder by its metadata, of a file by its first bytes."""
    if path.rstrip("/").endswith(".zarr"):
        return "zarr"
    if "://" in path:
        return "grib" if path.endswith((".grib", ".grb", ".grib2", ".grb2", ".grib1")) else "netcdf"
    if os.path.isdir(path):
        if any(os.path.exists(os.path.join(path, name)) for name in ZARR_FILES):
            return "zarr"
        raise ValueError(f"Expected a file or a Zarr store at {path}, got a folder without {' or '.join(ZARR_FILES)}")
    try:
        with open(path, "rb") as file:
            start = file.read(64)
    except OSError as error:
        raise ValueError(f"Expected a file that can be read at {path}, got: {error.strerror}") from None
    if start[:3] == b"CDF" or start[:8] == b"\x89HDF\r\n\x1a\n":
        return "netcdf"
    if b"GRIB" in start:  # a telecommunication heading may stand before it
        return "grib"
    raise ValueError(f"Expected NetCDF, GRIB or Zarr at {path}, got a file that begins with {start[:8]!r}")
