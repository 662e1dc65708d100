"""Whole chunks of a local analysis store, read straight into an array and written without a copy, byte for byte as Zarr does.

Zarr's own reader starts a task for every chunk and copies twice, which at 64 x 128 takes longer than decompressing. Here a
chunk, which holds one time of a variable, is decompressed into the place where its values are wanted; several threads
share the work, in compiled code (`emulator.kernels.chunks`) where there is a compiler. Stores of any other layout, at URLs or
with other codecs are left to Zarr.
"""

import concurrent.futures
import contextlib
import functools
import logging
import os
import threading
from pathlib import Path

import google_crc32c
import numpy as np
import zarr
from numcodecs import Blosc, blosc
from zarr.codecs import BloscCodec, BytesCodec, ShardingCodec

from emulator.files.whole_file import whole_file
from emulator.kernels import chunks as native

BLOSC_HEADER = 16  # bytes
BLOSC_SHUFFLE = {"noshuffle": Blosc.NOSHUFFLE, "shuffle": Blosc.SHUFFLE, "bitshuffle": Blosc.BITSHUFFLE}
OPEN_FILES = 64  # at a time in a thread
WHOLE = -1  # length of a chunk that is all of a file
EMPTY = 2**64 - 1  # in the index of a shard: a chunk that was never written

log = logging.getLogger(__name__)


