"""Positive fields multiplied to given means of coarse cells.

Every fine cell is multiplied by the factors of the coarse cells that it lies in, to the powers of its shares in them: of all
fields with the means that is the one nearest in the Kullback-Leibler divergence (Darroch and Ratcliff 1972, "Generalized
iterative scaling for log-linear models"). Where grids nest, scaling by the ratios of the means is exact at once. Elsewhere a
few such passes come near, and there are two ways to the end:

- Where every coarse cell has fine cells of its own, as it has where the fine grid is at least twice as fine, in closed form
  (`emulator.downscaling.alone`).
- Elsewhere by Newton's method: by the ratios alone rain on T21 and T31 was at 2e-3 of its largest value after 400 passes, by
  Newton's method at 1e-9 after about 20. Its matrix couples a coarse row with its neighbours alone, so a Cholesky
  factorisation by blocks solves it; conjugate gradients did not, where cells are nearly empty.

From 32 x 64 to 96 x 192 the closed form takes 2 ms a field, and rain comes as near to the truth by it as by Newton's method,
which takes 100 times as long.
"""

import numpy as np
import torch
from torch import Tensor, nn

from emulator.downscaling.alone import Alone, ratio
from emulator.sphere.cell_means import CellMeans

SCALINGS, PASSES = 5, 40  # by the ratios, and of Newton's method
CLOSE = 1e-9  # of the largest coarse value, at which Newton's method ends
MOST = 3.0  # of the logarithm of a pass's factor, beyond which the linear step says little
LEAST = 1e-3  # of the coarse value: what a fine cell with less starts from, so that it can be multiplied
EMPTY = 1e-9  # share of a fine cell in coarse ones that hold nothing, above which it holds nothing
RIDGE = 1e-12  # of the diagonal, for factors that many choices of leave the means as they are


class Factors(nn.Module):
    """Multiplies fields to the means of coarse cells.

    Args:
      cells: means of the coarse cells over the fine grid.
    """

    def __init__(self, cells: CellMeans):
        super().__init__()
        rows, columns = cells.shares
        named = {"mean_rows": cells.rows, "mean_columns": cells.columns, "share_rows": rows, "share_columns": columns}
        named |= {"heights": cells.sizes[0], "widths": cells.sizes[1]}
        for name, values in named.items():
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(values)), persistent=False)
        self.alone = Alone(cells)

    def forward(self, field: Tensor, wanted: Tensor) -> Tensor:
        """Fields of at least 0 `(..., *fine)`, float64, with the means `(..., *cells)` of at least 0, as near as such are."""
        lead, field, wanted = field.shape[:-2], field.flatten(0, -3), wanted.flatten(0, -3)
        field = torch.maximum(field, LEAST * self._spread(wanted))
        field = torch.where(self._spread((wanted <= 0).double()) > EMPTY, 0.0, field)
        for _ in range(SCALINGS):
            near = ratio(wanted, self._means(field))
            field = field * self._spread(torch.where(near > 0, near, 1.0).log()).exp()
        field = self.alone(field, wanted) if self.alone.possible else self._by_newton(field, wanted)
        return field.unflatten(0, lead)

    def _by_newton(self, field: Tensor, wanted: Tensor) -> Tensor:
        """Each field until it is close, so that none depends on the others of its batch."""
        limit = CLOSE * wanted.amax((-2, -1))
        for _ in range(PASSES):
            lacking = torch.where(wanted > 0, wanted - self._means(field), 0.0)
            left = (lacking.abs().amax((-2, -1)) > limit).nonzero()[:, 0]
            if not len(left):
                break
            change = self._spread(self._newton(field[left], lacking[left])).clamp(-MOST, MOST)
            field = field.index_copy(0, left, field[left] * change.exp())
        return field

    def _means(self, field: Tensor) -> Tensor:
        return self.mean_rows @ field @ self.mean_columns.T

    def _spread(self, cells: Tensor) -> Tensor:
        """Values of coarse cells by the shares of fine cells in them: `(field, *cells)` to `(field, *fine)`."""
        return self.share_rows @ cells @ self.share_columns.T

    def _newton(self, field: Tensor, lacking: Tensor) -> Tensor:
        """The logarithms of factors that to first order add what the means lack, `(field, *cells)`."""
        rows, columns = self.mean_rows * self.heights[:, None], self.mean_columns * self.widths[:, None]
        # the product of both matrices along a fine row, and from it the blocks of a coarse row and of neighbours
        along = columns @ (field.unsqueeze(-1) * self.share_columns)  # (field, fine row, coarse column, coarse column)
        own = torch.einsum("ji,ij,nicd->njcd", rows, self.share_rows, along)
        below = torch.einsum("ji,ij,nicd->njcd", rows[1:], self.share_rows[:, :-1], along)
        diagonal = own.diagonal(dim1=-2, dim2=-1)
        scale = torch.where(diagonal > 0, diagonal, 1.0).rsqrt()  # cells of rain are of very different size
        own = own * scale.unsqueeze(-1) * scale.unsqueeze(-2) + RIDGE * torch.eye(own.shape[-1], dtype=own.dtype)
        own = own + torch.diag_embed((diagonal <= 0).double())
        below = below * scale[:, 1:].unsqueeze(-1) * scale[:, :-1].unsqueeze(-2)
        right = lacking * self.heights[:, None] * self.widths * scale
        return _block_solve(own, below, right) * scale


def _block_solve(own: Tensor, below: Tensor, right: Tensor) -> Tensor:
    """The solution `(field, row, column)` of symmetric block-tridiagonal systems.

    `own`: blocks on the diagonal, `(field, row, column, column)`; `below`: those left of them from the second on.
    """
    lower, across, found = [], [], []
    for row in range(own.shape[1]):
        block, value = own[:, row], right[:, row].unsqueeze(-1)
        if row:
            link = torch.linalg.solve_triangular(lower[-1], below[:, row - 1].mT, upper=False).mT
            block, value = block - link @ link.mT, value - link @ found[-1]
            across.append(link)
        lower.append(torch.linalg.cholesky(block))
        found.append(torch.linalg.solve_triangular(lower[-1], value, upper=False))
    for row in reversed(range(own.shape[1])):
        if row + 1 < own.shape[1]:
            found[row] = found[row] - across[row].mT @ found[row + 1]
        found[row] = torch.linalg.solve_triangular(lower[row].mT, found[row], upper=True)
    return torch.stack(found, dim=1).squeeze(-1)
