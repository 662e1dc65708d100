"""A linear layer on 3 x 3 cells, GELU and a second layer by Winograd's minimal filtering: 16 products in place of 36."""

from typing import NamedTuple

import torch

from emulator.kernels import freed_memory, library
from emulator.kernels.compiled import Layout
from emulator.kernels.kept import made_of

LANES, TILE = Layout.LANES, Layout.TILE
_Stencil = library.task(
    "stencil",
    "x source target first first_bias second residual before to room",
    "inputs hidden outputs",
    "patches batch room_size threads",
)
# Sums of three weights that the products take: G of F(2, 3) in Lavin and Gray (2016), "Fast algorithms for convolutional
# neural networks", and G for both directions, `(16, 9)`.
_ALONG = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], device="cpu")
SUMS = torch.kron(_ALONG, _ALONG)


class Patches(NamedTuple):
    """Cells of patches of 4 x 4, two apart, `(16, patch)` int32, and those in their middle, `(4, patch)`; -1 for none."""

    source: torch.Tensor
    target: torch.Tensor


def serves(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether the kernel takes weights `(9, in, hidden)` and `(hidden, out)`: those in whole vectors."""
    return len(first) == 9 and not any(n % LANES for n in (*first.shape[1:], second.shape[1]))


def _summed(first: torch.Tensor) -> torch.Tensor:
    """Weights `(9, in, hidden)` as the kernel takes them, `(16, in, hidden)`."""
    return torch.mm(SUMS, first.reshape(9, -1)).view(16, *first.shape[1:])


def forward(x, cells: int, first, first_bias, second, residual, patches: Patches, keep: bool):
    """`(cell, batch, in)` -> the result `(cell, batch, out)` and, to `keep`, what the activation took; all contiguous.

    Args:
      cells: those that take in, which come first among the cells of x.
      first: `(9, in, hidden)`, and its bias or None. second: `(hidden, out)`. Both of any strides.
      residual: what the result is added to, or None.
    """
    freed_memory.keep()
    batch, inputs = x.shape[1:]
    hidden, outputs = second.shape
    to = library.empty(cells, batch, outputs)
    before = library.empty(cells, batch, hidden) if keep else None
    if keep:  # weights that are about to change
        first, second = _summed(first), second.contiguous()
    else:
        first, second = made_of(first, _summed), made_of(second, torch.Tensor.contiguous)
    size = inputs + TILE * (16 * (inputs + hidden) + outputs + 4 * hidden) + 32 * LANES
    room = library.empty(torch.get_num_threads(), size)
    tensors = (x, *patches, first, first_bias, second, residual, before, to, room)
    library.call(
        "emulator_stencil",
        _Stencil(
            *(None if tensor is None else tensor.data_ptr() for tensor in tensors),
            inputs=inputs,
            hidden=hidden,
            outputs=outputs,
            patches=patches.source.shape[1],
            batch=batch,
            room_size=size,
        ),
        *(*patches, first, first_bias, second),
    )
    return to, before
