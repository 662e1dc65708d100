"""Means of the cells of a coarse grid over the fields of a fine one, and the smallest change of a field that sets them.

With cells that are rectangles in longitude and the sine of latitude the means are `R F C^T`, one small matrix along each axis
(`emulator.sphere.regrid`, conservative). Of all fields with given means the one nearest to `F` in the area-weighted square is
`F + U (means - R F C^T) V^T` with `U = H^-1 R^T (R H^-1 R^T)^-1`, `H` the heights of the fine rows, and `V` likewise of
columns: weights and means are both products of a row's and a column's, and so is the projection. Where grids nest it adds to
every fine cell what its coarse cell lacks.
"""

import dataclasses
import functools

import numpy as np

from emulator.planet.coordinates import column_edges
from emulator.planet.grid import Grid, row_edges
from emulator.sphere.regrid import overlap_columns, overlap_rows

WHOLE = 1 - 1e-9  # share of a coarse cell that must lie on the fine grid for its mean to be one
MOST_CONDITION = 1e8  # of the matrices that are inverted: beyond it rounding would be seen in the means


@dataclasses.dataclass(frozen=True, eq=False)
class CellMeans:
    """From a fine grid to the coarse cells that lie on it as a whole.

    Attributes:
      rows, columns: means along an axis, `(coarse, fine)` float64, of these cells alone; each row sums to 1.
      at: slices of the coarse grid's rows and columns which these are.
      heights, widths: of the fine cells, `(fine row,)` and `(fine column,)`, whose products are areas.
      sizes: the same of the coarse cells.
    """

    rows: np.ndarray
    columns: np.ndarray
    at: tuple[slice, slice]
    heights: np.ndarray
    widths: np.ndarray
    sizes: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, fine: Grid, coarse: Grid) -> "CellMeans":
        """Raises `ValueError` for points and maps, for grids without a common cell, and for a grid that is not finer."""
        for grid in (fine, coarse):
            if not grid.has_rows:
                raise ValueError(
                    f"Expected grids of latitudes and longitudes for means of cells, got {grid.describe()}"
                )
        axes = overlap_rows(fine, coarse), overlap_columns(fine, coarse)
        inside = [np.flatnonzero(matrix.sum(axis=1) >= WHOLE) for matrix in axes]
        if not all(map(len, inside)):
            raise ValueError(
                f"Expected a coarse grid with cells on the fine one, {fine.describe()}, got {coarse.describe()}"
            )
        if any(len(found) > matrix.shape[1] for found, matrix in zip(inside, axes, strict=True)):
            raise ValueError(f"Expected a fine grid of cells below those of {coarse.describe()}, got {fine.describe()}")
        at = tuple(slice(int(found[0]), int(found[-1]) + 1) for found in inside)
        sizes, larger = _sizes(fine), [own[part] for own, part in zip(_sizes(coarse), at, strict=True)]
        found = cls(*(matrix[part] for matrix, part in zip(axes, at, strict=True)), at, *sizes, tuple(larger))
        condition = max(np.linalg.cond(gram) for gram in found._grams)
        if condition > MOST_CONDITION:
            raise ValueError(
                f"Expected a fine grid whose cells tell the means of {coarse.describe()} apart, got {fine.describe()}"
            )
        return found

    def __call__(self, fields: np.ndarray) -> np.ndarray:
        """Fields `(..., *fine)` -> means `(..., coarse row, coarse column)`, float64."""
        return self.rows @ np.asarray(fields, np.float64) @ self.columns.T

    def part(self, coarse: np.ndarray) -> np.ndarray:
        """Of fields `(..., *coarse)` the cells whose means these are."""
        return coarse[..., self.at[0], self.at[1]]

    @property
    def _grams(self) -> tuple[np.ndarray, np.ndarray]:
        return (self.rows / self.heights) @ self.rows.T, (self.columns / self.widths) @ self.columns.T

    @functools.cached_property
    def lifts(self) -> tuple[np.ndarray, np.ndarray]:
        """`U` and `V` of the smallest change, `(fine, coarse)` each."""
        rows, columns = self._grams
        return (
            np.linalg.solve(rows, self.rows / self.heights).T,
            np.linalg.solve(columns, self.columns / self.widths).T,
        )

    @functools.cached_property
    def shares(self) -> tuple[np.ndarray, np.ndarray]:
        """Shares of the fine rows and columns that lie in each coarse one, `(fine, coarse)`, at most 1 in all."""
        pairs = (self.rows, self.sizes[0], self.heights), (self.columns, self.sizes[1], self.widths)
        rows, columns = ((matrix * coarse[:, None] / fine).T for matrix, coarse, fine in pairs)
        return rows, columns


def _sizes(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Heights of the rows, differences of sines, and widths of the columns in degrees."""
    return -np.diff(row_edges(grid.latitude)), np.diff(column_edges(grid.longitude))
