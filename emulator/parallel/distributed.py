"""Processes that train one network together: how they meet, what they agree on, and how tensors are spread over them.

One process alone starts no process group, and every function here leaves its arguments as they are.
"""

import contextlib
import datetime
import logging
import time
import warnings
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn

from emulator.parallel.host_copies import to_device
from emulator.parallel.processes import Processes
from emulator.parallel.space import ALONE, Space

# Seconds before the processes part. A thread of gloo that frees the last reference to a tensor needs the interpreter, and
# one that a busy machine lets do so only when the interpreter ends aborts the process, whatever its work came to. Groups that
# a device mesh or torch's caches of spread tensors know go on after `destroy_process_group` (torch 2.14).
LETTING_GO = 0.1

# What gloo and NCCL say of a process that is gone.
LOST = ("closed by peer", "reset by peer", "Broken pipe", "remote process exited")

log = logging.getLogger(__name__)


def device_of(processes: Processes) -> torch.device:
    """The GPU of this process where there is one, else the CPU. Raises `ValueError` where a node has too few GPUs."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if count == 1:  # the launcher showed this process its own GPU alone
        return torch.device("cuda", 0)
    if processes.local_rank >= count:
        raise ValueError(
            f"Expected a GPU for each process of a node, got {count} GPUs and process {processes.local_rank}"
        )
    return torch.device("cuda", processes.local_rank)


def use(device: torch.device) -> None:
    """Has this process use its own GPU for all that names none, and leave alone those of the processes beside it."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


@contextlib.contextmanager
def process_group(processes: Processes, device: torch.device, timeout_seconds: float = 1800.0) -> Iterator[Processes]:
    """The group of some processes for the time of a `with` block: NCCL between GPUs, gloo between CPUs.

    One process alone starts none. Raises `ConnectionError` in place of the exchange's own error where another process has
    ended with an error of its own.
    """
    use(device)
    if processes.size == 1:
        yield processes
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    where = (
        f"tcp://[{processes.address}]:{processes.port}"
        if ":" in processes.address
        else f"tcp://{processes.address}:{processes.port}"
    )
    timeout = datetime.timedelta(seconds=timeout_seconds)
    dist.init_process_group(backend, init_method=where, rank=processes.rank, world_size=processes.size, timeout=timeout)
    log.info("process %d of %d, %s at %s", processes.rank, processes.size, backend, where)
    try:
        yield processes
    except RuntimeError as error:
        if not any(said in str(error) for said in LOST):
            raise
        raise ConnectionError(
            f"Process {processes.rank + 1} of {processes.size} has lost another one, which ended first: what that one wrote "
            "last says why"
        ) from error
    finally:
        time.sleep(LETTING_GO)
        dist.destroy_process_group()


