import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.planet.grid import Grid
from emulator.verify.metrics.spectra import (
    last_resolved,
    power_spectrum,
    relative_power,
    spectrum_kind,
    total_spectrum,
    truncation,
    wavenumber_count,
    zonal_spectrum,
)

GRIDS = {
    "gaussian": Grid.gaussian(12),
    "poles": Grid.equiangular(13, 24, poles=True),
    "cells": Grid.equiangular(12, 24),
}


def harmonic(degree, order, grid):
    """Real spherical harmonic of unit mean square, from SciPy."""
    special = pytest.importorskip("scipy.special")
    latitude, longitude = np.radians(grid.mesh())
    value = special.sph_harm_y(degree, order, np.pi / 2 - latitude, longitude)
    return np.sqrt(4 * np.pi) * (value.real if order == 0 else np.sqrt(2) * value.real)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize(("degree", "order"), [(0, 0), (1, 0), (3, 2), (7, 7), (10, 1), (10, 9)])
def test_a_harmonic_stands_at_its_degree(grid, degree, order):
    expected = np.zeros(len(grid.latitude))
    expected[degree] = 1.0
    np.testing.assert_allclose(total_spectrum(harmonic(degree, order, grid), grid), expected, atol=1e-12)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 100))
def test_a_band_limited_field_sums_to_its_mean_square(grid, seed):
    rng = np.random.default_rng(seed)
    pairs = [(l, m) for l in range(6) for m in range(l + 1)]
    amplitude = rng.standard_normal(len(pairs))
    field = sum(a * harmonic(l, m, grid) for a, (l, m) in zip(amplitude, pairs, strict=True))
    power = total_spectrum(field, grid)
    np.testing.assert_allclose(power.sum(), np.sum(amplitude**2), rtol=1e-10)
    turned = total_spectrum(np.roll(field, 5, axis=-1), grid)
    np.testing.assert_allclose(turned, power, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("nlon", [24, 23])
def test_zonal_spectrum_keeps_the_mean_square_with_the_last_wave_once(nlon):
    grid = Grid.gaussian(10, nlon)
    field = np.random.default_rng(1).standard_normal((3, *grid.shape))
    power = zonal_spectrum(field, grid)
    np.testing.assert_allclose(power.sum(axis=-1), grid.mean(field**2), rtol=1e-12)
    assert power.shape == (3, nlon // 2 + 1)


def test_kinds_of_grids():
    assert [spectrum_kind(grid) for grid in GRIDS.values()] == ["total"] * 3
    stretched = Grid.from_coordinates(np.array([85, 50, 20, 0, -20, -50, -85.0]), np.arange(0, 360, 30.0))
    assert spectrum_kind(stretched) == "zonal"
    assert power_spectrum(np.zeros(stretched.shape), stretched).shape == (wavenumber_count(stretched),)
    assert spectrum_kind(Grid.from_coordinates(np.array([60, 50, 40.0]), np.array([0, 10, 20.0]))) == "plane"
    assert spectrum_kind(Grid.points([0, 1, 2], [0, 1, 2], [1e-4] * 3)) is None
    with pytest.raises(ValueError, match="Expected a globe with rows, a box or a map for a spectrum"):
        power_spectrum(np.zeros(3), Grid.points([0, 1, 2], [0, 1, 2], [1, 1, 1]))


def test_ratio_is_silent_where_the_truth_is_noise():
    truth = np.array([1.0, 1e-3, 1e-15])
    values = relative_power(np.array([1.0, 2e-3, 1.0]), truth)
    np.testing.assert_allclose(values[:2], [1, 2])
    assert np.isnan(values[2])


@pytest.mark.parametrize("slope", [0.0, 5 / 3, 3.0, 5.0])
@pytest.mark.parametrize("rest", [0.0, 1e-9, 1e-2])
def test_ratio_ends_at_a_truncation_and_nowhere_else(slope, rest):
    """A spectrum that ends at wavenumber 31, beyond which limits on the grid have left little; and one that does not end."""
    wave = np.arange(48)
    rough = np.exp(0.3 * np.random.default_rng(3).standard_normal((5, 48)))  # of the truth's sampling
    whole = np.maximum(wave, 1.0) ** -slope * rough
    ended = np.where(wave > 31, rest * whole[:, 31:32], whole)
    np.testing.assert_array_equal(truncation(whole), 47)
    np.testing.assert_array_equal(truncation(ended), 31)
    values = relative_power(whole, ended)
    np.testing.assert_allclose(values[:, :32], 1.0)
    assert np.isnan(values[:, 32:]).all()
    assert last_resolved(values[0]) == 31


def test_last_resolved_is_the_last_before_half_the_power_is_lost():
    assert last_resolved(np.array([9.0, 1, 0.9, 0.6, 0.4, 0.8])) == 3
    assert last_resolved(np.array([1.0, 1, 1, np.nan])) == 2
    assert np.isnan(last_resolved(np.array([1.0, 0.1, 1])))
