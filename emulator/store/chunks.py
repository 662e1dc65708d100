"""Whole chunks of a local analysis store, read straight into an array, byte for byte as Zarr does.

Zarr's own reader starts a task for every chunk and copies twice, which at 64 x 128 takes longer than decompressing. Here a
chunk, which holds one time of a variable, is decompressed into the place where its values are wanted; several threads
share the work, in compiled code (`emulator.kernels.chunks`) where there is a compiler. A chunk may also hold some rows of
latitude alone, of which a process that holds a band of them then reads its own. Stores of any other layout, at URLs or with
other codecs are left to Zarr.
"""

import concurrent.futures
import contextlib
import functools
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import zarr
from numcodecs import Blosc, blosc
from zarr.codecs import BloscCodec, BytesCodec, ShardingCodec

from emulator.kernels import chunks as native

BLOSC_HEADER = 16  # bytes
BLOSC_SHUFFLE = {"noshuffle": Blosc.NOSHUFFLE, "shuffle": Blosc.SHUFFLE, "bitshuffle": Blosc.BITSHUFFLE}
OPEN_FILES = 64  # at a time in a thread
WHOLE = -1  # length of a chunk that is all of a file
EMPTY = 2**64 - 1  # in the index of a shard: a chunk that was never written

log = logging.getLogger(__name__)


