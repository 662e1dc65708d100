"""LETKF: the local ensemble transform Kalman filter of Hunt, Kostelich and Szunyogh (2007).

Every column of the grid has an analysis of its own, in the space of the members, from the observations around it, whose
errors grow with distance (Gaspari and Cohn 1999). With m members, background perturbations X and their equivalents Y,

    P = ((m - 1) / rho + Y^T R^-1 Y)^-1,  w = P Y^T R^-1 (y - mean of Y),  W = ((m - 1) P)^1/2,

and members become `mean + X (w + W)`. The ensemble is inflated by the factor rho of its covariance, and afterwards relaxed to
the spread that it had (Whitaker and Hamill 2012), which is largest where observations are dense. `w + W` varies as smoothly
as the observations' weights do, so that it may be found for a part of the columns and interpolated between them (Yang et al.
2009).
"""

import dataclasses
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from emulator.assimilation.coarse_cells import CoarseCells
from emulator.assimilation.geometry import Geometry
from emulator.assimilation.kinds.registry import assimilation
from emulator.assimilation.localisation import gaspari_cohn
from emulator.assimilation.window import Analysis, Observed, Window, equivalents
from emulator.options import Options, option

BLOCK_NUMBERS = 1 << 24  # of float64 matrices held at a time


@dataclasses.dataclass(frozen=True)
class LetkfOptions(Options):
    """A local analysis of every column in the space of the members."""

    kind: Literal["letkf"] = option("letkf")
    radius_km: float = option(3000.0, "at which an observation's weight has fallen to 0", above=0)
    radius_scale_heights: float | None = option(
        None,
        "the same in the vertical, in logarithms of pressure or sigma, the surface at the lowest level; none: all alike",
        above=0,
    )
    inflation: float = option(1.0, "factor of the background's covariance", minimum=1)
    relaxation: float = option(0.0, "to the spread of the background: 0 none, 1 all of it", minimum=0, maximum=1)
    every: int = option(
        1, "cells along each axis from one with weights of its own to the next; 1: all have", new=True, minimum=1
    )


