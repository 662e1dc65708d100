"""Damped persistence by degree: what of a state a linear forecast keeps over a step, wavenumber by wavenumber.

Small scales forget themselves within hours, large ones in weeks. A first-order autoregression of a field's
spherical-harmonic coefficients of degree l, with variance s_l about the time mean and c_l of the change over a step, keeps
1 - c_l / (2 s_l) of them (von Storch and Zwiers 1999, chapter 10). One rate for all degrees keeps small scales for too
long, and what a network then gets wrong of them adds up.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from emulator.data.samples import Samples
from emulator.kernels.kept import made_of
from emulator.networks.signature import Channel
from emulator.networks.vectors import Sorting
from emulator.parallel.space import ALONE, Space
from emulator.planet.grid import Grid
from emulator.sphere.tables import coefficient_order, truncation
from emulator.sphere.transform import SphericalTransform, VectorTransform, expect_transformable

PAIRS = 256  # of states a step apart, spread over the training period: rates are then known to a tenth or better


def degrees_of(grid: Grid) -> int:
    """How many degrees fields on a grid have. Raises `ValueError` for a grid that is not global, Gaussian or equiangular."""
    expect_transformable(grid)
    return truncation(*grid.shape, grid.kind)


class _Spectra(nn.Module):
    """Fields and their coefficients, winds as vectors: `(batch, channel, *space)` <-> `(count, batch, scalars)`, vectors."""

    def __init__(self, channels: Sequence[Channel], grid: Grid, space: Space = ALONE):
        super().__init__()
        degrees_of(grid)
        self.sorting = Sorting(channels)
        how = *grid.shape, grid.kind, grid.has_poles, None, space
        self.scalars = SphericalTransform(*how)
        self.winds = VectorTransform(*how) if self.sorting.vectors else None
        stored = coefficient_order(self.scalars.plan)[0] // 2
        degree, order = stored // self.scalars.lmax, stored % self.scalars.lmax
        self.register_buffer("degree", degree, persistent=False)
        self.register_buffer("shares", (2.0 - (order == 0).double()) * (degree >= order), persistent=False)

    def analyse(self, fields: Tensor) -> list[Tensor]:
        scalars, winds = self.sorting.part(fields)
        found = [self.scalars.analyse(self.scalars.from_maps(scalars.contiguous()))]
        return found if self.winds is None else [*found, self.winds.analyse(self.winds.from_maps(winds.contiguous()))]

    def synthesise(self, coefficients: list[Tensor]) -> Tensor:
        scalars, *winds = coefficients
        made = self.scalars.to_maps(self.scalars.synthesise(scalars))
        if not winds:
            return self.sorting.join(made, made[:, :0])
        return self.sorting.join(made, self.winds.to_maps(self.winds.synthesise(winds[0])))

    def by_channel(self, of_parts: list[Tensor]) -> Tensor:
        """Values of scalars and of vectors' components, `(n, channel)` each, as `(n, channel)` in the channels' order."""
        scalars, winds = of_parts if len(of_parts) == 2 else (of_parts[0], of_parts[0][:, :0])
        return self.sorting.join(scalars, winds)

    def power(self, fields: Tensor) -> Tensor:
        """Sum of squares by degree over a batch, float64 `(degree, channel)`; components of a wind have its whole power."""
        parts = []
        for n, c in enumerate(self.analyse(fields)):
            squares = (c.double().square() * self.shares[:, None, None]).sum(1)
            total = squares.new_zeros(self.scalars.lmax, squares.shape[1]).index_add_(0, self.degree, squares)
            parts.append(total if n == 0 else sum(total.chunk(2, 1)).repeat(1, 2))
        return self.by_channel(parts)


def rates(
    samples: Samples, channels: Sequence[Channel], resting: Tensor, at_least: Tensor, damping: float = 1.0
) -> Tensor:
    """Share of every degree that a step takes off, `(channel, degree)` float32, from states of the training period.

    Args:
      channels: of the state. resting: time mean, `(channel, *space)`, of whole fields.
      at_least: by channel; what lasts for months is drawn back no more slowly than the field as a whole.
      damping: share of the optimal rate that is taken.
    Raises `ValueError` for a grid that cannot be transformed, and where no two states lie a step apart.
    """
    starts = samples.some_starts(1)
    picked = sorted({starts[n * len(starts) // PAIRS] for n in range(min(PAIRS, len(starts) * PAIRS))})
    spectra = _Spectra(channels, samples.grid)
    change = departure = torch.zeros(degrees_of(samples.grid), len(channels), dtype=torch.float64)
    for start in picked:
        now, after = (_whole(samples, time) for time in (start, start + 1))
        change = change + spectra.power((after - now)[None])
        departure = departure + spectra.power((now - resting)[None])
    optimal = torch.where(departure > 0, change / (2 * departure).clamp(min=torch.finfo(torch.float64).tiny), 0.0)
    return torch.maximum(damping * optimal, at_least.double()).clamp(max=1.0).T.float().contiguous()


def _whole(samples: Samples, time: int) -> Tensor:
    """The state at a time, whichever processes hold its rows."""
    return samples.space.whole(samples.state(time), samples.grid.shape[0])


def _by_coefficient(rates: Tensor, degree: Tensor) -> Tensor:
    """`(channel, degree)` -> `(count, channel)` of the coefficients in the kernels' order."""
    return rates.T.index_select(0, degree)


class Relaxation(nn.Module):
    """A state with each degree of its departure from rest damped; winds as vectors.

    Args:
      channels: of the state. space: the processes that hold a state together.
      rates: see `rates`, a buffer of checkpoints.
    """

    def __init__(self, channels: Sequence[Channel], grid: Grid, rates: Tensor, space: Space = ALONE):
        super().__init__()
        self.spectra = _Spectra(channels, grid, space)
        self.register_buffer("rates", rates)

    def forward(self, state: Tensor, resting: Tensor) -> Tensor:
        """`state` `(batch, channel, *space)`, physical units, after a step of damped persistence."""
        taken = self.spectra.sorting.part(made_of(self.rates, _by_coefficient, self.spectra.degree))
        departure = self.spectra.analyse(state - resting)
        return state - self.spectra.synthesise([c * w[:, None] for c, w in zip(departure, taken, strict=False)])
