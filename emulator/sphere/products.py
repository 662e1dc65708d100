"""The two products of the spherical transform, on cells and coefficients in the order that suits them.

A transform with Legendre tables T, whatever their weights, and F = (cos, -sin) is `coefficients = T F x`, or its
transpose `x = F^T T^T coefficients`. Analysis and synthesis differ in T alone, and the gradient of either is the other
product with the same tables.

The choices are measured in docs/benchmarks.md.
"""

import math

import torch
from torch.utils.flop_counter import register_flop_formula

from emulator.kernels import transform as native
from emulator.kernels.library import empty
from emulator.kernels.precision import exact_products
from emulator.sphere.tables import Plan, longitude_order


def _split_legendre(table, plan):
    """Views `(order, degree, row)` of the flat table, for every block and parity of degree."""
    shapes = [(b.stop - b.start, b.degrees[q], plan.half) for b in plan.blocks for q in (0, 1)]
    parts = table.split([m * l * k for m, l, k in shapes])
    views = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
    return list(zip(views[::2], views[1::2], strict=True))


def _fold(x, plan):
    """`(nlon, nlat, C)` -> parts[parity of order][parity in latitude], each `(nlon / 2, row, C)`."""
    turn, equator = plan.nlon // 2, plan.nlat % 2
    sums = (x[:turn] + x[turn:], x[:turn] - x[turn:])
    parts = [[x.new_empty(turn, plan.half, x.shape[2]) for _ in (0, 1)] for _ in (0, 1)]
    for values, (even, odd) in zip(sums, parts, strict=True):
        north, south = values[:, equator : plan.half], values[:, plan.half :]
        torch.add(north, south, out=even[:, equator:])
        torch.sub(north, south, out=odd[:, equator:])
        if equator:
            even[:, 0], odd[:, 0] = values[:, 0], 0
    return parts


def _unfold(parts, plan):
    """Transpose of `_fold`."""
    turn, equator, channels = plan.nlon // 2, plan.nlat % 2, parts[0][0].shape[2]
    x = parts[0][0].new_empty(plan.nlon, plan.nlat, channels)
    sums = [x.new_empty(turn, plan.nlat, channels) for _ in (0, 1)]
    for values, (even, odd) in zip(sums, parts, strict=True):
        torch.add(even[:, equator:], odd[:, equator:], out=values[:, equator : plan.half])
        torch.sub(even[:, equator:], odd[:, equator:], out=values[:, plan.half :])
        if equator:
            values[:, 0] = even[:, 0]
    torch.add(*sums, out=x[:turn])
    torch.sub(*sums, out=x[turn:])
    return x


def _reflect(source, a, transpose):
    """Sums and differences about the quarter turn: first the cosines' part, then the sines'.

    `(nlon / 2, ...)`; a: parity of the orders. For odd ones the cosines take the difference.
    """
    target = torch.empty_like(source)
    middle = len(source) // 2
    target[0], target[middle] = source[0], source[middle]
    low, high = slice(1, middle), slice(middle + 1, None)
    if a == 0:
        torch.add(source[low], source[high], out=target[low])
        torch.sub(source[low], source[high], out=target[high])
    elif transpose:
        torch.add(source[low], source[high], out=target[low])
        torch.sub(source[high], source[low], out=target[high])
    else:
        torch.sub(source[low], source[high], out=target[low])
        torch.add(source[low], source[high], out=target[high])
    return target


