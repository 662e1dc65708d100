"""What training a network costs, measured on one sample: parameters, activation memory, seconds and operations."""

import dataclasses
import os
import time

import torch

from emulator.networks.conditions import NOISE_TIME, scalar_count
from emulator.networks.generative import Generative
from emulator.networks.remembered import unmoved
from emulator.parallel.rates import count_products

ADAM_BYTES = 16  # float32: weight, gradient and two moments of a parameter
TRIES = 3
# What a training adds to the resident memory of a process on processors, of what its tensors hold at one time: the C library
# keeps what was freed, and libraries what they make at the first step. Within 15 % of what was measured for SFNO, U-Net, FuXi
# and WXFormer over 1 to 4 processes where that is over 90 MiB (docs/cluster.md). What a GPU's allocator keeps is less.
RESIDENT, LIBRARIES = 1.35, 20 * 2**20


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one sample of one network step needs.

    Attributes:
      parameters: their number. activations: bytes that its backward pass keeps of a sample, 0 where not measured.
      seconds: forward and backward of a sample on this machine, NaN where not measured.
      processes: that hold a state together, each all weights; activations are of the one that keeps most.
    """

    parameters: int
    activations: int
    seconds: float
    processes: int = 1

    def memory(self, batch_size: int, steps: int) -> int:
        """Bytes of weights, gradients, moments and the activations of a window, of a process."""
        return ADAM_BYTES * self.parameters + self.activations * batch_size * steps

    def describe(self, phases, members: int = 1) -> str:
        """One phrase: the most memory and the seconds per update of every phase, for so many members of a sample."""
        if not self.activations:
            return "too large for this machine to measure its memory and time"
        counts = [1 if p.single else members for p in phases]
        most = max(self.memory(p.batch_size * n, p.kept_steps) for p, n in zip(phases, counts, strict=True))
        paces = [
            f"{self.seconds * n * p.work:.2g} s ({p.rollout_steps} x {p.batch_size}" + f" x {n} members" * (n > 1) + ")"
            for p, n in zip(phases, counts, strict=True)
        ]
        threads, of = torch.get_num_threads(), f" in each of {self.processes} processes" * (self.processes > 1)
        return (
            f"{self.activations / 2**20:.0f} MiB of activations a sample and step{of}, {most / 2**30:.2g} GiB with weights, "
            f"gradients and moments ({resident(most) / 2**30:.2g} GiB resident on processors); {', '.join(paces)} per "
            f"update (steps x batch) on {threads} threads" + " of one process" * (self.processes > 1) + " here"
        )


def resident(held: float) -> float:
    """Bytes that the resident memory of a process grows by, on processors, where its tensors hold so many at one time."""
    return RESIDENT * held + LIBRARIES


def measure(
    network: torch.nn.Module,
    inputs: int,
    space: tuple[int, ...],
    noise: int = 0,
    scalars: int = 0,
    boundary: tuple[int, int] | None = None,
) -> Cost:
    """Run forward and backward of one sample. Nothing is run where inputs and weights alone fill the free memory.

    Of a network that samples this is one call of the network that leads its sampler, as an update of a training makes it.

    `noise`, `scalars`: numbers of the random fields and scalars that the network takes besides its inputs; `boundary`:
    channels and cells of a limited area's boundary.
    """
    parameters = sum(p.numel() for p in network.parameters())
    network, inputs, noise, scalars = _called(network, inputs, noise, scalars)
    x = torch.zeros(1, inputs, *space)
    if ADAM_BYTES * parameters + 100 * x.nbytes > 0.5 * available_memory():
        return Cost(parameters, 0, float("nan"))
    more = _conditions(space, noise, scalars, boundary)
    kept = activations(network, x, **more)
    taken = []
    for _ in range(TRIES):
        start = time.perf_counter()
        network(x, **more).sum().backward()
        taken.append(time.perf_counter() - start)
    network.zero_grad(set_to_none=True)
    return Cost(parameters, kept, min(taken))


def products(
    network: torch.nn.Module,
    inputs: int,
    space: tuple[int, ...],
    noise: int = 0,
    scalars: int = 0,
    boundary: tuple[int, int] | None = None,
) -> int:
    """Operations of the network's matrix products and convolutions for one sample, forward and backward.

    Arguments as those of `measure`; the network may lie on any device.
    """
    network, inputs, noise, scalars = _called(network, inputs, noise, scalars)
    device = next(network.parameters()).device
    with torch.device(device):
        x, more = torch.zeros(1, inputs, *space), _conditions(space, noise, scalars, boundary)
    with unmoved(network):
        count = count_products(lambda: network(x, **more).sum().backward())
    network.zero_grad(set_to_none=True)
    return count


def _called(network, inputs, noise, scalars):
    """What an update of a training runs, and what that is given: of a network that samples not the whole sampler."""
    if not isinstance(network, Generative):
        return network, inputs, noise, scalars
    return network.network, inputs + network.outputs, 0, scalars + scalar_count([NOISE_TIME])


def _conditions(space, noise, scalars, boundary):
    more = {"noise": torch.zeros(1, noise, *space)} if noise else {}
    more |= {"boundary": torch.zeros(1, *boundary)} if boundary else {}
    return more | ({"condition": torch.zeros(1, scalars)} if scalars else {})


def activations(network: torch.nn.Module, x: torch.Tensor, **more: torch.Tensor) -> int:
    """Bytes that a forward pass keeps for its backward pass, without the network's own parameters and tables."""
    own = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = network(x, **more)
    total = sum(kept.values())
    del y
    return total


def available_memory() -> int:
    """Bytes of memory that this machine has free, as far as it is known."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 2**33
