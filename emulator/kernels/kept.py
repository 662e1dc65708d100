"""What kernels make of weights, kept from call to call while the weights are the same, byte for byte.

A network in use takes the same weights at every step. Comparing them with a copy costs a tenth of putting them in another
order, and no change of a weight, however it comes about, can be missed.
"""

import contextlib
import ctypes
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

_MOST_BYTES = 64 << 20  # of all copies
_lock, _watching = threading.Lock(), threading.local()
_differ = ctypes.CDLL(None).memcmp
_differ.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]


class Weight(NamedTuple):
    """A weight, a copy of what it was, and what was made of that."""

    weight: Tensor
    copy: Tensor
    made: Tensor

    def same(self) -> bool:
        """Whether the weight is still what it was."""
        return not _differ(self.weight.data_ptr(), self.copy.data_ptr(), self.copy.nbytes)


_KEPT: OrderedDict[tuple, Weight] = OrderedDict()


@contextlib.contextmanager
def weights_used() -> Iterator[list[Weight]]:
    """A list that `made_of` adds to, in this thread, for the time of a `with` block."""
    _watching.used = used = []
    try:
        yield used
    finally:
        _watching.used = None


def made_of(weight: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
    """`make(weight)`, from an earlier call where it is the same; `make` is a function of a module, so that it stays the same.

    Where gradients are recorded weights change from call to call, and nothing is kept.
    """
    if torch.is_grad_enabled() or not _is_dense(weight):
        return make(weight)
    key = make, weight.data_ptr(), weight.shape, weight.stride()
    found = _KEPT.get(key)
    if found is not None:
        found = found._replace(weight=weight.detach())  # the memory of the earlier one may be gone
    if found is None or not found.same():
        found = Weight(weight.detach(), weight.detach().clone(), make(weight))
        with _lock:
            _KEPT[key] = found
            _KEPT.move_to_end(key)
            while len(_KEPT) > 1 and sum(entry.copy.nbytes for entry in _KEPT.values()) > _MOST_BYTES:
                _KEPT.popitem(last=False)
    if (used := getattr(_watching, "used", None)) is not None:
        used.append(found)
    return found.made


def _is_dense(x: Tensor) -> bool:
    """Whether its numbers fill one piece of memory, in any order."""
    return sum((n - 1) * step for n, step in zip(x.shape, x.stride(), strict=True)) + 1 == x.numel()
