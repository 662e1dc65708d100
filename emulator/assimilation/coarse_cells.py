"""Cells of a coarser grid within one, between which what varies smoothly is interpolated."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class CoarseCells:
    """Every so many cells along each axis of a grid, the last ones among them.

    Attributes:
      cells: which, of the grid's flattened, `(coarse rows, coarse cells of a row)`, rows along the first axis. along: of each
        axis the weights of its coarse places in linear interpolation, `(length, coarse)` float64.
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
        return cls(torch.from_numpy(cells).view(along[0].shape[1], -1), tuple(along))

    def around(self, rows: slice) -> list[int]:
        """The coarse rows between which some rows along the first axis lie: all that have a weight for one of them."""
        return torch.nonzero(self.along[0][rows].any(0))[:, 0].tolist()

    def between(self, values: Mapping[int, Tensor], rows: slice) -> Tensor:
        """Of some rows along the first axis what `values` are in every cell, `(cell, ...)`.

        `values`: of each coarse row that is `around` them, `(coarse cells of a row, ...)`. Besides what is returned only
        values of coarse cells are held: those given, and between them those of each row.
        """
        first, *others = self.along
        near = list(values)
        found = torch.tensordot(first[rows][:, near], torch.stack([values[at] for at in near]), ([1], [0]))
        trailing = found.shape[2:]
        found = found.reshape(-1, *(matrix.shape[1] for matrix in others), *trailing)
        for axis, matrix in enumerate(others, 1):
            found = torch.tensordot(matrix, found, ([1], [axis])).movedim(0, axis)
        return found.reshape(-1, *trailing)
