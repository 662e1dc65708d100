"""Spectra of a limited area, and its regions by the distance to its sides."""

import numpy as np
import pytest

from emulator.planet.grid import Grid
from emulator.planet.regions import by_distance, region_weights
from emulator.verify.metrics.rain import neighbourhood
from emulator.verify.metrics.spectra import power_spectrum, spectrum_kind
from emulator.verify.plane_spectrum import plane_spectrum

BOX = Grid.box(12, 20, (30.0, 60.0, 0.0, 50.0))


def test_variances_sum_to_the_mean_square():
    field = np.random.default_rng(0).standard_normal((3, 12, 20))
    np.testing.assert_allclose(plane_spectrum(field).sum(-1), (field**2).mean((-2, -1)), rtol=1e-12)
    assert spectrum_kind(BOX) == "plane" and power_spectrum(field, BOX).shape == (3, 12)


@pytest.mark.parametrize("wave", [1, 4, 9])
def test_half_waves_along_the_shorter_side_lie_in_their_ring(wave):
    row = np.cos(np.pi * wave * (np.arange(12) + 0.5) / 12)
    power = plane_spectrum(np.repeat(row[:, None], 20, axis=1))
    expected = np.zeros(12)
    expected[wave] = 0.5
    np.testing.assert_allclose(power, expected, atol=1e-12)


def test_a_trend_across_the_domain_leaves_small_scales_alone():
    """A Fourier transform takes the jump between opposite sides for small scales, falling as the wavenumber squared."""
    trend = np.repeat(np.arange(48.0)[:, None], 48, axis=1)
    power = plane_spectrum(trend)
    fourier = np.abs(np.fft.rfft(trend[:, 0])) ** 2 / 48**2 * 2
    assert power[20:].sum() / power[1:].sum() < 1e-4 < fourier[10:].sum() / fourier[1:].sum()


def test_regions_by_distance_leave_a_prescribed_frame_out():
    near, centre, interior = (by_distance(name, BOX, 2) for name in ("near-boundary", "centre", "interior"))
    assert interior.sum() == 8 * 16 and not (near & centre).any() and not (near & ~interior).any()
    assert near[2, 5] and not near[1, 5] and not near[3, 5] and centre[5:7, 8].all() and not centre[3, 8]
    weights = region_weights(BOX, ["near-boundary", "domain"], prescribed=2)
    np.testing.assert_allclose(weights.sum((1, 2)), 1, rtol=1e-12)
    with pytest.raises(ValueError, match="which have sides"):
        region_weights(Grid.equiangular(8), ["centre"])


def test_neighbourhoods_end_at_the_sides_of_a_limited_area():
    field = np.random.default_rng(1).random((6, 8))
    found = neighbourhood(field, 3, wraps=False)
    expected = [[field[max(0, r - 1) : r + 2, max(0, c - 1) : c + 2].mean() for c in range(8)] for r in range(6)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(found[:, 1:-1], neighbourhood(field, 3)[:, 1:-1], rtol=1e-12)
