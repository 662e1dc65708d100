"""What lies around bands of rows of a grid, and halvings of both.

Of one process these are the whole grid's, as they are without bands.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from emulator.networks.edges import Edges, padded
from emulator.parallel.space import Fetch, Space


class Rows(nn.Module):
    """The rows that a process needs of a map of which every process has a band.

    Args:
      space: the processes. bounds: of their bands, `(size + 1,)`.
      wanted: of every rank the rows that it needs; with `edges` they may lie beyond the grid's edges.
      edges: of the whole grid, where columns are wanted too: `columns` on either side.
    """

    def __init__(
        self, space: Space, bounds: Sequence[int], wanted: Sequence[range], edges: Edges | None = None, columns: int = 0
    ):
        super().__init__()
        edges, rows = edges or Edges(open=True), bounds[-1]
        bands = [range(start, stop) for start, stop in itertools.pairwise(bounds)]

        def elsewhere(rank):
            return [number for number in wanted[rank] if number not in bands[rank]]

        def needed(rank):
            return np.array([edges.row(number, rows) for number in elsewhere(rank)], np.int64)

        self.fetch = Fetch(space, bounds, needed)
        self.as_they_are = not columns and list(wanted) == bands
        mine, own = wanted[space.rank], bands[space.rank]
        kept = max(mine.start, own.start), min(mine.stop, own.stop)
        if kept[0] >= kept[1]:  # all from elsewhere
            kept = own.start, own.start
        self.kept = slice(kept[0] - own.start, kept[1] - own.start)
        self.above, self.columns, self.round = sum(n < own.start for n in elsewhere(space.rank)), columns, edges.round
        turned = [edges.turns(number, rows) for number in elsewhere(space.rank)]
        self.turns = any(turned)
        self.register_buffer("turned", torch.tensor(turned, dtype=torch.bool)[:, None, None, None], persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, channel, own rows, nlon)` -> `(batch, channel, wanted rows, nlon + 2 columns)`.

        The result has its channels last where x does not have its columns last.
        """
        return x if self.as_they_are else _WithRows.apply(x, self)

    def turn(self, rows, back: bool = False):
        """Rows `(above + below, batch, nlon, channel)`, those beyond a pole half a turn on, or back again."""
        half = rows.shape[2] // 2  # of an odd number of columns half a turn is not its own inverse
        return torch.where(self.turned, rows.roll(-half if back else half, 2), rows) if self.turns else rows

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
        ctx.rows, ctx.own, (batch, channels, _, nlon) = rows, x.shape[2], x.shape
        more = rows.turn(rows.fetch.forward(x.permute(2, 0, 3, 1)))  # by no call: hooks of modules see no graph here
        side, kept = rows.columns, rows.kept.stop - rows.kept.start
        shape = batch, channels, kept + len(more), nlon + 2 * side
        last = torch.contiguous_format if x.is_contiguous() else torch.channels_last
        out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=last)
        inner = out[..., side : side + nlon]
        inner[:, :, rows.above : rows.above + kept] = x[:, :, rows.kept]
        more = more.permute(1, 3, 0, 2)
        inner[:, :, : rows.above], inner[:, :, rows.above + kept :] = more[:, :, : rows.above], more[:, :, rows.above :]
        rows.continue_columns(out)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        rows = ctx.rows
        below = g.shape[2] - len(rows.fetch.place) + rows.above
        g_x = rows.without_columns(g[:, :, rows.above : below])
        if g_x.shape[2] < ctx.own:
            g_x = F.pad(g_x, (0, 0, rows.kept.start, ctx.own - rows.kept.stop))
        outer = torch.cat([g[:, :, : rows.above], g[:, :, below:]], 2)
        more = rows.without_columns(outer).permute(2, 0, 3, 1)
        rows.fetch.add_back(rows.turn(more, back=True), g_x.permute(2, 0, 3, 1))
        return g_x, None


class Around(nn.Module):
    """Bands with `margin` cells more on every side, as a convolution takes them in: of 3 x 3 cells one more.

    Args:
      edges: of the whole grid. space: the processes. bounds: of their bands.
      margin: at most the rows of the grid, less one where there are poles, and its columns.
      stride: of the rows that the convolution is taken at, from the first of the grid on, 1 or 2.
    """

    def __init__(self, edges: Edges, space: Space, bounds: tuple[int, ...], margin: int = 1, stride: int = 1):
        super().__init__()
        self.edges, self.margin, self.rows = edges, margin, None
        if space.size > 1:
            taken = itertools.pairwise(stride * -(-bound // stride) for bound in bounds)
            wanted = [range(start - margin, stop - stride + margin + 1) for start, stop in taken]
            self.rows = Rows(space, bounds, wanted, edges, margin)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, channel, own rows, nlon)` -> `margin` more on every side, but for rows that no stride needs."""
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
            pairs = list(itertools.pairwise(bounds))
            whole = [range(start + start % 2, min(stop + stop % 2, bounds[-1])) for start, stop in pairs]
            self.below = Rows(space, bounds, whole)
            self.above = Rows(space, self.bounds, [range(start // 2, -(-stop // 2)) for start, stop in pairs])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Means of two by two cells, `(batch, channel, own rows, nlon)` to the coarser band."""
        return F.avg_pool2d(self.of_pairs(x), 2, ceil_mode=True, count_include_pad=False)

    def largest(self, x: torch.Tensor) -> torch.Tensor:
        """The largest of two by two cells, likewise."""
        return F.max_pool2d(self.of_pairs(x), 2, ceil_mode=True)

    def of_pairs(self, x: torch.Tensor) -> torch.Tensor:
        """The rows that become those of the coarser band."""
        return x if self.below is None else self.below(x)

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
    def first(self) -> int:
        """The number of this process's first row."""
        return self.bounds[self.space.rank]

    @property
    def share(self) -> float:
        """This process's share of the cells."""
        return (self.bounds[self.space.rank + 1] - self.bounds[self.space.rank]) / self.bounds[-1]

    def around(self, margin: int = 1, stride: int = 1) -> Around:
        """What is around its bands."""
        return Around(self.edges, self.space, self.bounds, margin, stride)


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
