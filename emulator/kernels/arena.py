"""Large tensors whose memory is used again: given back to the system, it costs page faults at every training step."""

import threading
import weakref

import numpy as np
import torch

_ALIGNED = 16  # floats of a cache line
_idle: dict[int, list[np.ndarray]] = {}
_lock = threading.RLock()  # a finalizer may run within `lend`


def lend(size: int) -> torch.Tensor:
    """`(size,)` float32 with any contents. When no tensor needs the memory any more, the next of this size has it.

    Idle memory is kept until another size is asked for that none is idle of, because then sizes have changed.
    """
    with _lock:
        idle = _idle.get(size)
        if idle:
            base = idle.pop()
        else:
            _idle.clear()
            base = np.empty(size + _ALIGNED, np.float32)
    offset = -base.ctypes.data // base.itemsize % _ALIGNED
    lent = base[offset : offset + size]
    weakref.finalize(lent, _give_back, size, base).atexit = False
    return torch.from_numpy(lent)


def _give_back(size: int, base: np.ndarray) -> None:
    with _lock:
        _idle.setdefault(size, []).append(base)