class ChunkReader:
    """One array of a store, `(time, *rest)`, float32, in chunks of one time and all of the rest, or some of its rows.

    `fill` is the value where nothing was written, `per_file` how many times a file holds, `blosc` the chunks' compressor,
    `chunk` the shape of one, `parts` how many the rows (the last axis but one) are cut into, each in files of its own.

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
            plain &= array.shards[1:] == array.chunks[1:]
        plain &= [type(codec) for codec in codecs] == [BytesCodec, BloscCodec] and codecs[0] == BytesCodec(
            endian="little"
        )
        self.chunk, self.parts = array.chunks[1:], 1
        rows = array.ndim > 2 and array.chunks[-2] < array.shape[-2]
        if rows:
            self.parts = -(-array.shape[-2] // array.chunks[-2])
        whole = (1, *array.shape[1:-2], array.chunks[-2], array.shape[-1]) if rows else (1, *array.shape[1:])
        if not (plain and array.dtype == np.dtype("<f4") and array.chunks == whole):
            raise ValueError(f"Expected {name} in {store} as float32 chunks of one time, got chunks {array.chunks}")
        c = codecs[1].to_dict()["configuration"]  # as stored: zarr 3.1 has enumerations as attributes, 3.4 text
        shuffle = BLOSC_SHUFFLE[c["shuffle"]]
        self.blosc = Blosc(c["cname"], c["clevel"], shuffle, c["blocksize"], typesize=c["typesize"])
        self.chunk_bytes = 4 * int(np.prod(self.chunk))
        self._indices: dict[tuple[int, int], list[list[int]]] = {}
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
        StoreReader.put([(self, time, out)], None, _read_all)

    def file(self, time: int, part: int = 0) -> str:
        """Path of the file that holds a position in time, of a part of the rows."""
        rest = len(self.shape) - 1
        tail = "/0" * rest if self.parts == 1 else "/0" * (rest - 2) + f"/{part}/0"
        return f"{self._folder}/{time // self.per_file}{tail}"

    def overlaps(self, rows: slice | None) -> Iterator[tuple[int, slice, slice]]:
        """The parts that hold some rows (None: all), with where those lie in the part's chunk, and where among them."""
        if self.parts == 1 and rows is None:
            yield 0, slice(None), slice(None)
            return
        rows = rows or slice(0, self.shape[-2])
        size = self.chunk[-2]
        for part in range(rows.start // size, -(-rows.stop // size)):
            first, last = max(rows.start, part * size), min(rows.stop, (part + 1) * size)
            yield part, slice(first - part * size, last - part * size), slice(first - rows.start, last - rows.start)

    def place(self, time: int, part: int = 0) -> tuple[str, int, int] | None:
        """Where a position in time lies: file, offset and length there; None where nothing was written."""
        path = self.file(time, part)
        if not self.is_sharded:
            return path, 0, WHOLE
        if (index := self._indices.get((time // self.per_file, part))) is None:
            try:
                file = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                return None
            try:
                index = self._index(file, path, (time // self.per_file, part))
            finally:
                os.close(file)
        offset, length = index[time % self.per_file]
        return None if offset == EMPTY else (path, offset, length)

    def open(self, time: int, part: int = 0) -> tuple[int, str, int, int] | None:
        """An open file with its path, and the chunk's offset and length there; None where all values are the fill value."""
        if (place := self.place(time, part)) is None:
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

    def _index(self, file: int, path: str, shard: tuple[int, int]) -> list[list[int]]:
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

    def read(self, wanted, out: np.ndarray, rows: slice | None = None) -> None:
        """Several variables at several times into `out`, `(n, channel, *space)` float32, C-contiguous.

        `wanted`: `(name, position in time, n, first channel, one past the last)` of each piece. They have to be readable:
        see `can_read`. `rows`: of latitude, which `out` has alone; None: all. Raises `ValueError` for any other array, and
        naming the file for a chunk that cannot be decompressed.
        """
        if not (out.dtype == np.float32 and out.flags.c_contiguous and out.flags.writeable):
            raise ValueError(f"Expected C-contiguous float32 to read into, got {out.dtype} with strides {out.strides}")
        size = out.strides[1]
        for name, _, n, first, last in wanted:
            if not (0 <= n < len(out) and 0 <= first and last <= out.shape[1]):
                raise ValueError(
                    f"Expected places in an array of shape {out.shape}, got {n} and channels {first} to {last}"
                )
            wants = self._readers[name].shape[1:]
            wants = wants if rows is None else (*wants[:-2], rows.stop - rows.start, wants[-1])
            if (last - first) * size != 4 * np.prod(wants):
                raise ValueError(f"Expected room for {wants}, got {out[n, first:last].shape}")
        left, whole = wanted, rows is None and all(self._readers[name].parts == 1 for name, *_ in wanted)
        if whole and native.DECOMPRESS is not None:
            left = []
            for first in range(0, len(wanted), OPEN_FILES):
                left += self._read_compiled(wanted[first : first + OPEN_FILES], out)
        pieces = [(self._readers[name], time, out[n, first:last]) for name, time, n, first, last in left]
        self.put(pieces, rows, self._share)

    @staticmethod
    def put(pieces, rows: slice | None, read: Callable) -> None:
        """Reads `(reader, time, out)`, some rows of them or all, where chunks hold what is wanted and what is not.

        `read` takes `(reader, time, part, chunk)`: whole chunks in their places, the others in memory of their own.
        """
        chunks, cuts = [], []
        for reader, time, out in pieces:
            for part, inside, to in reader.overlaps(rows):
                whole = inside == slice(None) or inside == slice(0, reader.chunk[-2])
                if whole and out.nbytes == reader.chunk_bytes:
                    chunks.append((reader, time, part, out))
                else:
                    chunks.append((reader, time, part, chunk := np.empty(reader.chunk, np.float32)))
                    cuts.append(
                        (out.reshape(*chunk.shape[:-2], -1, chunk.shape[-1])[..., to, :], chunk[..., inside, :])
                    )
        read(chunks)
        for place, values in cuts:
            place[...] = values

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
    """Chunks `(reader, time, part, out)`. The system is told of many before the first is read: the disk then works on all of
    them while others are decompressed (cold, 64 x 128: 1.4 times as fast)."""
    for first in range(0, len(pieces), OPEN_FILES):
        some = pieces[first : first + OPEN_FILES]
        with contextlib.ExitStack() as opened:
            places = []
            for reader, time, part, _ in some:
                places.append(place := reader.open(time, part))
                if place is not None:
                    opened.callback(os.close, place[0])
                    if len(some) > 1 and hasattr(os, "posix_fadvise"):  # not on macOS
                        os.posix_fadvise(place[0], place[2], place[3], os.POSIX_FADV_WILLNEED)
            for (reader, *_, out), place in zip(some, places, strict=True):
                reader.take(place, out)
