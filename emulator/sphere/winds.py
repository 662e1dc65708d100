"""The two products of the transform of winds, on cells and coefficients in the order of the kernels.

With the angles theta southward and phi eastward, orthonormal harmonics Y and L = sqrt(l (l + 1)), the spheroidal and the
toroidal coefficient of a wind (u, v) are sums over the sphere of

    S = (-v dP / dtheta - i u m P / sin(theta)) / L        T = (-u dP / dtheta + i v m P / sin(theta)) / L.

Longitudes are transformed once, and both terms are one sum over twice as many rows: of the components that meet
dP / dtheta, and behind them of those that meet m P / sin(theta), times i. The transpose is the synthesis, as for scalars.
"""

from typing import NamedTuple

import torch
from torch.utils.flop_counter import register_flop_formula

from emulator.kernels import transform as native
from emulator.kernels.library import empty
from emulator.sphere.bands import BandProducts
from emulator.sphere.products import (
    count_of_products,
    from_spectra,
    sums_over_degrees,
    sums_over_rows,
    to_spectra,
)
from emulator.sphere.tables import Plan


def _doubled(plan):
    return plan._replace(nlat=4 * plan.half)


def _sums_over_rows(spectra, legendre, plan, vectors):
    """Coefficients `(count, C)` of spectra of (u, v)."""
    _, orders, half, channels = spectra[0].shape
    make = empty if native.serves(spectra[0], plan.nlon) else spectra[0].new_empty
    doubled = [make(2, orders, 2 * half, channels) for _ in (0, 1)]
    if native.serves(spectra[0], plan.nlon):
        native.winds(spectra, doubled, vectors, backward=False)
    else:
        _double(spectra, doubled, vectors)
    return sums_over_rows(doubled, legendre, _doubled(plan))


def _sums_over_degrees(c, orders, legendre, plan, vectors):
    """Transpose of `_sums_over_rows`: spectra with room for so many orders."""
    make = empty if native.serves(c, plan.nlon) else c.new_empty
    doubled = [make(2, orders, 2 * plan.half, c.shape[1]) for _ in (0, 1)]
    sums_over_degrees(c, doubled, legendre, _doubled(plan))
    spectra = [make(2, orders, plan.half, c.shape[1]) for _ in (0, 1)]
    if native.serves(c, plan.nlon):
        native.winds(spectra, doubled, vectors, backward=True)
    else:
        _halve(spectra, doubled, vectors)
    return spectra


def _components(spectrum, vectors):
    """Real and imaginary part of both components, `(2, 2, order, row, batch, vector)`, views."""
    return spectrum.unflatten(3, (-1, 2, vectors)).movedim(4, 1)


def _double(spectra, doubled, vectors):
    """Fill the doubled spectra; dP / dtheta has the other parity than P."""
    for q in (0, 1):
        theta, phi = (_components(part, vectors) for part in doubled[q].chunk(2, 2))
        theta.copy_(_components(spectra[1 - q], vectors).flip(1))
        (u_real, v_real), (u_imag, v_imag) = _components(spectra[q], vectors)
        phi[0, 0], phi[1, 1] = u_imag, v_real
        torch.neg(v_imag, out=phi[0, 1])
        torch.neg(u_real, out=phi[1, 0])


def _halve(spectra, doubled, vectors):
    """Transpose of `_double`."""
    for q in (0, 1):
        theta = _components(doubled[1 - q].chunk(2, 2)[0], vectors)
        phi = _components(doubled[q].chunk(2, 2)[1], vectors)
        (u_real, v_real), (u_imag, v_imag) = _components(spectra[q], vectors)
        torch.sub(theta[0, 1], phi[1, 0], out=u_real)
        torch.add(theta[1, 1], phi[0, 0], out=u_imag)
        torch.add(theta[0, 0], phi[1, 1], out=v_real)
        torch.sub(theta[1, 0], phi[0, 1], out=v_imag)


def winds_to_coefficients(x, legendre, fourier, plan, vectors):
    """`(nlon * nlat, C)` cells -> `(count, C)` coefficients; all contiguous, of the tables' type.

    C is `(batch, 2, vectors)`: eastward and northward components, and spheroidal and toroidal coefficients.
    """
    plan = Plan(*plan)
    spectra = to_spectra(x.view(plan.nlon, plan.nlat, -1), fourier, plan)
    return _sums_over_rows(spectra, legendre, plan, vectors)


def winds_to_cells(c, legendre, fourier, plan, vectors, onto=None):
    """Transpose of `winds_to_coefficients`: `(count, C)` -> `(nlon * nlat, C)`, added to cells `onto`; all contiguous."""
    plan = Plan(*plan)
    spectra = _sums_over_degrees(c, plan.orders, legendre, plan, vectors)
    return from_spectra(spectra, fourier, plan, onto).view(-1, c.shape[1])


_LIBRARY = torch.library.Library("emulator", "FRAGMENT")
_TABLES = "Tensor legendre, Tensor fourier, int[] plan, int vectors"
_LIBRARY.define(f"winds_to_coefficients(Tensor x, {_TABLES}) -> Tensor")
_LIBRARY.define(f"winds_to_cells(Tensor c, {_TABLES}, Tensor? onto=None) -> Tensor")
_LIBRARY.impl("winds_to_coefficients", winds_to_coefficients, "CompositeExplicitAutograd")
_LIBRARY.impl("winds_to_cells", winds_to_cells, "CompositeExplicitAutograd")


@torch.library.register_fake("emulator::winds_to_coefficients")
def _(x, legendre, fourier, plan, vectors):
    return x.new_empty(Plan(*plan).count, x.shape[1])


@torch.library.register_fake("emulator::winds_to_cells")
def _(c, legendre, fourier, plan, vectors, onto=None):
    return c.new_empty(plan[0] * plan[1], c.shape[1])


@register_flop_formula([torch.ops.emulator.winds_to_coefficients, torch.ops.emulator.winds_to_cells])
def _products(x, legendre, fourier, plan, vectors, onto=None, *, out_shape=None):
    """Operations, on the shapes of the arguments; the table has twice the rows of a scalar's."""
    return count_of_products(x, legendre, fourier, plan)


class WindProducts(NamedTuple):
    """`to_coefficients` and `to_cells` of `emulator.sphere.products` for so many vectors, of one process or of several."""

    vectors: int
    bands: BandProducts | None

    def to_coefficients(self, x, legendre, fourier, plan):
        if self.bands is None:
            return torch.ops.emulator.winds_to_coefficients(x, legendre, fourier, plan, self.vectors)
        plan = Plan(*plan)
        return _sums_over_rows(self.bands.to_spectra(x, plan), legendre, plan, self.vectors)

    def to_cells(self, c, legendre, fourier, plan, onto=None):
        if self.bands is None:
            return torch.ops.emulator.winds_to_cells(c, legendre, fourier, plan, self.vectors, onto)
        plan = Plan(*plan)
        spectra = _sums_over_degrees(c, self.bands.orders[plan.rank], legendre, plan, self.vectors)
        return self.bands.from_spectra(spectra, plan, onto)
