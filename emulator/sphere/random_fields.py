"""Isotropic Gaussian random fields on the sphere with a given spectrum, drawn from named sequences of random numbers."""

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from emulator.planet.grid import Grid
from emulator.sphere.tables import truncation
from emulator.sphere.transform import SphericalTransform, transform


def power_law(degrees: int, slope: float = 3.0, lowest: int = 1) -> np.ndarray:
    """Power per total wavenumber 0 ... degrees - 1, falling as `(l + 1) ** -slope` from `lowest` on, summing to 1."""
    wavenumber = np.arange(degrees)
    power = np.where(wavenumber >= lowest, (wavenumber + 1.0) ** -slope, 0.0)
    return power / power.sum()


def of_length(degrees: int, length: float, lowest: int = 0) -> np.ndarray:
    """Power per total wavenumber `(degree,)` of a field whose correlation falls to exp(-1/2) over an arc of `length` radians.

    `(2l + 1) exp(-l (l + 1) length^2 / 2)`, the heat kernel on the sphere: of a short length the correlation is nearly
    `exp(-(arc / length)^2 / 2)`, of length 0 it is white noise in all degrees. Nothing below degree `lowest`: winds have no
    degree 0. Sums to 1.
    """
    wavenumber = np.arange(degrees)
    beyond = wavenumber * (wavenumber + 1) - lowest * (lowest + 1)  # in units of the lowest's power, which is never 0
    power = np.where(beyond >= 0, (2 * wavenumber + 1) * np.exp(-np.maximum(beyond, 0) * length**2 / 2), 0.0)
    return power / power.sum()


class SphericalNoise:
    """Isotropic Gaussian random fields with given expected spectra and unit variance everywhere on the sphere.

    Coefficients of degree l are independent with variance `4 pi p_l / (2l + 1)` for every order, which gives `p_l` of the
    mean square to total wavenumber l (Marinucci and Peccati 2011, ch. 5).

    Args:
      grid: global, Gaussian or equal-angle.
      power: share of the variance per total wavenumber `(degree,)`, summing to 1; None: `power_law` over all degrees.
    Raises `ValueError` for another grid, or a spectrum that is negative, empty or longer than the grid can hold.
    """

    def __init__(self, grid: Grid, power: Sequence[float] | None = None):
        degrees = degrees_on(grid)
        share = np.asarray(power_law(degrees) if power is None else power, np.float64)
        if share.ndim != 1 or len(share) > degrees or not np.all(share >= 0) or not share.sum() > 0:
            raise ValueError(
                f"Expected non-negative powers of at most {degrees} wavenumbers on {grid.describe()}, got {share.shape} "
                f"from {share.min(initial=0):g}"
            )
        self._transform = transform(grid)
        self.degrees = degrees
        self._size = sizes(np.pad(share / share.sum(), (0, degrees - len(share)))[None])

    def draw(self, generator: np.random.Generator, count: int) -> Tensor:
        """`count` independent fields, `(count, nlat, nlon)` float32."""
        values = generator.standard_normal((count, *self._size.shape[1:])) * self._size
        return self._transform.synthesis(as_coefficients(values)).movedim(-1, 0).contiguous()


def degrees_on(grid: Grid) -> int:
    """Degrees that noise on a grid has. Raises `ValueError` unless that is global, Gaussian or equal-angle."""
    if grid.kind not in ("gaussian", "equiangular") or not grid.is_global():
        raise ValueError(
            f"Expected a global Gaussian or equal-angle grid for noise, got {grid.describe()}{grid.remedy}"
        )
    return truncation(*grid.shape, grid.kind)


def sizes(share: np.ndarray) -> np.ndarray:
    """Standard deviations of coefficients, `(field, l, m, 2)`, for shares of a unit variance `(field, degree)`."""
    degrees = share.shape[-1]
    size = np.sqrt(4 * np.pi * share / (2 * np.arange(degrees) + 1))[:, :, None, None] * np.ones((degrees, 2))
    size[:, :, 1:] *= np.sqrt(0.5)  # real and imaginary part share the variance of orders above 0
    size[:, :, 0, 1] = 0.0
    return size * np.tri(degrees)[:, :, None]


def power_of(fields: Tensor, transform: SphericalTransform) -> Tensor:
    """The mean square of fields `(..., *space)` by total wavenumber, `(..., degree)` float64."""
    coefficients = transform.analysis(fields.float().movedim((-2, -1), (0, 1)).contiguous()).double()
    squares = coefficients.square().sum(2)  # (l, m, ...)
    return (2 * squares.sum(1) - squares[:, 0]).movedim(0, -1) / (4 * np.pi)


def as_coefficients(values: np.ndarray) -> Tensor:
    """`(field, l, m, 2)` to the transform's `(l, m, 2, field)` float32."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(values, 0, -1))).float()


def generator_of(seed: int, time, member: int) -> np.random.Generator:
    """Random numbers of one member of one initial time: the same whatever else is computed, where and in which order."""
    return np.random.default_rng([seed, number_of(time), member])


def number_of(time) -> int:
    """A time as a number for seeds, the same in every process and version of the libraries."""
    return zlib.crc32(str(time).encode())
