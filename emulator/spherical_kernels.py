"""The two products of the spherical transform, on cells and coefficients in the order that suits them.

A transform with tables T (Legendre, with whatever weights) and F = (cos, -sin) of every order is `coefficients = T F x`
or its transpose `x = F^T T^T coefficients`; analysis and synthesis differ in the tables alone, and each one's gradient
is the other product with the same tables.

Cells, `(nlon * nlat, C)`, longitude outermost:
  - rows: the equator where there is one, the northern rows, then the southern rows in mirrored order, so that the
    hemispheres fold into even and odd parts (P_lm(-x) = (-1)^(l - m) P_lm(x)) by one sum and one difference;
  - longitudes, where their number N is a multiple of 4: 0, 1 ... Q - 1, Q, 2Q - 1 ... Q + 1 with Q = N / 4, then the
    same plus 2Q. Then x(j) +- x(j + 2Q) carries the even and odd orders, and reflection about Q splits cosines from
    sines: the Fourier transform becomes four products of a quarter of its size.
Coefficients, `(count, C)`: blocks of orders; in a block the even, then the odd degrees; for each degree the rows: real
parts of the even orders and of the odd ones, then the imaginary parts. A block starts at its lowest order, so that most
of the zeros at l < m are never stored or multiplied.

Measured against the alternatives in docs/benchmarks.md.
"""

import functools
from typing import NamedTuple

import torch


class OrderBlock(NamedTuple):
    """Orders m = 2 i + a for i from `start`: `orders[a]` of them, with `degrees[q]` degrees l = 2 j + q from j = start."""

    start: int
    orders: tuple[int, int]
    degrees: tuple[int, int]

    @property
    def rows(self) -> int:
        return 2 * sum(self.orders)


class Plan(NamedTuple):
    """Sizes of a transform. `width`: even orders in a block. `flipped`: tables of the opposite parity, as for dP/dtheta."""

    nlat: int
    nlon: int
    lmax: int
    width: int
    flipped: bool = False

    @property
    def blocks(self) -> tuple[OrderBlock, ...]:
        return order_blocks(self.lmax, self.width)

    @property
    def count(self) -> int:
        return sum(block.rows * sum(block.degrees) for block in self.blocks)

    @property
    def rows(self) -> tuple[int, int]:
        """Rows of the even and of the odd part."""
        return self.nlat - self.nlat // 2, self.nlat // 2

    @property
    def quarters(self) -> bool:
        """Whether longitudes are folded twice; a fast Fourier transform wins for very long rows and serves odd sizes."""
        return self.nlon % 4 == 0 and self.nlon <= 512

    def parity(self, a: int, q: int) -> int:
        """Part of the field, 0 even and 1 odd, that orders of parity a and degrees of parity q belong to."""
        return (a + q + self.flipped) % 2


