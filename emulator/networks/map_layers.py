"""Layers on maps that know their edges: patches, convolutions of any size and stride, and the blocks made of them."""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from emulator.kernels import library
from emulator.networks import small_stencil, wide_stencil
from emulator.networks.edges import Edges, pad_rows, padded
from emulator.networks.halos import Around, Rows
from emulator.networks.layers import linear
from emulator.networks.map_norms import GroupNorm
from emulator.parallel.space import ALONE, Space

WIDE = (
    8  # stencils up to this are fastest with the channels last; above 14 oneDNN's gradients take 20 times as long there
)
FEW = 16  # outputs that oneDNN has no whole vectors of, with which products of large stencils are faster


class Patches(nn.Module):
    """Rows, and columns of a region, added up to whole patches, and taken off again.

    On a globe the rows beyond a pole are those of its other side, so that a patch across it sees what lies there; more to the
    south where their number is odd. A region repeats its border.

    Args:
      shape: rows and columns. size: cells of a patch, or of all halvings together, in both directions.
      edges: of the grid. turn: whether columns of patches are to have a half, which lies beyond the poles.
      space: processes that hold the grid together, each a band of its rows, and of patches a band of whole ones.
    Raises `ValueError` for columns around the globe that patches do not divide, and for fewer rows of patches than processes.

    Attributes:
      padded: rows and columns of all patches. bounds: of the bands of their rows, `(processes + 1,)`.
    """

    def __init__(self, shape: tuple[int, int], size: int, edges: Edges, turn: bool = True, space: Space = ALONE):
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
        count = self.padded[0] // size
        if count < space.size:
            raise ValueError(
                f"Expected patches in a row for each of {space.size} processes, got {count} of {size} rows each"
            )
        self.bounds, self.onto, self.back = tuple(size * bound for bound in space.bounds(count)), None, None
        if space.size > 1:
            bands, north = space.bounds(rows), self.rows[0]
            wanted = [range(start - north, stop - north) for start, stop in itertools.pairwise(self.bounds)]
            self.onto = Rows(space, bands, wanted, edges)
            wanted = [range(start + north, stop + north) for start, stop in itertools.pairwise(bands)]
            self.back = Rows(space, self.bounds, wanted)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, channel, *shape)` -> `(batch, channel, *padded)`, of the own rows in a band."""
        if self.onto is not None:
            x = self.onto(x)
            return F.pad(x, (*self.columns, 0, 0), mode="replicate") if any(self.columns) else x
        if self.padded == self.shape:
            return x
        if self.edges.open:
            return F.pad(x, (*self.columns, *self.rows), mode="replicate")
        return pad_rows(x, *self.rows, self.edges.poles)

    def off(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, channel, *padded)` -> `(batch, channel, *shape)`, of the own rows in a band."""
        (north, _), (west, _), (rows, columns) = self.rows, self.columns, self.shape
        if self.back is not None:
            return self.back(x)[..., west : west + columns]
        return x[..., north : north + rows, west : west + columns]


class Surroundings(nn.Module):
    """Maps with more cells on every side, as they go on there.

    Args:
      edges: of the map. space: processes that hold it together. bounds: of their bands of its rows, `(size + 1,)`.
    """

    def __init__(self, edges: Edges, space: Space = ALONE, bounds: Sequence[int] = (0, 0)):
        super().__init__()
        self.edges, self.space, self.bounds = edges, space, tuple(bounds)

    def forward(self, x: torch.Tensor, margin: int) -> torch.Tensor:
        """`(batch, channel, row, column)` of a whole map -> `margin` more cells on every side."""
        return padded(x, margin, self.edges)

    @property
    def share(self) -> float:
        """This process's share of the map."""
        start, stop = self.bounds[self.space.rank : self.space.rank + 2]
        return (stop - start) / self.bounds[-1] if self.space.size > 1 else 1.0

    def coarser(self, stride: int) -> "Surroundings":
        """Of the map of every `stride`-th cell, whose rows at the poles, if any, are not there. Bands have whole strides."""
        edges = dataclasses.replace(self.edges, poles=False)
        return Surroundings(edges, self.space, [bound // stride for bound in self.bounds])

    def of_stencils(self, size: int, stride: int, margin: int) -> Rows | None:
        """What a process needs for stencils at every `stride`-th cell of its band; None: of one process `forward` has it."""
        if self.space.size == 1:
            return None
        pairs = itertools.pairwise(self.bounds)
        wanted = [range(start - margin, stop - margin + size - stride) for start, stop in pairs]
        return Rows(self.space, self.bounds, wanted, self.edges, margin)


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
        self.rows = around.of_stencils(size, stride, self.margin)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.around(x, self.margin) if self.rows is None else self.rows(x)
        size, stride = self.kernel_size[0], self.stride[0]
        if (size, stride) == (3, 1):
            return small_stencil.convolved(x, self.weight, self.bias)
        few = size >= WIDE and size % stride == 0 and self.out_channels < FEW
        if few and x.device.type == "cpu" and not _by_torch():
            return wide_stencil.convolved(x, self.weight, self.bias, stride)
        if x.device.type != "cpu" or size <= WIDE:
            return super().forward(x)
        x = x.contiguous()
        if size % stride or size // stride > WIDE:
            return super().forward(x)
        # a stencil of 16 cells at every second one: of 8 among cells of four times as many channels, a third of the time
        return F.conv2d(F.pixel_unshuffle(x, stride), F.pixel_unshuffle(self.weight, stride), self.bias)


def _by_torch():
    """Whether products are to be of another type, or all is to be of torch's operations."""
    return torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling() or library.ASIDE


class SphereConv(nn.Conv2d):
    """3 x 3 convolution of `(batch, channel, own rows, nlon)` that keeps the shape, dilated as `around` has margins.

    With a `stride` of 2 it gives every other row and column, those of `halos.Halving`.
    """

    def __init__(self, inputs: int, outputs: int, around: Around, bias: bool = True, stride: int = 1):
        super().__init__(inputs, outputs, 3, stride, dilation=around.margin, bias=bias)
        self.around = around

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.around(x)
        if self.stride[0] > 1:
            return super().forward(x)
        return small_stencil.convolved(x, self.weight, self.bias, self.dilation[0])


class Pointwise(nn.Conv2d):
    """1 x 1 convolution of maps, by the product that is fastest for channels that are last in memory."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True):
        super().__init__(inputs, outputs, 1, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, inputs, nlat, nlon)` -> `(batch, outputs, nlat, nlon)`."""
        return linear(x.permute(0, 2, 3, 1), self.weight[:, :, 0, 0], self.bias).permute(0, 3, 1, 2)


class Residual(nn.Module):
    """Two convolutions of 3 x 3 cells, each with group norm and SiLU, added to what they take in (He et al. 2016)."""

    def __init__(self, channels: int, groups: int, around: Surroundings):
        super().__init__()
        if channels % groups:
            raise ValueError(f"Expected groups that divide {channels} channels, got {groups}")
        layers = [
            layer
            for _ in range(2)
            for layer in (
                MapConv(channels, channels, 3, around),
                GroupNorm(groups, channels, around.space, around.share),
                nn.SiLU(),
            )
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, channel, row, column)` -> the same."""
        return x + self.layers(x)


class Larger(nn.ConvTranspose2d):
    """Transposed convolution to a map `stride` times as fine, of stencils that overlap; it goes on beyond the edges."""

    def __init__(self, inputs: int, outputs: int, stride: int, around: Surroundings):
        size = 2 * stride + stride % 2
        super().__init__(inputs, outputs, size, stride, padding=(size + stride) // 2)
        self.around, self.rows = around, around.of_stencils(3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self.around(x, 1) if self.rows is None else self.rows(x))


class Sharper(nn.Module):
    """A convolution added to what it takes in."""

    def __init__(self, channels: int, around: Surroundings):
        super().__init__()
        self.convolution = MapConv(channels, channels, 3, around)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.convolution(x)


def cells_of_channels(inputs: int, outputs: int, factor: int, around: Surroundings) -> tuple[nn.Module, nn.Module]:
    """A convolution and what makes `factor` by `factor` cells of its channels, alike at the start.

    Otherwise a new network draws a pattern of single cells (Aitken et al. 2017).
    """
    convolution = MapConv(inputs, outputs * factor**2, 3, around)
    own = torch.empty(outputs, inputs, 3, 3)
    nn.init.kaiming_uniform_(own, a=math.sqrt(5))
    with torch.no_grad():
        convolution.weight.copy_(own.repeat_interleave(factor**2, 0))
    nn.init.zeros_(convolution.bias)
    return convolution, nn.PixelShuffle(factor)


def start_at_zero(layer: nn.Conv2d, zero: bool) -> nn.Conv2d:
    """A last layer, whose weights and biases are zero at the start where asked."""
    if zero:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return layer
