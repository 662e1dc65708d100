"""Norms of maps `(batch, channel, nlat, nlon)` with their channels last in memory: over batches, samples, or bands of rows.

Batch norm (Ioffe and Szegedy 2015) takes moments over the samples of a batch and all cells, of all processes that train
together, so that a training is the same by however many. Running means of these moments are what forecasts go by. They are
buffers of the state dict; a backward pass that computes a network again leaves them alone.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from emulator.kernels.library import takes
from emulator.networks.layers import full
from emulator.networks.norms import InstanceNorm
from emulator.parallel.space import ALONE, Space


class BatchNorm(nn.Module):
    """Every channel of a batch to mean 0 and variance 1, then scaled and shifted; in evaluation by running moments.

    Args:
      channels: of the maps. momentum: a batch's share of the running moments. eps: added to the variance.
    """

    remembers = "running_mean", "running_var"  # see emulator.networks.remembered

    def __init__(self, channels: int, momentum: float = 0.1, eps: float = 1e-5):
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, channel, nlat, nlon)` -> the same."""
        if not self.training:
            return self._by_torch(x, self.running_mean, self.running_var)
        kept = not _computed_again()
        space = _all_processes()
        rows = x.permute(0, 2, 3, 1)
        compiled = not torch.compiler.is_compiling() and takes(x, self.weight) and rows.is_contiguous()
        if space.size == 1 and not compiled:
            # torch stores these too, so that there have to be some when it computes again
            moments = self.running_mean, self.running_var
            return self._by_torch(x, *(moments if kept else (moment.clone() for moment in moments)))
        cells = full(rows).reshape(-1, x.shape[1])
        y = InstanceNorm.apply(cells, self.weight, self.bias, self.eps, space, self._remember if kept else None)
        return y.view(rows.shape).permute(0, 3, 1, 2)

    def _by_torch(self, x, mean, variance):
        return F.batch_norm(x, mean, variance, self.weight, self.bias, self.training, self.momentum, self.eps)

    def _remember(self, cells, mean, rstd):
        variance = (rstd.double().pow(-2) - self.eps) * (cells / (cells - 1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)


class GroupNorm(nn.GroupNorm):
    """Normalisation of groups of channels over all cells of the whole grid (Wu and He 2018).

    Args:
      groups: of channels, one: all of them together. channels: of the states.
      space: the processes. share: of the grid's cells that this process has.
    """

    def __init__(self, groups: int, channels: int, space: Space = ALONE, share: float = 1.0):
        super().__init__(groups, channels)
        self.space, self.share = space, share

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, channel, own rows, nlon)` -> the same."""
        if self.space.size == 1:
            return super().forward(x)
        last = torch.contiguous_format if x.is_contiguous() else torch.channels_last
        return _GroupNorm.apply(x.contiguous(memory_format=last), self.weight, self.bias, self)


class _GroupNorm(torch.autograd.Function):
    """By torch's fused kernels for the norm of the own rows, whose moments and means are then put right.

    By single operations it takes seven times as long, as long as the convolution after it.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, norm):
        # of the whole the mean, and that of the squares, both sums over bands; double precision has room for the difference
        _, mean, rstd = torch.native_group_norm(full(x), None, None, *_sizes(x), norm.num_groups, norm.eps)
        mean, variance = mean.double(), rstd.double().pow(-2) - norm.eps
        mean, square = norm.space.total(norm.share * torch.stack([mean, variance + mean.square()]))
        rstd = torch.rsqrt(square - mean.square() + norm.eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.norm = norm
        mean, rstd = (_of_channels(moment, x) for moment in (mean, rstd))
        scale = rstd * weight
        shift = bias - mean * scale
        scale, shift = (part.to(x.dtype)[:, :, None, None] for part in (scale, shift))
        return torch.addcmul(shift, x, scale)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        x, weight, mean, rstd = ctx.saved_tensors
        norm, kind = ctx.norm, x.dtype
        x = full(x)
        last = torch.contiguous_format if x.is_contiguous() else torch.channels_last
        g, weight = full(g).contiguous(memory_format=last), weight.to(x.dtype)
        # sample by sample, since the kernel adds up the gradients of the parameters
        moments = (moment.to(x.dtype) for moment in (mean, rstd))
        samples = zip(*(tensor.split(1) for tensor in (g, x, *moments)), strict=True)
        backward, groups = torch.ops.aten.native_group_norm_backward, norm.num_groups
        own = [backward(*sample, weight, 1, *_sizes(x)[1:], groups, [True, True, True]) for sample in samples]
        g_x, g_weight, g_bias = (list(part) for part in zip(*own, strict=True))
        g_x, g_weight, g_bias = torch.cat(g_x), torch.stack(g_weight), torch.stack(g_bias)
        sums = (torch.stack([g_bias, g_weight]) * weight).unflatten(-1, (groups, -1)).sum(-1)
        means = sums.double() * (groups / x[0].numel())
        first, second = means - norm.space.total(norm.share * means)  # the kernel took off those of the own rows
        slope = rstd.square() * second
        offset = rstd * first - slope * mean
        slope, offset = (_of_channels(part, x).to(x.dtype)[:, :, None, None] for part in (slope, offset))
        g_x.addcmul_(x, slope).add_(offset)
        return g_x.to(kind), g_weight.sum(0), g_bias.sum(0), None


def _of_channels(groups, x):
    """`(batch, group)` -> `(batch, channel)`."""
    return groups.repeat_interleave(x.shape[1] // groups.shape[1], 1)


def _sizes(x):
    """Samples, channels and cells."""
    return *x.shape[:2], x[0, 0].numel()


def map_norm(kind: str, channels: int, space: Space = ALONE, share: float = 1.0) -> nn.Module:
    """A norm by its name: "batch", of each sample "instance" (channel by channel) or "whole" (all channels), or "none".

    `space`, `share`: as for `GroupNorm`.
    """
    if kind == "batch":
        return BatchNorm(channels)
    return nn.Identity() if kind == "none" else GroupNorm(channels if kind == "instance" else 1, channels, space, share)


def _computed_again() -> bool:
    """Whether a backward pass runs this, which it does to compute again what was not stored."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def _all_processes() -> Space:
    """All processes that train together, each with samples or with bands of rows of its own."""
    return Space(dist.group.WORLD) if dist.is_initialized() else ALONE
