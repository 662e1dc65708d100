"""Stencils of 3 x 3 cells on maps by Winograd's minimal filtering, and its gradients: 16 products of channels in place of 36.

Products are torch's; what lies around them is compiled. Patches go through it some at a time, which stay in the cache.
"""

import torch
from torch import Tensor

from emulator.kernels import freed_memory, library
from emulator.kernels.kept import made_of
from emulator.kernels.stencil import LANES, SUMS

_TO_SUMS, _FROM_SUMS, _TO_CELLS, _FROM_CELLS = range(4)
_AT_ONCE = 64  # patches: of 128 channels 0.5 MB
_Filtering = library.task(
    "filtering", "map products bias", "pass dilation", "rows columns channels down along first count step"
)


def _summed(weight: Tensor) -> Tensor:
    """Weights `(out, in, 3, 3)` as products take them, `(16, out, in)`."""
    return torch.mm(SUMS, weight.reshape(-1, 9).t()).view(16, *weight.shape[:2])


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, keep: bool) -> tuple[Tensor, Tensor]:
    """Maps `(batch, row + 2 dilation, column + 2 dilation, in)` -> `(batch, row, column, out)`, all contiguous.

    Returns the sums of the weights `(out, in, 3, 3)` too, which gradients take; to `keep` those of weights about to change.
    """
    freed_memory.keep()
    summed = _summed(weight) if keep else made_of(weight, _summed)
    batch, rows, columns, inputs = x.shape
    y = x.new_empty(batch, rows - 2 * dilation, columns - 2 * dilation, weight.shape[0])
    for at in _portions(y, dilation):
        sums, products = _room(at, inputs), torch.empty(16, at["count"], len(weight))
        _pass(_TO_SUMS, x, sums, at)
        torch.bmm(sums, summed.transpose(1, 2), out=products)
        _pass(_TO_CELLS, y, products, at, bias)
    return y, summed


def backward(
    g: Tensor, x: Tensor, summed: Tensor, dilation: int, of_x: bool, of_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of x and of the weights, where they are asked for, from that of the result."""
    outputs, inputs = summed.shape[1:]
    g_x, g_summed = (torch.zeros_like(of) if asked else None for of, asked in ((x, of_x), (summed, of_weight)))
    for at in _portions(g, dilation):
        products = _room(at, outputs)
        _pass(_FROM_CELLS, g, products, at)
        if of_weight:
            sums = _room(at, inputs)
            _pass(_TO_SUMS, x, sums, at)
            g_summed.baddbmm_(products.transpose(1, 2), sums)
        if of_x:
            _pass(_FROM_SUMS, g_x, torch.bmm(products, summed), at)
    if not of_weight:
        return g_x, None
    return g_x, torch.mm(SUMS.t(), g_summed.view(16, -1)).t().contiguous().view(outputs, inputs, 3, 3)


def _portions(y, dilation):
    """Patches of a result, some at a time: what the passes are told of them."""
    batch, rows, columns, _ = y.shape
    down, along = (-(-size // (2 * dilation)) * dilation for size in (rows, columns))
    patches = batch * down * along
    for first in range(0, patches, _AT_ONCE):
        count = min(_AT_ONCE, patches - first)
        yield {"dilation": dilation, "down": down, "along": along, "first": first, "count": count}


def _room(at, channels):
    """`(16, patch, channel)`, of which not all lie at the same places of a cache."""
    size = at["count"] * channels
    return torch.empty(16, size + LANES)[:, :size].view(16, at["count"], channels)


def _pass(kind, maps, products, at, bias=None):
    pointers = maps.data_ptr(), products.data_ptr(), None if bias is None else bias.data_ptr()
    sizes = dict(zip(("rows", "columns", "channels"), maps.shape[1:], strict=True))
    task = _Filtering(*pointers, **{"pass": kind}, **sizes, **at, step=products.stride(0))
    library.call("emulator_filtering", task)
