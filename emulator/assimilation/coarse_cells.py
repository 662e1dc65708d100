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
      cells: which, of the grid's flattened, `(coarse,)`. corner: positions among them around every cell, and share: their
        weights in linear interpolation along each axis, which sum to 1, `(corner, cell)` each.
    """

    cells: Tensor
    corner: Tensor
    share: Tensor

    @classmethod
    def of(cls, shape: Sequence[int], every: int) -> Self:
        """Those of a grid of that shape."""
        cells, corner, share = np.zeros(1, np.int64), np.zeros((1, 1), np.int64), np.ones((1, 1))
        for length in shape:
            chosen = np.unique(np.append(np.arange(0, length, every), length - 1))
            at = np.arange(length)
            below = np.clip(np.searchsorted(chosen, at, side="right") - 1, 0, max(len(chosen) - 2, 0))
            above = np.minimum(below + 1, len(chosen) - 1)
            part = (at - chosen[below]) / np.maximum(chosen[above] - chosen[below], 1)
            ends, parts = np.stack([below, above]), np.stack([1 - part, part])
            cells = (cells[:, None] * length + chosen).ravel()
            corner = (corner[:, None, :, None] * len(chosen) + ends[None, :, None]).reshape(2 * len(corner), -1)
            share = (share[:, None, :, None] * parts[None, :, None]).reshape(2 * len(share), -1)
        return cls(*map(torch.from_numpy, (cells, corner, share)))

    def between(self, values: Tensor, rows: slice) -> Tensor:
        """Of some of all cells what `values` `(coarse, ...)` are there, `(row, ...)`."""
        corner, share = self.corner[:, rows], self.share[:, rows].to(values)
        return sum(w.view(-1, *[1] * (values.dim() - 1)) * values[at] for at, w in zip(corner, share, strict=True))
