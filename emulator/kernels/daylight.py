"""Sunlight on rows and columns of cells, summed over instants without an array for each of them."""

import ctypes

import numpy as np

from emulator.kernels.compiled import LIBRARY

_KERNEL = getattr(LIBRARY, "emulator_daylight", None)  # a library of an earlier installation lacks it


def summed(high: np.ndarray, flat: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """`sum(max(high + flat * turn, 0))` over the instants, float64 `(row, column)`.

    `high` and `flat` are `(instant, row)`, `turn` is `(instant, column)`.
    """
    high, flat, turn = (np.ascontiguousarray(a, np.float64) for a in (high, flat, turn))
    total = np.empty((high.shape[1], turn.shape[1]))
    if _KERNEL is not None:
        pointers = (ctypes.c_void_p(array.ctypes.data) for array in (high, flat, turn, total))
        _KERNEL(*pointers, ctypes.c_long(len(high)), *map(ctypes.c_long, total.shape))
        return total
    total[:], light = 0, np.empty_like(total)
    for n in range(len(high)):
        np.multiply(flat[n, :, None], turn[n], out=light)
        light += high[n, :, None]
        total += np.maximum(light, 0, out=light)
    return total
