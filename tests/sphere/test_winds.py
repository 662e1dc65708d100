"""The transform of winds in the kernels' order: orthonormal, its gradients, and the same by kernels and by products."""

import math

import pytest
import torch
from coefficients import GRIDS, SIZES, random
from torch.testing import assert_close

from emulator.kernels import library
from emulator.sphere.tables import latitudes
from emulator.sphere.transform import VectorTransform


@pytest.mark.parametrize(("nlat", "nlon", "lmax"), SIZES)
def test_cells_and_coefficients_in_the_kernels_order_are_the_dense_ones(nlat, nlon, lmax):
    """Channels: eastward, then northward components; spheroidal, then toroidal coefficients, times sqrt(l (l + 1))."""
    transform = VectorTransform(nlat, nlon, lmax=lmax).double()
    u, v = (random(nlat, nlon, 2, 3, seed=seed) for seed in (1, 2))
    l = torch.arange(lmax, dtype=torch.float64)
    loudness = (l * (l + 1)).sqrt()[:, None, None, None, None]
    expected = torch.cat(transform.analysis(u, v), -1) * loudness
    c = transform.analyse(transform.arrange(torch.cat([u, v], -1)))
    assert_close(transform.unpack(c), expected, rtol=0, atol=1e-12)
    winds = transform.restore(transform.synthesise(c))
    smooth = torch.cat(transform.synthesis(*transform.analysis(u, v)), -1)
    assert_close(winds, smooth, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("grid", "poles"), GRIDS)
def test_energy_of_a_wind_is_that_of_its_coefficients(grid, poles):
    """Where the quadrature integrates the square: orders m > 0 stand for -m as well."""
    nlat, lmax = 24, 10
    transform = VectorTransform(nlat, 48, grid, poles, lmax).double()
    wind = random(nlat, 48, 2)
    c = transform.unpack(transform.analyse(transform.arrange(wind)))
    smooth = transform.restore(transform.synthesise(transform.pack(c)))
    weights = latitudes(nlat, grid, poles)[1] * (2 * math.pi / 48)
    energy = (weights[:, None, None] * smooth.square()).sum()
    double = 2 - (torch.arange(lmax) == 0).double()
    assert_close(energy, (c.square() * double[:, None, None]).sum(), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("nlat", "nlon", "lmax"), [(5, 8, 4), (4, 10, 4)])
def test_gradients_in_the_kernels_order_are_those_of_differences(nlat, nlon, lmax):
    transform = VectorTransform(nlat, nlon, lmax=lmax).double()
    cells = random(nlat * nlon, 1, 2).requires_grad_()

    def both(cells):
        c, kept = transform.analyse_besides(cells)
        return c, transform.synthesise(c * c), kept.square()

    assert torch.autograd.gradcheck(both, cells)


@pytest.mark.parametrize(("nlat", "nlon", "lmax"), [(16, 32, 16), (17, 30, 11), (25, 200, 25), (9, 14, 5)])
def test_float32_by_kernels_and_by_products_is_float64(nlat, nlon, lmax):
    transform, exact = VectorTransform(nlat, nlon, lmax=lmax), VectorTransform(nlat, nlon, lmax=lmax).double()
    cells = random(nlat * nlon, 2, 6)
    c = exact.analyse(cells)
    expected = c, exact.synthesise(c)
    for ours in (True, False):
        if ours:
            found = transform.analyse(cells.float()), transform.synthesise(c.float())
        else:
            with library.set_aside():
                found = transform.analyse(cells.float()), transform.synthesise(c.float())
        for value, wanted in zip(found, expected, strict=True):
            assert_close(value.double(), wanted, rtol=0, atol=3e-6 * float(wanted.abs().max()))


def test_products_are_counted_as_twice_those_of_scalars_over_latitude():
    transform = VectorTransform(16, 32)
    how = transform.fourier, list(transform.plan)
    cells = torch.zeros(16 * 32, 6)
    with torch.utils.flop_counter.FlopCounterMode(display=False) as of_winds:
        c = torch.ops.emulator.winds_to_coefficients(cells, transform.analysis_table, *how, 3)
        torch.ops.emulator.winds_to_cells(c, transform.synthesis_table, *how, 3)
    half = transform.analysis_table[: len(transform.analysis_table) // 2]
    with torch.utils.flop_counter.FlopCounterMode(display=False) as of_scalars:
        torch.ops.emulator.to_coefficients(cells, half.contiguous(), *how)
    along = 4 * 6 * transform.plan.half * len(transform.fourier)
    assert of_winds.get_total_flops() == 2 * (2 * (of_scalars.get_total_flops() - along) + along)
