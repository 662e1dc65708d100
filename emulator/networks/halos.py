"""What lies around bands of rows of a grid, and halvings of both.

Of one process these are the whole grid's, as they are without bands.
"""

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from emulator.networks.edges import Edges, padded
from emulator.parallel.space import Fetch, Space


class Rows(nn.Module):
    """Rows above and below a band that other processes, or this one, hold.

    Args:
      space: the processes. bounds: of their bands, `(size + 1,)`.
      above, below: of every rank, the numbers of the rows that it needs, `(size, any)`; with `edges` they may lie beyond
        the grid's edges.
      edges: of the whole grid, where columns are wanted too: `columns` on either side.
    """

    def __init__(self, space: Space, bounds, above, below, edges: Edges | None = None, columns: int = 0):
        super().__init__()
        edges, rows = edges or Edges(open=True), bounds[-1]

        def needed(rank):
            return np.array([edges.row(number, rows) for number in (*above[rank], *below[rank])], np.int64)

        self.fetch = Fetch(space, bounds, needed)
        self.above, self.columns, self.round = len(above[space.rank]), columns, edges.round
        turned = [edges.turns(number, rows) for number in (*above[space.rank], *below[space.rank])]
        self.turns = any(turned)
        self.register_buffer("turned", torch.tensor(turned, dtype=torch.bool)[:, None, None, None], persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, channel, own rows, nlon)` -> `(batch, channel, above + own rows + below, nlon + 2 columns)`.

        The result has its channels last.
        """
        return _WithRows.apply(x, self)

    def turn(self, rows):
        """Rows `(above + below, batch, nlon, channel)`, those beyond a pole half a turn on."""
        return torch.where(self.turned, rows.roll(rows.shape[2] // 2, 2), rows) if self.turns else rows

    def continue_columns(self, out):
        """The outermost columns, from those at the other end or beside them."""
        if side := self.columns:
            stop = out.shape[3] - side
            west, east = (
                (slice(stop - side, stop), slice(side, 2 * side))
                if self.round
                else (
                    slice(side, side + 1),
                    slice(stop - 1, stop),
                )
            )
            out[..., :side], out[..., stop:] = out[..., west], out[..., east]

    def without_columns(self, g):
        """The gradient before `continue_columns`, as a copy."""
        side, stop = self.columns, g.shape[3] - self.columns
        inner = g[..., side:stop].clone(memory_format=torch.channels_last)
        if side and self.round:
            inner[..., inner.shape[3] - side :] += g[..., :side]
            inner[..., :side] += g[..., stop:]
        elif side:
            inner[..., 0] += g[..., :side].sum(-1)
            inner[..., -1] += g[..., stop:].sum(-1)
        return inner


class _WithRows(torch.autograd.Function):
    """In one piece, and back without zeros for all that was not taken: a third of the time of cutting and joining."""

    @staticmethod
    def forward(ctx, x, rows):
        ctx.rows, (batch, channels, own, nlon) = rows, x.shape
        more = rows.turn(rows.fetch.forward(x.permute(2, 0, 3, 1)))  # by no call: hooks of modules see no graph here
        side = rows.columns
        out = x.new_empty(batch, own + len(more), nlon + 2 * side, channels).permute(0, 3, 1, 2)
        inner = out[..., side : side + nlon]
        inner[:, :, rows.above : rows.above + own] = x
        more = more.permute(1, 3, 0, 2)
        inner[:, :, : rows.above], inner[:, :, rows.above + own :] = more[:, :, : rows.above], more[:, :, rows.above :]
        rows.continue_columns(out)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        rows = ctx.rows
        own = g.shape[2] - len(rows.fetch.place)
        g_x = rows.without_columns(g[:, :, rows.above : rows.above + own])
        outer = torch.cat([g[:, :, : rows.above], g[:, :, rows.above + own :]], 2)
        more = rows.without_columns(outer).permute(2, 0, 3, 1)
        rows.fetch.add_back(rows.turn(more), g_x.permute(2, 0, 3, 1))  # half a turn is its own inverse
        return g_x, None


class Around(nn.Module):
    """Bands with `margin` cells more on every side, as a convolution takes them in: of 3 x 3 cells one more.

    Args:
      edges: of the whole grid. space: the processes. bounds: of their bands.
      margin: at most the rows of the grid, less one where there are poles, and its columns.
    """

    def __init__(self, edges: Edges, space: Space, bounds: tuple[int, ...], margin: int = 1):
        super().__init__()
        self.edges, self.margin, self.rows = edges, margin, None
        if space.size > 1:
            above = [range(start - margin, start) for start in bounds[:-1]]
            below = [range(stop, stop + margin) for stop in bounds[1:]]
            self.rows = Rows(space, bounds, above, below, edges, margin)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, channel, own rows, nlon)` -> `(batch, channel, own rows + 2 margin, nlon + 2 margin)`."""
        return padded(x, self.margin, self.edges) if self.rows is None else self.rows(x)


class Halving(nn.Module):
    """From a grid to the one with half as many rows and columns, the last of an odd number by itself, and back.

    A coarse row is where the first of its rows is, so that a row at most passes from band to band.

    Args:
      space: the processes. bounds: of the finer bands.
    """

    def __init__(self, space: Space, bounds: tuple[int, ...]):
        super().__init__()
        self.bounds = tuple(-(-bound // 2) for bound in bounds)
        self.first = bounds[space.rank] % 2  # whether the first row is the second half of a coarse one
        self.below = self.above = None
        if any(bound % 2 for bound in bounds[1:-1]):
            none, rows = [[]] * space.size, bounds[-1]
            below = [[stop] if stop % 2 and stop < rows else [] for stop in bounds[1:]]
            self.below = Rows(space, bounds, none, below)
            self.above = Rows(space, self.bounds, [[start // 2] if start % 2 else [] for start in bounds[:-1]], none)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Means of two by two cells, `(batch, channel, own rows, nlon)` to the coarser band."""
        if self.below is not None:
            x = self.below(x)[:, :, self.first :]
        return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)

    def back(self, x: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        """Every cell four times, to the finer band of so many rows and columns."""
        if self.above is not None:
            x = self.above(x)
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        return x[:, :, self.first : self.first + rows, :columns]


@dataclasses.dataclass(frozen=True)
class Level:
    """A grid that several halvings lead to.

    Attributes:
      edges: of the grid. space: the processes. bounds: of their bands.
    """

    edges: Edges
    space: Space
    bounds: tuple[int, ...]

    @property
    def share(self) -> float:
        """This process's share of the cells."""
        return (self.bounds[self.space.rank + 1] - self.bounds[self.space.rank]) / self.bounds[-1]

    def around(self, margin: int = 1) -> Around:
        """What is around its bands."""
        return Around(self.edges, self.space, self.bounds, margin)


def levels(edges: Edges, space: Space, rows: int, depth: int) -> tuple[nn.ModuleList, list[Level]]:
    """The halvings of a grid of so many rows, and its levels. Raises `ValueError` for one with fewer rows than processes."""
    halvings, places, bounds = nn.ModuleList(), [], space.bounds(rows)
    for n in range(depth + 1):
        if bounds[-1] < space.size:  # with as many no band is empty, since the first have one row more
            raise ValueError(
                f"Expected a row for each of {space.size} processes after {n} halvings of {rows} rows, got {bounds[-1]}"
            )
        places.append(Level(edges, space, bounds))
        if n < depth:
            halvings.append(Halving(space, bounds))
            edges, bounds = dataclasses.replace(edges, poles=False), halvings[n].bounds
    return halvings, places


def expect_halvings(edges: Edges, nlat: int, nlon: int, depth: int) -> None:
    """Raises `ValueError` for longitudes that cannot be halved so often and once more, and for too few rows or columns."""
    least = 2 ** (depth + 1)
    if edges.round and nlon % least:
        raise ValueError(f"Expected longitudes in a multiple of {least} for {depth} halvings, got {nlon}")
    names = ("latitudes", "longitudes") if edges.round else ("rows", "columns")
    for name, count in zip(names, (nlat, nlon), strict=True):
        if count < least:
            raise ValueError(f"Expected at least {least} {name} for {depth} halvings, got {count}")