def _fourier_products(table, plan):
    """For each parity of the order, (rows of the spectrum, matrix, longitudes): rows are real, then imaginary parts."""
    turn, orders = plan.nlon // 2, plan.orders // 2
    if plan.fourier == "half":
        matrices = table.view(2, 2 * orders, turn)
        return [[(slice(None), matrix, slice(None))] for matrix in matrices]
    cosine = (turn // 2 + 1, turn // 2)
    matrices = table.split([n * orders for c in cosine for n in (c, turn - c)])
    real, imaginary = slice(0, orders), slice(orders, None)
    return [
        [
            (real, matrices[2 * a].view(orders, -1), slice(0, cosine[a])),
            (imaginary, matrices[2 * a + 1].view(orders, -1), slice(cosine[a], None)),
        ]
        for a in (0, 1)
    ]


def _spectrum_rows(spectrum, a):
    """The orders of parity a of a spectrum `(2, order, row, C)` as a matrix `(2 * order / 2, row * C)`, a view."""
    return spectrum.view(spectrum.shape[0] * spectrum.shape[1] // 2, 2, -1)[:, a]


def _places(plan, channels):
    if plan.natural:
        return native.natural_places(plan.nlat, plan.nlon, channels)
    return native.folded_places(plan.nlat, channels, longitude_order(plan))


def to_spectra(x, table, plan):
    """Of cells `(nlon, nlat, C)`, for each parity of degree, `(2, order, row, C)` of the part that its degrees belong to."""
    if native.serves(x, plan.nlon):
        spectra = [empty(2, plan.orders, plan.half, x.shape[2]) for _ in (0, 1)]
        native.fourier(x, spectra, _places(plan, x.shape[2]), plan.nlat, plan.lmax, backward=False)
        return spectra
    spectra = [x.new_empty(2, plan.orders, plan.half, x.shape[2]) for _ in (0, 1)]
    if plan.fourier == "fast":
        return _to_spectra_fast(x, spectra, plan)
    parts = _fold(x, plan)
    with exact_products():
        for a, products in enumerate(_fourier_products(table, plan)):
            for q in (0, 1):
                part = parts[a][(a + q) % 2]
                if plan.fourier == "quarter":
                    part = _reflect(part, a, transpose=False)
                target = _spectrum_rows(spectra[q], a)
                for rows, matrix, longitudes in products:
                    torch.mm(matrix, part[longitudes].flatten(1), out=target[rows])
    return spectra


def from_spectra(spectra, table, plan, onto=None):
    """Transpose of `to_spectra`, added to `onto`. What spectra hold beyond the plan's orders may be overwritten."""
    if native.serves(spectra[0], plan.nlon):
        x = empty(plan.nlon, plan.nlat, spectra[0].shape[3])
        native.fourier(x, spectra, _places(plan, x.shape[2]), plan.nlat, plan.lmax, backward=True, onto=onto)
        return x
    if plan.orders > plan.lmax:
        for spectrum in spectra:
            spectrum[:, plan.lmax :] = 0
    x = _from_spectra_fast(spectra, plan) if plan.fourier == "fast" else _from_spectra_products(spectra, table, plan)
    return x if onto is None else x.add_(onto.view(x.shape))


def _from_spectra_products(spectra, table, plan):
    turn, shape = plan.nlon // 2, spectra[0].shape[2:]
    parts = [[None, None], [None, None]]
    with exact_products():
        for a, products in enumerate(_fourier_products(table, plan)):
            for q in (0, 1):
                part = table.new_empty(turn, shape.numel())
                source = _spectrum_rows(spectra[q], a)
                for rows, matrix, longitudes in products:
                    torch.mm(matrix.t(), source[rows], out=part[longitudes])
                part = part.view(turn, *shape)
                parts[a][(a + q) % 2] = _reflect(part, a, transpose=True) if plan.fourier == "quarter" else part
    return _unfold(parts, plan)


def _to_spectra_fast(x, spectra, plan):
    equator = plan.nlat % 2
    north, south = x[:, : plan.half], torch.cat([x[:, :equator], x[:, plan.half :]], 1)
    for p, part in enumerate((north + south, north - south)):
        if equator and p == 0:
            part[:, 0] *= 0.5
        values = torch.view_as_real(torch.fft.rfft(part, dim=0)[: plan.lmax]).movedim(-1, 0)
        for a in (0, 1):
            spectra[(a + p) % 2][:, a : plan.lmax : 2] = values[:, a::2]
    return spectra


def _from_spectra_fast(spectra, plan):
    parts = []
    for p in (0, 1):
        full = spectra[0].new_zeros(plan.nlon // 2 + 1, *spectra[0].shape[2:], 2)
        for a in (0, 1):
            full[a : plan.lmax : 2] = spectra[(a + p) % 2][:, a : plan.lmax : 2].movedim(0, -1)
        # irfft adds the conjugate of every order but the first and, for even lengths, the last
        full[1 : (plan.nlon + 1) // 2] *= 0.5
        parts.append(torch.fft.irfft(torch.view_as_complex(full), n=plan.nlon, dim=0, norm="forward"))
    even, odd = parts
    equator = plan.nlat % 2
    if equator:
        odd[:, 0] = 0
    return torch.cat([even + odd, (even - odd)[:, equator:]], 1)


def to_coefficients(x, legendre, fourier, plan):
    """`(nlon * nlat, C)` cells -> `(count, C)` coefficients; all contiguous, of the tables' type."""
    plan = Plan(*plan)
    channels = x.shape[1]
    spectra = to_spectra(x.view(plan.nlon, plan.nlat, channels), fourier, plan)
    return sums_over_rows(spectra, legendre, plan)


def sums_over_rows(spectra, legendre, plan):
    """Coefficients `(count, C)` of the plan's blocks, from the two spectra of their orders."""
    channels = spectra[0].shape[3]
    if native.serves(spectra[0], plan.nlon):
        out = empty(plan.count, channels)
        native.legendre(out, spectra, legendre, plan.lmax, plan.bounds, plan.natural, False)
        return out
    out, position, place = legendre.new_empty(plan.count, channels), 0, 0
    with exact_products(small=plan.half < 40):
        for block, tables in zip(plan.blocks, _split_legendre(legendre, plan), strict=True):
            orders = block.stop - block.start
            for q in (0, 1):
                degrees = block.degrees[q]
                products = out.new_empty(2, orders, degrees, channels)
                for k in (0, 1):
                    values = spectra[q][k, place : place + orders]
                    torch.bmm(tables[q], values, out=products[k])
                size = block.rows * degrees
                target = out[position : position + size].view(degrees, block.rows, channels)
                target.copy_(products.view(block.rows, degrees, channels).transpose(0, 1))
                position += size
            place += orders
    return out


def to_cells(c, legendre, fourier, plan, onto=None):
    """Transpose of `to_coefficients`: `(count, C)` -> `(nlon * nlat, C)`, added to cells `onto`; all contiguous."""
    plan = Plan(*plan)
    channels = c.shape[1]
    make = empty if native.serves(c, plan.nlon) else c.new_empty
    spectra = [make(2, plan.orders, plan.half, channels) for _ in (0, 1)]
    sums_over_degrees(c, spectra, legendre, plan)
    return from_spectra(spectra, fourier, plan, onto).view(-1, channels)


def sums_over_degrees(c, spectra, legendre, plan):
    """Transpose of `sums_over_rows`: fills the orders of the plan's blocks in the two spectra."""
    channels = c.shape[1]
    if native.serves(c, plan.nlon):
        native.legendre(c, spectra, legendre, plan.lmax, plan.bounds, plan.natural, True)
        return
    position = place = 0
    with exact_products(small=plan.half < 40):
        for block, tables in zip(plan.blocks, _split_legendre(legendre, plan), strict=True):
            orders = block.stop - block.start
            for q in (0, 1):
                degrees = block.degrees[q]
                size = block.rows * degrees
                values = c[position : position + size].view(degrees, 2, orders, channels)
                position += size
                for k in (0, 1):
                    target = spectra[q][k, place : place + orders]
                    torch.bmm(tables[q].transpose(1, 2), values[:, k].transpose(0, 1), out=target)
            place += orders


# Operators rather than plain functions, so that torch.compile takes each transform as one node: traced, it would become
# some fifty small ones, and `out=` on views is what saves the copies.
_LIBRARY = torch.library.Library("emulator", "FRAGMENT")
_LIBRARY.define("to_coefficients(Tensor x, Tensor legendre, Tensor fourier, int[] plan) -> Tensor")
_LIBRARY.define("to_cells(Tensor c, Tensor legendre, Tensor fourier, int[] plan, Tensor? onto=None) -> Tensor")
_LIBRARY.impl("to_coefficients", to_coefficients, "CompositeExplicitAutograd")
_LIBRARY.impl("to_cells", to_cells, "CompositeExplicitAutograd")


@torch.library.register_fake("emulator::to_coefficients")
def _(x, legendre, fourier, plan):
    return x.new_empty(Plan(*plan).count, x.shape[1])


@torch.library.register_fake("emulator::to_cells")
def _(c, legendre, fourier, plan, onto=None):
    return c.new_empty(plan[0] * plan[1], c.shape[1])


def count_of_products(x, legendre, fourier, plan):
    """Operations, on the shapes of the arguments: every entry of a table meets the real and imaginary part of a channel."""
    return 4 * x[1] * (math.prod(legendre) + Plan(*plan).half * math.prod(fourier))


@register_flop_formula([torch.ops.emulator.to_coefficients, torch.ops.emulator.to_cells])
def _products(x, legendre, fourier, plan, onto=None, *, out_shape=None):
    return count_of_products(x, legendre, fourier, plan)


class Transform(torch.autograd.Function):
    """`to_coefficients`, or with `inverse` its transpose; the gradient is the other one with the same tables.

    `products`: what has other functions of these names (`emulator.sphere.bands`); None for those of this file.
    """

    @staticmethod
    def forward(ctx, x, legendre, fourier, plan, inverse, products):
        ctx.save_for_backward(legendre, fourier)
        ctx.plan, ctx.inverse, ctx.products = plan, inverse, products
        products = products or torch.ops.emulator
        operator = products.to_cells if inverse else products.to_coefficients
        return operator(x.contiguous(), legendre, fourier, plan)

    @staticmethod
    def backward(ctx, gradient):
        back = Transform.apply(gradient, *ctx.saved_tensors, ctx.plan, not ctx.inverse, ctx.products)
        return back, None, None, None, None, None


class AnalysisBesides(torch.autograd.Function):
    """`to_coefficients` of cells that are used elsewhere too: the coefficients, and the cells for that other use.

    The gradients of both uses meet in the transform's last pass, which saves a pass over memory.
    """

    @staticmethod
    def forward(ctx, x, legendre, fourier, plan, products):
        ctx.save_for_backward(legendre, fourier)
        ctx.set_materialize_grads(False)
        ctx.plan, ctx.products = plan, products
        return (products or torch.ops.emulator).to_coefficients(x, legendre, fourier, plan), x.view_as(x)

    @staticmethod
    def backward(ctx, gradient, other):
        if gradient is None or other is None or torch.is_grad_enabled():
            how = *ctx.saved_tensors, ctx.plan, True, ctx.products
            back = None if gradient is None else Transform.apply(gradient, *how)
            total = other if back is None else back if other is None else back + other
        else:
            to_cells = (ctx.products or torch.ops.emulator).to_cells
            total = to_cells(gradient.contiguous(), *ctx.saved_tensors, ctx.plan, other.contiguous())
        return total, None, None, None, None