class ChunkReader:
    """One array of a store, `(time, *rest)`, float32, in chunks of one time.

    `fill` is the value where nothing was written, `per_file` how many times a file holds, `blosc` the chunks' compressor.

    Raises `ValueError` for an array of any other layout: see `of`.
    """

    def __init__(self, store: Path, name: str):
        array = zarr.open_array(store, path=name, mode="r")
        self._folder, self._name = str(Path(store) / name / "c"), name
        self.shape, self.fill = array.shape, np.float32(array.fill_value)
        codecs = array.metadata.codecs
        self.is_sharded, self.per_file = False, 1
        keys = array.metadata.chunk_key_encoding
        plain = (keys.name, keys.separator) == ("default", "/")
        if len(codecs) == 1 and isinstance(codecs[0], ShardingCodec):
            self.is_sharded, self.per_file = True, array.shards[0]
            shard, codecs = codecs[0], codecs[0].codecs
            plain &= shard == ShardingCodec(chunk_shape=array.chunks, codecs=codecs)  # its index as usual, at the end
            plain &= array.shards[1:] == array.shape[1:]
        plain &= [type(codec) for codec in codecs] == [BytesCodec, BloscCodec] and codecs[0] == BytesCodec(
            endian="little"
        )
        if not (plain and array.dtype == np.dtype("<f4") and array.chunks == (1, *array.shape[1:])):
            raise ValueError(f"Expected {name} in {store} as float32 chunks of one time, got chunks {array.chunks}")
        c = codecs[1]
        self.blosc = Blosc(c.cname.value, c.clevel, BLOSC_SHUFFLE[c.shuffle.value], c.blocksize, typesize=c.typesize)
        self.chunk_bytes = 4 * int(np.prod(array.shape[1:]))
        self._tail = "/0" * (len(array.shape) - 1)
        self._indices: dict[int, list[list[int]]] = {}
        self._lock = threading.Lock()

    @classmethod
    def of(cls, store, name: str) -> "ChunkReader | None":
        """The reader of an array, or None where Zarr has to read it."""
        if "://" in str(store):
            return None
        try:
            return cls(Path(store), name)
        except ValueError as error:
            log.debug("read by zarr: %s", error)
            return None

    def read(self, time: int, out: np.ndarray) -> None:
        """The values at a position in time, into C-contiguous `out` `(*rest)`, float32.

        Raises `ValueError` naming the file for a chunk that cannot be decompressed.
        """
        _read_all([(self, time, out)])

    def file(self, time: int) -> str:
        """Path of the file that holds a position in time."""
        return f"{self._folder}/{time // self.per_file}{self._tail}"

    def place(self, time: int) -> tuple[str, int, int] | None:
        """Where a position in time lies: file, offset and length there; None where nothing was written."""
        path = self.file(time)
        if not self.is_sharded:
            return path, 0, WHOLE
        if (index := self._indices.get(time // self.per_file)) is None:
            try:
                file = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                return None
            try:
                index = self._index(file, path, time // self.per_file)
            finally:
                os.close(file)
        offset, length = index[time % self.per_file]
        return None if offset == EMPTY else (path, offset, length)

    def open(self, time: int) -> tuple[int, str, int, int] | None:
        """An open file with its path, and the chunk's offset and length there; None where all values are the fill value."""
        if (place := self.place(time)) is None:
            return None
        path, offset, length = place
        try:
            file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        return file, path, offset, os.fstat(file).st_size if length == WHOLE else length

    def take(self, place: tuple[int, str, int, int] | None, out: np.ndarray) -> None:
        """The values at a place that `open` gave, into `out`; the file stays open."""
        if place is None:
            out.fill(self.fill)
            return
        file, path, offset, length = place
        self._decompress(os.pread(file, length, offset), out, path)

    def _decompress(self, data, out, path) -> None:
        try:
            # What Blosc's header says that it holds, and takes: Blosc itself would read past the end of less.
            size, taken = (int.from_bytes(data[at : at + 4], "little") for at in (4, 12))
            if len(data) < BLOSC_HEADER or size != out.nbytes or taken != len(data):
                raise ValueError(f"{len(data)} bytes that hold {size}, for {out.nbytes}")
            blosc.decompress(data, out)
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"Expected a chunk of {self._name} that decompresses in {path}, got: {error}") from error

    def _index(self, file: int, path: str, shard: int) -> list[list[int]]:
        """Offsets and lengths of the chunks of a shard, which stand at its end before a checksum."""
        size, whole = 16 * self.per_file, os.fstat(file).st_size
        data = os.pread(file, size, max(0, whole - size - 4))
        table = np.frombuffer(data[: len(data) // 16 * 16], "<u8").reshape(-1, 2)
        # in floating point: the numbers of a broken file may be any
        ends = table[table[:, 0] != EMPTY].astype(np.float64).sum(axis=1)
        if len(table) < self.per_file or (ends > whole).any():
            raise ValueError(f"Expected {self.per_file} chunks of {self._name} in {path}, got a broken file")
        index = table.tolist()
        with self._lock:
            self._indices[shard] = index
        return index


class StoreReader:
    """Variables of a local store into channels of one array.

    Args:
      path: of the store, where it is a folder.
      threads: that decompress at the same time; 1 works in the caller's thread alone.
    """

    def __init__(self, path, threads: int = 1):
        self._path, self._threads = path, threads

    def __getstate__(self):
        return {"_path": self._path, "_threads": self._threads}

    @functools.cached_property
    def _readers(self) -> dict[str, ChunkReader | None]:
        return {}

    @functools.cached_property
    def _pool(self):
        return concurrent.futures.ThreadPoolExecutor(self._threads, "chunks")

    def can_read(self, names) -> bool:
        """Whether all of some variables are laid out for it."""
        for name in names:
            if name not in self._readers:
                self._readers[name] = ChunkReader.of(self._path, name)
        return all(self._readers[name] is not None for name in names)

    def read(self, wanted, out: np.ndarray) -> None:
        """Several variables at several times into `out`, `(n, channel, *space)` float32, C-contiguous.

        `wanted`: `(name, position in time, n, first channel, one past the last)` of each piece. They have to be readable:
        see `can_read`. Raises `ValueError` for any other array, and naming the file for a chunk that cannot be decompressed.
        """
        if not (out.dtype == np.float32 and out.flags.c_contiguous and out.flags.writeable):
            raise ValueError(f"Expected C-contiguous float32 to read into, got {out.dtype} with strides {out.strides}")
        size = out.strides[1]
        for name, _, n, first, last in wanted:
            if not (0 <= n < len(out) and 0 <= first and last <= out.shape[1]):
                raise ValueError(
                    f"Expected places in an array of shape {out.shape}, got {n} and channels {first} to {last}"
                )
            if (last - first) * size != self._readers[name].chunk_bytes:
                raise ValueError(f"Expected room for {self._readers[name].shape[1:]}, got {out[n, first:last].shape}")
        left = wanted
        if native.DECOMPRESS is not None:
            left = []
            for first in range(0, len(wanted), OPEN_FILES):
                left += self._read_compiled(wanted[first : first + OPEN_FILES], out)
        self._share([(self._readers[name], time, out[n, first:last]) for name, time, n, first, last in left])

    def _read_compiled(self, wanted, out: np.ndarray) -> list:
        """As `read`, without checks; returns what has no chunk, or one that is broken."""
        files: dict[str, int] = {}
        places, to, read, left = [], [], [], []
        start, (row, channel) = out.ctypes.data, out.strides[:2]
        for piece in wanted:
            name, time, n, first, last = piece
            if (place := self._readers[name].place(time)) is None:
                left.append(piece)
                continue
            path, offset, length = place
            places += (files.setdefault(path, len(files)), offset, length, (last - first) * channel)
            to.append(start + n * row + first * channel)
            read.append(piece)
        if read:
            arrays = np.array(places, np.int64).reshape(-1, 4), np.array(to, np.int64)
            pool = self._pool if self._threads > 1 else None
            left += [read[n] for n in native.read(list(files), *arrays, self._threads, pool)]
        return left

    def _share(self, pieces) -> None:
        if self._threads == 1 or len(pieces) < 2:
            _read_all(pieces)
            return
        chunks = [pieces[n :: self._threads] for n in range(self._threads)]
        for done in [self._pool.submit(_read_all, chunk) for chunk in chunks if chunk]:
            done.result()


def _read_all(pieces) -> None:
    """Chunks `(reader, time, out)`. The system is told of many before the first is read: the disk then works on all of them
    while others are decompressed (cold, 64 x 128: 1.4 times as fast)."""
    for first in range(0, len(pieces), OPEN_FILES):
        some = pieces[first : first + OPEN_FILES]
        with contextlib.ExitStack() as opened:
            places = []
            for reader, time, _ in some:
                places.append(place := reader.open(time))
                if place is not None:
                    opened.callback(os.close, place[0])
                    if len(some) > 1 and hasattr(os, "posix_fadvise"):  # not on macOS
                        os.posix_fadvise(place[0], place[2], place[3], os.POSIX_FADV_WILLNEED)
            for (reader, _, out), place in zip(some, places, strict=True):
                reader.take(place, out)


def write_chunks(layout: ChunkReader, first: int, values: np.ndarray) -> bool:
    """Writes `values` `(time, *rest)`, float32, at position `first` in time; False where Zarr has to do it.

    That is where they do not fill whole files, or where chunks that are left out are not NaN. A file appears whole, by a
    rename. Raises `OSError` when it cannot be written.
    """
    length = layout.per_file
    last = first + len(values)
    if first % length or (last % length and last != layout.shape[0]) or not np.isnan(layout.fill):
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
