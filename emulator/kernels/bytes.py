"""HDF5's shuffled bytes put back in order: all first bytes of some numbers come before all second ones."""

import ctypes

import numpy as np

from emulator.kernels.compiled import LIBRARY

SIZES = (2, 4)  # bytes of a number that a kernel is compiled for
_KERNEL = getattr(LIBRARY, "emulator_unshuffle", None)  # a library of an earlier installation lacks it


def unshuffle(data, size: int, out: np.ndarray) -> np.ndarray:
    """Bytes in the order of numbers of `size` bytes, into contiguous `out` `(n,)`, uint8; what is left over stays last."""
    shuffled = np.frombuffer(data, np.uint8)
    count = len(shuffled) // size
    whole = count * size
    if _KERNEL is not None and size in SIZES:
        pointers = (ctypes.c_void_p(array.ctypes.data) for array in (shuffled, out))
        _KERNEL(*pointers, ctypes.c_long(count), ctypes.c_long(size))
    else:
        out[:whole].reshape(count, size)[:] = shuffled[:whole].reshape(size, count).T
    out[whole:] = shuffled[whole:]
    return out
