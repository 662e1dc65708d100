"""Marks beside an unfinished store: which regions are written, and the digest of what their sources gave."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import zarr
from isal import isal_zlib

from emulator.files.whole_file import whole_file


class DiskError(ValueError):
    """The disk, and not the data, is at fault: what is written can be continued once there is room."""


def partial_path(path) -> Path:
    """Where the store lies until it is finished."""
    return Path(path).with_name(Path(path).name + ".partial")


def progress_path(path) -> Path:
    """The folder of marks of finished regions."""
    return Path(path).with_name(Path(path).name + ".progress")


def digest(values: np.ndarray) -> str:
    """Digest of a region's values as they come back from a store: any NaN is the one that fills empty chunks.

    The checksums of both halves: it is to find faults of disks and of sources, not forgeries, and cryptographic digests took
    longer than compressing.
    """
    values = np.ascontiguousarray(values)
    if values.dtype.kind == "f" and (gaps := np.isnan(values)).any():
        values = np.where(gaps, values.dtype.type(np.nan), values)
    data = memoryview(values.reshape(-1).view(np.uint8))
    return "".join(f"{isal_zlib.crc32(part):08x}" for part in (data[: len(data) // 2], data[len(data) // 2 :]))


def mark(path, key: str, text: str = "") -> None:
    """Records that the region `key` is written; `text` is kept with it (the digest of its values)."""
    try:
        with whole_file(progress_path(path) / f"{key}.done", shared=True, flush=False) as scratch:
            scratch.write_text(text)
    except OSError as error:
        raise DiskError(f"Expected to mark {key} of {path} as written, got: {reason(error)}") from error


def marks(path) -> set[str]:
    """The keys of all regions that are written."""
    return {file.name.removesuffix(".done") for file in progress_path(path).glob("*.done")}


def matches(path, key: str, name: str, where: Mapping[str, slice]) -> bool:
    """Whether what lies in the unfinished store at `where` of an array has the digest that its mark recorded.

    True for a region that was marked without a digest. Chunks that cannot be decoded do not match.
    """
    recorded = read_text(progress_path(path) / f"{key}.done")
    if recorded == "":
        return True
    array = zarr.open_array(partial_path(path), path=name, mode="r")
    try:
        values = array[tuple(where.get(d, slice(None)) for d in array.metadata.dimension_names)]
    except (OSError, RuntimeError, ValueError):
        return False
    return recorded == digest(values)


def unmark(path, key: str) -> None:
    """Takes back that a region is written."""
    (progress_path(path) / f"{key}.done").unlink(missing_ok=True)


def erase(path, name: str, start: int) -> None:
    """Removes the file that holds the first dimension's position `start` of an array: a broken one cannot be written to."""
    array = zarr.open_array(partial_path(path), path=name, mode="r")
    length = (array.shards or array.chunks)[0]
    shutil.rmtree(partial_path(path) / name / "c" / str(start // length), ignore_errors=True)


def reason(error: OSError) -> str:
    """What the operating system said, with the file."""
    return f"{error.strerror or error} ({error.filename})" if error.filename else str(error.strerror or error)


def read_text(file: Path) -> str | None:
    """Text of a file; None where there is none."""
    return file.read_text() if file.exists() else None
