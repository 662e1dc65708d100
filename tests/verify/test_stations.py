"""Observations at stations: formats, quality, the hours they count for; gridded fields brought to place and height."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from emulator.planet.grid import Grid
from emulator.planet.projection import to_sphere
from emulator.store.schema import horizontal_coordinates
from emulator.verify.at_points import at_points
from emulator.verify.stations import open_observations, open_station_forecast, station_weights

LAMBERT = {
    "grid_mapping_name": "lambert_conformal_conic",
    "standard_parallel": [60.0, 60.0],
    "longitude_of_central_meridian": 10.0,
    "latitude_of_projection_origin": 60.0,
    "earth_radius": 6371e3,
}


def metar(path, **columns):
    times = pd.to_datetime(["2020-01-01T00:53", "2020-01-01T01:10", "2020-01-01T02:31", "2020-01-01T00:55"])
    table = pd.DataFrame(
        {
            "stationName": ["AAAA", "AAAA", "AAAA", "BBBB"],
            "latitude": [40.0, 40.0, 40.0, -10.0],
            "longitude": [-100.0, -100.0, -100.0, 20.0],
            "elevation": [500.0, 500.0, 500.0, 0.0],
            "timeObs": times,
            "temperature": [280.0, 281.0, 282.0, 300.0],
            "temperatureDD": ["V", "S", "Q", "V"],
            "windSpeed": [10.0, 0.0, 5.0, 2.0],
            "windDir": [270.0, np.nan, 180.0, 90.0],
            "altimeter": [101325.0, 101325.0, 101325.0, 100000.0],
        }
        | columns
    )
    table.to_parquet(path)
    return path


def test_metar_counts_for_the_nearest_hour_and_bad_flags_do_not_count(tmp_path):
    pytest.importorskip("pyarrow")
    found = open_observations(metar(tmp_path / "m.parquet"))
    assert list(found["station"].values) == ["AAAA", "BBBB"]
    hours = [str(t)[11:13] for t in found["time"].values]
    assert hours == ["01", "03"]
    # 00:53 is nearer to 1 h than 01:10; the report of 02:31 failed its check
    np.testing.assert_array_equal(found["2m_temperature"].isel(cell=0), [280.0, np.nan])
    np.testing.assert_allclose(found["longitude"], [260.0, 20.0])
    u, v = (found[f"10m_{c}_component_of_wind"].values for c in "uv")
    np.testing.assert_allclose([u[0, 0], v[0, 0]], [10.0, 0.0], atol=1e-5)  # from the west
    np.testing.assert_allclose([u[1, 0], v[1, 0]], [0.0, 5.0], atol=1e-5)  # from the south
    np.testing.assert_allclose([u[0, 1], v[0, 1]], [-2.0, 0.0], atol=1e-5)  # from the east
    pressure = found["surface_pressure"].values[0]
    np.testing.assert_allclose(pressure, [95461, 100000], rtol=2e-4)  # standard atmosphere at 500 m; sea level
    assert open_observations(tmp_path / "m.parquet", tolerance_minutes=5)["time"].size == 1


def test_calm_wind_has_no_direction(tmp_path):
    pytest.importorskip("pyarrow")
    found = open_observations(metar(tmp_path / "m.parquet", timeObs=pd.to_datetime(["2020-01-01T01:10"] * 4)))
    assert np.isfinite(found["10m_u_component_of_wind"]).all()


CSV = """time,station,latitude,longitude,elevation,2m_temperature [degC],mean_sea_level_pressure [hPa],remark
2020-01-01T00:00Z,A,50,-5,100,10.5,1013.25,fine
2020-01-01T06:00Z,A,50,-5,100,,1010,rain
2020-01-01T00:00Z,B,10,200,0,25,1009,
"""


def test_csv_in_other_units(tmp_path):
    (tmp_path / "o.csv").write_text(CSV)
    found = open_observations(tmp_path / "o.csv", stations=["A"])
    assert found.sizes == {"time": 2, "cell": 1}
    np.testing.assert_allclose(found["2m_temperature"], [[283.65], [np.nan]])
    np.testing.assert_allclose(found["mean_sea_level_pressure"], [[101325.0], [101000.0]])
    assert float(found["longitude"][0]) == 355.0


def test_a_variable_of_no_table_keeps_its_units(tmp_path):
    text = CSV.replace("remark", "wave_height [m],note [text]").replace("fine", "1.5,a").replace("rain", "2.5,b")
    (tmp_path / "o.csv").write_text(text)
    found = open_observations(tmp_path / "o.csv", stations=["A"])
    np.testing.assert_array_equal(found["wave_height"], [[1.5], [2.5]])
    assert found["wave_height"].attrs["units"] == "m" and "note" not in found


VERIF = """# variable: T
# units: $^oC$
date leadtime location lat lon altitude obs fcst
20120101 0 415 49.35 -122.77 12 -6.5 -5.5
20120101 6 415 49.35 -122.77 12 -5.0 -999
20120102 0 415 49.35 -122.77 12 1.0 2.0
20120102 6 415 49.35 -122.77 12 3.0 4.0
"""


def test_verif_text_is_truth_and_forecast(tmp_path):
    (tmp_path / "raw.txt").write_text(VERIF)
    truth, forecast = open_observations(tmp_path / "raw.txt"), open_station_forecast(tmp_path / "raw.txt")
    assert forecast["2m_temperature"].dims == ("init_time", "lead_time", "cell")
    np.testing.assert_allclose(forecast["2m_temperature"][:, :, 0], [[267.65, np.nan], [275.15, 277.15]])
    np.testing.assert_allclose(truth["2m_temperature"][:, 0], [266.65, 268.15, 274.15, 276.15])
    assert truth["time"].values[1] == np.datetime64("2012-01-01T06")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.csv", None, "got nothing there"),
        ("a.csv", "x,y\n1,2\n", "Expected columns time, station, latitude, longitude .* no time, station"),
        ("b.csv", "time,station,latitude,longitude,wind\n2020-01-01,A,1,2,3\n", "observations of a variable"),
        ("c.txt", "# variable: X\ndate leadtime obs fcst\n20120101 0 1 2\n", "'# variable:' among T"),
        ("d.txt", "a b\n1 2\n", "verif's columns date, leadtime, obs, fcst"),
        ("e.csv", CSV.replace("[degC]", "[apples]"), "apples"),
        ("f.csv", CSV.replace(" [degC]", ""), r"Expected units of 2m_temperature .* as in 2m_temperature \[K\]"),
    ],
)
def test_bad_tables_end_in_one_sentence(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        open_observations(tmp_path / name)


def test_unknown_stations_and_forecasts_without_leads(tmp_path):
    (tmp_path / "o.csv").write_text(CSV)
    with pytest.raises(ValueError, match="none named Z"):
        open_observations(tmp_path / "o.csv", stations=["Z"])
    with pytest.raises(ValueError, match="columns init_time and lead_hours"):
        open_station_forecast(tmp_path / "o.csv")


def test_station_regions():
    names, weights = station_weights(["A", "B"])
    assert names == ("stations", "A", "B")
    np.testing.assert_allclose(weights, [[0.5, 0.5], [1, 0], [0, 1]])


GRID = Grid.equiangular(19, 36, poles=True)


def points(latitude, longitude, elevation=0.0):
    count = len(latitude)
    place = {"latitude": latitude, "longitude": longitude, "elevation": np.broadcast_to(elevation, count)}
    place["station"] = [f"S{i}" for i in range(count)]
    coordinates = {n: ("cell", np.asarray(v)) for n, v in place.items()}
    return xr.Dataset({"cell_area": ("cell", np.full(count, 1 / count))}, coordinates)


def gridded(**fields):
    latitude, longitude = GRID.mesh()
    data = {
        n: (("latitude", "longitude"), f(latitude, longitude) if callable(f) else np.full(GRID.shape, f))
        for n, f in fields.items()
    }
    return xr.Dataset(data, {"latitude": GRID.latitude, "longitude": GRID.longitude})


def test_bilinear_is_exact_for_what_is_linear_in_both_and_wraps():
    def linear(latitude, longitude):
        return 3 + 0.5 * latitude + 0.1 * latitude * np.where(longitude > 180, longitude - 360, longitude)

    at = points([12.3, -45.0, 88.0], [3.7, 355.0, 359.9])
    found = at_points(gridded(x=linear), at)["x"]
    np.testing.assert_allclose(found, linear(at["latitude"].values, at["longitude"].values), rtol=1e-12)


def test_both_methods_agree_on_the_cells_themselves():
    field = gridded(x=lambda a, b: np.sin(a) + b)
    at = points([GRID.latitude[3], GRID.latitude[0], GRID.latitude[-2]], [GRID.longitude[5], 0.0, 350.0])
    bilinear, nearest = (at_points(field, at, m)["x"].values for m in ("bilinear", "nearest"))
    np.testing.assert_allclose(bilinear, nearest, rtol=1e-12)
    np.testing.assert_allclose(nearest[0], field["x"].values[3, 5])
    near = at_points(field, points([GRID.latitude[3] + 1], [GRID.longitude[5] - 2]), "nearest")["x"]
    np.testing.assert_allclose(near, field["x"].values[3, 5])
    date_line = at_points(field, points([0.0], [358.0]), "nearest")["x"]
    np.testing.assert_allclose(date_line, field["x"].values[9, 0])


def test_temperature_and_pressure_are_carried_to_the_stations_height():
    fields = gridded(**{"2m_temperature": 288.15, "surface_pressure": 101325.0, "geopotential_at_surface": 0.0})
    at = points([10.0, 10.0], [10.0, 20.0], np.array([1000.0, np.nan]))
    found = at_points(fields, at)
    np.testing.assert_allclose(found["2m_temperature"], [288.15 - 6.5, 288.15])
    np.testing.assert_allclose(found["surface_pressure"], [89874.6, 101325.0], rtol=3e-4)  # standard atmosphere
    assert "1000 m" in found.attrs["height_correction"]
    bare = at_points(fields.drop_vars("geopotential_at_surface"), at)
    np.testing.assert_allclose(bare["2m_temperature"], 288.15)
    assert bare.attrs["height_correction"].startswith("none")
    np.testing.assert_allclose(at_points(fields, at, lapse_rate=0.0)["2m_temperature"], 288.15)


def test_stations_outside_a_region_and_unknown_methods_are_refused():
    region = gridded(x=1.0).isel(latitude=slice(5, 9), longitude=slice(3, 8))
    with pytest.raises(ValueError, match="stations within the grid"):
        at_points(region, points([-60.0], [50.0]))
    with pytest.raises(ValueError, match="among bilinear, nearest"):
        at_points(region, points([20.0], [50.0]), "cubic")


def on_a_map(function):
    """A field of `(x, y)` in units of 100 km on a Lambert map about 10 E, 60 N, as a dataset."""
    x, y = np.arange(-5.0, 6), np.arange(4.0, -5, -1)
    grid = Grid.projected(x * 1e5, y * 1e5, LAMBERT)
    fields = {"2m_temperature": (("y", "x"), function(*np.meshgrid(x, y)), {"units": "K"})}
    return xr.Dataset(fields, horizontal_coordinates(grid)), grid


def test_on_a_map_a_bilinear_field_of_its_coordinates_is_met():
    fields, grid = on_a_map(lambda x, y: 280 + x - 2 * y + 0.3 * x * y)
    latitude, longitude = to_sphere(grid.mapping, np.array([-1.8e5, 2.25e5]), np.array([3.9e5, 0.4e5]))
    found = at_points(fields, points(latitude, longitude), lapse_rate=0.0)["2m_temperature"]
    np.testing.assert_allclose(
        found, [280 - 1.8 - 7.8 - 0.3 * 1.8 * 3.9, 280 + 2.25 - 0.8 + 0.3 * 2.25 * 0.4], rtol=1e-9
    )
    nearest = at_points(fields, points(latitude, longitude), "nearest", lapse_rate=0.0)["2m_temperature"]
    np.testing.assert_allclose(nearest, [280 - 2 - 8 - 0.3 * 8, 280 + 2], rtol=1e-9)
    with pytest.raises(ValueError, match="stations within the grid.*lambert.*1 are not"):
        at_points(fields, points([60.0, 40.0], [10.0, 10.0]))


def test_stations_on_either_side_of_greenwich_lie_in_a_box_across_it():
    grid = Grid.box(10, 20, (50, 60, -10, 10))
    field = grid.mesh()[1] + 300
    fields = xr.Dataset({"2m_temperature": (grid.dims, field, {"units": "K"})}, horizontal_coordinates(grid))
    found = at_points(fields, points([55.0, 52.0, 51.0], [357.0, 3.0, 350.2]), lapse_rate=0.0)["2m_temperature"]
    np.testing.assert_allclose(found, [297.0, 303.0, 290.5])  # west of the first centre its value
    with pytest.raises(ValueError, match="1 are not"):
        at_points(fields, points([55.0, 52.0], [357.0, 20.0]), "nearest")
