"""Memory of large tensors that is used again once nobody has what was made in it.

The system maps and clears the pages of every large block of new memory: for a batch that takes longer than decompressing into
it, and in training it comes back at every step.
"""

import math
import threading
import weakref
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from emulator.kernels import freed_memory

_ALIGNED = 16  # floats of a cache line


class ReusedMemory:
    """Blocks of float32 that are free when no tensor in them is left, nor any view of one.

    Args:
      slack: a free block serves what it is at most so many times as long as.
      lasting: whether blocks stay as long as this, also those that nothing fits any more.
    """

    def __init__(self, slack: float = 2.0, lasting: bool = False):
        self._slack, self._lasting = slack, lasting
        # Block and its aligned length, with the array that the last tensor in it keeps alive.
        self._blocks: list[tuple[np.ndarray, int, weakref.ref]] = []
        self._lock = threading.Lock()

    def __reduce__(self):
        return ReusedMemory, (self._slack, self._lasting)  # another process begins with none

    def tensor(self, shape: Sequence[int]) -> Tensor:
        """A float32 tensor of a shape, with any values."""
        size = math.prod(shape)
        most = self._slack * size
        with self._lock:
            fits = [
                (length, n)
                for n, (_, length, array) in enumerate(self._blocks)
                if size <= length <= most and array() is None
            ]
            if fits:
                block, length, _ = self._blocks.pop(min(fits)[1])
            else:  # sizes have changed: other free blocks will not be wanted again
                self._blocks = [entry for entry in self._blocks if self._lasting or entry[2]() is not None]
                block, length = np.empty(size + _ALIGNED, np.float32), size
            start = -block.ctypes.data // block.itemsize % _ALIGNED
            array = block[start : start + size].reshape(tuple(shape))
            self._blocks.append((block, length, weakref.ref(array)))
            return torch.from_numpy(array)


_LARGE = ReusedMemory(slack=1.0)  # what a training step asks for, every step alike


def lend(*shape: int) -> Tensor:
    """A float32 tensor with any contents, in memory that stays with the process.

    The C library keeps what tensors of up to 32 MiB leave behind, for whatever comes next; larger memory serves one size.
    """
    if freed_memory.keep() and 4 * math.prod(shape) < freed_memory.LARGEST:
        return torch.empty(shape)
    return _LARGE.tensor(shape)
