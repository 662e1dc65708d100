"""Normalisation of states with the channels last, by moments over the cells of the globe or over channels."""

import torch
import torch.nn.functional as F
from torch import nn

from emulator.kernels.layers import norm_backward, norm_forward
from emulator.kernels.library import alone, takes
from emulator.parallel.space import ALONE, Space


class InstanceNorm(torch.autograd.Function):
    """Every column of `(cell, column)` to mean 0 and variance 1, then scaled and shifted, `(column,)` each.

    Columns are the channels of one batch to torch's fused kernel, 8 times faster than its var_mean over the first axis; the
    compiled one takes a third of its time.
    The gradient is written out: column sums as products with ones and two passes, twice as fast as the kernel's own.
    Of the cells that a process of a `space` has, the moments are those of all; gradients of scale and shift are its part.
    `tell` is called with the number of cells, their mean and the reciprocal of their standard deviation.
    """

    @staticmethod
    def forward(ctx, x, scale, shift, eps, space=ALONE, tell=None):
        cells = len(x)
        if space.size == 1 and not torch.compiler.is_compiling() and _compiled(x, scale, shift):
            y, mean, rstd = norm_forward(x, scale.contiguous(), shift.contiguous(), eps)
        elif space.size == 1:
            y, mean, rstd = torch.native_batch_norm(x, scale, shift, None, None, True, 0.0, eps)
        else:
            cells, mean, variance = _moments(x, space)
            y = torch.native_batch_norm(x, scale, shift, mean, variance, False, 0.0, eps)[0]
            rstd = torch.rsqrt(variance + eps)
        if tell is not None:
            tell(cells, mean, rstd)
        ctx.save_for_backward(x, scale, mean, rstd)
        ctx.cells, ctx.space = cells, space
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        x, scale, mean, rstd = ctx.saved_tensors

        def factors(g_scale, g_shift):
            """What the gradient and x are multiplied by and what is added for the gradient of x."""
            if ctx.space.size > 1:
                g_scale, g_shift = ctx.space.total(torch.stack([g_scale, g_shift]))
            factor = scale * rstd
            slope = -factor * rstd * g_scale / ctx.cells
            return factor, slope, -factor * g_shift / ctx.cells - slope * mean

        if not torch.compiler.is_compiling() and takes(x, g, scale) and x.is_contiguous():
            between = None if ctx.space.size == 1 else factors
            return *norm_backward(g.contiguous(), x, scale.contiguous(), mean, rstd, between), None, None, None
        ones = g.new_ones(1, len(g))
        g_shift = torch.mm(ones, g)[0]
        g_scale = (torch.mm(ones, g * x)[0] - mean * g_shift) * rstd
        factor, slope, offset = factors(g_scale, g_shift)
        g_x = torch.addcmul(offset, x, slope).addcmul_(g, factor)
        return g_x, g_scale, g_shift, None, None, None


def _compiled(x, scale, shift):
    return takes(x, scale, shift) and x.is_contiguous() and x.shape[0]


def _moments(x, space):
    """Number of all processes' cells, and the mean and variance of every column over them."""
    parts = x.new_zeros(space.size, 3, x.shape[1])
    parts[space.rank, 0] = len(x)
    parts[space.rank, 1], parts[space.rank, 2] = torch.batch_norm_update_stats(x, None, None, 0.0)
    counts, means, variances = space.total(parts).unbind(1)
    cells = counts.sum(0)
    mean = (counts * means).sum(0) / cells
    return cells, mean, (counts * (variances + (means - mean).square())).sum(0) / cells


class Norm(nn.Module):
    """Normalisation of `(cell, batch, channel)` with a learned scale and shift, and more of those from a condition.

    Args:
      kind: "instance" (moments over the cells), "area_instance" (weighted by area), "layer" (over channels) or "none".
      area: the cells' shares of the sphere, `(cell,)`, summing to 1.
      condition_dim: length of the condition, 0 for none. Its effect starts at zero.
      space: the processes that hold the state together; `area` and states are those of this one's cells.
    """

    def __init__(
        self,
        kind: str,
        channels: int,
        area: torch.Tensor,
        condition_dim: int = 0,
        eps: float = 1e-6,
        space: Space = ALONE,
    ):
        super().__init__()
        self.kind, self.eps, self.space = kind, eps, space
        if kind == "area_instance":
            self.register_buffer("area", area, persistent=False)
        if kind != "none":
            self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.modulation = nn.Linear(condition_dim, 2 * channels) if condition_dim else None
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def forward(self, x: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        plain = self.kind == "instance" and self.modulation is None and self.space.size == 1
        if plain and alone(x, self.weight) and x.is_contiguous():
            return norm_forward(x.flatten(1), self.weight, self.bias, self.eps)[0].view(x.shape)
        scale = shift = None
        if self.modulation is not None:
            scale, shift = self.modulation(condition).chunk(2, -1)
            scale = 1 + scale
        if self.kind == "layer":
            x = F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
        elif self.kind != "none":
            ones = torch.ones(x.shape[1], 1, dtype=x.dtype, device=x.device) if scale is None else scale
            bias = self.bias * ones if shift is None else self.bias * scale + shift
            return self._instance(x, self.weight * ones, bias)
        return x if scale is None else torch.addcmul(shift, x, scale)

    def _instance(self, x, scale, shift):
        """`scale`, `shift`: `(batch, channel)`."""
        cells = x.flatten(1)
        if self.kind == "instance":
            return InstanceNorm.apply(cells, scale.flatten(), shift.flatten(), self.eps, self.space, None).view(x.shape)
        area = self.area[None].to(cells.dtype)
        centred = cells - self.space.total(area @ cells)
        variance = self.space.total(area @ centred.square())
        return torch.addcmul(shift.flatten(), centred, torch.rsqrt(variance + self.eps) * scale.flatten()).view(x.shape)
