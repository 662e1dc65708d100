"""Fields carried on smoothly to where they do not exist, so that a spectrum shows the field and not the edge of its mask.

A pyramid of grids, each of half as many rows and columns: a cell of the coarser grid is the mean of what exists of its four
cells; from the coarsest down, what does not exist is taken linearly from the coarser grid and relaxed towards the mean of its
neighbours (Laplace's equation, whose solution has neither edges nor extremes of its own). The work is that of a few passes
over the field. It is linear, and what exists stays as it is.
"""

import numpy as np

SWEEPS = 4  # of relaxation on every grid


def filled(field: np.ndarray, exists: np.ndarray) -> np.ndarray:
    """A global field `(..., latitude, longitude)` with all values outside `exists` made from those inside.

    `exists` is boolean, of a shape that fits. Values outside have no part in it; a missing value inside stays missing. Where
    nothing exists all is NaN.
    """
    exists = np.broadcast_to(exists, field.shape)
    if exists.all():
        return field
    if field.shape[-2] == 1 or field.shape[-1] == 1 or not exists.any():
        share = exists.sum(axis=(-2, -1), keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(exists, field, 0.0).sum(axis=(-2, -1), keepdims=True) / share
        return np.where(exists, field, mean)
    total, share = _quartered(np.where(exists, field, 0.0)), _quartered(exists.astype(np.float64))
    coarse = filled(np.where(share > 0, total / np.where(share > 0, share, 1.0), 0.0), share > 0)
    result = np.where(exists, field, _doubled(coarse, field.shape[-2:]))
    for _ in range(SWEEPS):
        result = np.where(exists, field, _neighbours(result))
    return result


def _quartered(field: np.ndarray) -> np.ndarray:
    """Sums over two rows and two columns; a row or column that is left over stands alone."""
    rows = np.add.reduceat(field, np.arange(0, field.shape[-2], 2), axis=-2)
    return np.add.reduceat(rows, np.arange(0, field.shape[-1], 2), axis=-1)


def _doubled(coarse: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The coarser grid at the cells of the finer one, linear between its centres; longitudes go round."""
    north = np.concatenate([coarse[..., :1, :], coarse[..., :-1, :]], axis=-2)
    south = np.concatenate([coarse[..., 1:, :], coarse[..., -1:, :]], axis=-2)
    rows = _interleaved(0.75 * coarse + 0.25 * north, 0.75 * coarse + 0.25 * south, -2)[..., : shape[0], :]
    west, east = np.roll(rows, 1, axis=-1), np.roll(rows, -1, axis=-1)
    return _interleaved(0.75 * rows + 0.25 * west, 0.75 * rows + 0.25 * east, -1)[..., : shape[1]]


def _interleaved(first: np.ndarray, second: np.ndarray, axis: int) -> np.ndarray:
    shape = list(first.shape)
    shape[axis] *= 2
    after = first.ndim + axis + 1
    return np.stack([first, second], axis=after).reshape(shape)


def _neighbours(field: np.ndarray) -> np.ndarray:
    """Mean of the four neighbours; beyond a pole lies the same row."""
    north = np.concatenate([field[..., :1, :], field[..., :-1, :]], axis=-2)
    south = np.concatenate([field[..., 1:, :], field[..., -1:, :]], axis=-2)
    return (north + south + np.roll(field, 1, axis=-1) + np.roll(field, -1, axis=-1)) / 4
