"""Regridding: areas and integrals kept to rounding, constants and linear functions, masks, and what does not fit."""

import pickle

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from emulator.planet.grid import Grid
from emulator.sphere.regrid import Regridder

RANDOM = np.random.default_rng(0)
GRIDS = {
    "T31": Grid.gaussian(48),
    "64x32": Grid.equiangular(32),
    "240x121": Grid.equiangular(121, 240, poles=True),
    "from 1.3 degrees": Grid.from_coordinates(np.linspace(88, -88, 45), 1.3 + np.arange(30) * 12.0),
    "uneven rows": Grid.from_coordinates([80.0, 50, 35, 10, -20, -60, -85], np.arange(17) * 360 / 17),
}


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(st.sampled_from(sorted(GRIDS)), st.sampled_from(sorted(GRIDS)), st.integers(0, 2**31))
def test_the_global_integral_is_kept(source, target, seed):
    """To 1e-12 of the mean modulus, between any two grids; also of what a mask leaves over."""
    source, target = GRIDS[source], GRIDS[target]
    values = np.random.default_rng(seed).normal(size=(3, *source.shape)) + 5
    regrid = Regridder(source, target)
    np.testing.assert_allclose(target.mean(regrid(values)), source.mean(values), rtol=1e-12)
    mask = np.random.default_rng(seed + 1).random(source.shape) < 0.3
    share = regrid(1.0 - mask)
    found = np.where(share > 0, regrid(np.where(mask, np.nan, values), minimum_share=0) * share, 0.0)
    np.testing.assert_allclose(target.mean(np.nan_to_num(found)), source.mean(np.where(mask, 0, values)), rtol=1e-12)


@pytest.mark.parametrize("method", ["conservative", "bilinear"])
@pytest.mark.parametrize("source", GRIDS)
@pytest.mark.parametrize("target", GRIDS)
def test_a_constant_stays_and_no_value_leaves_the_range(source, target, method):
    regrid = Regridder(GRIDS[source], GRIDS[target], method)
    np.testing.assert_allclose(regrid(np.full(GRIDS[source].shape, 271.3)), 271.3, rtol=1e-12)
    values = RANDOM.random(GRIDS[source].shape)
    found = regrid(values)
    assert values.min() - 1e-12 <= found.min() and found.max() <= values.max() + 1e-12


@pytest.mark.parametrize("method", ["conservative", "bilinear"])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_to_the_same_grid_nothing_changes(grid, method):
    values = RANDOM.normal(size=grid.shape)
    np.testing.assert_allclose(Regridder(grid, grid, method)(values), values, rtol=0, atol=1e-12)


def test_conservative_to_cells_that_are_unions():
    """Of whole cells the mean is that of their area-weighted values."""
    fine, coarse = Grid.equiangular(36, 72), Grid.equiangular(12, 24)
    values = RANDOM.normal(size=fine.shape)
    area = fine.area.reshape(12, 3, 24, 3)
    # cells of the coarse grid reach from 7.5 degrees west of their centre, of the fine one from 2.5: one fine cell on
    expected = (np.roll(values, 1, axis=1).reshape(12, 3, 24, 3) * area).sum((1, 3)) / area.sum((1, 3))
    np.testing.assert_allclose(Regridder(fine, coarse)(values), expected, rtol=1e-12)


def test_bilinear_is_exact_for_linear_functions_of_the_coordinates():
    source, target = Grid.gaussian(32), Grid.equiangular(91, 180, poles=True)
    inside = np.abs(target.latitude) <= source.latitude[0]
    latitude = np.repeat(source.latitude[:, None], 64, axis=1)
    found = Regridder(source, target, "bilinear")(latitude)
    np.testing.assert_allclose(found[inside], np.repeat(target.latitude[inside, None], 180, axis=1), atol=1e-11)
    np.testing.assert_allclose(found[0], source.latitude[0], atol=1e-11)  # the pole is the mean of the row beside it
    wave = np.cos(np.radians(source.mesh()[1])) * np.cos(np.radians(source.mesh()[0]))
    expected = np.cos(np.radians(target.mesh()[1])) * np.cos(np.radians(target.mesh()[0]))
    np.testing.assert_allclose(Regridder(source, target, "bilinear")(wave), expected, atol=0.006)


def test_masked_cells_have_values_where_half_of_them_has():
    source, target = Grid.equiangular(18, 36), Grid.equiangular(9, 18)
    field = np.full(source.shape, 290.0)
    field[:, 18:] = np.nan
    found = Regridder(source, target)(field)
    longitude = target.longitude
    np.testing.assert_allclose(found[:, (longitude < 170)], 290.0, rtol=1e-12)
    assert np.isnan(found[:, (longitude > 180) & (longitude < 350)]).all()
    assert np.isnan(Regridder(source, target, "bilinear")(field)[:, 12]).all()


def test_it_is_sent_to_other_processes_cheaply():
    regrid = Regridder(Grid.equiangular(721, 1440, poles=True), Grid.gaussian(96))
    assert len(pickle.dumps(regrid)) < 100_000
    values = RANDOM.normal(size=regrid.source_shape)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(regrid))(values), regrid(values))


def test_what_does_not_fit_is_named():
    regional = Grid.from_coordinates(np.arange(60, 30, -1.0), np.arange(0, 40, 1.0))
    with pytest.raises(ValueError, match="covers the latitudes of 48 x 96 gaussian .* got 30 x 40"):
        Regridder(regional, GRIDS["T31"])
    within = Grid.from_coordinates(np.arange(55, 35, -2.0), np.arange(4, 36, 2.0))
    np.testing.assert_allclose(Regridder(regional, within)(np.ones(regional.shape)), 1, rtol=1e-12)
    points = Grid.points([0.0, 10], [0.0, 10], [1.0, 1])
    with pytest.raises(ValueError, match="rows and columns to regrid, got 2 points"):
        Regridder(points, GRIDS["T31"])
    with pytest.raises(ValueError, match=r"fields of \(48, 96\) to regrid, got \(32, 64\)"):
        Regridder(GRIDS["T31"], GRIDS["64x32"])(np.zeros((32, 64)))


@pytest.mark.parametrize("method", ["conservative", "bilinear"])
def test_infinite_values_are_not_taken_for_missing_ones(method):
    regrid = Regridder(source := Grid.equiangular(12, 24), Grid.equiangular(6, 12), method)
    field = np.ones(source.shape)
    field[0, 4], field[4, 8], field[9, 10] = np.nan, np.inf, -np.inf
    found, touched = regrid(field), regrid(np.isinf(field).astype(float)) > 0
    assert touched.any() and not touched.all()
    np.testing.assert_array_equal(np.isinf(found), touched)
    known = ~touched & ~np.isnan(found)
    assert known.sum() > 60
    np.testing.assert_allclose(found[known], 1)
