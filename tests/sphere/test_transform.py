"""The spherical-harmonic transform: precision, closed forms, quadrature and symmetries."""

import copy
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from coefficients import GRIDS, coefficients, random
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from emulator.planet.grid import Grid
from emulator.sphere.tables import latitudes, truncation
from emulator.sphere.transform import SphericalTransform, VectorTransform, to_complex, transform

# --- precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("nlat", "nlon"), [(64, 128), (120, 240), (181, 360)])
def test_float32_round_trip_stays_within_two_parts_in_a_million(nlat, nlon):
    grid, poles = ("equiangular", True) if nlat % 2 else ("gaussian", False)
    ours = SphericalTransform(nlat, nlon, grid, poles)
    c = coefficients(ours.lmax, 4)
    exact = copy.deepcopy(ours).double().synthesis(c)
    assert relative(ours.synthesis(c.float()), exact) < 2e-6
    assert relative(ours.analysis(exact.float()), c) < 2e-6


def relative(found, exact):
    error = (found.double() - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert found.dtype == torch.float32
    assert error > 0, "float32 cannot be exact"
    return error


# --- closed forms ---------------------------------------------------------------------------------------------------


def harmonic(l, m, theta, phi):
    """Orthonormal harmonics with the Condon-Shortley phase, written out (Abramowitz and Stegun 8.6; Varshalovich 5.13)."""
    x, s = torch.cos(theta), torch.sin(theta)
    p = {
        (0, 0): 0.5 * math.sqrt(1 / math.pi) + 0 * x,
        (1, 0): 0.5 * math.sqrt(3 / math.pi) * x,
        (1, 1): -0.5 * math.sqrt(1.5 / math.pi) * s,
        (2, 0): 0.25 * math.sqrt(5 / math.pi) * (3 * x**2 - 1),
        (2, 1): -0.5 * math.sqrt(7.5 / math.pi) * s * x,
        (2, 2): 0.25 * math.sqrt(7.5 / math.pi) * s**2,
        (3, 0): 0.25 * math.sqrt(7 / math.pi) * (5 * x**3 - 3 * x),
        (3, 2): 0.25 * math.sqrt(52.5 / math.pi) * s**2 * x,
        (3, 3): -0.125 * math.sqrt(35 / math.pi) * s**3,
    }[l, m]
    return p[:, None] * torch.exp(1j * m * phi)


HARMONICS = [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (3, 0), (3, 2), (3, 3)]


@pytest.mark.parametrize(("grid", "poles"), GRIDS)
@pytest.mark.parametrize("nlat", [10, 11])
def test_harmonics_of_low_degree_have_one_coefficient(grid, poles, nlat):
    transform = SphericalTransform(nlat, 20, grid, poles).double()
    theta, phi = latitudes(nlat, grid, poles)[0], torch.arange(20).double() * (2 * math.pi / 20)
    weight = 0.7 - 1.3j
    for l, m in HARMONICS:
        amplitude = weight if m else weight.real
        field = ((1 if m == 0 else 2) * amplitude * harmonic(l, m, theta, phi)).real
        expected = torch.zeros(transform.lmax, transform.lmax, dtype=torch.complex128)
        expected[l, m] = amplitude
        assert_close(to_complex(transform.analysis(field)), expected, rtol=0, atol=1e-13)
        assert_close(transform.synthesis(torch.view_as_real(expected)), field, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("grid", "poles"), GRIDS)
@pytest.mark.parametrize("nlat", [12, 13])
def test_solid_body_rotation_is_one_toroidal_coefficient_and_its_vorticity_is_known(grid, poles, nlat):
    """u = cos(latitude) on the unit sphere has vorticity 2 sin(latitude) and no divergence."""
    transform = VectorTransform(nlat, 24, grid, poles).double()
    theta = latitudes(nlat, grid, poles)[0]
    u = torch.sin(theta)[:, None].expand(nlat, 24)
    spheroidal, toroidal = transform.analysis(u, torch.zeros_like(u))
    assert_close(spheroidal, torch.zeros_like(spheroidal), rtol=0, atol=1e-13)
    degrees = torch.arange(transform.lmax, dtype=torch.float64)
    vorticity = toroidal * (degrees * (degrees + 1)).view(-1, 1, 1)
    scalar = SphericalTransform(nlat, 24, grid, poles, transform.lmax).double()
    expected = (2 * torch.cos(theta))[:, None].expand(nlat, 24)
    assert_close(scalar.synthesis(vorticity), expected, rtol=0, atol=1e-12)


def test_wind_of_a_potential_is_its_gradient_and_divergence_its_laplacian():
    """For chi = sin^2(theta) cos(2 phi): u = d chi / d phi / sin(theta), v = -d chi / d theta, and laplacian -6 chi."""
    nlat, nlon = 16, 32
    theta, phi = latitudes(nlat)[0][:, None], torch.arange(nlon).double() * (2 * math.pi / nlon)
    u = -2 * torch.sin(theta) * torch.sin(2 * phi)
    v = -2 * torch.sin(theta) * torch.cos(theta) * torch.cos(2 * phi)
    vector, scalar = VectorTransform(nlat, nlon).double(), SphericalTransform(nlat, nlon).double()
    spheroidal, toroidal = vector.analysis(u, v)
    assert_close(toroidal, torch.zeros_like(toroidal), rtol=0, atol=1e-13)
    degrees = torch.arange(vector.lmax, dtype=torch.float64)
    divergence = scalar.synthesis(-spheroidal * (degrees * (degrees + 1)).view(-1, 1, 1))
    assert_close(divergence, -6 * torch.sin(theta) ** 2 * torch.cos(2 * phi), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("grid", "poles"), GRIDS)
@pytest.mark.parametrize("nlat", [2, 3, 8, 9, 33])
def test_quadrature_is_exact_for_polynomials_up_to_its_degree(grid, poles, nlat):
    theta, weights = latitudes(nlat, grid, poles)
    assert torch.all(theta[1:] > theta[:-1]) and theta[0] >= 0 and theta[-1] <= math.pi
    assert bool(theta[0] == 0) == (grid == "equiangular" and poles)
    degree = 2 * nlat - 1 if grid == "gaussian" else nlat - 1
    for power in range(degree + 1):
        exact = 0.0 if power % 2 else 2 / (power + 1)
        assert_close((weights * torch.cos(theta) ** power).sum().item(), exact, rtol=0, atol=1e-13)


# --- properties -----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    nlat=st.integers(2, 24),
    nlon=st.integers(4, 50),
    grid=st.sampled_from(GRIDS),
    share=st.floats(0.2, 1.0),
    seed=st.integers(0, 9),
)
def test_analysis_inverts_synthesis_within_the_truncation_and_keeps_energy(nlat, nlon, grid, share, seed):
    lmax = max(1, int(share * truncation(nlat, nlon, grid[0])))
    transform = SphericalTransform(nlat, nlon, *grid, lmax).double()
    c = coefficients(lmax, 2, seed=seed)
    field = transform.synthesis(c)
    assert field.shape == (nlat, nlon, 2)
    assert_close(transform.analysis(field), c, rtol=0, atol=1e-11)
    # Parseval, where the quadrature integrates the square: orders m > 0 stand for -m as well
    weights = latitudes(nlat, *grid)[1] * (2 * math.pi / nlon)
    double = 2 - (torch.arange(lmax) == 0).double()
    if 2 * (lmax - 1) <= (2 * nlat - 1 if grid[0] == "gaussian" else nlat - 1):
        energy = (weights[:, None, None] * field.square()).sum()
        assert_close(energy, (c.square() * double[:, None, None]).sum(), rtol=1e-11, atol=0)


