"""Less output: what is kept of a region is a grid, contiguous across Greenwich."""

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal

from emulator.forecasting.thinning import thinned
from emulator.planet.grid import Grid
from emulator.planet.regions import REGIONS
from emulator.store.schema import grid_of, horizontal_coordinates

LAMBERT = {
    "grid_mapping_name": "lambert_conformal_conic",
    "standard_parallel": [50.0, 50.0],
    "longitude_of_central_meridian": 10.0,
    "latitude_of_projection_origin": 50.0,
    "earth_radius": 6371e3,
}
GRIDS = {
    "globe": Grid.equiangular(36, 72),
    "map": Grid.projected(np.arange(30) * 3e5 - 4.35e6, np.arange(30)[::-1] * 3e5 - 4.35e6, LAMBERT),
}


def on(grid):
    latitude, longitude = grid.mesh()
    place = np.sin(np.radians(latitude)) + np.cos(np.radians(longitude))
    fields = {"temperature": (grid.dims, place), "cell_area": (grid.dims, grid.cell_area)}
    return xr.Dataset(fields, horizontal_coordinates(grid))


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_europe_is_cut_out_whole(grid):
    inside = REGIONS["europe"].contains(*grid.mesh())
    part = thinned(on(grid), inside=inside)
    found = grid_of(part)
    latitude, longitude = found.mesh()
    assert not found.is_global() and found.kind == ("box" if grid.has_rows else "projected")
    assert_allclose(part["temperature"], np.sin(np.radians(latitude)) + np.cos(np.radians(longitude)), rtol=1e-12)
    assert REGIONS["europe"].contains(latitude, longitude).sum() == inside.sum()
    assert_allclose(part["cell_area"], found.cell_area, rtol=1e-9)
    if grid.has_rows:
        assert not found.is_split
        assert_array_equal(found.longitude, np.arange(-10, 41, 5))


def test_what_leaves_a_domain_by_its_sides_is_not_kept_of_a_part_of_it():
    grid = GRIDS["map"]
    whole = on(grid).assign(
        outflow_water=("lead_time", np.arange(3.0)), residual_after_water=("lead_time", np.zeros(3))
    )
    part = thinned(whole, inside=REGIONS["europe"].contains(*grid.mesh()))
    assert "outflow_water" not in part and "residual_after_water" in part
    assert "outflow_water" in thinned(whole, inside=np.ones(grid.shape, bool))
