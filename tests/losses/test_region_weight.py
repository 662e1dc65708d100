"""A region's share of the loss: what is asked for, by area within and outside, on grids and points alike."""

import tracemalloc

import numpy as np
import pytest

from emulator.losses.options import RegionWeight
from emulator.losses.region import with_share, with_share_of_each
from emulator.planet.grid import Grid

GAUSSIAN = Grid.gaussian(16)
POINTS = Grid.points(*map(np.ravel, GAUSSIAN.mesh()), GAUSSIAN.area.ravel())


@pytest.mark.parametrize("grid", [GAUSSIAN, POINTS], ids=["rows", "points"])
@pytest.mark.parametrize("region", [dict(name="europe"), dict(box=(30, 70, -40, 20))])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_the_region_has_its_share_and_cells_count_by_area_in_it_and_outside(grid, region, share):
    weight = with_share(grid, RegionWeight(share=share, **region))
    latitude, longitude = grid.mesh()
    south, north, west, east = region.get("box", (35, 75, -12.5, 42.5))
    longitude = (longitude + 180) % 360 - 180
    inside = (latitude >= south) & (latitude <= north) & (longitude >= west) & (longitude <= east)
    assert 0 < inside.sum() < inside.size
    np.testing.assert_allclose(weight[inside].sum(), share, rtol=1e-12)
    np.testing.assert_allclose(weight.sum(), 1, rtol=1e-12)
    for cells in (inside, ~inside):
        ratio = weight[cells] / grid.area[cells]
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-12)


def test_a_share_as_large_as_the_regions_area_changes_nothing():
    inside = GAUSSIAN.area[(GAUSSIAN.latitude > 20)].sum()
    weight = with_share(GAUSSIAN, RegionWeight(share=float(inside), name="northern-hemisphere"))
    np.testing.assert_allclose(weight, GAUSSIAN.area, rtol=1e-12)


@pytest.mark.parametrize("share", [0.1, 0.6])
def test_a_field_has_its_share_of_the_cells_where_it_is(share, caplog):
    """Fields that are on one side alone count by area, and are named."""
    latitude, longitude = GAUSSIAN.mesh()
    inside, sea = (latitude > 30) & (latitude < 70) & (longitude <= 90), np.sin(np.radians(longitude)) > 0.3
    exists = np.stack([np.ones_like(sea), sea, sea & ~inside, sea & inside, np.zeros_like(sea)])
    names = ["air", "sea", "outside", "inside", "nowhere"]
    weight = with_share_of_each(GAUSSIAN, RegionWeight(share=share, box=(30, 70, 0, 90)), exists, names)
    assert "cells of outside, inside count" in caplog.text
    assert weight.shape == exists.shape and (weight[~exists] == 0).all()
    np.testing.assert_allclose((weight * inside).sum((1, 2)), [share, share, 0, 1, 0], rtol=1e-12)
    np.testing.assert_allclose(weight.sum((1, 2)), [1, 1, 1, 1, 0], rtol=1e-12)
    for field, cells in zip(weight, exists, strict=True):
        for part in (cells & inside, cells & ~inside):
            if part.any():
                np.testing.assert_allclose(
                    field[part] / field[part].sum(), GAUSSIAN.area[part] / GAUSSIAN.area[part].sum()
                )


def test_where_all_fields_are_on_both_sides_the_log_is_silent(caplog):
    with_share_of_each(GAUSSIAN, RegionWeight(share=0.5, name="europe"), np.ones((2, *GAUSSIAN.shape), bool), "ab")
    assert not caplog.text


@pytest.mark.parametrize(("inside", "message"), [(True, "got fields in it alone"), (False, "got fields outside alone")])
def test_a_region_on_one_side_of_all_fields_is_refused(inside, message):
    """As one of land for an ocean."""
    latitude, longitude = GAUSSIAN.mesh()
    region = (latitude > 30) & (latitude < 70) & (longitude <= 90)
    exists = np.stack([region == inside, (region == inside) & (latitude > 0), np.zeros_like(region)])
    with pytest.raises(ValueError, match=rf"region_weight \(\[30.0, 70.0, 0.0, 90.0\]\).*{message}"):
        with_share_of_each(GAUSSIAN, RegionWeight(share=0.3, box=(30.0, 70.0, 0.0, 90.0)), exists, "abc")


def test_weights_of_many_fields_take_little_memory_besides():
    """Four arrays of all fields as large as the result were made."""
    grid, fields = Grid.gaussian(64), 60
    exists = np.ones((fields, *grid.shape), bool)
    exists[30:, 10:20] = False
    weight = RegionWeight(share=0.3, box=(30, 70, 0, 90))
    tracemalloc.start()
    found = with_share_of_each(grid, weight, exists, [str(n) for n in range(fields)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.nbytes <= peak < 1.5 * found.nbytes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(share=0.5), "a name or a box"),
        (dict(share=0.5, name="europe", box=(0, 1, 0, 1)), "not both"),
        (dict(share=0.5, box=(0, 1)), "south, north, west and east"),
        (dict(share=1.5, name="europe"), "share above 0 and below 1"),
        (dict(share=0.5, name="atlantis"), "among global.*got 'atlantis'"),
        (dict(share=0.5, name="global"), "some of the cells.*got all"),
        (dict(share=0.5, box=(0.1, 0.2, 0.1, 0.2)), "some of the cells.*got none"),
    ],
)
def test_refusals(given, message):
    with pytest.raises(ValueError, match=message):
        with_share(GAUSSIAN, RegionWeight(**given))
