"""Almost-fair CRPS of values, of scales, of gradients and of spherical-harmonic coefficients, added up by weight.

The almost-fair score (Lang et al. 2024, arXiv 2412.15832) is `alpha` times the fair one and 1 - alpha times the plain one,
since the fair score says nothing of a last member where all others are right. Scores of single values see each cell by
itself. What a field is like is seen by scores of its parts: fields between degrees of truncation (as the several scales of
AIFS-CRPS are), gradients, coefficients (Bonev et al. 2025, FourCastNet 3), and the norms of each degree's coefficients.

With a_lm the real coefficients of a field in units of a typical change, of an orthonormal basis, so that their squares add up
to the area's mean square:

  spectral: sum over l of (2l + 1)^(-1/2) sum over m of CRPS(a_lm)
  degrees:  sum over l of the energy score of the vector of all a_lm of the degree
"""

import dataclasses
import math
from typing import Literal

import torch
from torch import Tensor, nn

from emulator.losses.ensemble import fair_crps, spread_share
from emulator.losses.registry import loss
from emulator.losses.scaled import ScaledError
from emulator.options import Options, option
from emulator.planet.constants import ERA5
from emulator.planet.grid import Grid
from emulator.sphere.transform import transform, vector_transform


@dataclasses.dataclass(frozen=True)
class MixedOptions(Options):
    """Almost-fair CRPS of values and of what fields are made of, added up by weight; for networks with noise."""

    kind: Literal["mixed_crps"] = option("mixed_crps")
    members: int = option(2, "forecasts of every sample", minimum=2)
    alpha: float = option(0.95, "1: the fair score, 0: the plain one", minimum=0, maximum=1)
    values: float = option(1.0, "weight of single values", minimum=0)
    scales: float = option(0.0, "weight of the fields between the degrees of `cuts`", minimum=0)
    cuts: tuple[int, ...] = option((8, 20), "of scales: total wavenumbers with which each ends", minimum=1, shortest=1)
    gradients: float = option(0.0, "weight of both components of the gradient", minimum=0)
    gradient_km: float = option(500.0, "of gradients: over this distance a change counts as one of a value", above=0)
    spectral: float = option(0.0, "weight of single coefficients of spherical harmonics", minimum=0)
    degrees: float = option(0.0, "weight of the energy score of each degree's coefficients", minimum=0)

    def __post_init__(self):
        super().__post_init__()
        if list(self.cuts) != sorted(set(self.cuts)):
            raise ValueError(f"Expected cuts that increase, got {list(self.cuts)}")
        if not any(getattr(self, name) for name in PARTS):
            raise ValueError(f"Expected a weight above 0 of one of {', '.join(PARTS)}, got none")


PARTS = ("values", "scales", "gradients", "spectral", "degrees")


