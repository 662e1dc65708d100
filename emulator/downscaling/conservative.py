"""The conservative layer: fine fields changed as little as it takes to have the means of the coarse ones.

Along time a mean is of all fine steps of an interval, and an instant that of its last. The change is the smallest in the
area-weighted square (`emulator.sphere.cell_means`), linear and differentiable; fields that cannot be negative are multiplied
instead (`emulator.downscaling.scaling`).
"""

import numpy as np
import torch
from torch import Tensor, nn

from emulator.downscaling.alone import ratio
from emulator.downscaling.scaling import Factors
from emulator.planet.grid import Grid
from emulator.sphere.cell_means import CellMeans


class Conservative(nn.Module):
    """Sets the means of coarse cells over fields on a fine grid.

    Args:
      fine, coarse: grids of rows and columns. Coarse cells that do not lie on the fine grid as a whole are let be.

    Raises `ValueError` for grids without a common cell, or of which the first is not the finer one.
    """

    def __init__(self, fine: Grid, coarse: Grid):
        super().__init__()
        self.cells = CellMeans.of(fine, coarse)
        named = {"mean": (self.cells.rows, self.cells.columns), "lift": self.cells.lifts}
        for name, matrices in named.items():
            for axis, matrix in zip(("rows", "columns"), matrices, strict=True):
                self.register_buffer(f"{name}_{axis}", torch.from_numpy(np.ascontiguousarray(matrix)), persistent=False)
        self.factors = Factors(self.cells)

    def means(self, fine: Tensor) -> Tensor:
        """Means of the coarse cells, float64: `(..., *fine)` to `(..., *cells)`."""
        return self.mean_rows @ fine.double() @ self.mean_columns.T

    def part(self, coarse: Tensor) -> Tensor:
        """Of fields on the coarse grid those of the cells that are kept, float64."""
        return coarse[..., self.cells.at[0], self.cells.at[1]].double()

    def forward(self, fine: Tensor, coarse: Tensor, instant: Tensor) -> Tensor:
        """The nearest fields with the means of the coarse ones, float64.

        Args:
          fine: `(batch, step, channel, *fine)`, the fine steps of an interval. coarse: `(batch, channel, *coarse)`.
          instant: `(channel,)` bool: values at the end of the interval, which the last step has to have; else means over it.
        """
        fine = fine.double()
        lacking = self.part(coarse) - self.means(over_steps(fine, instant))
        change = (self.lift_rows @ lacking @ self.lift_columns.T).unsqueeze(1)
        return fine + change * _given(fine, instant)

    def positive(self, fine: Tensor, coarse: Tensor, instant: Tensor) -> Tensor:
        """Fields of at least 0 with the means of the coarse ones, where such are; arguments as for `forward`.

        A coarse value below 0 counts as 0. On grids that do not nest a coarse cell can hold something beside empty ones that
        share all of its fine cells, which no field can have: it then keeps less.
        """
        fine = fine.double().clamp(min=0)
        whole = over_steps(fine, instant)
        wanted = self.factors(whole, self.part(coarse).clamp(min=0))
        scaled = torch.where((whole > 0).unsqueeze(1), fine * ratio(wanted, whole).unsqueeze(1), wanted.unsqueeze(1))
        return torch.where(_given(fine, instant).bool(), scaled, fine)


def over_steps(fine: Tensor, instant: Tensor) -> Tensor:
    """What coarse values are compared with: `(batch, step, channel, *fine)` to `(batch, channel, *fine)`."""
    return torch.where(instant.view(-1, 1, 1), fine[:, -1], fine.mean(1))


def _given(fine: Tensor, instant: Tensor) -> Tensor:
    """1 for the steps that the coarse value is of, else 0: `(step, channel, 1, 1)`."""
    given = torch.ones(fine.shape[1], len(instant), dtype=torch.float64, device=fine.device)
    given[:-1, instant] = 0
    return given.view(*given.shape, 1, 1)