@functools.lru_cache(maxsize=64)
def order_blocks(lmax: int, width: int) -> tuple[OrderBlock, ...]:
    even, odd = (lmax + 1) // 2, lmax // 2
    starts = [start for start in range(0, even, width) if start == 0 or start < odd]
    ends = [*starts[1:], even]
    return tuple(
        OrderBlock(s, (e - s, min(e, odd) - s), ((lmax + 1) // 2 - s, lmax // 2 - s))
        for s, e in zip(starts, ends, strict=True)
    )


@functools.lru_cache(maxsize=64)
def _table_shapes(plan: Plan):
    shapes = [
        (block.orders[a], block.degrees[q], plan.rows[plan.parity(a, q)])
        for block in plan.blocks
        for q in (0, 1)
        for a in (0, 1)
    ]
    return shapes, [m * l * k for m, l, k in shapes]


def _split_legendre(table, plan):
    """Views `(order, degree, row)` of the flat table for every block, parity of degree and parity of order."""
    shapes, sizes = _table_shapes(plan)
    views = [part.view(shape) for part, shape in zip(table.split(sizes), shapes, strict=True)]
    return [[views[n : n + 2], views[n + 2 : n + 4]] for n in range(0, len(views), 4)]


def _split_fourier(table, plan):
    """The four quarter matrices `(order, longitude)` and the rows of the folded field that they take."""
    quarter = plan.nlon // 4
    even, odd = (plan.lmax + 1) // 2, plan.lmax // 2
    shapes = ((even, quarter + 1), (even, quarter - 1), (odd, quarter), (odd, quarter))
    matrices = [p.view(s) for p, s in zip(table.split([m * n for m, n in shapes]), shapes, strict=True)]
    ends = (0, quarter + 1, 2 * quarter, 3 * quarter, 4 * quarter)
    return matrices, [slice(s, e) for s, e in zip(ends[:-1], ends[1:], strict=True)]


def _fold_hemispheres(x, plan):
    """`(nlon, nlat, C)` -> even and odd parts `(nlon, row, C)`."""
    even_rows, odd_rows = plan.rows
    equator = even_rows - odd_rows
    north, south = x[:, equator:even_rows], x[:, even_rows:]
    even = x.new_empty(plan.nlon, even_rows, x.shape[2])
    if equator:
        even[:, :1] = x[:, :1]
    torch.add(north, south, out=even[:, equator:])
    return even, north - south


def _unfold_hemispheres(even, odd, plan):
    even_rows, odd_rows = plan.rows
    equator = even_rows - odd_rows
    x = even.new_empty(plan.nlon, plan.nlat, even.shape[2])
    if equator:
        x[:, :1] = even[:, :1]
    torch.add(even[:, equator:], odd, out=x[:, equator:even_rows])
    torch.sub(even[:, equator:], odd, out=x[:, even_rows:])
    return x


def _halves(source, target):
    """Sum and difference of the two halves of the first axis: x(j) +- x(j + N / 2), its own transpose."""
    half = len(source) // 2
    torch.add(source[:half], source[half:], out=target[:half])
    torch.sub(source[:half], source[half:], out=target[half:])


def _reflect(source, target, transpose):
    """Sums and differences about the middle of each half; in the odd half the difference is the cosines' part."""
    half = len(source) // 2
    middle = half // 2
    for start in (0, half):
        target[start], target[start + middle] = source[start], source[start + middle]
        low, high = slice(start + 1, start + middle), slice(start + middle + 1, start + half)
        first, second = (torch.add, torch.sub) if start == 0 else (torch.sub, torch.add)
        if transpose and start:
            torch.add(source[low], source[high], out=target[low])
            torch.sub(source[high], source[low], out=target[high])
        else:
            first(source[low], source[high], out=target[low])
            second(source[low], source[high], out=target[high])


def _fourier_quarters(part, fourier, plan):
    """`(nlon, row, C)` -> for each parity of the order, real and imaginary `(order, row, C)`. Overwrites `part`."""
    shape = part.shape[1:]
    spare = torch.empty_like(part)
    _halves(part, spare)
    _reflect(spare, part, transpose=False)
    matrices, rows = _split_fourier(fourier, plan)
    flat = part.view(plan.nlon, -1)
    products = [
        torch.mm(matrix, flat[row]).view(len(matrix), *shape) for matrix, row in zip(matrices, rows, strict=True)
    ]
    return [products[:2], products[2:]]


def _inverse_quarters(spectrum, fourier, plan):
    shape = spectrum[0][0].shape[1:]
    matrices, rows = _split_fourier(fourier, plan)
    folded = fourier.new_empty(plan.nlon, shape.numel())
    for matrix, row, values in zip(matrices, rows, (*spectrum[0], *spectrum[1]), strict=True):
        torch.mm(matrix.t(), values.flatten(1), out=folded[row])
    folded = folded.view(plan.nlon, *shape)
    spare = torch.empty_like(folded)
    _reflect(folded, spare, transpose=True)
    _halves(spare, folded)
    return folded


def _fourier_fast(part, plan):
    spectrum = torch.view_as_real(torch.fft.rfft(part, dim=0)[: plan.lmax])
    return [[spectrum[a::2, ..., k].contiguous() for k in (0, 1)] for a in (0, 1)]


def _inverse_fast(spectrum, plan):
    full = spectrum[0][0].new_zeros(plan.nlon // 2 + 1, *spectrum[0][0].shape[1:], 2)
    for a in (0, 1):
        for k in (0, 1):
            full[a : plan.lmax : 2, ..., k] = spectrum[a][k]
    # irfft adds the conjugate of every order but the first and, for even lengths, the last
    full[1 : (plan.nlon + 1) // 2] *= 0.5
    return torch.fft.irfft(torch.view_as_complex(full), n=plan.nlon, dim=0, norm="forward")


def to_coefficients(x, legendre, fourier, plan):
    """`(nlon * nlat, C)` cells -> `(count, C)` coefficients; all contiguous, of the tables' type."""
    plan = Plan(*plan)
    channels = x.shape[1]
    parts = _fold_hemispheres(x.view(plan.nlon, plan.nlat, channels), plan)
    if plan.quarters:
        spectra = [_fourier_quarters(part, fourier, plan) for part in parts]
    else:
        spectra = [_fourier_fast(part, plan) for part in parts]
    out = x.new_empty(plan.count, channels)
    position = 0
    for block, tables in zip(plan.blocks, _split_legendre(legendre, plan), strict=True):
        for q in (0, 1):
            products = x.new_empty(block.rows, block.degrees[q], channels)
            row = 0
            for k in (0, 1):
                for a in (0, 1):
                    values = spectra[plan.parity(a, q)][a][k][block.start : block.start + block.orders[a]]
                    torch.bmm(tables[q][a], values, out=products[row : row + block.orders[a]])
                    row += block.orders[a]
            size = block.rows * block.degrees[q]
            out[position : position + size].view(block.degrees[q], block.rows, channels).copy_(products.transpose(0, 1))
            position += size
    return out


def to_cells(c, legendre, fourier, plan):
    """Transpose of `to_coefficients`: `(count, C)` -> `(nlon * nlat, C)`."""
    plan = Plan(*plan)
    channels, orders = c.shape[1], ((plan.lmax + 1) // 2, plan.lmax // 2)
    spectra = [[[c.new_empty(orders[a], rows, channels) for _ in (0, 1)] for a in (0, 1)] for rows in plan.rows]
    position = 0
    for block, tables in zip(plan.blocks, _split_legendre(legendre, plan), strict=True):
        for q in (0, 1):
            size = block.rows * block.degrees[q]
            values = c[position : position + size].view(block.degrees[q], block.rows, channels).transpose(0, 1)
            position += size
            row = 0
            for k in (0, 1):
                for a in (0, 1):
                    result = spectra[plan.parity(a, q)][a][k][block.start : block.start + block.orders[a]]
                    torch.bmm(tables[q][a].transpose(1, 2), values[row : row + block.orders[a]], out=result)
                    row += block.orders[a]
    if plan.quarters:
        parts = [_inverse_quarters(spectrum, fourier, plan) for spectrum in spectra]
    else:
        parts = [_inverse_fast(spectrum, plan) for spectrum in spectra]
    return _unfold_hemispheres(*parts, plan).view(-1, channels)


# Operators rather than plain functions, so that torch.compile takes each transform as one node: traced, it would become
# some hundred small ones, and `out=` on views is what saves the copies.
_LIBRARY = torch.library.Library("emulator", "FRAGMENT")
_LIBRARY.define("to_coefficients(Tensor x, Tensor legendre, Tensor fourier, int[] plan) -> Tensor")
_LIBRARY.define("to_cells(Tensor c, Tensor legendre, Tensor fourier, int[] plan) -> Tensor")


def _exact(kernel):
    """The kernel in the tables' precision, whatever the process has set for matrix products (TF32, autocast)."""

    def run(x, legendre, fourier, plan):
        precision = torch.get_float32_matmul_precision()
        if precision == "highest":
            return kernel(x.contiguous(), legendre, fourier, plan)
        torch.set_float32_matmul_precision("highest")
        try:
            return kernel(x.contiguous(), legendre, fourier, plan)
        finally:
            torch.set_float32_matmul_precision(precision)

    return run


_LIBRARY.impl("to_coefficients", _exact(to_coefficients), "CompositeExplicitAutograd")
_LIBRARY.impl("to_cells", _exact(to_cells), "CompositeExplicitAutograd")


@torch.library.register_fake("emulator::to_coefficients")
def _(x, legendre, fourier, plan):
    return x.new_empty(Plan(*plan).count, x.shape[1])


@torch.library.register_fake("emulator::to_cells")
def _(c, legendre, fourier, plan):
    return c.new_empty(plan[0] * plan[1], c.shape[1])


class Transform(torch.autograd.Function):
    """`to_coefficients`, or with `inverse` its transpose; the gradient is the other one with the same tables."""

    @staticmethod
    def forward(ctx, x, legendre, fourier, plan, inverse):
        ctx.save_for_backward(legendre, fourier)
        ctx.plan, ctx.inverse = plan, inverse
        operator = torch.ops.emulator.to_cells if inverse else torch.ops.emulator.to_coefficients
        return operator(x, legendre, fourier, plan)

    @staticmethod
    def backward(ctx, gradient):
        return Transform.apply(gradient, *ctx.saved_tensors, ctx.plan, not ctx.inverse), None, None, None, None
