"""A region's share of the loss: weights of cells by which it has that share, whatever its number of cells and area."""

import logging
from collections.abc import Sequence

import numpy as np

from emulator.losses.options import RegionWeight
from emulator.planet.grid import Grid
from emulator.planet.regions import REGIONS, Region

log = logging.getLogger(__name__)


def with_share(grid: Grid, weight: RegionWeight) -> np.ndarray:
    """Shares of the cells of the grid's shape, summing to 1, of which those of a region have what is asked for.

    Within the region and outside cells count by area. Raises `ValueError` for an unknown region, one of land alone, and one
    that has no cell of the grid or all.
    """
    return _shared(grid.area, _inside(grid, weight), weight.share)


def with_share_of_each(grid: Grid, weight: RegionWeight, exists: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """`with_share` for each of some channels among the cells where it is, `(channel, *space)`.

    A channel that has cells on one side alone counts by area, which the log says; one that is nowhere has no weight.

    Args:
      exists: where each channel is, `(channel, *space)` boolean. names: of the channels, for messages.
    Raises `ValueError` as `with_share`, and where no channel has cells both within the region and outside.
    """
    inside, found = _inside(grid, weight), np.empty(exists.shape)
    known: dict[bytes, int] = {}  # channels by their masks, of which many have the same
    for n, mask in enumerate(exists):
        like = known.setdefault(np.packbits(mask).tobytes(), n)
        found[n] = _shared(grid.area * mask, inside, weight.share) if like == n else found[like]
    within, beyond = ((exists & cells).any(tuple(range(1, exists.ndim))) for cells in (inside, ~inside))
    if not (within & beyond).any():
        raise ValueError(
            f"Expected a region in region_weight ({weight.name or list(weight.box)}) where some of the fields are that are "
            f"outside it too, got fields {'in it alone' if within.any() else 'outside alone'}"
        )
    if (within ^ beyond).any():
        one_sided = ", ".join(name for name, one in zip(names, within ^ beyond, strict=True) if one)
        log.warning("region_weight does not change what the cells of %s count: they are on one side alone", one_sided)
    return found


def _inside(grid: Grid, weight: RegionWeight) -> np.ndarray:
    """Which cells are the region's, of the grid's shape, boolean."""
    region = Region((weight.box,)) if weight.name is None else REGIONS.get(weight.name)
    if region is None or region.land:
        names = [name for name, known in REGIONS.items() if not known.land]
        raise ValueError(f"Expected a region in region_weight among {', '.join(names)}, got {weight.name!r}")
    inside = region.contains(*grid.mesh())
    if inside.all() or not inside.any():
        raise ValueError(
            f"Expected a region in region_weight with some of the cells of {grid.describe()}, got "
            f"{'all' if inside.all() else 'none'}"
        )
    return inside


def _shared(area: np.ndarray, inside: np.ndarray, share: float) -> np.ndarray:
    """Weights by area that sum to `share` inside and to 1 in all; on one side alone they sum to 1 there."""
    own, rest = area[inside].sum(), area[~inside].sum()
    if own > 0 and rest > 0:
        return np.where(inside, area * (share / own), area * ((1 - share) / rest))
    return area / (own + rest) if own + rest > 0 else area