def space_of(processes: Processes, size: int, device: torch.device) -> Space:
    """The `size` processes that hold a state together with this one; those of one space follow one another by rank.

    All processes ask together, within their group. Raises `ValueError` where they do not divide into such spaces.
    """
    processes.divided(size)
    if size == 1:
        return ALONE
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh(device.type, (processes.size // size, size), mesh_dim_names=("data", "space"))
    return Space(mesh.get_group("space"))


def mean_over(values: Tensor) -> Tensor:
    """The mean over all processes of a small tensor, the same bits on each; float64 sums."""
    if not dist.is_initialized():
        return values
    total = values.detach().double()
    total = total.clone() if total is values else total
    dist.all_reduce(total)
    return (total / dist.get_world_size()).to(values.dtype)


def agree(row: dict[str, Tensor], device: torch.device, *asked: bool) -> tuple[dict[str, Tensor], *tuple[bool, ...]]:
    """The means of a row of scalars over all processes, and of each thing to do whether any of them has been asked for it."""
    if not dist.is_initialized():
        return row, *asked
    flags = to_device(torch.tensor(asked, dtype=torch.float64), device)
    values = mean_over(torch.cat([torch.stack([value.double() for value in row.values()]), flags]))
    means, any_asked = values[: len(row)].unbind(), values[len(row) :].tolist()
    return dict(zip(row, means, strict=True)), *(share > 0 for share in any_asked)


def highest(values: Tensor) -> Tensor:
    """The largest over all processes, element by element."""
    if not dist.is_initialized():
        return values
    values = values.clone()
    dist.all_reduce(values, dist.ReduceOp.MAX)
    return values


def from_first(number: int) -> int:
    """The first process's number, on every process."""
    if not dist.is_initialized():
        return number
    box = torch.tensor([number], dtype=torch.int64)
    dist.broadcast(box, 0)
    return int(box)


def joined(part: Tensor, space: Space = ALONE) -> Tensor:
    """The parts of all processes, of one shape, one after the other along the first axis, in order of rank.

    Of a `space` all have the same part, which comes once.
    """
    if not dist.is_initialized():
        return part
    parts = [torch.empty_like(part) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, part.contiguous())
    return torch.cat(parts[:: space.size])


def wait_for_all() -> None:
    """Returns when every process has come here."""
    mean_over(torch.zeros(1))


def share(indices, processes: Processes):
    """This process's part of a batch's samples, `(batch,) -> (batch / processes,)`.

    Contiguous, so that the parts in order of rank are the batch. Raises `ValueError` unless they are of equal size, which
    the mean of their losses needs.
    """
    if len(indices) % processes.size:
        raise ValueError(
            f"Expected a batch that {processes.size} processes can share evenly, got {len(indices)} samples"
        )
    part = len(indices) // processes.size
    return indices[processes.rank * part : (processes.rank + 1) * part]


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor that is spread over processes, on each; all must ask. Other tensors as they are."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor spread like another: this process keeps its part."""
    if not hasattr(like, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def local(tensor: Tensor) -> Tensor:
    """The part of a spread tensor that this process holds, sharing its memory; other tensors as they are."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


class Alone:
    """A module that one process runs."""

    def __init__(self, module: nn.Module):
        self._module = module

    def __call__(self, *arguments):
        return self._module(*arguments)

    def collecting(self, more: bool) -> contextlib.AbstractContextManager:
        """Within it, gradients are added up without being exchanged while `more` parts of a batch are to come."""
        return contextlib.nullcontext()


class Replicated(Alone):
    """A module of which every process has a copy; backward passes average the gradients (DDP)."""

    def collecting(self, more: bool) -> contextlib.AbstractContextManager:
        return self._module.no_sync() if more else contextlib.nullcontext()


class Sharded(Alone):
    """A module whose network is spread over the processes, each holding a part of every tensor (FSDP)."""

    def __init__(self, module: nn.Module, network: nn.Module):
        super().__init__(module)
        self._network = network

    @contextlib.contextmanager
    def collecting(self, more: bool) -> Iterator[None]:
        self._network.set_requires_gradient_sync(not more)
        yield


def replicate(module: nn.Module, network: nn.Module, processes: Processes, device: torch.device) -> Alone:
    """A copy of `module` on every process."""
    if processes.size == 1:
        return Alone(module)
    ids = [device.index] if device.type == "cuda" else None
    with warnings.catch_warnings():  # newer torch has another name for it, which older torch does not know
        warnings.simplefilter("ignore", FutureWarning)
        return Replicated(nn.parallel.DistributedDataParallel(module, device_ids=ids, broadcast_buffers=False))


def shard(module: nn.Module, network: nn.Module, processes: Processes, device: torch.device) -> Alone:
    """The `network` within `module` spread over all processes, its larger parts one by one.

    Gathering one part at a time is what saves memory. Do it before an optimizer takes the parameters.
    """
    if processes.size == 1:
        return Alone(module)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (processes.size,))
    for part in callable_parts(network):
        if any(True for _ in part.parameters()):
            fully_shard(part, mesh=mesh)
    fully_shard(network, mesh=mesh)
    return Sharded(module, network)


def callable_parts(module: nn.Module) -> Iterator[nn.Module]:
    """A module's children, and those of lists and dictionaries of modules, which cannot be called themselves."""
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from callable_parts(child)
        else:
            yield child
