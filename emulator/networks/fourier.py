"""Fourier expansions of single numbers, such as a pressure or an angle: sines and cosines at many wavelengths at once.

As in Aurora (Bodnar et al. 2025, arXiv 2405.13063): wavelengths are spaced evenly in their logarithm between the smallest and
the largest scale that may matter.
"""

import math

import torch


def wavelengths(shortest: float, longest: float, count: int, device: torch.device | None = None) -> torch.Tensor:
    """From the shortest to the longest, evenly in their logarithm, `(count,)` float64."""
    return torch.logspace(math.log10(shortest), math.log10(longest), count, dtype=torch.float64, device=device)


def harmonics(shortest: float, period: float, count: int, device: torch.device | None = None) -> torch.Tensor:
    """As `wavelengths`, each moved to the nearest whole fraction of a period, so that nothing jumps where it starts again."""
    return period / (period / wavelengths(shortest, period, count, device)).round()


def expand(values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Sines, then cosines of `2 pi values / lengths`: `(...)` and `(count,)` to `(..., 2 count)` float64.

    Float64, since the shortest wavelengths are many orders below the values.
    """
    angle = values.double()[..., None] * (2 * math.pi / lengths)
    return torch.cat([angle.sin(), angle.cos()], -1)
