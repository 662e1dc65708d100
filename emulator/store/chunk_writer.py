"""Whole chunks of a local store written without a copy, byte for byte as Zarr does."""

from pathlib import Path

import google_crc32c
import numpy as np

from emulator.files.whole_file import whole_file
from emulator.store.chunks import EMPTY, ChunkReader


def write_chunks(layout: ChunkReader, first: int, values: np.ndarray) -> bool:
    """Writes `values` `(time, *rest)`, float32, at position `first` in time; False where Zarr has to do it.

    That is where they do not fill whole files, where a chunk holds some rows alone, or where chunks that are left out are not
    NaN. A file appears whole, by a
    rename. Raises `OSError` when it cannot be written.
    """
    length = layout.per_file
    last = first + len(values)
    if layout.parts > 1 or first % length or (last % length and last != layout.shape[0]) or not np.isnan(layout.fill):
        return False
    for start in range(first, last, length):
        _write_file(layout, Path(layout.file(start)), values[start - first : start - first + length])
    return True


def _write_file(layout: ChunkReader, path: Path, values: np.ndarray) -> None:
    there = [not _is_empty(chunk) for chunk in values]
    if not any(there):
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, shared=True, flush=False) as scratch, open(scratch, "wb", buffering=0) as file:
        index = np.full((layout.per_file, 2), EMPTY, "<u8")
        offset = 0
        for place in np.flatnonzero(there):
            data = layout.blosc.encode(np.ascontiguousarray(values[place]))
            _write(file, data)
            index[place] = offset, len(data)
            offset += len(data)
        if layout.is_sharded:
            table = index.tobytes()
            _write(file, table + google_crc32c.value(table).to_bytes(4, "little"))


def _write(file, data: bytes) -> None:
    """All of the data: a raw file may take less at a time."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def _is_empty(chunk: np.ndarray) -> bool:
    return bool(np.isnan(chunk.flat[0])) and bool(np.isnan(chunk).all())
