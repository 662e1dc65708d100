"""Whether memory that a program frees goes back to the system."""

import ctypes
import functools

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST = 32 * 2**20  # bytes of a tensor whose memory is kept


@functools.cache
def keep() -> bool:
    """Have the C library keep freed memory for later tensors, for the life of the process; whether it can (glibc).

    The tensors of a training step are the same ones step by step. Returned to the system in between, every page of them is
    cleared and mapped again: 7700 of them in an update of an SFNO of 64 channels, 2 us each in a virtual machine.
    Tensors beyond 32 MiB are returned all the same.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, 2**30))
