"""Attention among the cells of a window, or among cells far apart, on maps whose edges are known.

Windows of a globe go round with longitude, and where they reach over a pole they take in what lies beyond it. Those at the
edge of a region, or that the edge cuts short, are smaller ones: no cell stands for what is not there, so nothing is masked.

States are `(cell, batch, channel)`, the cells of a window side by side. Layers on single cells do not mind their order, so
that cells are moved only between windows of different places. Several processes have whole windows each, so that all that
passes between them is cells: from bands of rows to windows, and from windows to others, near or far.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from emulator.networks.attention import attention, spread
from emulator.networks.edges import Edges
from emulator.networks.layers import Linear, gelu
from emulator.parallel.passing import Passing, moved
from emulator.parallel.space import ALONE, Space


class Cut(NamedTuple):
    """Rows or columns in groups of one size.

    Attributes:
      cells: their numbers, `(group, size)`. around: whether a group goes all the way round.
      pole: -1, 1: whether a group of rows goes on beyond the north or the south pole; else 0.
    """

    cells: np.ndarray
    around: bool = False
    pole: int = 0


def near(cells: int, window: int, shift: int = 0, edge: bool = True, poles: bool = False) -> list[Cut]:
    """Neighbours in windows of so many cells, moved on by `shift`, the last one smaller where they do not fit.

    Args:
      edge: whether the first and the last cell are the end; otherwise they are neighbours, and windows have to fit.
      poles: whether windows that are cut off by the ends, being moved, go on beyond a pole.
    """
    if window >= cells:
        return [Cut(np.arange(cells)[None], around=not edge)]
    if not edge:
        return [Cut((np.arange(cells).reshape(-1, window) + shift) % cells)]
    stop = shift + (cells - shift) // window * window
    beyond = bool(poles and shift)
    cuts = (
        Cut(np.arange(shift)[None], pole=-1 if beyond else 0),
        Cut(np.arange(shift, stop).reshape(-1, window)),
        Cut(np.arange(stop, cells)[None], pole=1 if beyond else 0),
    )
    return [cut for cut in cuts if cut.cells.size]


def far(cells: int, members: int, edge: bool = True) -> list[Cut]:
    """Groups of up to so many members as far apart as they can be, all at the same distance."""
    distance = -(-cells // min(members, cells))
    groups = [np.arange(first, cells, distance) for first in range(distance)]
    sizes = sorted({len(group) for group in groups}, reverse=True)
    return [Cut(np.stack([g for g in groups if len(g) == size]), around=not edge) for size in sizes]


def fitting(cells: int, window: int, edge: bool) -> int:
    """The largest window up to the wanted one that goes round without a rest; the wanted one where there is an edge."""
    return window if edge else max(size for size in range(1, min(window, cells) + 1) if cells % size == 0)


class Windows(nn.Module):
    """All windows of a map, the order of cells that brings each together, and attention within them.

    Args:
      shape: rows and columns of the map. rows, columns: how they are cut (`near`, `far`).
      space: processes that hold the map together. bounds: of their bands of its rows, `(size + 1,)`; each has windows of
        about as many cells, or none where there are fewer windows than processes.

    Attributes:
      cells: of every process the numbers of its cells, window by window.
      largest: rows and columns of the largest windows.
      offsets: rows and columns from keys to queries as they occur, `(offset, 2)`, those of a row side by side.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        rows: list[Cut],
        columns: list[Cut],
        space: Space = ALONE,
        bounds: Sequence[int] | None = None,
    ):
        super().__init__()
        bounds = bounds or space.bounds(shape[0])
        self.space, self.shape = space, (bounds[space.rank + 1] - bounds[space.rank], shape[1])
        parts = [_Part(shape, r, c) for r in rows for c in columns]
        self.parts = nn.ModuleList(parts)
        self.largest = tuple(max(cut.cells.shape[1] for cut in cuts) for cuts in (rows, columns))
        shares, order = _shares(parts, space.size), np.concatenate([part.cells for part in parts])
        self.cells = [order[start:stop] for start, stop in itertools.pairwise(shares)]
        bands = [np.arange(start * shape[1], stop * shape[1]) for start, stop in itertools.pairwise(bounds)]
        self.passing = Passing(space, bands, self.cells)
        ends = np.array([part.reach for part in parts])  # (part, first and last, rows and columns)
        first, last = ends[:, 0].min(0), ends[:, 1].max(0)
        down, along = (np.arange(first[n], last[n] + 1) for n in range(2))
        if columns[0].around:  # the shorter way
            along = (along + self.largest[1] // 2) % self.largest[1] - self.largest[1] // 2
        for part in parts:
            part.find(first, len(along))
        self.offsets = np.stack(np.broadcast_arrays(down[:, None], along), -1).reshape(-1, 2)
        ends = np.cumsum([0] + [len(part.cells) for part in parts])
        self.sizes = np.diff(ends.clip(*shares[space.rank : space.rank + 2])).tolist()

    def from_map(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, channel, own row, column)` -> `(own cell, batch, channel)` window by window."""
        return self.passing(x.permute(2, 3, 0, 1).flatten(0, 1))

    def to_map(self, x: torch.Tensor) -> torch.Tensor:
        """`(own cell, batch, channel)` window by window -> `(batch, channel, own row, column)`."""
        return self.passing.back(x).view(*self.shape, *x.shape[1:]).permute(2, 3, 0, 1)

    def biases(self, table: torch.Tensor) -> list[torch.Tensor]:
        """What is added by `offsets`, `(offset, head)`, one for all or each, to the products of every kind of windows."""
        return [part.bias(table) for part in self.parts]

    def attend(
        self, tensors: Sequence[torch.Tensor], biases: list[torch.Tensor], scale: float | torch.Tensor
    ) -> torch.Tensor:
        """Attention of every cell to those of its window.

        Args:
          tensors: queries, keys and values, `(cell, batch, part, head, channel)`, parts of as many tensors as you like.
          biases: of the products. scale: of the products, as of `attention`.
        Returns `(cell, batch, head * channel)`.
        """
        split = zip(*(x.split(self.sizes) for x in tensors), strict=True)
        parts = zip(self.parts, biases, split, strict=True)
        found = [part(own, bias, scale) for part, bias, own in parts if len(own[0])]
        if not found:  # of no cell, with gradients of nothing
            return (sum(x.sum(2) for x in tensors) + sum(bias.sum() for bias in biases)).flatten(2)
        return found[0] if len(found) == 1 else torch.cat(found)


class _Part(nn.Module):
    """Windows of one size, and how they go on beyond a pole."""

    def __init__(self, shape, rows, columns):
        super().__init__()
        width = shape[1]
        self.rows, self.columns = rows.cells.shape[1], columns.cells.shape[1]
        self.pole = rows.pole
        groups = rows.cells[:, None, :, None] * width + columns.cells[None, :, None, :]
        self.cells = groups.reshape(-1)
        self.reach = _reach(rows, columns)
        if self.pole:
            own = np.arange(self.cells.size).reshape(-1, self.rows, self.columns)
            other = np.empty((self.rows, width), np.int64)
            other[:, columns.cells] = own.transpose(1, 0, 2)
            # half a turn on and the rows in reverse: twice that is where it started, but for an odd number of columns
            beyond = np.roll(other[::-1], width // 2, 1)[:, columns.cells].transpose(1, 0, 2).reshape(-1)
            for name, order in (("beyond", beyond), ("back", np.argsort(beyond))):
                self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(order)), persistent=False)

    def find(self, first, along):
        """Where the offset of every query from every key lies in a table from `first` on, of so many offsets in a row."""
        own = [np.arange(size) for size in (self.rows, self.columns)]
        keys = np.arange(self.rows * (2 if self.pole else 1)) - self.rows * (self.pole < 0), own[1]
        down, aside = (q[:, None] - k - start for q, k, start in zip(own, keys, first, strict=True))
        offset = down[:, None, :, None] * along + aside[:, None, :]  # (row, column, key's row, key's column)
        self.register_buffer("offset", torch.from_numpy(offset.reshape(-1)), persistent=False)

    def bias(self, table):
        return spread(table, self.offset, self.rows * self.columns)[None]

    def forward(self, tensors, bias, scale):
        tensors = [x.unflatten(0, (-1, self.rows * self.columns)) for x in tensors]
        if self.pole:
            q, *others = (part for x in tensors for part in x.split(1, 3))
            tensors = q, *map(self._over_the_pole, others)
        return attention(*tensors, bias=bias, scale=scale).flatten(0, 1)

    def _over_the_pole(self, x):
        """Keys or values `(window, cell, ...)` with as many more from beyond the pole."""
        other = moved(x.flatten(0, 1), self.beyond, self.back).view(x.shape)
        return torch.cat([other, x] if self.pole < 0 else [x, other], 1)


def _reach(rows, columns):
    """The first and the last offsets of queries from keys, in rows and columns of the windows, `(2, 2)`."""
    height, width = rows.cells.shape[1], columns.cells.shape[1]
    north, south = (height if rows.pole == end else 0 for end in (-1, 1))
    return np.array([[-(height - 1) - south, -(width - 1)], [height - 1 + north, width - 1]])


class Dense(Linear):
    """Linear layer by torch alone, on an Intel Xeon 6 as fast as the compiled kernels, and from 128 channels on faster.

    As a convolution, which `emulator.networks.layers.linear` makes of it for oneDNN, it takes up to half as long again there.
    """

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """`(..., in)` -> `(..., out)`, added to a residual of that shape where there is one."""
        y = F.linear(x, self.weight, self.bias)
        return y if residual is None else residual + y


class Perceptron(nn.Module):
    """Two such layers with GELU between them, `channels` -> `hidden` -> `channels`."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.layers = nn.ModuleList([Dense(channels, hidden, gain=2.0), Dense(hidden, channels)])

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """`(..., channels)` -> the same, added to a residual where there is one."""
        return self.layers[1](gelu(self.layers[0](x)), residual)


class Moves(nn.Module):
    """From the order of some windows to that of others.

    Args:
      before, after: windows of one map.
    """

    def __init__(self, before: Windows, after: Windows):
        super().__init__()
        self.passing = None if before is after else Passing(before.space, before.cells, after.cells)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(cell, batch, channel)` -> the same."""
        return x if self.passing is None else self.passing(x)


def shifted(
    shape: tuple[int, int], window: int, edges: Edges, space: Space = ALONE, bounds: Sequence[int] | None = None
) -> tuple[Windows, Windows]:
    """Windows in a map, and those that lie half a window further, over the corners of the others (Liu et al. 2021).

    `space`, `bounds`: as for `Windows`.
    """
    height, width = shape
    side = fitting(width, window, not edges.round)
    poles = not edges.open
    down, along = window // 2, side // 2
    cuts = (
        (near(height, window), near(width, side, edge=not edges.round)),
        (near(height, window, down, poles=poles), near(width, side, along, edge=not edges.round)),
    )
    plain, moved_on = (Windows(shape, *cut, space, bounds) for cut in cuts)
    return plain, moved_on


def _shares(parts, processes):
    """Where the shares of all cells begin, and the last ends, `(processes + 1,)`: as even as whole windows allow.

    Windows over a pole stay together, since they take in each other's cells.
    """
    ends = [0]
    for part in parts:
        count = 1 if part.pole else len(part.cells) // (part.rows * part.columns)
        ends += (ends[-1] + np.arange(1, count + 1) * (len(part.cells) // count)).tolist()
    wanted = ends[-1] * np.arange(processes + 1) / processes
    return np.array(ends)[np.abs(np.array(ends)[:, None] - wanted).argmin(0)]
