"""Layers on whole maps that know their edges: patches, convolutions of any size and stride, and the blocks made of them."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from emulator.networks.halos import Edges
from emulator.networks.stencil import pad_region, pad_rows, pad_sphere
from emulator.planet.grid import Grid


def edges_of(grid: Grid) -> Edges:
    """What lies beyond a latitude-longitude grid, a box of one, or a map. Raises `ValueError` for a box in two parts."""
    if grid.is_split:
        raise ValueError("Expected neighbours side by side, the box lies in two parts across Greenwich; ingest it anew")
    whole = grid.is_global()
    return Edges(poles=whole and grid.has_poles, round=whole or grid.goes_round, open=not whole)


class Patches(nn.Module):
    """Rows, and columns of a region, added up to whole patches, and taken off again.

    On a globe the rows beyond a pole are those of its other side, so that a patch across it sees what lies there; more to the
    south where their number is odd. A region repeats its border.

    Args:
      shape: rows and columns. size: cells of a patch, or of all halvings together, in both directions.
      edges: of the grid. turn: whether columns of patches are to have a half, which lies beyond the poles.
    Raises `ValueError` for columns around the globe that patches do not divide.
    """

    def __init__(self, shape: tuple[int, int], size: int, edges: Edges, turn: bool = True):
        super().__init__()
        self.edges, (rows, columns) = edges, shape
        needed = size * (2 if turn and not edges.open else 1)
        if edges.round and columns % needed:
            raise ValueError(
                f"Expected longitudes in a multiple of {needed} for patches of {size} cells, got {columns}"
            )
        more = -rows % size, -columns % size
        self.rows, self.columns = (more[0] // 2, more[0] - more[0] // 2), (more[1] // 2, more[1] - more[1] // 2)
        if max(self.rows) > rows - edges.poles:
            raise ValueError(
                f"Expected at least {max(self.rows) + edges.poles} rows for patches of {size} cells, got {rows}"
            )
        self.shape = rows, columns
        self.padded = rows + more[0], columns + more[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, channel, *shape)` -> `(batch, channel, *padded)`."""
        if self.padded == self.shape:
            return x
        if self.edges.open:
            return F.pad(x, (*self.columns, *self.rows), mode="replicate")
        return pad_rows(x, *self.rows, self.edges.poles)

    def off(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, channel, *padded)` -> `(batch, channel, *shape)`."""
        (north, _), (west, _), (rows, columns) = self.rows, self.columns, self.shape
        return x[..., north : north + rows, west : west + columns]


class Surroundings(nn.Module):
    """Maps with more cells on every side, as they go on there.

    Args:
      edges: of the map.
    """

    def __init__(self, edges: Edges):
        super().__init__()
        self.edges = edges

    def forward(self, x: torch.Tensor, margin: int) -> torch.Tensor:
        """`(batch, channel, row, column)` -> `margin` more cells on every side."""
        if not margin:
            return x
        return pad_region(x, margin, self.edges.round) if self.edges.open else pad_sphere(x, margin, self.edges.poles)


class MapConv(nn.Conv2d):
    """Convolution of a map `(batch, channel, row, column)` that goes on beyond its edges.

    Args:
      inputs, outputs: channels. size: cells of the stencil. around: what goes on.
      stride: of the cells that it is taken at. margin: cells taken in beyond an edge, so many by default that strides fit.
    Raises `ValueError` for a stencil that lies between cells.
    """

    def __init__(
        self, inputs: int, outputs: int, size: int, around: Surroundings, stride: int = 1, margin: int | None = None
    ):
        if margin is None and (size < stride or (size - stride) % 2):
            raise ValueError(f"Expected stencils larger than the stride {stride} by an even number, got {size}")
        super().__init__(inputs, outputs, size, stride)
        self.around, self.margin = around, (size - stride) // 2 if margin is None else margin

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self.around(x, self.margin))


class Residual(nn.Module):
    """Two convolutions of 3 x 3 cells, each with group norm and SiLU, added to what they take in (He et al. 2016)."""

    def __init__(self, channels: int, groups: int, around: Surroundings):
        super().__init__()
        if channels % groups:
            raise ValueError(f"Expected groups that divide {channels} channels, got {groups}")
        layers = [
            layer
            for _ in range(2)
            for layer in (MapConv(channels, channels, 3, around), nn.GroupNorm(groups, channels), nn.SiLU())
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, channel, row, column)` -> the same."""
        return x + self.layers(x)


def shuffled(weight: torch.Tensor, factor: int) -> None:
    """Starts a convolution whose channels become `factor` by `factor` cells each, so that these cells are alike.

    Otherwise a new network draws a pattern of single cells (Aitken et al. 2017).
    """
    own = weight.new_empty(weight.shape[0] // factor**2, *weight.shape[1:])
    nn.init.kaiming_uniform_(own, a=math.sqrt(5))
    with torch.no_grad():
        weight.copy_(own.repeat_interleave(factor**2, 0))
