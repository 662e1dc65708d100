"""Places in sources: in any unit of angle, with ends twice, and off by the rounding of float32."""

import numpy as np
import pytest
import xarray as xr

from emulator.ingestion.plan import IngestOptions
from emulator.ingestion.run import ingest
from emulator.planet.grid import Grid
from emulator.sources.foreign import open_truth
from emulator.sources.harmonise import pieces
from emulator.sources.horizontal import grid_from
from emulator.sources.open import Source
from emulator.sources.options import SourceOptions
from emulator.store.analysis import open_analysis

UNITS = {"radian": np.pi / 180, "rad": np.pi / 180, "radians": np.pi / 180, "degrees_north": 1.0, "arcmin": 60.0}
TIMES = np.datetime64("2001-01-01", "ns") + np.arange(3) * np.timedelta64(6, "h")


def rows(latitude, longitude, units=("degrees_north", "degrees_east"), dtype=np.float64) -> xr.Dataset:
    """Surface pressure that tells its place: 1e5 + 100 sin(latitude) + 10 cos(longitude) for latitudes in degrees."""
    place = {
        "latitude": ("latitude", np.asarray(latitude, dtype), {"units": units[0]} if units[0] else {}),
        "longitude": ("longitude", np.asarray(longitude, dtype), {"units": units[1]} if units[1] else {}),
    }
    phi, lam = np.radians(np.asarray(latitude, float))[:, None], np.radians(np.asarray(longitude, float))[None]
    values = np.broadcast_to(1e5 + 100 * np.sin(phi) + 10 * np.cos(lam), (3, len(latitude), len(longitude)))
    return xr.Dataset({"sp": (("time", *place), values.copy(), {"units": "Pa"})}, {"time": TIMES, **place})


def piece_of(dataset, **options):
    (piece,) = pieces(Source("a.nc", dataset), SourceOptions(**options))
    return piece


@pytest.mark.parametrize("units", UNITS)
def test_rows_and_columns_in_any_angle(units):
    whole = rows(np.arange(90, -91, -30.0), np.arange(12) * 30.0)
    east = units.replace("north", "east")
    scaled = whole.assign_coords(
        latitude=("latitude", whole.latitude.values * UNITS[units], {"units": units}),
        longitude=("longitude", whole.longitude.values * UNITS[units], {"units": east}),
    )
    grid = grid_from(piece_of(scaled).coordinates)
    np.testing.assert_allclose(grid.latitude, whole.latitude, atol=1e-9)
    np.testing.assert_allclose(grid.area, Grid.equiangular(7, 12, poles=True).area, rtol=1e-9)


def octants(factor=1.0, units="degrees", corner_units=None) -> xr.Dataset:
    """The sphere as eight triangles of equal area, as ICON has its cells."""
    lats, lons, at = [], [], []
    for north in (90.0, -90.0):
        for west in (0.0, 90.0, 180.0, 270.0):
            lats.append([north, 0, 0])
            lons.append([west + 45, west, west + 90])
            at.append((np.sign(north) * 35.26438968, west + 45))
    centre = {"units": units}
    corner = {} if corner_units is None else {"units": corner_units}
    latitude, longitude = (np.array(v) * factor for v in zip(*at, strict=True))
    own = UNITS.get(corner_units, factor)
    return xr.Dataset(
        {
            "sp": (("time", "ncells"), np.full((3, 8), 1e5), {"units": "Pa"}),
            "clat_vertices": (("ncells", "nv"), np.array(lats) * own, corner),
            "clon_vertices": (("ncells", "nv"), np.array(lons) * own, corner),
        },
        {
            "time": TIMES,
            "clat": ("ncells", latitude, centre | {"standard_name": "latitude", "bounds": "clat_vertices"}),
            "clon": ("ncells", longitude, centre | {"standard_name": "longitude", "bounds": "clon_vertices"}),
        },
    )


