"""Tables, quadrature and transforms against torch-harmonics in float64, on machines for which it has wheels."""

import numpy as np
import pytest
import torch
from coefficients import PEER_GRID, SIZES, coefficients, dimensionless, random
from torch.testing import assert_close

from emulator.sphere.legendre import legendre
from emulator.sphere.tables import latitudes, truncation
from emulator.sphere.transform import SphericalTransform, VectorTransform, to_complex

pytest.importorskip("torch_harmonics")
from torch_harmonics import InverseRealSHT, InverseRealVectorSHT, RealSHT, RealVectorSHT
from torch_harmonics.legendre import legpoly
from torch_harmonics.quadrature import precompute_latitudes

try:
    from torch_harmonics.legendre import dlegpoly
except ImportError:  # 0.9.2, the release for torch 2.11
    from torch_harmonics.legendre import _precompute_dlegpoly as dlegpoly


@pytest.mark.parametrize("nlat", [2, 3, 8, 33, 64, 181, 240])
@pytest.mark.parametrize(("grid", "poles"), list(PEER_GRID))
def test_quadrature_is_that_of_torch_harmonics(nlat, grid, poles):
    for found, expected in zip(
        latitudes(nlat, grid, poles), precompute_latitudes(nlat, PEER_GRID[grid, poles]), strict=True
    ):
        # the weights of NumPy's Gaussian rule, which torch-harmonics takes, lose digits beside the poles
        assert_close(found, expected, rtol=1e-10 if grid == "gaussian" else 1e-12, atol=5e-15)


@pytest.mark.parametrize("lmax", [1, 2, 7, 64, 200])
@pytest.mark.parametrize("orders", [range(0, 200), range(0, 1), range(1, 5), range(37, 68)], ids=str)
def test_legendre_functions_are_those_of_torch_harmonics(lmax, orders):
    theta = np.concatenate([[0, np.pi], np.linspace(0.02, 3.1, 24)])
    orders = range(min(orders.start, lmax - 1), min(orders.stop, lmax))
    angles, last = torch.from_numpy(theta), orders.stop
    scalar = legpoly(last, lmax, torch.cos(angles))
    by_theta, over_sine = dlegpoly(last, lmax, angles)
    for kind, expected in (("scalar", scalar), ("theta", by_theta), ("phi", over_sine)):
        expected = expected[orders.start :, orders.start :]
        found = np.stack([each.copy() for each in legendre(kind, orders, lmax, theta)], 1)
        # torch-harmonics takes the sine from the cosine, which is wrong by 1e-16 over itself
        size = 1 + expected.abs().max().item()
        assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-15 * lmax**1.5 * size)


@pytest.mark.parametrize(("nlat", "nlon", "lmax"), SIZES)
@pytest.mark.parametrize(("grid", "poles"), list(PEER_GRID))
def test_scalar_transform_is_that_of_torch_harmonics(nlat, nlon, lmax, grid, poles):
    ours = SphericalTransform(nlat, nlon, grid, poles, lmax).double()
    peer = {"nlat": nlat, "nlon": nlon, "lmax": lmax, "mmax": lmax, "grid": PEER_GRID[grid, poles]}
    field = random(nlat, nlon, 3)
    expected = RealSHT(**peer).double()(field.permute(2, 0, 1))
    found = ours.analysis(field)
    assert_close(to_complex(found), expected, **dimensionless(field.shape))

    c = coefficients(lmax, 2, 2)
    expected = InverseRealSHT(**peer).double()(to_complex(c)).movedim((0, 1), (2, 3))
    assert_close(ours.synthesis(c), expected, **dimensionless((100 * lmax,)))


@pytest.mark.parametrize(("nlat", "nlon", "lmax"), SIZES)
@pytest.mark.parametrize(("grid", "poles"), list(PEER_GRID))
def test_vector_transform_is_that_of_torch_harmonics(nlat, nlon, lmax, grid, poles):
    if poles:
        lmax = min(lmax, truncation(nlat, nlon, grid))  # torch-harmonics and we differ in nothing that is resolved
    ours = VectorTransform(nlat, nlon, grid, poles, lmax).double()
    peer = {"nlat": nlat, "nlon": nlon, "lmax": lmax, "mmax": lmax, "grid": PEER_GRID[grid, poles]}
    spheroidal, toroidal = coefficients(lmax, 2, seed=1), coefficients(lmax, 2, seed=2)
    spheroidal[0], toroidal[0] = 0, 0
    expected = InverseRealVectorSHT(**peer).double()(torch.stack([to_complex(spheroidal), to_complex(toroidal)], 1))
    u, v = ours.synthesis(spheroidal, toroidal)
    # torch-harmonics' components point to growing colatitude (south) and east
    assert_close(u, expected[:, 1].movedim(0, 2), **dimensionless((1000 * lmax,)))
    assert_close(v, -expected[:, 0].movedim(0, 2), **dimensionless((1000 * lmax,)))

    u, v = random(nlat, nlon, 2, seed=3), random(nlat, nlon, 2, seed=4)
    expected = RealVectorSHT(**peer).double()(torch.stack([-v, u]).movedim(3, 0))
    found = ours.analysis(u, v)
    for part in (0, 1):
        # torch-harmonics divides by l (l + 1) in float32; the closed forms below hold to float64
        assert_close(to_complex(found[part]), expected[:, part], rtol=0, atol=1e-7 * expected.abs().max().item())


@pytest.mark.parametrize(("nlat", "nlon"), [(64, 128), (120, 240), (181, 360)])
def test_tables_take_at_most_half_of_torch_harmonics(nlat, nlon):
    ours = SphericalTransform(nlat, nlon, lmax=nlat // 2 if nlat % 2 else nlat)
    peer = {"nlat": nlat, "nlon": nlon, "lmax": ours.lmax, "mmax": ours.lmax, "grid": "legendre-gauss"}
    peers = [RealSHT(**peer), InverseRealSHT(**peer)]
    theirs = sum(4 * b.numel() for module in peers for b in module.buffers() if b.is_floating_point())
    found = sum(b.nbytes for b in ours.buffers())
    assert theirs > 0
    assert found <= theirs / 2
