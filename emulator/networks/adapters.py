"""Changes of low rank for the weights of a network (LoRA, Hu et al. 2021), outside of the network.

The network keeps plain weights, which are the starting ones plus the changes, so that its kernels, checkpoints and forecasts
know nothing of adapters. The gradient of a weight, handed back through its change, is the gradient of the factors.
"""

import fnmatch
import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from emulator.networks.takeover import declared


class Adapter(nn.Module):
    """`scale * outward @ inward` for a weight `(out, in, ...)`, or for one by degree `(degree, in, ...)` what is shared by
    all degrees: `scale * inward @ diag(share[degree]) @ outward`. It starts at zero.

    Args:
      shape: of the weight. rank: of its change. scale: see above. by_degree: whether its first axis is the degree.
      generator: of the factors that do not start at zero, of the CPU. device: of all factors.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        rank: int,
        scale: float,
        by_degree: bool,
        generator: torch.Generator,
        device: torch.device,
    ):
        super().__init__()
        self.shape, self.scale = tuple(shape), scale
        first, second = _sides(shape, by_degree)
        # of a weight by degree the outer factor comes last, as its coefficients are multiplied from the left
        inward, outward = ((first, rank), (rank, second)) if by_degree else ((rank, second), (first, rank))
        drawn = torch.randn(inward, generator=generator) / math.sqrt(first if by_degree else second)
        self.inward = nn.Parameter(drawn.to(device))
        self.outward = nn.Parameter(torch.zeros(outward, device=device))
        if by_degree:
            self.share = nn.Parameter(torch.ones(shape[0], rank, device=device))

    def change(self) -> Tensor:
        """Of the weight, in its shape."""
        return change_of(dict(self.named_parameters()), self.shape, self.scale)


def change_of(factors: Mapping[str, Tensor], shape: tuple[int, ...], scale: float) -> Tensor:
    """Of a weight of a shape, by the factors of its adapter: `inward`, `outward` and, where it is by degree, `share`."""
    if "share" in factors:
        product = (factors["inward"] * factors["share"][:, None]) @ factors["outward"]
    else:
        product = factors["outward"] @ factors["inward"]
    return (scale * product).reshape(shape)


def _sides(shape, by_degree: bool) -> tuple[int, int]:
    """Rows and columns of the matrix that a weight is, or each degree of it."""
    matrix = shape[1:] if by_degree else shape
    return matrix[0], math.prod(matrix[1:])


def adaptable(network: nn.Module, rank: int) -> dict[str, bool]:
    """Weights that a change of a rank is smaller than, by name, and whether they are by degree."""
    degrees, fields = declared(network, "by_degree"), declared(network, "cell_fields")
    found = {}
    for name, parameter in network.named_parameters():
        by_degree = name in degrees
        if name in fields or parameter.ndim < 2 + by_degree or parameter.is_complex():
            continue
        if rank < min(_sides(parameter.shape, by_degree)):
            found[name] = by_degree
    return found


def matching(patterns: Iterable[str], names: Iterable[str], what: str) -> list[str]:
    """The names that match one of some patterns, but for those that a later one with `!` before it takes out again.

    Raises `ValueError` for a pattern that matches none, with all names.
    """
    names, found = list(names), set()
    for pattern in patterns:
        matched = fnmatch.filter(names, pattern.removeprefix("!"))
        if not matched:
            raise ValueError(f"Expected {what} among {', '.join(names)}, got {pattern!r}, which matches none")
        found = found - set(matched) if pattern.startswith("!") else found | set(matched)
    return [name for name in names if name in found]
