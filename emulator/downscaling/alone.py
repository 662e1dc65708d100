"""The means of coarse cells set at once, and exactly, where each of them has fine cells that no other one touches.

So it is where the fine grid is at least twice as fine along both axes, whether the grids nest or not. What several coarse
cells share is multiplied by the least of their ratios, so that none of them gets too much; then what each has alone takes
what it still lacks, which no other one sees. Nothing is below zero, nothing iterates, and all of it can be differentiated.
"""

import numpy as np
import torch
from torch import Tensor, nn

from emulator.sphere.cell_means import CellMeans

TOUCHED = 1e-9  # share of a fine row or column beyond which it lies in a coarse one


class Alone(nn.Module):
    """Multiplies fields of at least 0 to means of at least 0.

    Args:
      cells: means of the coarse cells over the fine grid.

    Attributes:
      possible: whether every coarse cell has fine cells of its own; where not, it must not be called.
    """

    def __init__(self, cells: CellMeans):
        super().__init__()
        touched = [shares > TOUCHED for shares in cells.shares]
        counts = [lies.sum(1) for lies in touched]
        has_own = [(lies & (n == 1)[:, None]).any(0).all() for lies, n in zip(touched, counts, strict=True)]
        self.possible = all(has_own) and max(n.max() for n in counts) <= 2
        for axis, lies in zip(("rows", "columns"), touched, strict=True):
            last = lies.shape[1] - 1 - lies[:, ::-1].argmax(1)
            self.register_buffer(f"of_{axis}", torch.from_numpy(np.stack([lies.argmax(1), last])), persistent=False)
        self.register_buffer("own", torch.from_numpy((counts[0] == 1)[:, None] & (counts[1] == 1)), persistent=False)
        for axis, matrix in zip(("rows", "columns"), (cells.rows, cells.columns), strict=True):
            self.register_buffer(f"mean_{axis}", torch.from_numpy(np.ascontiguousarray(matrix)), persistent=False)

    def forward(self, field: Tensor, wanted: Tensor) -> Tensor:
        """`(..., *fine)`, `(..., *cells)`, float64, to `(..., *fine)`; own fine cells hold something where it is wanted."""
        shared = torch.where(self.own, 0.0, field * self._least(ratio(wanted, self._means(field))).clamp(max=1))
        own = torch.where(self.own, field, 0.0)
        factor = ratio((wanted - self._means(shared)).clamp(min=0), self._means(own))
        return shared + own * factor[..., self.of_rows[0], :][..., self.of_columns[0]]

    def _means(self, field: Tensor) -> Tensor:
        return self.mean_rows @ field @ self.mean_columns.T

    def _least(self, cells: Tensor) -> Tensor:
        """The least value of the coarse cells that a fine cell lies in."""
        for axis, places in ((-2, self.of_rows), (-1, self.of_columns)):
            cells = torch.minimum(*(cells.index_select(axis, each) for each in places))
        return cells


def ratio(wanted: Tensor, have: Tensor) -> Tensor:
    """Of what is wanted to what is there; 1 where nothing is, and without a gradient that is not finite."""
    some = have > 0
    return torch.where(some, wanted, 1.0) / torch.where(some, have, 1.0)
