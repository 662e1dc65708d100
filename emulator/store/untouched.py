"""Variables of a dataset that are arrays of a local store, unread and unchanged: their chunks are read in xarray's place.

Xarray and Zarr take 2 ms for a chunk that is read and decompressed in 20 us (`emulator.store.chunks`).
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr
import zarr

from emulator.store.chunks import StoreReader

# What xarray wraps around an array of a store before anybody has read or changed it, from the outside.
_WRAPPERS = ("MemoryCachedArray", "CopyOnWriteArray", "LazilyIndexedArray", "ZarrArrayWrapper")


class Origin(NamedTuple):
    """An array of a store: its folder, the name there, and the position there of a variable's first time."""

    store: Path
    name: str
    first: int


def origin(variable: xr.Variable) -> Origin | None:
    """Where a variable `(time, *rest)` comes from; None for one that is not, value by value, an array of a local store.

    A range of times is allowed. That is told by xarray's own wrappers, which it has no public name for: where they are
    others, the answer is None, and xarray reads.
    """
    key, found = None, []
    inner = getattr(variable, "_data", None)
    while inner is not None and not isinstance(inner, zarr.Array):
        found.append(type(inner).__name__)
        key = getattr(getattr(inner, "key", None), "tuple", key)
        inner = getattr(inner, "array", None) if hasattr(inner, "array") else getattr(inner, "_array", None)
    if tuple(found) != _WRAPPERS or key is None or len(key) != variable.ndim or variable.dims[0] != "time":
        return None
    folder = getattr(inner.store, "root", None)
    if not isinstance(folder, Path) or not all(isinstance(part, slice) for part in key):
        return None
    spans = [part.indices(length) for part, length in zip(key, inner.shape, strict=True)]
    whole = all(span == (0, length, 1) for span, length in zip(spans[1:], inner.shape[1:], strict=True))
    if not whole or spans[0][2] != 1 or spans[0][1] - spans[0][0] != len(variable):
        return None
    return Origin(folder, inner.path, spans[0][0])


class UntouchedReader:
    """Those of some variables that lie unread and unchanged in local stores, in chunks of one time.

    Args:
      dataset: of variables `(time, *rest)`, as a store was opened or a range of its times.
      names: of the variables wanted.
    """

    def __init__(self, dataset: xr.Dataset, names):
        readers: dict[Path, StoreReader] = {}
        self._places: dict[str, tuple[StoreReader, Origin]] = {}
        for name in names:
            if (found := origin(dataset[name].variable)) is not None:
                reader = readers.setdefault(found.store, StoreReader(found.store))
                if reader.can_read([found.name]):
                    self._places[name] = reader, found

    def read(self, time: int, slices: dict[str, slice], out: np.ndarray) -> list[str]:
        """Variables at a position in time into their channels of `out`, `(channel, *space)` float32, C-contiguous.

        Returns the names of those that it cannot read. Raises `ValueError` naming the file for a broken chunk.
        """
        wanted: dict[StoreReader, list] = {}
        for name, (reader, found) in self._places.items():
            where = slices[name]
            wanted.setdefault(reader, []).append((found.name, found.first + time, 0, where.start, where.stop))
        for reader, pieces in wanted.items():
            reader.read(pieces, out[None])
        return [name for name in slices if name not in self._places]
