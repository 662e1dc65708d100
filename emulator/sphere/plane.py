"""Places of a region in a plane: those of its map, or of Lambert's azimuthal equal-area map about its middle."""

import numpy as np

from emulator.planet.grid import Grid
from emulator.planet.projection import from_sphere, mapping_name
from emulator.sphere.icosphere import local_frame
from emulator.sphere.mesh import directions

FARTHEST = (
    100.0  # degrees from the middle of a region: beyond, the map draws out circles to 1.56 of their width and more
)


def places(grid: Grid, *others: Grid) -> list[np.ndarray]:
    """`x` and `y` of the cells of a region and of other places around it, each `(cell, 2)`; all in one unit.

    In metres (degrees of a rotated pole) where the grid has a map, else in radii of the sphere. Raises `ValueError` for a
    globe, for a region that reaches too far from its middle, and for places that its map does not show.
    """
    if grid.kind == "projected":
        x, y = np.meshgrid(grid.x, grid.y)
        found = [(x, y), *(from_sphere(grid.mapping, *other.mesh()) for other in others)]
        found = [np.stack([np.ravel(x), np.ravel(y)], 1).astype(np.float64) for x, y in found]
        if not all(np.isfinite(each).all() for each in found):
            raise ValueError(f"Expected places that the map of {mapping_name(grid.mapping)} shows, got others")
        return found
    points = [directions(each) for each in (grid, *others)]
    middle = np.average(points[0], axis=0, weights=grid.area.ravel())
    middle /= max(float(np.linalg.norm(middle)), 1e-12)
    farthest = np.degrees(np.arccos(np.clip(min((each @ middle).min() for each in points), -1, 1)))
    if grid.is_global() or farthest > FARTHEST:
        raise ValueError(
            f"Expected a region within {FARTHEST:g} degrees of its middle for a mesh in the plane, got "
            f"{grid.describe()}" + ("" if grid.is_global() else f", with places {farthest:.0f} degrees from it")
        )
    _, east, north = local_frame(middle[None])[0]
    return [np.sqrt(2 / (1 + each @ middle))[:, None] * (each @ np.stack([east, north], 1)) for each in points]


def spacing(grid: Grid, cells: np.ndarray) -> float:
    """Distance between neighbouring cells, of the unit of `cells`, the grid's `places`."""
    if grid.kind == "projected":
        return float(np.sqrt(np.abs(np.diff(grid.x)).mean() * np.abs(np.diff(grid.y)).mean()))
    area = 4 * np.pi * grid.share
    if np.isnan(area):
        area = float(np.prod(np.ptp(cells, axis=0)))
    return float(np.sqrt(area / len(cells)))