@settings(max_examples=30, deadline=None)
@given(nlat=st.integers(4, 20), nlon=st.integers(6, 40), grid=st.sampled_from(GRIDS), seed=st.integers(0, 9))
def test_wind_survives_the_round_trip(nlat, nlon, grid, seed):
    lmax = max(1, truncation(nlat, nlon, grid[0]) - 1)  # derivatives reach one degree further
    transform = VectorTransform(nlat, nlon, *grid, lmax).double()
    parts = coefficients(lmax, seed=seed), coefficients(lmax, seed=seed + 10)
    for part in parts:
        part[0] = 0  # no wind has a part of degree 0
    found = transform.analysis(*transform.synthesis(*parts))
    for part in (0, 1):
        assert_close(found[part], parts[part], rtol=0, atol=1e-10)


@settings(max_examples=30, deadline=None)
@given(nlat=st.integers(2, 19), nlon=st.integers(4, 40), lmax=st.integers(1, 12), channels=st.integers(1, 3))
def test_orders_of_cells_and_coefficients_can_be_undone(nlat, nlon, lmax, channels):
    transform = SphericalTransform(nlat, nlon, lmax=min(lmax, nlon // 2 + 1))
    field = random(nlat, nlon, channels).float()
    assert torch.equal(transform.restore(transform.arrange(field)), field)
    c = coefficients(transform.lmax, channels).float()
    assert torch.equal(transform.unpack(transform.pack(c)), c)


def test_eastward_shift_multiplies_by_a_phase():
    transform = SphericalTransform(12, 24).double()
    field = random(12, 24, 2)
    phase = torch.exp(-1j * torch.arange(12).double() * (2 * math.pi * 5 / 24))
    expected = to_complex(transform.analysis(field)) * phase
    assert_close(to_complex(transform.analysis(field.roll(5, 1))), expected, rtol=0, atol=1e-13)


def test_the_embedded_winds_are_smooth(shared_data):
    """A real 200 hPa wind (2.5 degrees with poles): what T36 keeps of it is nearly all, and derivatives agree."""
    import xarray as xr

    fields = []
    for name in ("u", "v"):
        with xr.open_dataset(shared_data / "climate" / f"{name}wnd_mean.nc") as dataset:
            wind = dataset[f"{name}wnd"].isel(time=0).sortby("latitude", ascending=False)
            fields.append(torch.tensor(wind.transpose("latitude", "longitude").values.astype(np.float64)))
    u, v = fields
    transform = VectorTransform(*u.shape, "equiangular", True).double()
    smooth = transform.synthesis(*transform.analysis(u, v))
    weights = latitudes(len(u), "equiangular", True)[1][:, None]
    for wind, kept in zip(fields, smooth, strict=True):
        assert (weights * (wind - kept).square()).sum() < 1e-3 * (weights * wind.square()).sum()
    again = transform.synthesis(*transform.analysis(*smooth))
    assert_close(torch.stack(again), torch.stack(smooth), rtol=0, atol=1e-9)


@pytest.mark.parametrize("grid", [Grid.gaussian(12), Grid.equiangular(13, 24, poles=True), Grid.equiangular(12)])
def test_the_transform_of_a_grid_is_that_of_its_rows(grid):
    """The field sin(latitude) is the harmonic of degree 1 and order 0, wherever a grid's rows lie."""
    field = torch.from_numpy(np.sin(np.radians(grid.mesh()[0])))[..., None]
    c = transform(grid).double().analysis(field)
    expected = torch.zeros_like(c)
    expected[1, 0, 0] = math.sqrt(4 * math.pi / 3)
    assert_close(c, expected, rtol=0, atol=1e-13)
    with pytest.raises(ValueError, match="Gaussian or equiangular grid to transform, got 4 points"):
        transform(Grid.points([0, 10, 20, 30], [0, 0, 0, 0], np.ones(4)))


def test_a_transform_loads_neither_torchs_compiler_nor_torch_harmonics():
    """Either takes a second or two, and torch-harmonics is not to be had on every machine."""
    code = """
import sys
from emulator.planet.grid import Grid
from emulator.sphere.transform import transform
transform(Grid.gaussian(8))
assert not {"torch._inductor.compile_fx", "torch_harmonics"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
