"""Initial conditions of ensembles: Gaussian noise on the sphere with a given spectrum, and bred vectors."""

import zlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from emulator.channels import Channels
from emulator.grid import Grid
from emulator.spherical import SphericalTransform
from emulator.step import Step


def power_law(degrees: int, slope: float = 3.0, lowest: int = 1) -> np.ndarray:
    """Power per total wavenumber 0 ... degrees - 1, falling as `(l + 1) ** -slope` from `lowest` on, summing to 1."""
    wavenumber = np.arange(degrees)
    power = np.where(wavenumber >= lowest, (wavenumber + 1.0) ** -slope, 0.0)
    return power / power.sum()


class SphericalNoise:
    """Isotropic Gaussian random fields with the same expected spectrum and unit variance everywhere on the sphere.

    Coefficients of degree l are independent with variance `4 pi p_l / (2l + 1)` for every order, which gives `p_l` of the
    mean square to total wavenumber l (Marinucci and Peccati 2011, ch. 5).

    Args:
      grid: global, Gaussian or equal-angle.
      power: share of the variance per total wavenumber `(degree,)`, summing to 1; None: `power_law` over all degrees.
    Raises `ValueError` for another grid, or a spectrum that is negative, empty or longer than the grid can hold.
    """

    def __init__(self, grid: Grid, power: Sequence[float] | None = None):
        if grid.kind not in ("gaussian", "equiangular") or not grid.is_global():
            raise ValueError(f"Expected a global Gaussian or equal-angle grid for noise, got {grid.describe()}")
        poles = bool(grid.kind == "equiangular" and abs(grid.latitude[0]) > 90 - 1e-6)
        self._transform = SphericalTransform(*grid.shape, grid.kind, poles)
        degrees = self._transform.lmax
        share = np.asarray(power_law(degrees) if power is None else power, np.float64)
        if share.ndim != 1 or len(share) > degrees or not np.all(share >= 0) or not share.sum() > 0:
            raise ValueError(
                f"Expected non-negative powers of at most {degrees} wavenumbers on {grid.describe()}, got {share.shape} "
                f"from {share.min(initial=0):g}"
            )
        share = np.pad(share / share.sum(), (0, degrees - len(share)))
        self._size = np.sqrt(4 * np.pi * share / (2 * np.arange(degrees) + 1))

    def draw(self, generator: np.random.Generator, count: int) -> Tensor:
        """`count` independent fields, `(count, nlat, nlon)` float32."""
        degrees = len(self._size)
        values = generator.standard_normal((count, degrees, degrees, 2)) * self._size[:, None, None]
        values[:, :, 1:] *= np.sqrt(0.5)  # real and imaginary part share the variance of orders above 0
        values[:, :, 0, 1] = 0.0
        values *= np.tri(degrees)[:, :, None]
        coefficients = torch.from_numpy(np.ascontiguousarray(np.moveaxis(values, 0, -1))).float()
        return self._transform.synthesis(coefficients).movedim(-1, 0).contiguous()


def generator_of(seed: int, time, member: int) -> np.random.Generator:
    """Random numbers of one member of one initial time: the same whatever else is computed, where and in which order."""
    return np.random.default_rng([seed, zlib.crc32(str(time).encode()), member])


def noise(
    source: SphericalNoise, channels: Channels, generator: np.random.Generator, vertical_correlation: float = 0.8
) -> Tensor:
    """Noise of unit variance for every channel, `(channel, *space)`, correlated between neighbouring levels of a variable.

    Levels follow a first-order autoregression from the top down.
    """
    fields = source.draw(generator, channels.count)
    rest = (1 - vertical_correlation**2) ** 0.5
    for where in channels.slices.values():
        for level in range(where.start + 1, where.stop):
            fields[level] = vertical_correlation * fields[level - 1] + rest * fields[level]
    return fields


def perturbed(step: Step, state: Tensor, perturbation: Tensor) -> Tensor:
    """State plus perturbation in units of the change over a step, `(..., channel, *space)`, inside the step's bounds."""
    moved = state + step.change_std * perturbation
    # A state of the analysis may lie outside the bounds itself: it is not pulled in.
    lower, upper = torch.minimum(step.lower, state), torch.maximum(step.upper, state)
    return torch.minimum(torch.maximum(moved, lower), upper)


def size_of(step: Step, difference: Tensor, area: Tensor) -> Tensor:
    """Root mean square over channels and area of a difference of states, in units of the change over a step: `(...)`."""
    scaled = (difference / step.change_std).double().square()
    return (scaled * area).sum((-2, -1)).mean(-1).sqrt()


def bred(
    step: Step,
    states: Sequence[Tensor],
    start: Tensor,
    advance: Callable[[Tensor, int], Tensor],
    area: Tensor,
    amplitude: float,
) -> Tensor:
    """Bred vectors (Toth and Kalnay 1993) for the last of `states`, in units of the change over a step.

    Args:
      step: the emulator, which gives bounds and units.
      states: analyses one cycle apart, oldest first, `(channel, *space)` each.
      start: perturbations of the oldest, `(member, channel, *space)` in the same units.
      advance: `(state, cycle) -> state` at the end of the cycle, for `(member, channel, *space)` states.
      area: cell areas, summing to 1.
      amplitude: root mean square (`size_of`) to which the difference is rescaled after every cycle.
    """
    vectors = start * (amplitude / size_of(step, step.change_std * start, area)).float().view(-1, 1, 1, 1)
    for cycle, analysis in enumerate(states[:-1]):
        control = advance(analysis[None], cycle)
        grown = advance(perturbed(step, analysis[None], vectors), cycle) - control
        size = size_of(step, grown, area).clamp(min=1e-12)
        vectors = grown / step.change_std * (amplitude / size).float().view(-1, 1, 1, 1)
    return vectors
