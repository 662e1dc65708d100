"""The library of compiled kernels, if there is one."""

import ctypes
import importlib.util


def _load() -> ctypes.CDLL | None:
    """The library, or None where no compiler was at hand at installation or it was made for another machine."""
    found = importlib.util.find_spec("emulator.kernels._kernels")
    if found is None or found.origin is None:
        return None
    try:
        return ctypes.CDLL(found.origin)
    except OSError:
        return None


LIBRARY = _load()  # a name rather than a function, which torch.compile would try to trace
