"""A region's and a globe's store as one store of points: which cells, their values bit for bit, and refusals."""

import numpy as np
import pytest
import xarray as xr
from small_store import write_store

from emulator.ingestion.cutout import covered
from emulator.ingestion.options import IngestOptions
from emulator.ingestion.run import ingest
from emulator.planet.grid import Grid
from emulator.store.analysis import open_analysis
from emulator.store.schema import grid_of

GLOBE, REGION = Grid.gaussian(16), Grid.box(20, 30, (30, 70, -20, 40))


def write(folder, name, grid, start=0, units="K"):
    """Temperatures at five times from `start` on and a field without time, on two levels."""
    rng, space = np.random.default_rng(start), ("latitude", "longitude")
    times = np.datetime64("2001-01-01", "ns") + (start + np.arange(5)) * np.timedelta64(6, "h")
    moving = rng.normal(280, 9, (5, 2, *grid.shape))
    fields = {
        "temperature": (("time", "level", *space), moving, {"units": units, "role": "prognostic"}),
        "land_sea_mask": (space, rng.uniform(size=grid.shape).astype("f4"), {"units": "1", "role": "static"}),
        f"only_{name}": (("time", *space), rng.normal(size=(5, *grid.shape)), {"units": "1", "role": "forcing"}),
    }
    places = {"latitude": grid.latitude, "longitude": grid.longitude, "time": times, "level": [500.0, 850.0]}
    return write_store(folder, xr.Dataset(fields, places), f"{name}.zarr")


def test_points_are_the_regions_cells_and_those_of_the_globe_outside(tmp_path):
    paths = [write(tmp_path, "fine", REGION), write(tmp_path, "coarse", GLOBE, start=2)]
    ingest(IngestOptions([str(path) for path in paths], kind="cutout"), tmp_path / "points.zarr")
    store, fine, coarse = (open_analysis(path) for path in (tmp_path / "points.zarr", *paths))
    latitude, longitude = GLOBE.mesh()
    turned = (longitude + 180) % 360 - 180
    deep = (latitude > 30) & (latitude < 70) & (turned > -20) & (turned < 40)
    far = (latitude < 28) | (latitude > 72) | (turned < -23) | (turned > 43)
    inside = covered(REGION, GLOBE).reshape(GLOBE.shape)
    assert inside[deep].all() and not inside[far].any() and deep.any()
    outside = ~inside.ravel()
    np.testing.assert_array_equal(store["time"].values, fine["time"].values[2:])
    for number in range(3):
        near, beyond = fine["temperature"].values[number + 2], coarse["temperature"].values[number]
        expected = np.concatenate([near.reshape(2, -1), beyond.reshape(2, -1)[:, outside]], -1)
        np.testing.assert_array_equal(store["temperature"].values[number], expected)
    expected = np.concatenate([fine["land_sea_mask"].values.ravel(), coarse["land_sea_mask"].values.ravel()[outside]])
    np.testing.assert_array_equal(store["land_sea_mask"].values, expected)
    assert "only_fine" not in store and "only_coarse" not in store
    grid = grid_of(store)
    assert grid.kind == "points" and grid.area.size == 600 + outside.sum()
    ratio = grid.area[:600] / REGION.cell_area.ravel()
    np.testing.assert_allclose(ratio, ratio[0])
    assert abs(ratio[0] - 1) < 0.02
    np.testing.assert_array_equal(store["level"].values, [500, 850])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, b: ([b, a], {}), "a region with known areas and a globe, in this order"),
        (lambda a, b: ([a], {}), "two sources with kind cutout.*got 1"),
        (lambda a, b: ([a, b], {"step_hours": 6}), "path alone with kind cutout, got step_hours"),
    ],
)
def test_refusals(tmp_path, change, message):
    paths = [str(write(tmp_path, "fine", REGION)), str(write(tmp_path, "coarse", GLOBE))]
    sources, more = change(*paths)
    with pytest.raises(ValueError, match=message):
        ingest(IngestOptions(sources, kind="cutout", **more), tmp_path / "points.zarr")


def test_fields_of_other_units_and_stores_without_common_times_are_refused(tmp_path):
    fine = write(tmp_path, "fine", REGION)
    for more, message in (
        (dict(units="degC"), "temperature with the same units"),
        (dict(start=7), "two times or more"),
    ):
        sources = [str(fine), str(write(tmp_path, "coarse", GLOBE, **more))]
        with pytest.raises(ValueError, match=message):
            ingest(IngestOptions(sources, kind="cutout"), tmp_path / "points.zarr")


def test_a_box_near_the_pole_is_cut_out_whole():
    """Its cells are long from north to south beside their width: the middle between four of them is in reach of none."""
    box, globe = Grid.box(40, 60, (70, 80, 0, 15)), Grid.equiangular(360, 720)
    latitude, longitude = globe.mesh()
    deep = (latitude > 70.3) & (latitude < 79.7) & (longitude > 0.3) & (longitude < 14.7)
    inside = covered(box, globe).reshape(globe.shape)
    assert inside[deep].all() and not inside[(latitude < 69.5) | (longitude > 16)].any()
