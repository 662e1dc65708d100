"""Norms of maps `(batch, channel, nlat, nlon)` with their channels last in memory, and batch norm's memory of moments.

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


def map_norm(kind: str, channels: int) -> nn.Module:
    """A norm by its name: "batch", of each sample "instance" (channel by channel) or "whole" (all channels), or "none"."""
    if kind == "batch":
        return BatchNorm(channels)
    return nn.Identity() if kind == "none" else nn.GroupNorm(channels if kind == "instance" else 1, channels)


def _computed_again() -> bool:
    """Whether a backward pass runs this, which it does to compute again what was not stored."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def _all_processes() -> Space:
    """All processes that train together, each with samples or with bands of rows of its own."""
    return Space(dist.group.WORLD) if dist.is_initialized() else ALONE
