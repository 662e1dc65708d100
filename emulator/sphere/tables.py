"""Sizes, orders and tables of a spherical transform: functions of its grid and its number of degrees.

The kernels' order of cells and coefficients makes every step of a transform work on contiguous memory.

Cells, `(nlon * nlat, C)`, longitude outermost.
  - Rows: the equator where there is one, the northern rows, the southern rows in mirrored order. The hemispheres fold
    into even and odd parts by one sum and one difference, since P_lm(-x) = (-1)^(l - m) P_lm(x).
  - Longitudes fold likewise, x(j) +- x(j + nlon / 2) carrying the even and the odd orders. Long rows fold once more
    about a quarter turn, which parts cosines from sines; their longitudes are in the order 0, 1 ... Q - 1, Q, 2Q - 1 ...
    Q + 1 with Q = nlon / 4, then the same plus 2Q.
Coefficients, `(count, C)`: blocks of orders; in a block the even, then the odd degrees, from the block's lowest order on
(which skips most of l < m); for each degree the real parts of the block's orders, then the imaginary parts.

Where several processes hold a state together (`emulator.sphere.bands`), each has its own rows, in the same order, and its own
orders: two blocks of them, one of low and one of high orders, so that all have about as many orders and as many coefficients.

Tables are made in float64, from `emulator.sphere.legendre`.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
import torch

from emulator.parallel.space import even_bounds
from emulator.sphere.legendre import equiangular, gauss_legendre, legendre

GRIDS = ("gaussian", "equiangular")


def latitudes(nlat: int, grid: str = "gaussian", poles: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Colatitudes in radians, north to south, and quadrature weights over cos(colatitude) summing to 2: `(nlat,)` float64.

    Gauss-Legendre (exact to degree 2 nlat - 1), Clenshaw-Curtis on an equiangular grid with poles and Fejer's first rule
    on one without (both exact to degree nlat - 1; Waldvogel 2006). Raises `ValueError` for another grid.
    """
    if grid not in GRIDS:
        raise ValueError(f"Expected a grid among {GRIDS}, got {grid!r}")
    if nlat < 2:
        raise ValueError(f"Expected at least 2 latitudes, got {nlat}")
    theta, weights = gauss_legendre(nlat) if grid == "gaussian" else equiangular(nlat, poles)
    return torch.from_numpy(theta), torch.from_numpy(weights)


