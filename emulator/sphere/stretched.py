"""Which cells of a stretched grid are its fine ones: by their spacing, since area alone takes cells near a pole for fine."""

import numpy as np

from emulator.planet.cell_areas import unit_vectors
from emulator.planet.grid import Grid
from emulator.sphere.icosphere import within

ALIKE = 2.0  # areas of cells that a spacing is taken between differ by less: fine cells beside coarse ones are none
REACH = 2.0  # roots of the area, within which the next such cell is looked for
COARSE = 0.9  # of the globe's area has at most the spacing that counts as the coarse one: a region may be as large
RATIO = 1.4  # of the spacings of coarse and fine cells at least; of square cells, twice the area


def fine_cells(grid: Grid) -> np.ndarray:
    """Which cells of a stretched grid are its fine ones: those with a spacing below the geometric mean of both kinds'.

    `(cell,)` boolean. Raises `ValueError` where all cells are about as far apart.
    """
    spacing, area = spacings(grid), grid.cell_area.ravel()
    order = np.argsort(spacing)
    whole = np.cumsum(area[order])
    coarse, fine = spacing[order][np.searchsorted(whole, COARSE * whole[-1])], spacing.min()
    if coarse < RATIO * fine:
        raise ValueError(
            f"Expected a stretched grid, of coarse and fine cells, for a mesh that is finer inside, got {grid.describe()}, "
            "whose cells are all about as large"
        )
    return spacing < np.sqrt(coarse * fine)


def spacings(grid: Grid) -> np.ndarray:
    """The longer side of every cell, as a rectangle of its area with the distance to the next cell alike as one side.

    `(cell,)`, radians. Cells at one place, as those of a row at a pole, are one. Where no cell alike is
    near, the root of the area.
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
    return np.maximum(nearest, area / nearest)[place]
