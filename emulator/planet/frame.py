"""The frame around a limited area, at whose cells the state of the air outside is given.

A frame lies outside the domain, whose rows and columns go on beyond it, or inside, as the domain's own outermost cells (the
boundary of Neural-LAM). Where the rows of a domain go round the sphere it has a north and a south side alone.
"""

import dataclasses
import math

import numpy as np

from emulator.planet.coordinates import contiguous
from emulator.planet.grid import Grid


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """Cells of a frame `width` cells wide, in the order of rows.

    Attributes:
      domain: the limited area. whole: the domain with a frame outside; the domain itself with one inside.
      rows, columns: where the domain lies in the whole.
      index: of the frame's cells in the flat whole, `(point,)`.
      points: the frame's cells as a list.
    """

    domain: Grid
    whole: Grid
    rows: slice
    columns: slice
    index: np.ndarray
    points: Grid

    @classmethod
    def of(cls, domain: Grid, width: int, inside: bool = False) -> "Frame":
        """Raises `ValueError` for a globe, for points, which have no sides, and for a frame that does not fit."""
        if domain.is_global() or domain.is_points:
            raise ValueError(f"Expected a box or a map, which have sides, for a boundary, got {domain.describe()}")
        columns = 0 if domain.goes_round else width
        if inside:
            whole, rows, along = domain, slice(0, domain.shape[0]), slice(0, domain.shape[1])
            outer = ~_inner(domain.shape, width, columns)
            if outer.all():
                raise ValueError(
                    f"Expected a domain with cells inside a frame of {width}, got {domain.shape[0]} x {domain.shape[1]}"
                )
        else:
            whole = _extended(domain, width, columns)
            rows, along = (slice(n, n + size) for n, size in zip((width, columns), domain.shape, strict=True))
            outer = np.ones(whole.shape, bool)
            outer[rows, along] = False
        index = np.flatnonzero(outer)
        latitude, longitude = (places.ravel()[index] for places in whole.mesh())
        points = Grid.points(latitude, longitude, whole.cell_area.ravel()[index])
        return cls(domain, whole, rows, along, index, points)

    @property
    def is_inside(self) -> bool:
        """Whether the frame's cells are the domain's own."""
        return self.whole is self.domain

    @property
    def interior(self) -> np.ndarray:
        """Which cells of the domain the frame leaves, of the domain's shape, bool."""
        free = np.ones(self.domain.shape, bool)
        if self.is_inside:
            free.ravel()[self.index] = False
        return free


def part_of(domain: Grid, rows: slice, columns: slice) -> Grid:
    """Some of the rows and columns of a box or a map, two or more of each."""
    if domain.kind == "projected":
        return Grid.projected(domain.x[columns], domain.y[rows], domain.mapping)
    return Grid.from_coordinates(domain.latitude[rows], domain.longitude[columns])


def cells_to_border(grid: Grid) -> np.ndarray:
    """How many cells lie between each cell of a box or a map and the nearest side, of the grid's shape: 0 at the side."""
    nearest = [np.minimum(np.arange(size), np.arange(size)[::-1]) for size in grid.shape]
    rows = np.broadcast_to(nearest[0][:, None], grid.shape)
    return rows.copy() if grid.goes_round else np.minimum(rows, nearest[1])


def cells_over(grid: Grid, degrees: float) -> int:
    """Cells that a frame of a width in degrees needs, of a box's rows or a map's spacing on the sphere; at least 1."""
    latitude, _ = grid.mesh()
    if grid.has_rows:
        spacing = float(np.abs(np.diff(grid.latitude)).mean())
    else:
        middle = grid.shape[1] // 2
        spacing = float(np.hypot(*np.gradient(latitude[:, middle - 1 : middle + 1])).mean())
    return max(1, math.ceil(degrees / spacing - 1e-6))


def _inner(shape: tuple[int, ...], rows: int, columns: int) -> np.ndarray:
    inner = np.zeros(shape, bool)
    inner[rows : shape[0] - rows, columns : shape[1] - columns] = True
    return inner


def _extended(domain: Grid, rows: int, columns: int) -> Grid:
    """A box or a map that goes on by so many rows and columns on each side, as far apart as its outermost ones."""
    if domain.kind == "projected":
        return Grid.projected(_longer(domain.x, columns), _longer(domain.y, rows), domain.mapping)
    latitude, longitude = _longer(domain.latitude, rows), _longer(domain.longitude, columns)
    if np.abs(latitude).max() > 90:
        raise ValueError(
            f"Expected a boundary that ends before the poles, one of {rows} rows outside {domain.describe()} does not; make "
            "it narrower, or the domain smaller"
        )
    if longitude[-1] - longitude[0] + (longitude[1] - longitude[0]) > 360:
        raise ValueError(
            f"Expected a boundary whose sides do not meet, one of {columns} columns outside {domain.describe()} goes round; "
            "make it narrower, or the domain smaller or a whole zone"
        )
    return Grid.from_coordinates(latitude, contiguous(longitude)[1])


def _longer(values: np.ndarray, cells: int) -> np.ndarray:
    if not cells:
        return values
    before = values[0] - (values[1] - values[0]) * np.arange(cells, 0, -1)
    return np.concatenate([before, values, values[-1] + (values[-1] - values[-2]) * np.arange(1, cells + 1)])
