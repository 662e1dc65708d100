"""Networks whose inner blocks may work on a coarser grid: sizes and common degrees of transforms, blocks, and their noise."""

from collections.abc import Callable

import torch
from torch import nn

from emulator.options import Options
from emulator.sphere.tables import truncation
from emulator.sphere.transform import SphericalTransform

Sizes = tuple[int, int, str, bool, int]  # rows, columns, kind, poles and degrees, as a transform takes them


def outer_and_inner(
    nlat: int, nlon: int, grid: str, poles: bool, scale: float, share: float | None
) -> tuple[Sizes, Sizes]:
    """Sizes of the transforms on the outer and the inner grid, with a common truncation; a coarser grid is Gaussian.

    `scale`: how much coarser the inner grid is. `share`: of its degrees to keep; None for all that the quadratures resolve.
    Raises `ValueError` where no degree is left.
    """
    inner_nlat, inner_nlon = int((nlat - 1) // scale) + 1, int(nlon // scale)
    lmax = min(inner_nlat, inner_nlon // 2)
    lmax = min(lmax, truncation(nlat, nlon, grid)) if share is None else int(lmax * share)
    if lmax < 1:
        raise ValueError(
            f"Expected a scale_factor and a truncation that leave a degree, got {scale} and {share} for "
            f"{nlat} x {nlon} cells"
        )
    outer = nlat, nlon, grid, poles, lmax
    return outer, outer if scale == 1 else (inner_nlat, inner_nlon, "gaussian", False, lmax)


def blocks_between(
    block: Callable[..., nn.Module], outer: nn.Module, inner: nn.Module, options: Options
) -> nn.ModuleList:
    """As many as `options.blocks`: the first from the outer grid, the last to it, all else on the inner one.

    Args:
      block: makes one, of the transforms that it begins and ends with, the options and its probability to be skipped.
      outer, inner: transforms. options: with `drop_path`, that of the last block, growing from 0 at the first.
    """
    last = options.blocks - 1
    return nn.ModuleList(
        block(outer if n == 0 else inner, outer if n == last else inner, options, options.drop_path * n / max(last, 1))
        for n in range(options.blocks)
    )


def noise_of_blocks(
    noise: torch.Tensor | None, outer: SphericalTransform, inner: SphericalTransform, count: int
) -> list[torch.Tensor | None]:
    """Of `(batch, field, nlat, nlon)` for each of `count` blocks `(cell, batch, field)` on the grid that it ends on."""
    if noise is None:
        return [None] * count
    fine = outer.from_maps(noise)
    coarse = fine if inner is outer else inner.synthesise(outer.analyse(fine))
    return [coarse] * (count - 1) + [fine]