@pytest.mark.parametrize("units", ["radian", "radians", "rad", "degrees"])
@pytest.mark.parametrize("corner_units", [None, "radian"])
def test_cells_with_corners_in_any_angle(units, corner_units):
    dataset = octants(UNITS.get(units, 1.0), units, corner_units)
    grid = grid_from(piece_of(dataset).coordinates)
    assert grid.is_global()
    np.testing.assert_allclose(np.abs(grid.latitude), 35.26438968, rtol=1e-9)
    np.testing.assert_allclose(np.sort(grid.longitude)[::2], [45, 135, 225, 315])
    np.testing.assert_allclose(grid.area, 1 / 8, rtol=1e-12)


def test_radians_that_nothing_tells_are_asked_for():
    dataset = octants(np.pi / 180, "")
    with pytest.raises(ValueError, match=r"units: \{clat: radian\}"):
        piece_of(dataset)
    told = piece_of(dataset, units={"clat": "radian", "clon": "radian"})
    np.testing.assert_allclose(grid_from(told.coordinates).area, 1 / 8, rtol=1e-12)


def test_places_in_other_units_than_angles_are_refused():
    dataset = rows([60.0, 0.0, -60.0], [0.0, 120.0, 240.0], ("m", "m"))
    with pytest.raises(ValueError, match="latitude in degrees or radians, got 'm'"):
        piece_of(dataset)


@pytest.mark.parametrize(
    "longitude",
    [np.arange(-180.0, 181, 30), np.arange(0.0, 361, 30), np.float32(np.arange(-180.0, 181, 30)), np.arange(-360.0, 1, 30),
     np.append(np.arange(-180.0, 180, 30), 179.99999), np.append(np.arange(0.0, 360, 30), 359.99998)],
)  # fmt: skip
def test_an_end_that_is_there_twice_counts_once(longitude):
    dataset = rows(np.arange(90, -91, -30.0), longitude)
    piece = piece_of(dataset)
    grid = grid_from(piece.coordinates)
    assert grid.is_global() and len(grid.longitude) == 12
    np.testing.assert_allclose(grid.longitude, np.arange(12) * 30.0, atol=1e-4)
    expected = 1e5 + 100 * np.sin(np.radians(grid.latitude))[:, None] + 10 * np.cos(np.radians(grid.longitude))
    np.testing.assert_allclose(piece.read([0])[0, 0, 0, 0], expected, rtol=1e-7)


def test_a_pole_that_rounding_moved():
    dataset = rows(np.array([90.0000076, 45, 0, -45, -90.0000076]), np.arange(8) * 45.0)
    np.testing.assert_array_equal(grid_from(piece_of(dataset).coordinates).latitude, [90, 45, 0, -45, -90])
    with pytest.raises(ValueError, match="-90 to 90"):
        grid_from(piece_of(rows([90.001, 0.0, -90.0], np.arange(8) * 45.0)).coordinates)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_files_whose_places_differ_by_rounding_are_one_grid(tmp_path):
    exact = np.arange(36) * 10.0
    first = rows(np.linspace(85, -85, 18), exact)
    second = rows(np.linspace(85, -85, 18), np.float32(exact + 1e-5) - 2e-5, dtype=np.float32)  # from -1e-5 on
    second = second.assign_coords(time=TIMES + np.timedelta64(18, "h"))
    first.to_netcdf(tmp_path / "a.nc")
    second.to_netcdf(tmp_path / "b.nc")
    ingest(IngestOptions(str(tmp_path / "?.nc")), tmp_path / "store.zarr")
    store = open_analysis(tmp_path / "store.zarr")
    assert store.sizes["time"] == 6
    np.testing.assert_allclose(store["longitude"], exact, atol=1e-4)
    np.testing.assert_allclose(store["surface_pressure"][0], store["surface_pressure"][5], atol=0.01)


def test_truths_of_other_tools_in_radians(tmp_path):
    whole = rows(np.arange(90, -91, -30.0), np.arange(12) * 30.0)
    scaled = whole.assign_coords(
        latitude=("latitude", np.radians(whole.latitude.values), {"units": "radian"}),
        longitude=("longitude", np.radians(whole.longitude.values), {"units": "radian"}),
    )
    scaled.to_netcdf(tmp_path / "a.nc")
    np.testing.assert_allclose(open_truth(tmp_path / "a.nc")["latitude"], whole.latitude, atol=1e-9)


