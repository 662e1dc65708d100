"""What kernels make of weights, kept from call to call while the weights are the same, byte for byte.

A network in use takes the same weights at every step. Comparing them with a copy costs a tenth of putting them in another
order, and no change of a weight, however it comes about, can be missed.
"""

import contextlib
import ctypes
import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

_MOST_BYTES = 256 << 20  # of all copies and what was made of them
_UNUSED = 10_000  # calls after which what nobody has asked for gives way to others
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


class _Entry(NamedTuple):
    """Without the weight, whose memory is its owner's to free; `given` stays, since its address is part of the key."""

    copy: Tensor
    made: Tensor
    given: tuple[Tensor, ...]
    used: int

    @property
    def size(self) -> int:
        return self.copy.nbytes + self.made.nbytes


_KEPT: OrderedDict[tuple, _Entry] = OrderedDict()  # the longest unused first
_calls = itertools.count()


@contextlib.contextmanager
def weights_used() -> Iterator[list[Weight]]:
    """A list that `made_of` adds to, in this thread, for the time of a `with` block."""
    _watching.used = used = []
    try:
        yield used
    finally:
        _watching.used = None


def made_of(weight: Tensor, make: Callable[..., Tensor], *given: Tensor) -> Tensor:
    """`make(weight, *given)`, from an earlier call where the weight is the same.

    `make` is a function of a module and `given` are tensors that do not change, so that both stay the same. Where gradients
    are recorded weights change from call to call, and nothing is kept.
    """
    if torch.is_grad_enabled() or not _is_dense(weight):
        return make(weight, *given)
    key = make, weight.data_ptr(), weight.shape, weight.stride(), *(tensor.data_ptr() for tensor in given)
    now, entry = next(_calls), _KEPT.get(key)
    found = None if entry is None else Weight(weight.detach(), entry.copy, entry.made)
    if found is None or not found.same():
        found = Weight(weight.detach(), weight.detach().clone(), make(weight, *given))
    kept = _Entry(found.copy, found.made, given, now)
    with _lock:
        if entry is not None and found.made is entry.made:
            _KEPT[key] = kept
            _KEPT.move_to_end(key)
        else:
            _forget(key)
            _keep(key, kept)
    if (used := getattr(_watching, "used", None)) is not None:
        used.append(found)
    return found.made


def _forget(key: tuple) -> None:
    """Takes out an entry, and what was made of what it had made: that nobody can ask for again."""
    entry = _KEPT.pop(key, None)
    if entry is not None:
        address = entry.made.data_ptr()
        for other in [other for other in _KEPT if other[1] == address]:
            _forget(other)


def _keep(key: tuple, entry: _Entry) -> None:
    """Adds an entry where there is room; others give way that have not been used for long, those in use do not."""
    held = entry.size + sum(other.size for other in _KEPT.values())
    while held > _MOST_BYTES and _KEPT:
        oldest = next(iter(_KEPT))
        if entry.used - _KEPT[oldest].used < _UNUSED:
            return
        held -= _KEPT.pop(oldest).size
    if held <= _MOST_BYTES:
        _KEPT[key] = entry


def _is_dense(x: Tensor) -> bool:
    """Whether its numbers fill one piece of memory, in any order."""
    return sum((n - 1) * step for n, step in zip(x.shape, x.stride(), strict=True)) + 1 == x.numel()
