"""NetCDF 3 and 4; large compressed variables of NetCDF4 chunk by chunk without the HDF5 library.

Its lock lets one thread decompress at a time. HDF5 (through h5py) tells once where the chunks of a variable lie in the file.
They are then read by the system and decompressed in the thread that wants them, straight to where their values are wanted.
Only what HDF5's own filters deflate, shuffle and fletcher32 have stored is read so; all else is left to the library.
"""

import dataclasses
import functools
import itertools
import logging
import math
import os
import warnings

import h5py
import numpy as np
import xarray as xr
from isal import isal_zlib
from numcodecs.fletcher32 import Fletcher32
from xarray.backends import BackendArray, NetCDF4BackendEntrypoint
from xarray.core import indexing

from emulator.kernels.chunks import unshuffle
from emulator.sources.decode import decoded
from emulator.sources.open import Format, Request, decoding, register

DEFLATE, SHUFFLE, FLETCHER32 = 1, 2, 3  # HDF5's numbers of its filters
LEAST_BYTES = 1 << 14  # of a chunk: the library is faster with many small ones
UNWRITTEN = -1
ENTRY = np.dtype([("offset", "i8"), ("length", "i8"), ("skipped", "i8")])

log = logging.getLogger(__name__)


def opens(location: str, path: str, request: Request) -> list[xr.Dataset]:
    """One dataset. The engine is asked itself: given its name, xarray loads every engine that is installed."""
    with decoding("NetCDF", path), warnings.catch_warnings():
        # A variable with two fill values is masked by both, and times beyond datetime64 become cftime: both right.
        warnings.simplefilter("ignore", category=xr.SerializationWarning)
        raw = NetCDF4BackendEntrypoint().open_dataset(
            location,
            mask_and_scale=False,
            decode_times=False,
            concat_characters=False,
            decode_coords=False,
            use_cftime=None,
            decode_timedelta=False,
        )
        return [decoded(with_direct_chunks(raw, location), path, request.units)]


def _begins(start: bytes) -> bool:
    return start[:3] == b"CDF" or start[:8] == b"\x89HDF\r\n\x1a\n"


def with_direct_chunks(dataset: xr.Dataset, path: str) -> xr.Dataset:
    """An undecoded dataset of the NetCDF4 file at `path`, its large compressed variables to be read without the library.

    A file of another format, or one that h5py does not open, stays as it is.
    """
    try:
        with open(path, "rb") as file, h5py.File(path, "r", locking="best-effort") as opened:
            state = _state(file.fileno())
            path = os.path.abspath(path)
            readers = {name: _direct(path, state, opened, str(name), v) for name, v in dataset.variables.items()}
    except OSError as error:
        log.debug("%s is read by its library: %s", path, error)
        return dataset
    made = {
        name: dataset.variables[name]._replace(data=indexing.LazilyIndexedArray(array))
        for name, array in readers.items()
        if array is not None
    }
    direct = dataset.assign(made)
    direct.set_close(dataset.close)
    return direct


def _state(file: int) -> tuple[int, int]:
    """Size and date of an open file."""
    status = os.fstat(file)
    return status.st_size, status.st_mtime_ns


def _direct(path, state, file: h5py.File, name: str, variable: xr.Variable) -> "_DirectArray | None":
    """The reader of a variable, or None where the library has to read it."""
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset) or dataset.chunks is None or dataset.shape != variable.shape:
        return None
    pipeline = dataset.id.get_create_plist()
    filters = tuple(pipeline.get_filter(n)[0] for n in range(pipeline.get_nfilters()))
    plain = (
        dataset.dtype.kind in "fiu"
        and dataset.dtype == variable.dtype
        and dataset.dtype.newbyteorder("<") == dataset.dtype
    )
    large = math.prod(dataset.chunks) * dataset.dtype.itemsize >= LEAST_BYTES
    if not (plain and large and filters and {*filters} <= {DEFLATE, SHUFFLE, FLETCHER32}):
        return None
    return _DirectArray(path, state, name, dataset.shape, dataset.dtype, dataset.chunks, filters, dataset.fillvalue)


