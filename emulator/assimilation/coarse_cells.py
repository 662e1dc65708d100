"""Cells of a coarser grid within one, between which what varies smoothly is interpolated."""

import dataclasses
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class CoarseCells:
    """Every so many cells along each axis of a grid, the last ones among them.

    Attributes:
      cells: which, of the grid's flattened, `(coarse,)`. along: of each axis the weights of its coarse places in linear
        interpolation, `(length, coarse)` float64.
    """

    cells: Tensor
    along: tuple[Tensor, ...]

    @classmethod
    def of(cls, shape: Sequence[int], every: int) -> Self:
        """Those of a grid of that shape."""
        cells, along = np.zeros(1, np.int64), []
        for length in shape:
            chosen = np.unique(np.append(np.arange(0, length, every), length - 1))
            cells = (cells[:, None] * length + chosen).ravel()
            weights = [np.interp(np.arange(length), chosen, one) for one in np.eye(len(chosen))]
            along.append(torch.from_numpy(np.stack(weights, 1)))
        return cls(torch.from_numpy(cells), tuple(along))

    def between(self, values: Tensor, rows: slice) -> Tensor:
        """Of some rows along the first axis what `values` `(coarse, ...)` are in every cell, `(cell, ...)`."""
        first, *others = self.along
        found = values.reshape(*(matrix.shape[1] for matrix in self.along), -1)
        for axis, matrix in enumerate(others, 1):
            found = torch.tensordot(matrix, found, ([1], [axis])).movedim(0, axis)
        found = torch.tensordot(first[rows], found, ([1], [0]))
        return found.reshape(-1, *values.shape[1:])
