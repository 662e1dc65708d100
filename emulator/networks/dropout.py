"""What networks leave out at random: single numbers (dropout) and whole branches (stochastic depth).

In training the numbers are torch's. Where `leaving_out` gives every sample a seed, they are those of a generator of the
sample's own, in training or not: what is left out of it then depends on its seed alone, whatever is computed beside it.
"""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

LEAST = -(2**15)  # of 16 random bits as a number


class LeavesOut(nn.Module):
    """Base of layers that leave something out with a probability below 1; what stays is made larger, so that the mean stays.

    Attributes:
      generators: of the samples, in their order; None: torch's own, while training.
    """

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability
        self.generators: Sequence[torch.Generator] | None = None

    @property
    def active(self) -> bool:
        return self.probability > 0 and (self.training or self.generators is not None)


class Dropout(LeavesOut):
    """Leaves out single numbers (Srivastava et al. 2014) of `(cell, batch, channel)`, or of maps with the batch first.

    With generators the probability is one of multiples of 2^-16.
    """

    def __init__(self, probability: float, batch_axis: int = 1):
        super().__init__(probability)
        self._axis = batch_axis

    def forward(self, x: Tensor) -> Tensor:
        if not self.active:
            return x
        if self.generators is None:
            return nn.functional.dropout(x, self.probability)
        shape = [size for axis, size in enumerate(x.shape) if axis != self._axis]
        kept = [_bits(shape, generator, x.device) for generator in self.generators]
        kept = torch.stack(kept, self._axis) >= LEAST + round(self.probability * 2**16)
        return x * (kept / (1 - self.probability))


class DropPath(LeavesOut):
    """Leaves a branch out for some samples (Huang et al. 2016); `(cell, batch, channel)`."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.active:
            return x
        if self.generators is None:
            drawn = torch.rand(x.shape[1], 1, device=x.device)
        else:
            drawn = torch.stack([torch.rand(1, generator=one, device=x.device) for one in self.generators])
        return x * ((drawn >= self.probability) / (1 - self.probability))


@contextlib.contextmanager
def leaving_out(network: nn.Module, seeds: Tensor) -> Iterator[None]:
    """Within it the network leaves out of every row of a batch what its seed says.

    `seeds`: `(batch,)` int64 of at least 0, of which torch's generator on processors takes the last 32 bits.
    A row's generator serves all layers in the order in which they are called, so that none is to be called again later, as
    recomputed blocks are.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, LeavesOut)]
    generators = [torch.Generator(seeds.device).manual_seed(seed) for seed in seeds.tolist()]
    for layer in layers:
        layer.generators = generators
    try:
        yield
    finally:
        for layer in layers:
            layer.generators = None


def leaves_out(network: nn.Module) -> bool:
    """Whether a network has layers that leave something out."""
    return any(isinstance(layer, LeavesOut) and layer.probability > 0 for layer in network.modules())


def _bits(shape: Sequence[int], generator: torch.Generator, device: torch.device) -> Tensor:
    """16 random bits for each of some numbers, from a quarter as many draws."""
    count = torch.Size(shape).numel()
    drawn = torch.empty(-(-count // 4), dtype=torch.int64, device=device).random_(-(2**63), None, generator=generator)
    return drawn.view(torch.int16)[:count].view(*shape)
