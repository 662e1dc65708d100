"""From the cells of a grid to points: which cells count for a point and how much, bilinear or by the nearest."""

from typing import NamedTuple

import numpy as np

from emulator.planet.cell_areas import unit_vectors
from emulator.planet.grid import Grid
from emulator.planet.projection import from_sphere

EXACT = 1e-9  # share of a cell, below which a place is a cell's centre
FAR = 2.0  # cells: a place farther from the nearest of a list of points is not covered by it


class Corners(NamedTuple):
    """Cells that count for points.

    Attributes:
      index: into the flat grid, `(corner, point)`.
      weight: of each, `(corner, point)`; they sum to 1 over the corners.
      beyond: whether a corner lies beyond a pole, `(corner, point)`: there the components of a vector change their sign.
    """

    index: np.ndarray
    weight: np.ndarray
    beyond: np.ndarray


def nearest(grid: Grid, latitude, longitude) -> Corners:
    """The cell whose centre is nearest on the sphere, of points in degrees, `(point,)` each; one corner."""
    there = unit_vectors(*(a.ravel() for a in grid.mesh()))
    here = unit_vectors(latitude, longitude)
    index = np.array([np.argmax(there @ point) for point in here], np.int64)[None]
    return Corners(index, np.ones(index.shape), np.zeros(index.shape, bool))


def bilinear(grid: Grid, latitude, longitude, over_poles: bool = False) -> Corners:
    """The four cells around each point `(point,)` in degrees; longitudes wrap where rows go round.

    Args:
      over_poles: a point between a pole and the outermost row lies between that row and the same row half a turn away, on the
        other side of the pole; else it takes the outermost row as it is.
    Raises `ValueError` for a list of points, which has no rows and columns.
    """
    if grid.is_points:
        raise ValueError(f"Expected rows and columns for bilinear interpolation, got {grid.describe()}; take nearest")
    rows, columns, north, east = _along_axes(grid, latitude, longitude)
    source, turned = np.arange(len(rows)), np.zeros(len(rows), bool)
    if over_poles and grid.goes_round and grid.is_global():
        poles = [side for side, row in ((0, rows[0]), (1, rows[-1])) if abs(row) < 90]
        rows, source, turned = _with_mirrored(rows, source, turned, poles)
    lower = np.clip(np.searchsorted(-rows, -north), 1, len(rows) - 1)
    share = np.clip((rows[lower - 1] - north) / (rows[lower - 1] - rows[lower]), 0, 1)
    index, weight, beyond = [], [], []
    for row, part in ((lower - 1, 1 - share), (lower, share)):
        place = np.where(turned[row], (east - columns[0] + 180) % 360 + columns[0], east)
        west, after, along = _columns(grid, columns, place)
        index += [source[row] * len(columns) + west, source[row] * len(columns) + after]
        weight += [part * (1 - along), part * along]
        beyond += [turned[row]] * 2
    return Corners(np.stack(index), np.stack(weight), np.stack(beyond))


def _with_mirrored(rows, source, turned, poles):
    """Rows with the outermost ones again beyond the poles (0: north, 1: south), which row each is, and whether turned."""
    for pole in poles:
        end, where = (0, 0) if pole == 0 else (-1, len(rows))
        rows = np.insert(rows, where, np.sign(rows[end]) * 180 - rows[end])
        source, turned = np.insert(source, where, source[end]), np.insert(turned, where, True)
    return rows, source, turned


def within(grid: Grid, latitude, longitude) -> np.ndarray:
    """Which points lie on a globe, or no further than half a cell outside a box or a map, `(point,)` bool."""
    if grid.is_global() or grid.is_points:
        return np.ones(np.shape(latitude), bool)
    rows, columns, north, east = _along_axes(grid, latitude, longitude)
    steps = [np.abs(np.diff(axis)).max() / 2 for axis in (rows, columns)]
    inside = (north <= rows[0] + steps[0]) & (north >= rows[-1] - steps[0])
    if not grid.goes_round:
        inside &= (east >= columns[0] - steps[1]) & (east <= columns[-1] + steps[1])
    return inside


def to_grid(grid: Grid, places: Grid) -> tuple[Corners, np.ndarray]:
    """From the cells of a grid to those of another, and which of these it covers, `(cell,)`.

    Bilinear, of a list of points the nearest. A cell at the centre of another takes that one alone, bit for bit.
    """
    latitude, longitude = (np.broadcast_to(a, places.shape).ravel() for a in places.mesh())
    if grid.is_points:
        corners = nearest(grid, latitude, longitude)
        return corners, _near(grid, corners.index[0], latitude, longitude)
    corners = bilinear(grid, latitude, longitude)
    weight = np.where(corners.weight < EXACT, 0.0, np.where(corners.weight > 1 - EXACT, 1.0, corners.weight))
    return corners._replace(weight=weight), within(grid, latitude, longitude)


def interpolated(values: np.ndarray, corners: Corners) -> np.ndarray:
    """Fields on a flat grid at places, `(..., cell)` to `(..., place)` float64."""
    return sum(values[..., i].astype(np.float64) * w for i, w in zip(corners.index, corners.weight, strict=True))


def _near(grid: Grid, index: np.ndarray, latitude, longitude) -> np.ndarray:
    """Which places lie within `FAR` cells of the point of a list that is nearest to each."""
    apart = np.linalg.norm(
        unit_vectors(latitude, longitude) - unit_vectors(grid.latitude[index], grid.longitude[index]), axis=-1
    )
    return apart <= FAR * np.sqrt(4 * np.pi * grid.cell_area[index])


def _columns(grid: Grid, columns, east):
    """Columns west and east of each point, and how far along from one to the other it lies."""
    last = len(columns) - (0 if grid.goes_round else 1)
    edges = np.concatenate([columns, [columns[0] + 360]]) if grid.goes_round else columns
    west = np.clip(np.searchsorted(edges, east, side="right") - 1, 0, last - 1)
    along = np.clip((east - edges[west]) / (edges[west + 1] - edges[west]), 0, 1)
    return west, (west + 1) % len(columns), along


def _along_axes(grid: Grid, latitude, longitude):
    """Decreasing coordinates of the rows, increasing ones of the columns, and those of the points."""
    if grid.kind == "projected":
        x, y = from_sphere(grid.mapping, latitude, longitude)
        return grid.y, grid.x, y, x
    columns, half = grid.longitude, np.diff(grid.longitude).mean() / 2
    first = columns[0] - (0 if grid.goes_round else half)  # a point half a cell west of a box is not a turn east of it
    return grid.latitude, columns, latitude, (longitude - first) % 360 + first
