"""Convolutions of 3 x 3 cells by minimal filtering (Lavin and Gray 2016), where the compiled kernels take them."""

import torch
import torch.nn.functional as F

from emulator.kernels import filtering as native
from emulator.kernels.library import takes

FEWEST = 5000  # weights of a cell from which on filtering gains: 64 x 64 lose a quarter, 50 x 100 gain a fifth (Zen 4)
CELLS = 256  # of all samples, likewise: their sums cost as much as of few: 72 lose an eighth, 288 gain up to a tenth


def convolved(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, dilation: int = 1) -> torch.Tensor:
    """As `torch.nn.functional.conv2d` of `(batch, in, row, column)` and weights `(out, in, 3, 3)`.

    By the kernels in float32 on CPU, with 16 products of channels for four cells in place of 36 and the channels last.
    """
    cells = len(x) * (x.shape[2] - 2 * dilation) * (x.shape[3] - 2 * dilation)
    fits = weight.shape[0] * weight.shape[1] >= FEWEST and cells >= CELLS and not torch.is_autocast_enabled("cpu")
    if takes(x, weight, bias, fits=fits):
        return _Convolved.apply(x.permute(0, 2, 3, 1), weight, bias, dilation, torch.is_grad_enabled()).permute(
            0, 3, 1, 2
        )
    return F.conv2d(x, weight, bias, dilation=dilation)


class _Convolved(torch.autograd.Function):
    """Of maps with the channels last."""

    @staticmethod
    def forward(ctx, x, weight, bias, dilation, keep):
        x = x.contiguous()
        y, summed = native.forward(x, weight, bias, dilation, keep)
        ctx.save_for_backward(x, summed)
        ctx.dilation = dilation
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        x, summed = ctx.saved_tensors
        g = g.contiguous()
        g_x, g_weight = native.backward(g, x, summed, ctx.dilation, *ctx.needs_input_grad[:2])
        return g_x, g_weight, g.sum((0, 1, 2)) if ctx.needs_input_grad[2] else None, None, None
