"""Normalisation of channels by the statistics of the training period; forward and inverse."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from emulator.data.channels import Channels


def open_statistics(path: Path) -> xr.Dataset:
    """Statistics in memory. Raises `ValueError` naming the file when it is absent or not a statistics file."""
    try:
        with xr.open_dataset(path) as dataset:
            loaded = dataset.load()
    except FileNotFoundError:
        raise ValueError(f"Expected statistics at {path}, got nothing there; run the stage stats") from None
    if "statistic" not in loaded.dims:
        raise ValueError(f"Expected statistics with a dimension 'statistic' at {path}, got {dict(loaded.sizes)}")
    return loaded


def channel_statistics(statistics, channels: Channels, name: str) -> Tensor:
    """One statistic of every channel, `(channel,)` float64, from a statistics dataset (see docs/data.md)."""
    missing = [variable for variable in channels.names if variable not in statistics]
    if missing:
        raise ValueError(f"Expected statistics of {list(channels.names)}, got none for {missing}")
    values = [np.atleast_1d(statistics[v].sel(statistic=name).values) for v in channels.names]
    for variable, value, width in zip(channels.names, values, channels.widths, strict=True):
        if len(value) != width:
            raise ValueError(f"Expected {width} levels of {variable} in the statistics, got {len(value)}")
    return torch.as_tensor(np.concatenate(values)) if values else torch.zeros(0, dtype=torch.float64)


class Normalizer(nn.Module):
    """`(x - mean) / std` per channel of `(batch, channel, *space)`; missing values (NaN) stay missing.

    A channel that never varies is only centred. Statistics are buffers, so they travel in the checkpoint.
    """

    def __init__(self, mean: Tensor, std: Tensor):
        super().__init__()
        if not (torch.isfinite(mean).all() and torch.isfinite(std).all() and (std >= 0).all()):
            raise ValueError(f"Expected finite means and non-negative standard deviations, got {mean} and {std}")
        std = torch.where(std > 0, std, torch.ones_like(std))
        self.register_buffer("mean", mean.float())
        self.register_buffer("std", std.float())

    @classmethod
    def of(cls, statistics, channels: Channels) -> "Normalizer":
        return cls(*(channel_statistics(statistics, channels, name) for name in ("mean", "std")))

    def picked(self, channels: Sequence[int]) -> "Normalizer":
        """Of some of the channels, in their order."""
        return Normalizer(self.mean[channels], self.std[channels])

    @classmethod
    def blank(cls, count: int) -> "Normalizer":
        """Placeholder whose buffers a checkpoint fills."""
        return cls(torch.zeros(count), torch.ones(count))

    def _shaped(self, values: Tensor, like: Tensor) -> Tensor:
        return values.view(-1, *[1] * (like.dim() - 2))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self._shaped(self.mean, x)) / self._shaped(self.std, x)

    def inverse(self, y: Tensor) -> Tensor:
        return y * self._shaped(self.std, y) + self._shaped(self.mean, y)
