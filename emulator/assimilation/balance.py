"""Which channels errors are described by: winds by streamfunction and velocity potential, mass by what winds do not explain.

Large-scale errors of mass and wind are near geostrophic balance. As in operational analyses (Derber and Bouttier 1999) the
part of temperature, geopotential and surface pressure that the rotational wind explains is a regression on `f psi` of all
levels, the linear balance without gradients of f; what is left is uncorrelated with the wind. Humidity and everything else
stand for themselves.
"""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from emulator.data.channels import Channels

WINDS = ("u_component_of_wind", "v_component_of_wind")
MASS = ("temperature", "geopotential", "surface_pressure")
RIDGE = 1e-6  # of the mean variance: keeps a regression on collinear levels from amplifying their noise


@dataclasses.dataclass(frozen=True)
class Groups:
    """Channels of a state that share errors.

    Attributes:
      winds: of u and v, empty where the state lacks them. mass: what is balanced with them; alone: other variables, each.
    """

    winds: tuple[slice, ...]
    mass: tuple[int, ...]
    alone: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, channels: Channels) -> "Groups":
        where, levels = channels.slices, dict(zip(channels.names, channels.levels, strict=True))
        has_winds = all(n in where for n in WINDS) and len({levels[n] for n in WINDS}) == 1
        winds = tuple(where[n] for n in WINDS) if has_winds else ()
        mass = tuple(k for n in MASS if n in where for k in range(where[n].start, where[n].stop))
        taken = {*MASS, *(WINDS if has_winds else ())}
        alone = tuple(tuple(range(s.start, s.stop)) for n, s in where.items() if n not in taken)
        return cls(winds, mass, alone)

    @property
    def wind_levels(self) -> int:
        return self.winds[0].stop - self.winds[0].start if self.winds else 0

    @property
    def scalars(self) -> tuple[tuple[int, ...], ...]:
        """Groups of channels that are no winds."""
        return (*((self.mass,) if self.mass else ()), *self.alone)


def regression(mass: Tensor, predictor: Tensor, area: Tensor) -> Tensor:
    """Matrix N, `(mass, level)`, of the least mean square of `mass - N predictor` over samples and the sphere.

    Args:
      mass: `(sample, mass, nlat, nlon)`; predictor: `(sample, level, nlat, nlon)`, `f psi`; area: `(nlat, nlon)`.
    """
    weighted = predictor * area
    own = torch.einsum("sixy,sjxy->ij", weighted, predictor)
    other = torch.einsum("sixy,sjxy->ij", mass, weighted)
    ridge = RIDGE * own.diagonal().mean() * torch.eye(len(own), dtype=own.dtype)
    return torch.linalg.solve(own + ridge, other.mT).mT


def coriolis(latitude: np.ndarray) -> Tensor:
    """Sine of latitude, by which f varies, `(nlat, 1)` float64."""
    return torch.from_numpy(np.sin(np.deg2rad(latitude)))[:, None]
