"""The noise that samples begin as: Gaussian fields on the sphere with the spectrum of what is sampled."""

import numpy as np
import torch
from torch import Tensor, nn

from emulator.planet.grid import Grid
from emulator.sphere.random_fields import of_length, power_of, sizes
from emulator.sphere.tables import GRIDS, truncation
from emulator.sphere.transform import transform


def degrees_of(grid: Grid) -> int:
    """Degrees of the spectra on a grid; 0 where it has none, since it is no global one of rows on a sphere."""
    return truncation(*grid.shape, grid.kind) if grid.kind in GRIDS and grid.is_global() else 0


class InitialNoise(nn.Module):
    """Gaussian random fields, isotropic, with a spectrum of every channel.

    Diffusion, flow matching and interpolants ask for no covariance of their noise. With that of the target a network whose
    output is zero already leads to samples with the target's power at every degree. It has to learn what is not Gaussian,
    what is not alike everywhere and what follows from the coarse fields; with white noise, also to take out at every level of
    the noise what lies at degrees of which the target has little.

    Args:
      grid: of the fields. channels: of them. degrees: of the spectra (`degrees_of`); 0: white noise of unit variance.

    Attributes:
      power: the mean square by degree, and last that beyond all degrees, which cells hold and the transform does not,
        `(channel, degree + 1)` float64; of white noise until it is set.
    """

    def __init__(self, grid: Grid, channels: int, degrees: int):
        super().__init__()
        self.shape, self.degrees = (channels, *grid.shape), degrees
        if degrees:
            area = torch.as_tensor(grid.area)
            within = float(degrees**2 * area.square().sum())  # what coefficients have of white noise in cells
            white = np.append(within * of_length(degrees, 0.0), 1 - within)
            size = torch.from_numpy(sizes(np.ones((1, degrees))).astype(np.float32))
            self.transform, self.beyond = transform(grid, degrees), 1 - within
            self.register_buffer("power", torch.from_numpy(white).repeat(channels, 1))
            self.register_buffer("size", size, persistent=False)  # of coefficients of unit power, (1, l, m, 2)
            self.register_buffer("area", area, persistent=False)

    def forward(self, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Independent fields, `(count, channel, *space)` float32; `generator`: on the device, None: that of torch."""
        told = {"generator": generator, "device": device}
        if not self.degrees:
            return torch.randn((count, *self.shape), **told)
        size, beyond = (self.power.sqrt().float()[:, part] for part in (slice(-1), -1))
        size = self.size * size[..., None, None]
        smooth = torch.randn((count, *size.shape), **told) * size
        fields = self.transform.synthesis(smooth.permute(2, 3, 4, 0, 1).contiguous())
        white = torch.randn((*self.transform.shape, count, self.shape[0]), **told)
        rough = white - self.transform.synthesis(self.transform.analysis(white))
        return (fields + rough * (beyond / self.beyond**0.5)).permute(2, 3, 0, 1).contiguous()

    def measured(self, fields: Tensor) -> Tensor:
        """What `power` is, of fields `(..., *space)`: `(..., degree + 1)` float64."""
        power = power_of(fields, self.transform)
        whole = (fields.double().square() * self.area).sum((-2, -1))
        return torch.cat([power, (whole - power.sum(-1)).clamp(min=0)[..., None]], -1)
