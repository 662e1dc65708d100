"""Chunks of files: read and decompressed in compiled threads, and their bytes put in order.

What Python does for a chunk takes longer than a small chunk. Blosc's own function is called, that of the library which
numcodecs brings.
"""

import ctypes
import os
from collections.abc import Sequence
from concurrent.futures import Executor, wait

import numcodecs.blosc
import numpy as np

from emulator.kernels.compiled import LIBRARY

BYTES_FOR_HELP = 1 << 20  # of values, from which other threads are woken: that takes as long as decompressing 0.2 MB

UNSHUFFLED = (2, 4)  # bytes of a number that a kernel is compiled for


class _Chunks(ctypes.Structure):
    """`struct chunks` of chunks_kernel.h."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("paths", "places", "to", "files", "failed", "decompress")),
        *((name, ctypes.c_long) for name in ("file_count", "count", "advised", "next")),
    ]


def _decompress() -> ctypes.c_void_p | None:
    """Blosc's function; None without a compiled kernel, or where numcodecs keeps its Blosc to itself."""
    if LIBRARY is None:
        return None
    try:
        return ctypes.cast(ctypes.CDLL(numcodecs.blosc.__file__).blosc_decompress_ctx, ctypes.c_void_p)
    except (AttributeError, OSError):
        return None


DECOMPRESS = _decompress()


def read(paths: Sequence[str], places: np.ndarray, to: np.ndarray, threads: int, pool: Executor | None) -> list[int]:
    """Reads chunks into memory and returns the numbers of those that it could not: the caller finds out why.

    Args:
      paths: of the files.
      places: int64 `(chunk, 4)`: number of its file, offset there, length (negative: all of the file), bytes of its values.
      to: int64 `(chunk,)`: addresses of as many bytes.
      threads: that work, the caller's among them; `pool` has the others.
    """
    if (decompress := DECOMPRESS) is None:  # looked at once: a thread may read on while a test takes it away
        return list(range(len(places)))
    pointers = (ctypes.c_char_p * len(paths))(*map(os.fsencode, paths))
    files, failed = (ctypes.c_int * len(paths))(), (ctypes.c_int * len(places))()
    memory = ctypes.addressof(pointers), places.ctypes.data, to.ctypes.data
    work = _Chunks(*memory, ctypes.addressof(files), ctypes.addressof(failed), decompress, len(paths), len(places))
    reference = ctypes.byref(work)
    LIBRARY.emulator_chunks_open(reference)
    helping = []
    try:
        if threads > 1 and places[:, 3].sum() >= BYTES_FOR_HELP:
            helping = [pool.submit(LIBRARY.emulator_chunks, reference) for _ in range(min(threads, len(places)) - 1)]
        LIBRARY.emulator_chunks(reference)
    finally:
        wait(helping)  # whatever interrupts: they work in this memory
        LIBRARY.emulator_chunks_close(reference)
    return [n for n, missing in enumerate(failed) if missing]


def unshuffle(data, size: int, out: np.ndarray) -> np.ndarray:
    """HDF5's shuffled bytes, all first bytes of some numbers before all second ones, in the order of the numbers.

    Numbers have `size` bytes; `out` is contiguous, `(n,)`, uint8. What is left over stays last.
    """
    shuffled = np.frombuffer(data, np.uint8)
    count = len(shuffled) // size
    whole = count * size
    if LIBRARY is not None and size in UNSHUFFLED:
        pointers = (ctypes.c_void_p(array.ctypes.data) for array in (shuffled, out))
        LIBRARY.emulator_unshuffle(*pointers, ctypes.c_long(count), ctypes.c_long(size))
    else:
        out[:whole].reshape(count, size)[:] = shuffled[:whole].reshape(size, count).T
    out[whole:] = shuffled[whole:]
    return out