class MixedError(nn.Module):
    """The sum of `MixedOptions`, area and channels weighted as `ScaledError` does.

    Args:
      error: of kind "l1", which gives scales and weights. options: see there. grid: global, Gaussian or equiangular, where
        any part but that of values has a weight.
    Raises `ValueError` for another grid or kind.
    """

    def __init__(self, error: ScaledError, options: MixedOptions, grid: Grid):
        super().__init__()
        if error.kind != "l1":
            raise ValueError(f"Expected an l1 error for mixed_crps, got {error.kind!r}")
        self.options = options
        self.register_buffer("factor", error.factor, persistent=False)
        self.register_buffer("unit", error.unit, persistent=False)
        self.register_buffer("channel", error.factor.flatten(1).double().sum(1).float(), persistent=False)
        self.parts = {name: getattr(options, name) for name in PARTS if getattr(options, name)}
        self.transform = self.gradient = None
        if set(self.parts) != {"values"}:
            self.transform = transform(grid)
            degrees = torch.arange(self.transform.lmax)
            orders = torch.where(degrees == 0, 1.0, 2.0)  # of m > 0 both m and -m
            size = (orders / (4 * math.pi)).sqrt()[:, None].expand(-1, 2)
            self.register_buffer("size", size[..., None, None, None], persistent=False)
            self.register_buffer("rarity", (2.0 * degrees + 1).rsqrt(), persistent=False)
        if "gradients" in self.parts:
            self.gradient = vector_transform(grid)

    def forward(self, state: Tensor, diagnostic: Tensor, true_state: Tensor, true_diagnostic: Tensor) -> Tensor:
        """Mean over the samples; all `(sample * members, channel, *space)`, the truth the same for a sample's members."""
        members = self.options.members
        made = torch.cat([state, diagnostic], 1).unflatten(0, (-1, members)).transpose(0, 1)
        truth = torch.cat([true_state[::members], true_diagnostic[::members]], 1)
        fields = torch.cat([made, truth[None]]).float() * self.unit  # (member and truth, sample, channel, *space)
        with torch.autocast(state.device.type, enabled=False):
            coefficients = None if self.transform is None else self._coefficients(fields)
            scores = [weight * getattr(self, f"_{part}")(fields, coefficients) for part, weight in self.parts.items()]
        return sum(scores) / len(truth)

    def _coefficients(self, fields: Tensor) -> Tensor:
        """`(l, m, 2, member and truth, sample, channel)` in torch-harmonics' basis."""
        return self.transform.analysis(fields.permute(3, 4, 0, 1, 2).contiguous())

    def _score(self, fields: Tensor) -> Tensor:
        """The almost-fair CRPS of every value of fields whose last member is the truth."""
        return fair_crps(fields[:-1], fields[-1], self.options.alpha)

    def _values(self, fields, coefficients):
        return (self._score(fields) * self.factor).sum()

    def _scales(self, fields, coefficients):
        parts = self.between(fields, coefficients)
        return sum((self._score(part) * self.factor).sum() for part in parts) / len(parts)

    def between(self, fields: Tensor, coefficients: Tensor) -> list[Tensor]:
        """Fields as the sum of those between the cuts; the last holds what is beyond them all."""
        parts, below = [], 0.0
        for cut in self.options.cuts:
            kept = coefficients.clone()
            kept[cut + 1 :] = 0
            smooth = self._fields(kept)
            parts.append(smooth - below)
            below = smooth
        return [*parts, fields - below]

    def _fields(self, coefficients: Tensor) -> Tensor:
        return self.transform.synthesis(coefficients).permute(2, 3, 4, 0, 1)

    def _gradients(self, fields, coefficients):
        length = 1e3 * self.options.gradient_km / ERA5.earth_radius
        both = self.gradient.synthesis(length * coefficients, torch.zeros_like(coefficients))
        return sum((self._score(part.permute(2, 3, 4, 0, 1)) * self.factor).sum() for part in both) / 2

    def _spectral(self, fields, coefficients):
        scores = self._score((coefficients * self.size).movedim(3, 0))  # (l, m, 2, sample, channel)
        return (scores.sum((1, 2, 3)) * self.rarity[:, None] * self.channel).sum()

    def _degrees(self, fields, coefficients):
        members, alpha = self.options.members, self.options.alpha
        values = (coefficients * self.size).movedim(3, 0)

        def norm(difference):  # (l, m, 2, sample, channel) to (l, sample, channel)
            return difference.square().sum((-4, -3)).clamp(min=1e-24).sqrt()

        skill = sum(norm(values[i] - values[-1]) for i in range(members)) / members
        apart = sum(norm(values[i] - values[j]) for i in range(members) for j in range(i))
        apart = apart / (members * (members - 1)) * spread_share(members, alpha)
        return ((skill - apart) * self.channel).sum()


@loss("mixed_crps", MixedOptions)
def mixed_crps(options, weighted):
    return MixedError(weighted.error("l1"), options, weighted.grid)
