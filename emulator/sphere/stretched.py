"""Which cells of a stretched grid are its fine ones: by their sides, since area alone takes cells near a pole for fine."""

import numpy as np

from emulator.planet.cell_areas import unit_vectors
from emulator.planet.grid import Grid
from emulator.sphere.icosphere import within

ALIKE = 2.0  # areas of cells that a distance is taken between differ by less: fine cells beside coarse ones are none
REACH = 2.0  # roots of the area, within which the next such cell is looked for
COARSE = 0.9  # of the globe's area has at most the side that counts as the coarse one: a region may be as large
RATIO = 1.4  # of the sides of coarse and fine cells at least; of square cells, twice the area
FEWEST = 9  # cells of a region; a station given twice makes a few small ones anywhere


def fine_cells(grid: Grid) -> np.ndarray:
    """Which cells of a stretched grid are its fine ones: those whose longer side is below the geometric mean of both kinds'.

    The coarse side is the shorter one of coarse cells, so that cells of one globe that are longer here than there are not two
    kinds; the fine one is the median of the cells that are finer than that, so that a few small cells do not set it.
    `(cell,)` boolean. Raises `ValueError` where all cells are about as far apart.
    """
    (shorter, longer), area = sides(grid), grid.cell_area.ravel()
    order = np.argsort(shorter)
    whole = np.cumsum(area[order])
    coarse = shorter[order][np.searchsorted(whole, COARSE * whole[-1])]
    finer = longer[longer * RATIO < coarse]
    if len(finer) < FEWEST:
        raise ValueError(
            f"Expected a stretched grid, of coarse and fine cells, for a mesh that is finer inside, got {grid.describe()}, "
            "whose cells are all about as large"
        )
    return longer < np.sqrt(coarse * np.median(finer))


def sides(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """The shorter and the longer side of every cell, as a rectangle of its area; one is the distance to the next cell alike.

    `(cell,)` each, radians. Cells at one place, as those of a row at a pole, are one. Where no cell alike is
    near, both are the root of the area.
    """
    points = unit_vectors(*(np.ravel(angle) for angle in grid.mesh()))
    _, first, place = np.unique(np.round(points, 9), axis=0, return_index=True, return_inverse=True)
    place = place.ravel()
    points, area = points[first], 4 * np.pi * np.bincount(place, grid.cell_area.ravel())
    nearest = np.full(len(points), np.inf)
    octave = np.floor(np.log2(area / area.min())).astype(int)
    for n in np.unique(octave):  # cells of about one size have one reach
        own, near = np.flatnonzero(octave == n), np.flatnonzero(np.abs(octave - n) <= 1)
        one, other = within(points[own], points[near], REACH * np.sqrt(area[own].max()))
        one, other = own[one], near[other]
        alike = (one != other) & (np.abs(np.log(area[one] / area[other])) < np.log(ALIKE))
        one, other = one[alike], other[alike]
        np.minimum.at(nearest, one, np.linalg.norm(points[one] - points[other], axis=1))
    side = np.sqrt(area)
    nearest = np.where(nearest < REACH * side, nearest, side)
    return np.minimum(nearest, area / nearest)[place], np.maximum(nearest, area / nearest)[place]