@pytest.mark.parametrize(
    ("latitude", "longitude", "between"),
    [
        (
            np.arange(60, 40, -1.0),
            np.delete(np.arange(10, 50, 1.0), [10, 11]),
            "columns of longitude .* between 19 and 22",
        ),
        (
            np.arange(60, 40, -1.0),
            np.delete(np.arange(-20, 20, 1.0), [10, 12]),
            "columns of longitude .* between -11 and -9",
        ),
        (np.delete(np.arange(60, 40, -1.0), [1, 2]), np.arange(10, 30, 1.0), "rows of latitude .* between 60 and 57"),
        (np.delete(Grid.gaussian(32).latitude, 16), Grid.gaussian(32).longitude, "rows of latitude .* between"),
    ],
)
def test_a_box_with_a_hole_is_refused(latitude, longitude, between):
    with pytest.raises(ValueError, match=f"Expected {between}.*a.nc"):
        piece_of(rows(latitude, longitude))


@pytest.mark.parametrize(
    ("latitude", "longitude"),
    [
        (Grid.gaussian(32).latitude, Grid.gaussian(32).longitude),
        (np.degrees(np.arcsin(np.linspace(0.95, -0.95, 20))), np.arange(0, 360, 10.0)),  # rows of equal area
        (
            60 - np.cumsum(1.15 ** np.arange(15)),
            np.sort(np.append(np.arange(0, 360, 10.0), 15)),
        ),  # stretched; one half-way
        (
            np.arange(90, -91, -10.0),
            np.concatenate([np.arange(0, 20, 1.0), np.arange(20, 60, 10.0)]),
        ),  # finer in the west
    ],
)
def test_rows_and_columns_of_uneven_spacing_are_no_holes(latitude, longitude):
    np.testing.assert_allclose(piece_of(rows(latitude, longitude)).coordinates["longitude"], longitude)


@pytest.mark.parametrize(
    ("units", "sign"),
    [
        (("degrees_south", "degrees_west"), -1), (("degree_south", "degree_west"), -1), (("degrees_S", "degrees_W"), -1),
        (("degreesS", "degreesW"), -1), (("degree_S", "degreeW"), -1), (("Degrees South", "degrees west"), -1),
        (("DEGREES_NORTH", "DEGREES_EAST"), 1), (("DEGREES", "degrees"), 1), (("degreesN", "degreesE"), 1),
        (("deg", "deg"), 1),
    ],
)  # fmt: skip
def test_places_are_counted_the_way_that_their_units_say(units, sign):
    """Longitudes to the west and latitudes to the south come out as those to the east and north."""
    whole = rows(np.arange(90, -91, -30.0), np.arange(12) * 30.0)
    whole["sp"] = (whole.sp + np.sin(np.radians(whole.longitude)) * 7).assign_attrs(units="Pa")
    turned = whole.assign_coords(
        latitude=("latitude", sign * whole.latitude.values, {"units": units[0]}),
        longitude=("longitude", sign * whole.longitude.values, {"units": units[1]}),
    )
    piece = piece_of(turned)
    np.testing.assert_allclose(piece.coordinates["latitude"], whole.latitude)
    np.testing.assert_allclose(piece.coordinates["longitude"], whole.longitude)
    np.testing.assert_allclose(piece.read([0]).squeeze(), whole.sp.values[0], rtol=1e-7)


def test_pressures_below_zero_are_refused():
    levels = rows(np.arange(90, -91, -30.0), np.arange(12) * 30.0).sp.expand_dims(level=[-500.0, -850.0], axis=1)
    levels = (levels * 0 + 280).rename("t").assign_attrs(units="K").to_dataset()
    levels["level"].attrs["units"] = "hPa"
    with pytest.raises(ValueError, match=r"levels of zero or more along level, got -500 \(t in a.nc\)"):
        piece_of(levels)