def truncation(nlat: int, nlon: int, grid: str = "gaussian") -> int:
    """Largest number of degrees for which analysis inverts synthesis: bounded by the quadrature and by the longitudes."""
    exact = nlat if grid == "gaussian" else (nlat + 1) // 2
    return min(exact, (nlon + 1) // 2)


def block_width(lmax):
    """Orders in a block: few and large, for calls have their price, but enough to skip a third of the zeros at l < m."""
    return lmax + lmax % 2 if lmax <= 40 else 2 * math.ceil(lmax / 6)


class OrderBlock(NamedTuple):
    """Orders from `start` to `stop`, with `degrees[q]` degrees l = 2 j + q from j = start / 2 on."""

    start: int
    stop: int
    degrees: tuple[int, int]

    @property
    def rows(self) -> int:
        return 2 * (self.stop - self.start)


class Plan(NamedTuple):
    """Sizes of a transform. `width`: orders in a block, even.

    `natural`: fields and coefficients in their ordinary order, `(nlat, nlon, C)` and `(lmax, lmax, 2, C)`, not in the
    kernels'; the compiled kernels alone take these. `rank`, `size`: of the process among those that share the orders.
    """

    nlat: int
    nlon: int
    lmax: int
    width: int
    natural: bool = False
    rank: int = 0
    size: int = 1

    @property
    def blocks(self) -> tuple[OrderBlock, ...]:
        return order_blocks(self.lmax, self.width, self.rank, self.size)

    @property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """Where the blocks start and stop."""
        return tuple(block[:2] for block in self.blocks)

    @property
    def count(self) -> int:
        """Coefficients of a channel."""
        if self.natural:
            return 2 * self.lmax**2
        return sum(block.rows * sum(block.degrees) for block in self.blocks)

    @property
    def half(self) -> int:
        """Rows of one hemisphere, the equator included."""
        return (self.nlat + 1) // 2

    @property
    def orders(self) -> int:
        """Orders rounded up to an even number."""
        return self.lmax + self.lmax % 2

    @property
    def fourier(self) -> str:
        """How longitudes are transformed: by products after one fold ("half") or two ("quarter"), or "fast" (FFT)."""
        if self.nlon % 4 or self.nlon > 512 or self.size > 1:
            return "fast"
        return "quarter" if self.nlon >= 192 else "half"


@functools.lru_cache(maxsize=32)
def longitude_order(plan: Plan) -> tuple[int, ...]:
    """Longitude at each place of the kernels' order."""
    j = tuple(range(plan.nlon))
    if plan.fourier != "quarter":
        return j
    quarter = plan.nlon // 4
    half = j[: quarter + 1] + j[2 * quarter - 1 : quarter : -1]
    return half + tuple(i + 2 * quarter for i in half)


@functools.lru_cache(maxsize=64)
def order_blocks(lmax: int, width: int, rank: int = 0, size: int = 1) -> tuple[OrderBlock, ...]:
    """All blocks, or those of one of several processes: the first has the first and the last orders, and so on inwards."""
    if size == 1:
        bounds = [(start, min(start + width, lmax)) for start in range(0, lmax, width)]
    else:
        edges = [min(2 * edge, lmax) for edge in even_bounds((lmax + 1) // 2, 2 * size)]
        bounds = [(edges[n], edges[n + 1]) for n in (rank, 2 * size - 1 - rank)]
    return tuple(
        OrderBlock(start, stop, ((lmax + 1) // 2 - start // 2, lmax // 2 - start // 2))
        for start, stop in bounds
        if start < stop
    )


def legendre_table(grid, plan, kind, analysis):
    """Flat table in the kernels' order, float64, with the quadrature's weights for analysis, 2 - [m = 0] for synthesis.

    `kind`: "scalar" for P_lm; "wind" for -dP_lm / dtheta and behind them, as further rows, m P_lm / sin(theta), both divided
    by sqrt(l (l + 1)), so that vector harmonics are orthonormal.
    """
    theta, weights = (values.numpy() for values in latitudes(plan.nlat, *grid))
    rows = np.roll(np.arange(plan.half), plan.nlat % 2)  # the equator first
    theta, weights = theta[rows], weights[rows] * (2 * math.pi / plan.nlon)
    sizes = [(block.stop - block.start) * degrees for block in plan.blocks for degrees in block.degrees]
    width = plan.half if kind == "scalar" else 2 * plan.half
    table = np.empty((sum(sizes), width))
    parts = iter(np.split(table, np.cumsum(sizes[:-1])))
    for block in plan.blocks:
        orders = range(block.start, block.stop)
        halves = [next(parts).reshape(len(orders), degrees, width) for degrees in block.degrees]
        single = [[m == 0 or 2 * m == plan.nlon] for m in orders]
        factor = np.tile(weights, width // plan.half) if analysis else np.where(single, 1.0, 2.0)
        functions = (legendre if kind == "scalar" else _wind_functions)(kind, orders, plan.lmax, theta)
        for l, values in enumerate(functions, block.start):
            np.multiply(values, factor, out=halves[l % 2][:, l // 2 - block.start // 2])
    return torch.from_numpy(table).flatten()


def _wind_functions(_, orders, lmax, theta):
    pairs = zip(legendre("theta", orders, lmax, theta), legendre("phi", orders, lmax, theta), strict=True)
    for l, (slope, turn) in enumerate(pairs, orders.start):
        yield np.concatenate([-slope, turn], 1) / math.sqrt(max(l * (l + 1), 1))


def fourier_table(plan):
    """(cos, -sin) by parity of the order, then by part, then by order and folded longitude, flat, float64."""
    if plan.fourier == "fast":
        return torch.zeros(0, dtype=torch.float64)
    j = torch.tensor(longitude_order(plan))[: plan.nlon // 2]
    angle = (torch.outer(torch.arange(plan.orders), j) % plan.nlon).double() * (2 * math.pi / plan.nlon)
    parts = []
    for a in (0, 1):
        cosine, sine = torch.cos(angle[a::2]), -torch.sin(angle[a::2])
        if plan.fourier == "quarter":
            # after the second fold, the sines' part stands for the longitudes that come before the quarter turn
            quarter = plan.nlon // 4
            cosine = cosine[:, : quarter + 1 - a]
            sine = sine[:, [*range(quarter, quarter + a), *range(1, quarter)]]
        parts += [cosine.flatten(), sine.flatten()]
    return torch.cat(parts)


@functools.lru_cache(maxsize=64)
def own_rows(plan: Plan) -> tuple[int, ...]:
    """The rows of a process in the kernels' order, counted from the first of its band."""
    start, stop = even_bounds(plan.nlat, plan.size)[plan.rank : plan.rank + 2]
    equator = [plan.nlat // 2] * (plan.nlat % 2)
    rows = [*equator, *range(plan.nlat // 2), *range(plan.nlat - 1, plan.half - 1, -1)]
    return tuple(row - start for row in rows if start <= row < stop)


@functools.lru_cache(maxsize=32)
def cell_order(plan):
    """Index of every cell of the kernels' order in the field, and its inverse."""
    rows = torch.tensor(own_rows(plan))
    index = (torch.tensor(longitude_order(plan))[:, None] + plan.nlon * rows[None]).flatten()
    return index, torch.argsort(index)


@functools.lru_cache(maxsize=32)
def coefficient_order(plan):
    """Index of every stored coefficient in `(lmax, lmax, 2)`, and of every one of those in the store.

    Where l < m, both point at an entry that is zero in both, so that either index also carries gradients back.
    """
    stored = []
    for block in plan.blocks:
        orders = torch.arange(block.start, block.stop)
        for q in (0, 1):
            degrees = torch.arange(block.start + q, plan.lmax, 2)
            entry = (degrees[:, None, None] * plan.lmax + orders) * 2 + torch.arange(2)[:, None]  # (l, part, m)
            stored.append(entry.flatten())
    stored = torch.cat(stored)
    below = (stored // 2 // plan.lmax < stored // 2 % plan.lmax).nonzero()
    dense = torch.full((2 * plan.lmax**2,), int(below[0]) if len(below) else 0)
    dense[stored] = torch.arange(len(stored))
    return stored, dense
