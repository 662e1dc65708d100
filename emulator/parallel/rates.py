"""What the machine gives: rate of matrix products, bandwidth and latency between processes, and memory in use."""

import resource
import statistics
import time
import weakref
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from emulator.kernels import library
from emulator.kernels.precision import exact_products
from emulator.parallel.processes import Processes


def product_rate(device: torch.device, dtype: torch.dtype, size: int | None = None, repeats: int = 5) -> float:
    """Operations a second of square matrix products, median of some; additions and multiplications count one each.

    The size is 8192 on GPUs and 1536 on CPUs unless given.
    """
    size = size or (8192 if device.type == "cuda" else 1536)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = _median(lambda: torch.mm(a, b), device, repeats)
    return 2 * size**3 / seconds


def count_products(work: Callable[[], object]) -> int:
    """Operations of the matrix products and convolutions in `work`, forward and backward, as torch counts them.

    Compiled kernels, which torch does not see, are set aside meanwhile. What is not a product counts nothing.
    """
    with exact_products():  # the first use makes products of its own to try them
        pass
    with library.set_aside(), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def most_held(work: Callable[[], object]) -> int:
    """Bytes of the tensors that `work` makes, as many as it holds at one time; backward passes on the processor count too."""
    with _Holding() as held:
        kept = work()
    del kept
    return held.most


class _Holding(TorchDispatchMode):
    """Adds up the storages that operations make, until nobody has them."""

    def __init__(self):
        super().__init__()
        self.now, self.most, self._known = 0, 0, weakref.WeakSet()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage not in self._known and storage.data_ptr() not in given:
                    self._known.add(storage)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._free, storage.nbytes())
        self.most = max(self.most, self.now)
        return out

    def _free(self, size: int) -> None:
        self.now -= size


def copy_rate(device: torch.device, size_bytes: int = 1 << 26, repeats: int = 5) -> float:
    """Bytes a second that a copy within the device's memory reads and writes together, median of some."""
    source = torch.zeros(size_bytes // 4, device=device)
    target = torch.empty_like(source)
    return 2 * size_bytes / _median(lambda: target.copy_(source), device, repeats)


def exchange_rate(processes: Processes, device: torch.device, size_bytes: int = 1 << 26, repeats: int = 5) -> float:
    """Bytes a second of a sum over all processes, as a ring would move them: `2 (n - 1) / n` of the tensor a process.

    All processes ask together. Raises `ValueError` for one process alone.
    """
    if processes.size < 2:
        raise ValueError("Expected two processes or more to measure between, got one")
    values = torch.zeros(size_bytes // 4, device=device)
    seconds = _median(lambda: dist.all_reduce(values), device, repeats)
    return 2 * (processes.size - 1) / processes.size * size_bytes / seconds


def exchange_latency(processes: Processes, device: torch.device, repeats: int = 50) -> float:
    """Seconds of a sum of one number over all processes, median of some. All processes ask together."""
    if processes.size < 2:
        raise ValueError("Expected two processes or more to measure between, got one")
    value = torch.zeros(1, device=device)
    return _median(lambda: dist.all_reduce(value), device, repeats)


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process has held so far: of the GPU's memory on a GPU, else of the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _median(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    times = []
    for number in range(repeats + 1):
        _finish(device)
        began = time.perf_counter()
        work()
        _finish(device)
        if number:  # the first one warms up
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
