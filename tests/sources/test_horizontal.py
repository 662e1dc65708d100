"""Horizontal grids of sources: boxes across Greenwich, maps by their grid mapping, points of a region."""

import numpy as np
import pytest
import xarray as xr
from regional_sources import LAMBERT, REGIONS, UNITS, box, lambert, points, wave

from emulator.ingestion.plan import GridOptions, IngestOptions
from emulator.ingestion.run import ingest
from emulator.planet.constants import ERA5
from emulator.planet.grid import Grid
from emulator.store.analysis import open_analysis
from emulator.store.schema import grid_of


def stored(tmp_path, dataset, **options):
    """A store of a dataset by way of a NetCDF file."""
    dataset.to_netcdf(tmp_path / "source.nc")
    ingest(IngestOptions(tmp_path / "source.nc", **options), tmp_path / "store.zarr")
    return open_analysis(tmp_path / "store.zarr")


@pytest.mark.parametrize("kind", REGIONS)
def test_values_lie_where_they_lay(tmp_path, kind):
    store = stored(tmp_path, REGIONS[kind]())
    grid = grid_of(store)
    assert grid.kind == kind and not grid.is_global()
    for name, values in wave(*grid.mesh())[1].items():
        np.testing.assert_allclose(store[name].values, values, rtol=0, atol=1e-3 * np.ptp(values))
        assert store[name].attrs["units"] == UNITS[name]
    np.testing.assert_allclose(store["cell_area"].sum(), grid.share, rtol=1e-12)


def test_a_box_across_greenwich_is_contiguous(tmp_path):
    store = stored(tmp_path, box())
    np.testing.assert_array_equal(store["longitude"], np.arange(-17, 23, 3))
    np.testing.assert_array_equal(store["latitude"], np.arange(65, 44, -2))
    exact = (np.sin(np.radians(66)) - np.sin(np.radians(44))) / 2 * 42 / 360
    np.testing.assert_allclose(store["cell_area"].sum(), exact, rtol=1e-12)
    other = box().assign_coords(longitude=(box()["longitude"] + 180) % 360 - 180).isel(latitude=slice(None, None, -1))
    (tmp_path / "again").mkdir()
    again = stored(tmp_path / "again", other)
    xr.testing.assert_equal(store.drop_attrs(), again.drop_attrs())


def test_a_map_keeps_its_mapping(tmp_path):
    store = stored(tmp_path, lambert())
    assert store["temperature"].dims == ("time", "level", "y", "x")
    assert store["temperature"].attrs["grid_mapping"] == "crs"
    assert (np.diff(store["y"]) == -150e3).all() and (np.diff(store["x"]) == 150e3).all()
    assert store["crs"].attrs["grid_mapping_name"] == "lambert_conformal_conic"
    np.testing.assert_allclose(grid_of(store).share, 120 * 150e3**2 / (4 * np.pi * 6371e3**2), rtol=0.02)


def test_a_map_without_latitudes_is_enough(tmp_path):
    bare = lambert().drop_vars(["lat", "lon"])
    (tmp_path / "whole").mkdir()
    xr.testing.assert_equal(stored(tmp_path, bare).drop_attrs(), stored(tmp_path / "whole", lambert()).drop_attrs())


def test_a_rotated_pole_is_known_by_its_standard_names(tmp_path):
    rlat, rlon = np.arange(-6.0, 7, 2), np.arange(-8.0, 9, 2)
    pole = {
        "grid_mapping_name": "rotated_latitude_longitude",
        "grid_north_pole_latitude": 39.25,
        "grid_north_pole_longitude": -162.0,
    }
    time = np.array(["2001-01-01", "2001-01-02"], "datetime64[ns]")
    values = np.random.default_rng(0).normal(280, 5, (2, 7, 9)).astype(np.float32)
    dataset = xr.Dataset(
        {
            "tas": (("time", "rlat", "rlon"), values, {"units": "K", "grid_mapping": "rotated_pole"}),
            "rotated_pole": ((), b"", pole),
        },
        {
            "time": time,
            "rlat": ("rlat", rlat, {"units": "degrees", "standard_name": "grid_latitude"}),
            "rlon": ("rlon", rlon, {"units": "degrees", "standard_name": "grid_longitude"}),
        },
    )
    store = stored(tmp_path, dataset)
    np.testing.assert_array_equal(store["2m_temperature"].values, values[:, ::-1])
    exact = (np.sin(np.radians(7)) + np.sin(np.radians(7))) / 2 * 18 / 360
    np.testing.assert_allclose(store["cell_area"].sum(), exact, rtol=1e-12)


