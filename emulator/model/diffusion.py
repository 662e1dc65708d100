"""Diffusion of a rollout: departures from the time mean are damped after every step, the smaller their scale the more.

What a network gets wrong of small scales adds up over months where nothing dissipates it, as the diffusion of spectral
models of the atmosphere does. On a sphere of radius a the Laplacian of spherical-harmonic degree l is -l (l + 1) / a^2. So
under diffusion of an even order, 2 being the Laplacian, 4 and 8 its powers (hyperdiffusion), degree l decays at the rate
`(l (l + 1) / (L (L + 1)))^(order / 2) / hours`. Winds are diffused as vectors. What no degree of the grid holds is damped as
the highest one.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from emulator.kernels.kept import made_of
from emulator.networks.signature import Channel
from emulator.networks.vectors import Sorting
from emulator.parallel.space import ALONE, Space
from emulator.planet.grid import Grid
from emulator.sphere.tables import coefficient_order, truncation
from emulator.sphere.transform import SphericalTransform, VectorTransform, expect_transformable


def with_diffusion(step, channels: Sequence[Channel], grid: Grid, decay: Tensor):
    """The same `Step` with states that are diffused after each step, before its budgets are closed.

    The one that is given stays as it is.

    Args:
      channels: of the state. grid: of whole fields. decay: what `decay_of` gives.
    Raises `ValueError` for a grid without degrees, and for fields that do not exist everywhere.
    """
    if step.exists is not None:
        raise ValueError("Expected fields that exist everywhere for rollout.diffusion, got masked ones")
    smooth = copy.copy(step)
    smooth._modules = dict(step._modules)  # a shallow copy shares the table of modules too
    smooth.diffusion = Diffusion(channels, grid, decay, step.space).to(step.device)
    return smooth


def degrees_of(grid: Grid) -> int:
    """How many degrees fields on a grid have. Raises `ValueError` for one that is not global, Gaussian or equiangular."""
    expect_transformable(grid)
    return truncation(*grid.shape, grid.kind)


def decay_of(degrees: int, hours: float, order: int, degree: int | None, seconds: float) -> Tensor:
    """Share of each degree that diffusion takes off over a step, `(degree,)` float32.

    Args:
      degrees: how many there are. hours: in which degree `degree` falls to 1/e, by default the highest. seconds: of a step.
    Raises `ValueError` for a degree that the grid does not hold.
    """
    last = degrees - 1 if degree is None else degree
    if not 0 < last < degrees:
        raise ValueError(f"Expected a degree of diffusion from 1 to {degrees - 1}, as the grid holds them, got {last}")
    l = torch.arange(degrees, dtype=torch.float64)
    rate = (l * (l + 1) / (last * (last + 1))) ** (order / 2) / hours
    return (-torch.expm1(-rate * seconds / 3600)).float()


class Diffusion(nn.Module):
    """States with each degree of their departure from rest damped; winds as vectors.

    Args:
      channels: of the state. space: the processes that hold a state together.
      decay: share that is taken off, `(degree,)`; a buffer, so that it counts in a model's digest.
    Raises `ValueError` for a grid that is not global, Gaussian or equiangular, and for another number of degrees.
    """

    def __init__(self, channels: Sequence[Channel], grid: Grid, decay: Tensor, space: Space = ALONE):
        super().__init__()
        expect_transformable(grid)
        self.sorting = Sorting(channels)
        how = *grid.shape, grid.kind, grid.has_poles, None, space
        self.scalars = SphericalTransform(*how)
        self.winds = VectorTransform(*how) if self.sorting.vectors else None
        if len(decay) != self.scalars.lmax:
            raise ValueError(f"Expected the decay of {self.scalars.lmax} degrees, got {len(decay)}")
        self.register_buffer(
            "degree", coefficient_order(self.scalars.plan)[0] // 2 // self.scalars.lmax, persistent=False
        )
        self.register_buffer("decay", decay)

    def forward(self, state: Tensor, resting: Tensor) -> Tensor:
        """The state diffused: `state` `(batch, channel, *space)`, `resting` `(channel, *space)`, physical units."""
        departure, most = state - resting, self.decay[-1]
        less = made_of(self.decay, _less_than_most, self.degree)
        transforms = zip((self.scalars, self.winds), self.sorting.part(departure), strict=True)
        back = [self._back(transform, part, less) for transform, part in transforms]
        return state - most * departure + self.sorting.join(*back)

    @staticmethod
    def _back(transform: nn.Module, part: Tensor, less: Tensor) -> Tensor:
        """What of maps `(batch, channel, *space)`, of which there may be none, is damped less than all of it."""
        if not part.shape[1]:
            return part
        coefficients = transform.analyse(transform.from_maps(part.contiguous()))
        return transform.to_maps(transform.synthesise(coefficients * less))


def _less_than_most(decay: Tensor, degree: Tensor) -> Tensor:
    """By how much less than the highest degree each coefficient is damped, `(count, 1, 1)` in the kernels' order."""
    return (decay[-1] - decay).index_select(0, degree)[:, None, None]
