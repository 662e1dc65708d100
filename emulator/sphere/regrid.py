"""Fields from one latitude-longitude or Gaussian grid to another, conservative or bilinear, with missing values.

Cells of such grids are rectangles in longitude and the sine of latitude, so either method is one sparse matrix along each
axis, of a few weights a row. Conservative is first order (Jones 1999, "First- and second-order conservative remapping
schemes for grids in spherical coordinates"): every target cell takes the mean over what it covers, with the very areas of
`Grid`, so the global integral is kept to rounding. Components of the wind are treated as scalars.
"""

import dataclasses
from typing import Literal

import numpy as np

from emulator.planet.coordinates import closes, column_edges
from emulator.planet.grid import Grid, row_edges

Method = Literal["conservative", "bilinear"]
MINIMUM_SHARE = 0.5  # of a target cell (or of a point's weights) that must have values, for it to have one


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """A sparse matrix along one axis: `index` and `weight` are `(target, k)`; rows of fewer than k entries end in zeros."""

    index: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, dense: np.ndarray) -> "Weights":
        """The non-zero entries of a matrix `(target, source)`."""
        count = max(1, int((dense != 0).sum(axis=1).max()))
        index = np.argsort(dense == 0, axis=1, kind="stable")[:, :count]
        return cls(index.astype(np.int32), np.take_along_axis(dense, index, axis=1))

    def apply(self, values: np.ndarray, axis: int) -> np.ndarray:
        """The product along an axis of float64 `values`."""
        shape = [1] * values.ndim
        shape[axis] = -1
        total = 0.0
        for index, weight in zip(self.index.T, self.weight.T, strict=True):
            total = total + np.take(values, index, axis=axis) * weight.reshape(shape)
        return total


class Regridder:
    """From a grid to another.

    Args:
      source, target: global or regional grids with rows and columns.
      method: "conservative" or "bilinear".

    Raises `ValueError` for point grids, and for a source that does not cover the target.
    """

    def __init__(self, source: Grid, target: Grid, method: Method = "conservative"):
        for grid in (source, target):
            if not grid.has_rows:
                raise ValueError(f"Expected a grid of rows and columns to regrid, got {grid.describe()}")
        self.source_shape, self.target_shape = (
            source.shape,
            target.shape,
        )  # and not the grids, whose areas are large to send
        self._poles = method == "bilinear" and source.is_global() and abs(source.latitude[0]) < 90 - 1e-6
        make = {"conservative": (overlap_rows, overlap_columns), "bilinear": (_linear_rows, _linear_columns)}[method]
        rows, columns = make[0](source, target, self._poles), make[1](source, target)
        for name, matrix in (("latitudes", rows), ("longitudes", columns)):
            if matrix.sum(axis=1).min() < MINIMUM_SHARE:
                raise ValueError(
                    f"Expected a source that covers the {name} of {target.describe()}, got {source.describe()}"
                )
        self._rows, self._columns = Weights.of(rows), Weights.of(columns)

    def __call__(self, values: np.ndarray, minimum_share: float = MINIMUM_SHARE) -> np.ndarray:
        """`(..., *source_shape)` -> `(..., *target_shape)`, float64.

        Missing values (NaN) are left out: a target cell is the mean of what has values in it, and missing where that is
        less than `minimum_share` of it. An infinite value is no missing one: the cells that it is part of become infinite.
        """
        values = np.asarray(values, np.float64)
        if values.shape[-2:] != self.source_shape:
            raise ValueError(f"Expected fields of {self.source_shape} to regrid, got {values.shape}")
        good = np.isfinite(values)
        if good.all() and self._complete:
            return self._apply(values)
        share = self._apply(good.astype(np.float64))
        with np.errstate(invalid="ignore", divide="ignore"):
            means = self._apply(np.where(good, values, 0.0)) / share
        means = np.where(share >= max(minimum_share, 1e-12) - 1e-9, means, np.nan)
        infinite = np.isinf(values)
        return np.where(self._apply(infinite.astype(np.float64)) > 0, np.inf, means) if infinite.any() else means

    @property
    def _complete(self) -> bool:
        return all(abs(w.weight.sum(axis=1) - 1).max() < 1e-9 for w in (self._rows, self._columns))

    def _apply(self, values):
        if self._poles:
            ends = [values[..., row : row + 1, :].mean(axis=-1, keepdims=True) for row in (0, values.shape[-2] - 1)]
            ends = [np.broadcast_to(end, (*values.shape[:-2], 1, values.shape[-1])) for end in ends]
            values = np.concatenate([ends[0], values, ends[1]], axis=-2)
        if self.target_shape[0] <= self.source_shape[0]:
            return self._columns.apply(self._rows.apply(values, -2), -1)
        return self._rows.apply(self._columns.apply(values, -1), -2)


def _overlap(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Lengths of the overlaps of intervals between increasing edges: `(target, source)`."""
    low = np.maximum(target[:-1, None], source[None, :-1])
    high = np.minimum(target[1:, None], source[None, 1:])
    return np.maximum(high - low, 0.0)


def overlap_rows(source: Grid, target: Grid, poles: bool = False) -> np.ndarray:
    """Shares of the target's rows, by area, that lie in each of the source's: `(target, source)`, whatever `poles`."""
    there, here = -row_edges(source.latitude), -row_edges(target.latitude)  # increasing southwards
    return _cleaned(_overlap(there, here) / np.diff(here)[:, None])


def overlap_columns(source: Grid, target: Grid) -> np.ndarray:
    """Shares of the target's columns that lie in each of the source's: `(target, source)`."""
    here = column_edges(target.longitude)
    there = column_edges(source.longitude)
    total = sum(_overlap(there + turn, here) for turn in (-360.0, 0.0, 360.0))
    return _cleaned(total / np.diff(here)[:, None])


def _cleaned(matrix: np.ndarray) -> np.ndarray:
    """Without the slivers that rounding leaves between edges that coincide."""
    return np.where(matrix < 1e-13, 0.0, matrix)


def _linear(points: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Weights of linear interpolation between increasing points; none beyond half a spacing outside, constant within."""
    matrix = np.zeros((len(wanted), len(points)))
    inside = (wanted >= 1.5 * points[0] - points[1] / 2 - 1e-9) & (wanted <= 1.5 * points[-1] - points[-2] / 2 + 1e-9)
    at = np.clip(np.searchsorted(points, wanted, side="right") - 1, 0, len(points) - 2)
    share = np.clip((wanted - points[at]) / (points[at + 1] - points[at]), 0.0, 1.0)
    row = np.arange(len(wanted))
    matrix[row, at] += (1 - share) * inside
    matrix[row, at + 1] += share * inside
    return matrix


def _linear_rows(source, target, poles) -> np.ndarray:
    latitude = np.concatenate([[90.0], source.latitude, [-90.0]]) if poles else source.latitude
    return _linear(-latitude, -target.latitude)


def _linear_columns(source, target) -> np.ndarray:
    longitude, wanted, count = source.longitude, target.longitude, len(source.longitude)
    if not closes(source.longitude):
        return _linear(longitude, wanted + 360 * np.round((longitude[[0, -1]].mean() - wanted[[0, -1]].mean()) / 360))
    beyond = np.concatenate([longitude[-1:] - 360, longitude, longitude[:1] + 360])
    wanted = np.where(wanted < beyond[0], wanted + 360, np.where(wanted > beyond[-1], wanted - 360, wanted))
    around = _linear(beyond, wanted)
    matrix = around[:, 1 : count + 1].copy()
    matrix[:, -1] += around[:, 0]
    matrix[:, 0] += around[:, -1]
    return matrix
