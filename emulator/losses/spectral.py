"""Squared error weighted by degree, in units of a typical change: small scales may count more, or less, than large ones."""

import math

import torch
from torch import Tensor, nn

from emulator.losses.options import LossOptions
from emulator.losses.registry import loss
from emulator.losses.scaled import ScaledError
from emulator.sphere.transform import SphericalTransform, transform


class SpectralError(nn.Module):
    """Sum over degrees l of (1 + l (l + 1))^power times the power of the scaled error at that degree.

    By Parseval's theorem the powers add up to the area-weighted mean square, so a power of 0 is the squared error of
    `ScaledError`, and a power of 1 adds the squared gradient on the unit sphere (a Sobolev norm). What a grid holds beyond
    the transform's degrees is weighted like the last of them.

    Args:
      error: the squared error to weight by degree, which gives scales and weights of the channels.
      transform: on the fields' grid. Of a band's, the error is that of its cells, fields are of its rows, and so the loss
        is the process's part: the sum over those coefficients that it has. power: as above.
    """

    def __init__(self, error: ScaledError, transform: SphericalTransform, power: float):
        super().__init__()
        if error.kind != "mse":
            raise ValueError(f"Expected a squared error to weight by degree, got {error.kind!r}")
        self.error, self.transform = error, transform
        degrees = torch.arange(transform.lmax, dtype=torch.float64)
        weight = (1 + degrees * (degrees + 1)) ** power
        self.last = float(weight[-1])
        orders = torch.where(torch.arange(transform.lmax) == 0, 1.0, 2.0)
        table = (weight - weight[-1])[:, None] * orders / (4 * math.pi)
        table = table.float()[..., None]
        if transform.space.size > 1:
            table = transform.pack(table.expand(-1, -1, 2))
        self.register_buffer("table", table[..., None, None], persistent=False)
        # the factor is the channel's weight over its squared scale, times the cell's share; the shares sum to 1
        channel = transform.space.total(error.factor.flatten(1).double().sum(1)).sqrt()
        self.register_buffer("channel", channel.float()[:, None, None], persistent=False)

    def forward(self, state: Tensor, diagnostic: Tensor, true_state: Tensor, true_diagnostic: Tensor) -> Tensor:
        """Mean over the batch; all arguments `(batch, channel, latitude, longitude)` in physical units."""
        square = self.error(state, diagnostic, true_state, true_diagnostic)
        difference = torch.cat([state - true_state, diagnostic - true_diagnostic], dim=1)
        scaled = (difference * self.channel).permute(2, 3, 0, 1).contiguous()
        with torch.autocast(state.device.type, enabled=False):
            if self.transform.space.size > 1:
                coefficients = self.transform.analyse(self.transform.arrange(scaled.float()))  # (count, batch, channel)
            else:
                coefficients = self.transform.analysis(scaled.float())  # (l, m, 2, batch, channel)
        return self.last * square + (self.table * coefficients.square()).sum() / len(state)


@loss("spectral", LossOptions, bands=True)
def spectral(options, weighted):
    return SpectralError(weighted.error(), transform(weighted.grid, space=weighted.space), options.power)