@assimilation("letkf", LetkfOptions)
class Letkf:
    """See the file's docstring; needs members, and knows of no static covariance.

    In a window of several times observations of all are used through the members' forecasts (Hunt et al. 2004).
    """

    ensemble, static, several_times = True, False, True

    def __init__(self, options: LetkfOptions):
        self.options = options

    def expect(self, geometry: Geometry) -> None:
        """Raises `ValueError` where weights are wanted between cells that no axes order."""
        if self.options.every > 1 and geometry.grid.is_points:
            raise ValueError(f"Expected every of 1 on a list of cells, which no axes order, got {self.options.every}")

    def analyse(self, window: Window) -> Analysis:
        background = window.background.double()
        with torch.no_grad():
            predicted = equivalents(window.observed, window.forecast(window.background))
            mean, moved = background.mean(0), background - background.mean(0)
            centre, about = predicted.mean(0), predicted - predicted.mean(0)
            local = _Sites(window.observed, about / window.error, (window.value - centre) / window.error)
            near = gaspari_cohn(window.places.distance(local.latitude, local.longitude), self.options.radius_km)
            state = torch.empty_like(background)
            for channels, vertical in self._groups(window.places.level, local.level, background.shape[1]):
                found = self._analysed(local, near, moved[:, channels], vertical)
                state[:, channels] = mean[channels] + found
        share = float((about / window.error).var(0).mean().sqrt())
        return Analysis(state.to(window.background.dtype), {"spread_over_error": share})

    def _groups(self, level: np.ndarray, observed: np.ndarray, channels: int) -> list[tuple[list[int], Tensor]]:
        """Channels that share their weights in the vertical, with those of every observation.

        Args:
          level: of every channel; observed: of every observation. NaN in either is the surface, at the lowest level.
        """
        radius = self.options.radius_scale_heights
        if radius is None or np.isnan(level).all():  # nothing tells one channel's height from another's
            return [(list(range(channels)), torch.ones(len(observed), dtype=torch.float64))]
        lowest = np.nanmax(level)
        own, others = (np.where(np.isnan(each), lowest, each) for each in (level, observed))
        groups = []
        for one in np.unique(own):
            apart = torch.from_numpy(np.abs(np.log(others / one)))
            groups.append((np.flatnonzero(own == one).tolist(), gaspari_cohn(apart, radius)))
        return groups

    def _analysed(self, local: "_Sites", near: Tensor, moved: Tensor, vertical: Tensor) -> Tensor:
        """Departures of the analysed members of some channels from the background's mean, `(member, channel, *space)`.

        `near`: weights of the sites in every cell, `(cell, site)`. `vertical`: those of the observations.
        """
        shape = moved.shape
        products, pulls = local.summed(vertical)
        perturbations, found = moved.flatten(2), torch.empty_like(moved).flatten(2)
        for cells, transform in self._transforms(near, shape[2:], products, pulls):
            found[:, :, cells] = torch.einsum("mcx,xmn->ncx", perturbations[:, :, cells], transform)
        return self._relaxed(moved, found.view(shape))

    def _transforms(self, near, shape, products, pulls) -> Iterator[tuple[slice, Tensor]]:
        """`w + W` of all cells of a grid of that shape, part by part.

        A part's matrices are held, and where they are interpolated those of the coarse rows around it: about as many again
        for a part of one row, fewer for longer ones. Each is found once.
        """
        members = pulls.shape[1]
        if self.options.every == 1:
            for cells in _parts(len(near), members):
                yield cells, self._transform(near[cells], products, pulls)
            return
        coarse, row = CoarseCells.of(shape, self.options.every), int(np.prod(shape[1:]))
        known: dict[int, Tensor] = {}
        for part in _parts(shape[0], members, row):
            known = {
                at: known[at] if at in known else self._transform(near[coarse.cells[at]], products, pulls)
                for at in coarse.around(part)
            }
            yield slice(part.start * row, part.stop * row), coarse.between(known, part)

    def _transform(self, near: Tensor, products: Tensor, pulls: Tensor) -> Tensor:
        """`w + W` of some cells, `(cell, member, member)`, from `Y^T R^-1 Y` and `Y^T R^-1 d` of every site.

        `near`: the sites' weights, `(cell, site)`.
        """
        members, pull = pulls.shape[1], near @ pulls
        values, vectors = torch.linalg.eigh((near @ products).unflatten(-1, (members, members)))
        inverse = 1 / (values.clamp(min=0) + (members - 1) / self.options.inflation)
        mean = vectors @ (inverse[:, :, None] * (vectors.mT @ pull[:, :, None]))
        root = (vectors * ((members - 1) * inverse).sqrt()[:, None]) @ vectors.mT
        return root + mean

    def _relaxed(self, before: Tensor, found: Tensor) -> Tensor:
        """Members drawn apart again, about their mean, towards the spread of the background."""
        if self.options.relaxation == 0:
            return found
        mean = found.mean(0)
        spread, analysed = before.std(0), (found - mean).std(0)
        factor = 1 + self.options.relaxation * (spread - analysed) / analysed.clamp(min=1e-300)
        return mean + (found - mean) * torch.where(analysed > 0, factor, torch.ones_like(factor))


def _parts(rows: int, members: int, cells: int = 1) -> list[slice]:
    """Rows of so many cells in parts whose matrices are few enough to hold; one row at least."""
    part = max(1, BLOCK_NUMBERS // (4 * members**2 * cells))
    return [slice(first, min(first + part, rows)) for first in range(0, rows, part)]


class _Sites:
    """Observations by place: what is summed over those of one place is weighted once.

    Args:
      about: the members' perturbations in units of the errors, `(member, n)`. misfit: of the mean, the same, `(n,)`.
    """

    def __init__(self, observed: list[Observed], about: Tensor, misfit: Tensor):
        places = np.concatenate([np.stack([each.latitude, each.longitude], 1) for each in observed])
        sites, of, numbers = np.unique(places, axis=0, return_inverse=True, return_counts=True)
        self.latitude, self.longitude = sites.T
        self.level = np.concatenate([each.level for each in observed])
        rows = torch.from_numpy(np.argsort(of.reshape(-1), kind="stable")).split(numbers.tolist())
        self._parts = []  # places with as many observations: which, and the rows of each
        for number in np.unique(numbers):
            chosen = np.flatnonzero(numbers == number)
            self._parts.append((torch.from_numpy(chosen), torch.stack([rows[place] for place in chosen])))
        self._about, self._misfit = about, misfit

    def summed(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """`Y^T R^-1 Y` and `Y^T R^-1 d` of every place, `(site, member^2)` and `(site, member)`, observations weighted."""
        members, sites = len(self._about), len(self.latitude)
        products, pulls = self._about.new_empty(sites, members**2), self._about.new_empty(sites, members)
        for places, rows in self._parts:
            about = self._about.mT[rows]
            weighted = about * weight[rows][:, :, None]
            products[places] = (weighted.mT @ about).flatten(1)
            pulls[places] = (weighted.mT @ self._misfit[rows][:, :, None])[:, :, 0]
        return products, pulls