def test_points_of_a_region_have_shares_of_the_sphere_and_no_globe(tmp_path):
    store = stored(tmp_path, points())
    np.testing.assert_allclose(grid_of(store).share, 0.01, rtol=1e-6)
    km2 = points().assign(cell_area=lambda d: (d["cell_area"] / 1e6).assign_attrs(units="km2"))
    (tmp_path / "km").mkdir()
    np.testing.assert_allclose(stored(tmp_path / "km", km2)["cell_area"], store["cell_area"], rtol=1e-12)
    assert ERA5.earth_radius == 6371229.0


@pytest.mark.parametrize(
    "broken, message",
    [
        (
            lambda: points().assign(cell_area=lambda d: d["cell_area"].assign_attrs(units="acre")),
            "areas.*region.*units",
        ),
        (lambda: lambert().drop_vars("lambert"), "x and y with a CF grid mapping.*curvilinear"),
        (lambda: lambert().assign(lambert=((), 0, {"grid_mapping_name": "of_my_own"})), "grid mapping.*of_my_own"),
        (lambda: lambert().assign(lambert=((), 0, LAMBERT | {"longitude_of_central_meridian": 30.0})), "degrees apart"),
        (lambda: lambert().assign_coords(x=lambert()["x"].assign_attrs(units="K")), "x of a lambert.*'K'"),
    ],
)
def test_what_makes_no_grid_is_refused_in_a_sentence(tmp_path, broken, message):
    with pytest.raises(ValueError, match=message):
        stored(tmp_path, broken())
    assert not (tmp_path / "store.zarr").exists()


@pytest.mark.parametrize("method", ["conservative", "bilinear"])
def test_a_globe_is_regridded_to_a_box_across_greenwich(tmp_path, method):
    """Conservative: the box's mean is the mean of the cells that make it up; both: a smooth field is met."""
    globe = Grid.equiangular(36, 72)
    latitude, longitude = globe.mesh()
    field = (np.sin(np.radians(latitude)) + np.cos(np.radians(longitude))).astype(np.float32)
    dataset = xr.Dataset(
        {"temperature": (("time", "latitude", "longitude"), np.stack([250 + field, 260 + field]), {"units": "K"})},
        {
            "time": np.array(["2001-01-01", "2001-01-02"], "datetime64[ns]"),
            "latitude": globe.latitude,
            "longitude": globe.longitude,
            "level": ((), 500.0, {"units": "hPa"}),
        },
    )
    grid = GridOptions(10, 25, kind="box", method=method, south=40, north=60, west=-17.5, east=32.5)
    store = stored(tmp_path, dataset, grid=grid)
    found = grid_of(store)
    np.testing.assert_allclose(store["longitude"], np.arange(-16.5, 32, 2))
    place = [np.radians(a) for a in found.mesh()]
    np.testing.assert_allclose(
        store["temperature"].values[0, 0], 250 + np.sin(place[0]) + np.cos(place[1]), rtol=0, atol=0.06
    )
    if method == "conservative":
        inside = (latitude > 40) & (latitude < 60) & ((longitude + 17.5) % 360 < 50)
        exact = (field * globe.area)[inside].sum() / globe.area[inside].sum()
        np.testing.assert_allclose(found.mean(store["temperature"].values[:, 0]), [250 + exact, 260 + exact], atol=1e-4)


@pytest.mark.parametrize(
    "grid, message",
    [
        ({"kind": "box", "south": 40, "north": 60, "west": 0}, "columns, south, north, west and east"),
        ({"kind": "box", "south": 60, "north": 40, "west": 0, "east": 10}, "south to a north"),
        ({"south": 40}, "edges with a grid of the kind box"),
        ({"kind": "hexagons"}, "gaussian, equiangular, box"),
        ({"kind": "box", "south": 50, "north": 60, "west": 10, "east": 60}, "covers the longitudes"),
    ],
)
def test_boxes_that_cannot_be_are_refused(tmp_path, grid, message):
    with pytest.raises(ValueError, match=message):
        stored(tmp_path, box(), grid=GridOptions(10, 25, **grid))