@dataclasses.dataclass(frozen=True, eq=False)
class _DirectArray(BackendArray):
    """One variable, as xarray's backends have them: indexed along every dimension on its own."""

    path: str
    state: tuple[int, int]
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    chunks: tuple[int, ...]
    filters: tuple[int, ...]
    fill: np.generic

    def __getitem__(self, key):
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple) -> np.ndarray:
        wanted = [np.atleast_1d(np.arange(n)[k]) for n, k in zip(self.shape, key, strict=True)]
        out = np.empty([len(positions) for positions in wanted], self.dtype)
        parts = [_by_chunk(positions, size) for positions, size in zip(wanted, self.chunks, strict=True)]
        with open(self.path, "rb", buffering=0) as file:
            if _state(file.fileno()) != self.state:
                raise OSError("a file that was changed after it was opened")
            table = _table(self.path, self.name, self.state)
            for pieces in itertools.product(*parts):
                number, there, inside = zip(*pieces, strict=True)
                self._place(out, there, inside, file.fileno(), table[number].tolist())
        return out[tuple(0 if np.ndim(k) == 0 and not isinstance(k, slice) else slice(None) for k in key)]

    def _place(self, out: np.ndarray, there: tuple, inside: tuple, file: int, entry: tuple[int, int, int]) -> None:
        """Values of a chunk, at positions `inside` of it, to positions `there` of `out`; `entry`: see `_table`."""
        runs = all(isinstance(part, slice) for part in (*there, *inside))
        if runs and (target := out[there]).shape == self.chunks and target.flags.c_contiguous:
            self._decode(file, entry, target)
            return
        chunk = np.empty(self.chunks, self.dtype)
        self._decode(file, entry, chunk)
        if runs:
            out[there] = chunk[inside]
        else:
            out[np.ix_(*map(_positions, there, out.shape))] = chunk[np.ix_(*map(_positions, inside, chunk.shape))]

    def _decode(self, file: int, entry: tuple[int, int, int], out: np.ndarray) -> None:
        """A chunk's values into contiguous `out`. Raises `OSError` where they are not there or cannot be decoded."""
        offset, length, skipped = entry
        if offset == UNWRITTEN:
            out[...] = self.fill
            return
        data = os.pread(file, length, offset)
        if len(data) != length:
            raise OSError(f"{len(data)} bytes of a chunk of {length}; is the file cut off?")
        into = out.reshape(-1).view(np.uint8)
        filters = [number for place, number in enumerate(self.filters) if not skipped >> place & 1]
        try:
            for place, number in reversed([*enumerate(filters)]):
                if number == DEFLATE:
                    data = isal_zlib.decompress(data, bufsize=out.nbytes)
                elif number == FLETCHER32:
                    data = Fletcher32().decode(data)
                elif place == 0 and len(data) == out.nbytes:
                    unshuffle(data, out.itemsize, into)
                    return
                else:
                    data = unshuffle(data, out.itemsize, np.empty(len(data), np.uint8))
            if len(data) != out.nbytes:
                raise ValueError(f"{len(data)} bytes for {out.nbytes}")
            into[:] = np.frombuffer(data, np.uint8)
        except (isal_zlib.error, RuntimeError, ValueError) as error:
            raise OSError(f"a chunk that cannot be decoded ({error})") from error


def _by_chunk(positions: np.ndarray, size: int) -> list[tuple]:
    """For every chunk that holds some positions: its number, where they are among them, and where inside of it."""
    if not len(positions):
        return []
    first, last = int(positions[0]), int(positions[-1])
    if last - first == len(positions) - 1 and (np.diff(positions) == 1).all():
        parts = []
        for number in range(first // size, last // size + 1):
            start, stop = max(first, number * size), min(last + 1, (number + 1) * size)
            parts.append(
                (number, slice(start - first, stop - first), slice(start - number * size, stop - number * size))
            )
        return parts
    numbers, inside = np.divmod(positions, size)
    return [(int(n), there := np.flatnonzero(numbers == n), inside[there]) for n in np.unique(numbers)]


def _positions(part, size: int) -> np.ndarray:
    return np.arange(size)[part]


@functools.lru_cache(maxsize=64)
def _table(path: str, name: str, state: tuple[int, int]) -> np.ndarray:
    """Of every chunk its offset in the file (`UNWRITTEN` for none), length, and which filters it skipped, as bits."""
    with h5py.File(path, "r", locking="best-effort") as file:
        dataset = file[name]
        table = np.full(
            [-(-n // size) for n, size in zip(dataset.shape, dataset.chunks, strict=True)], UNWRITTEN, ENTRY
        )
        chunks = dataset.chunks

        def keep(chunk) -> None:
            number = tuple(start // size for start, size in zip(chunk.chunk_offset, chunks, strict=True))
            table[number] = (chunk.byte_offset, chunk.size, chunk.filter_mask)

        dataset.id.chunk_iter(keep)
    return table


register(Format("netcdf", "NetCDF", opens, _begins, suffixes=(".nc", ".nc4", ".cdf", ".netcdf")))
