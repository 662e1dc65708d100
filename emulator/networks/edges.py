"""What lies beyond the edges of a grid, and maps that go on there."""

import dataclasses
import functools

import torch
import torch.nn.functional as F

from emulator.kernels import library
from emulator.networks.registry import expect_global
from emulator.planet.grid import Grid


@dataclasses.dataclass(frozen=True)
class Edges:
    """What lies beyond the first and last cells.

    Attributes:
      poles: whether there are rows at the poles. round: whether rows go round the sphere.
      open: whether the grid is a region, beyond whose first and last rows (and columns, unless they go round) is nothing.
    """

    poles: bool = False
    round: bool = True
    open: bool = False

    def row(self, number: int, rows: int) -> int:
        """The row that is met at `number`, from `rows` before the first to as many after the last."""
        if self.open:
            return min(max(number, 0), rows - 1)
        repeated = 0 if self.poles else 1
        if number < 0:
            return -number - repeated
        return 2 * rows - number - 2 + repeated if number >= rows else number

    def turns(self, number: int, rows: int) -> bool:
        """Whether that row lies beyond a pole, half a turn on."""
        return not self.open and not 0 <= number < rows


SPHERE = Edges()


def edges_of(grid: Grid) -> Edges:
    """What lies beyond a grid's cells. Raises `ValueError` for a grid whose neighbours do not lie side by side."""
    if grid.is_global():
        expect_global(grid, "gaussian", "equiangular", "regular")
    elif grid.is_split:
        raise ValueError("Expected neighbours side by side, the box lies in two parts across Greenwich; ingest it anew")
    return Edges(grid.has_poles, grid.is_global() or grid.goes_round, not grid.is_global())


def padded(x: torch.Tensor, margin: int, edges: Edges) -> torch.Tensor:
    """Maps `(batch, channel, row, column)` with `margin` more cells on every side, as they go on there.

    As `pad_sphere` and `pad_region`, which define it, but for the order in which gradients are added up.
    """
    if margin and edges.round and not torch.compiler.is_compiling() and not library.ASIDE:
        return _InOnePiece.apply(x, margin, edges)
    if not margin:
        return x
    return pad_region(x, margin, edges.round) if edges.open else pad_sphere(x, margin, edges.poles)


def pad_sphere(x: torch.Tensor, margin: int, poles: bool = False) -> torch.Tensor:
    """Scalar fields `(..., nlat, nlon)` with `margin` more cells on every side.

    Longitude is periodic. Beyond a pole lies the meridian half a turn away; rows at the poles (`poles`) are not repeated.
    """
    x = pad_rows(x, margin, margin, poles)
    return torch.cat([x[..., -margin:], x, x[..., :margin]], -1)


def pad_rows(x: torch.Tensor, north: int, south: int, poles: bool = False) -> torch.Tensor:
    """Scalar fields `(..., nlat, nlon)` with so many rows more beyond either pole, as `pad_sphere` continues them."""
    first, half = int(poles), x.shape[-1] // 2
    last = x.shape[-2] - first
    above = x[..., first : first + north, :].flip(-2).roll(half, -1)
    below = x[..., last - south : last, :].flip(-2).roll(half, -1)
    return torch.cat([above, x, below], -2)


def pad_region(x: torch.Tensor, margin: int, round: bool = False) -> torch.Tensor:
    """Fields of a region `(batch, channel, row, column)` with `margin` more cells on every side: those at its border again.

    With `round`, rows go round the sphere and are continued from their other end.
    """
    if round:
        x = torch.cat([x[..., -margin:], x, x[..., :margin]], -1)
    sides = (0, 0) if round else (margin, margin)
    return F.pad(x, (*sides, margin, margin), mode="replicate")


class _InOnePiece(torch.autograd.Function):
    """Maps that go round, and back without zeros for all that was not taken: a third of the time of cutting and joining."""

    @staticmethod
    def forward(ctx, x, margin, edges):
        ctx.margin, ctx.edges = margin, edges
        (rows, columns), inner = x.shape[2:], slice(margin, -margin)
        last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        if last and x.device.type == "cpu":  # rows of channels, one by one: in place of a dozen operations
            cells = x.permute(0, 2, 3, 1).flatten(1, 2).index_select(1, _cells(rows, columns, margin, edges))
            return cells.unflatten(1, (rows + 2 * margin, columns + 2 * margin)).permute(0, 3, 1, 2)
        out = torch.empty(
            *x.shape[:2], rows + 2 * margin, columns + 2 * margin, dtype=x.dtype, device=x.device,
            memory_format=torch.channels_last if last else torch.contiguous_format,
        )  # fmt: skip
        out[..., inner, inner] = x
        if edges.open:
            north, south = x[..., :1, :], x[..., -1:, :]
        else:
            north, south = map(_turned, _beyond(x, margin, edges))
        out[..., :margin, inner], out[..., -margin:, inner] = north, south
        out[..., :margin] = out[..., columns : columns + margin]
        out[..., -margin:] = out[..., margin : 2 * margin]
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        margin = ctx.margin
        if g.is_cpu and g.is_contiguous(memory_format=torch.channels_last):
            rows, columns = (size - 2 * margin for size in g.shape[2:])
            inner, outer, again = _inner_and_outer(rows, columns, margin, ctx.edges)
            cells = g.permute(0, 2, 3, 1).flatten(1, 2)
            g_x = cells.index_select(1, inner).index_add_(1, again, cells.index_select(1, outer))
            return g_x.unflatten(1, (rows, columns)).permute(0, 3, 1, 2), None, None
        wide = g[..., margin:-margin].clone()
        wide[..., -margin:] += g[..., :margin]
        wide[..., :margin] += g[..., -margin:]
        g_x, outer = wide[..., margin:-margin, :], (wide[..., :margin, :], wide[..., -margin:, :])
        if ctx.edges.open:
            for row, more in zip((g_x[..., :1, :], g_x[..., -1:, :]), outer, strict=True):
                row += more.sum(-2, keepdim=True)
        else:
            for rows, more in zip(_beyond(g_x, margin, ctx.edges), outer, strict=True):
                rows += _turned(more)
        return g_x, None, None


@functools.lru_cache(maxsize=64)
def _cells(rows, columns, margin, edges):
    """Which cells of a map so many rows and columns with a margin have."""
    number = torch.arange(rows * columns, dtype=torch.float64, device="cpu").view(1, 1, rows, columns)  # exact to 2^53
    around = pad_region(number, margin, edges.round) if edges.open else pad_sphere(number, margin, edges.poles)
    return around.flatten().long()


@functools.lru_cache(maxsize=64)
def _inner_and_outer(rows, columns, margin, edges):
    """Where in a map with a margin its own cells lie, where the others, and which of its own each of these is again."""
    number = torch.arange((rows + 2 * margin) * (columns + 2 * margin), device="cpu").view(rows + 2 * margin, -1)
    own = torch.zeros(number.shape, dtype=torch.bool, device="cpu")
    own[margin:-margin, margin:-margin] = True
    return number[own], number[~own], _cells(rows, columns, margin, edges)[number[~own]]


def _beyond(x, margin, edges):
    """The rows of a map that lie beyond its poles too."""
    first = int(edges.poles)
    last = x.shape[-2] - first
    return x[..., first : first + margin, :], x[..., last - margin : last, :]


def _turned(rows):
    """Rows as they are met beyond a pole: in reverse, and half a turn on."""
    return rows.flip(-2).roll(rows.shape[-1] // 2, -1)
