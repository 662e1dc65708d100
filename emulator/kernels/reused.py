"""Memory for batches that is handed out again once nobody holds what was made in it.

The system maps and clears the pages of every large block of new memory, which takes longer than decompressing into it.
"""

import threading
import weakref
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class ReusedMemory:
    """Blocks of float32 that are free when no tensor in them is left, nor any view of one."""

    def __init__(self):
        self._blocks: list[tuple[np.ndarray, weakref.ref]] = []  # with the array that the last tensor in it keeps alive
        self._lock = threading.Lock()

    def __reduce__(self):
        return ReusedMemory, ()  # another process begins with none

    def tensor(self, shape: Sequence[int]) -> Tensor:
        """A float32 tensor of a shape, with any values."""
        size = int(np.prod(shape, dtype=np.int64))
        with self._lock:
            free = sorted((block.size, n) for n, (block, held) in enumerate(self._blocks) if held() is None)
            fits = [n for length, n in free if size <= length <= 2 * size]
            if fits:
                block = self._blocks.pop(fits[0])[0]
            else:  # windows have become longer, or shorter: other blocks will not be wanted again
                self._blocks = [entry for entry in self._blocks if entry[1]() is not None]
                block = np.empty(size, np.float32)
            array = block[:size].reshape(tuple(shape))
            self._blocks.append((block, weakref.ref(array)))
            return torch.from_numpy(array)
