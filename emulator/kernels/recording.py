"""Calls of kernels that are made again with other numbers in the same memory, without what Python does for each of them.

A network's step consists of some fifty calls, for which Python, torch's dispatch and new tensors take as long as the kernels:
measured at 48 x 96 with 64 channels, 6 of 13 ms (docs/benchmarks.md).
"""

import ctypes
import weakref
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from emulator.kernels import library
from emulator.kernels.kept import weights_used
from emulator.kernels.reused import ReusedMemory

_Compare = library.task("compare", "left right sizes", "differ", "count")
_Spread = library.task(
    "spread", "calls inputs outputs x to", "", "length input_size output_size count", portions="threads next"
)
_MOST = 2  # recordings of a module: of a few sizes of batches


class Recording:
    """What a function of one tensor calls, as long as all that it does are kernels' calls and views.

    Args:
      function: from a tensor `(*shape)` to one; x: such a tensor.

    Attributes:
      foreign: an operation that is no kernel's call, so that the recording cannot be run; else None.
      input, output: where the calls, `calls`, find what they take and leave what they give.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], x: Tensor):
        self.foreign: str | None = None
        self._entries, self._kept = [], []
        self._memory = ReusedMemory(lasting=True)
        self.input = self.empty(x.shape).copy_(x)
        library.RECORDING.to = self
        try:
            with weights_used() as weights, _Watch(self):
                self.output = function(self.input)
        finally:
            library.RECORDING.to = None
        self._weights = weights
        sides = ([getattr(w, side).data_ptr() for w in weights] for side in ("weight", "copy"))
        self._compared = [np.array(numbers, np.int64) for numbers in (*sides, [w.copy.nbytes for w in weights])]
        self._compare = _Compare(*(numbers.ctypes.data for numbers in self._compared), count=len(weights))
        flat = [part for entry, argument in self._entries for part in (entry, argument)]
        self.calls = (ctypes.c_void_p * len(flat))(*flat)

    def add(self, entry, argument: ctypes.Structure, kept) -> None:
        self._kept.append((argument, kept))
        self._entries.append((ctypes.cast(entry, ctypes.c_void_p).value, ctypes.addressof(argument)))

    def empty(self, shape) -> Tensor:
        return self._memory.tensor(shape)

    def holds(self) -> bool:
        """Whether all weights are those that were put in order for it."""
        self._compare.differ = 0
        library.call("emulator_compare", self._compare)
        return not self._compare.differ

    def __call__(self, x: Tensor) -> Tensor:
        self.input.copy_(x)
        library.run(self.calls)
        return self.output.clone()


class Spread:
    """A recording of one sample for every thread, so that a thread takes a sample from end to end in its own cache.

    Eight samples of an SFNO of 64 channels on two cores: 38 in place of 48 ms.

    Args:
      function, x: as for `Recording`; samples do not depend on each other.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], x: Tensor):
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            self._alone = [Recording(function, x[:1]) for _ in range(threads)]
        finally:
            torch.set_num_threads(threads)
        self.foreign = next((each.foreign for each in self._alone if each.foreign), None)
        places = (
            [ctypes.addressof(each.calls) for each in self._alone],
            [each.input.data_ptr() for each in self._alone],
            [each.output.data_ptr() for each in self._alone],
        )
        self._places = [np.array(numbers, np.int64) for numbers in places]
        self._length = len(self._alone[0].calls) // 2

    @staticmethod
    def suits(x: Tensor) -> bool:
        """Whether all threads are busy to the end with samples of their own."""
        threads = torch.get_num_threads()
        return library.has_threads() and (len(x) % threads == 0 or len(x) >= 4 * threads)

    def holds(self) -> bool:
        """As of a `Recording`."""
        return self._alone[0].holds()

    def __call__(self, x: Tensor) -> Tensor:
        x, sample = x.contiguous(), self._alone[0].output
        to = torch.empty(len(x), *sample.shape[1:])
        sizes = {"length": self._length, "input_size": x[0].numel(), "output_size": sample.numel(), "count": len(x)}
        pointers = (numbers.ctypes.data for numbers in self._places)
        library.call("emulator_spread", _Spread(*pointers, x.data_ptr(), to.data_ptr(), **sizes))
        return to


class _Watch(TorchDispatchMode):
    """Notes whatever is computed by torch."""

    def __init__(self, recording: Recording):
        super().__init__()
        self._recording = recording

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if not (getattr(function, "is_view", False) or function is torch.ops.aten.promote_types.default):
            self._recording.foreign = str(function)
        return function(*args, **(kwargs or {}))


_RECORDINGS: weakref.WeakKeyDictionary[nn.Module, dict] = weakref.WeakKeyDictionary()
_CANNOT = "cannot be recorded"


def recorded(module: nn.Module, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`function(x)`, which depends on the module alone: from the second call without gradients on recorded, if it can be.

    A module that has other weights, or is told to train, is recorded again.
    """
    tensors = _tensors(module)
    if tensors is None or torch.is_autocast_enabled("cpu") or not library.alone(x):
        return function(x)
    known = _RECORDINGS.setdefault(module, {})
    key, places = (x.shape, torch.get_num_threads(), module.training), [tensor.data_ptr() for tensor in tensors]
    before, found = known.pop(key, (None, None))
    if before != places or (isinstance(found, Recording | Spread) and not found.holds()):
        found, result = None, function(x)  # this puts the weights in order
    elif found == _CANNOT:
        result = function(x)
    else:
        if found is None:
            found = (Spread if Spread.suits(x) else Recording)(function, x)
        result = function(x) if found.foreign else found(x)
        found = _CANNOT if found.foreign else found
    known[key] = places, found
    while len(known) > _MOST:
        del known[next(iter(known))]
    return result


def _tensors(module: nn.Module) -> list[Tensor] | None:
    """Parameters and buffers of a module and its parts; None where a part has hooks, which a recording would leave out.

    As `parameters` and `buffers`, in a twentieth of the time.
    """
    found, parts = [], [module]
    for part in parts:
        if part._forward_hooks or part._forward_pre_hooks:
            return None
        for tensors in (part._parameters, part._buffers):
            found += [tensor for tensor in tensors.values() if tensor is not None]
        parts += [child for child in part._modules.values() if child is not None]
    return found
