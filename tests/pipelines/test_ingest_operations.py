"""What ingest does to fields on the way: other grids, other levels, derived variables, gaps filled."""

import numpy as np
import pytest
import xarray as xr
from small_planet import small_planet
from source_files import LATITUDE, LONGITUDE, TIMES, truth

from emulator.planet.grid import Grid
from emulator.sphere.regrid import Regridder
from emulator.store.analysis import open_analysis
from emulator.store.schema import grid_of, levels_of, variables_by_role
from pipelines.config import IngestConfig
from pipelines.ingest import ingest

TRUTH = truth()


def run(folder, sources, **settings):
    sources = sources if isinstance(sources, list) else [{"path": str(sources)}]
    ingest(IngestConfig(sources=sources, output=folder / "a.zarr", **settings))
    return open_analysis(folder / "a.zarr")


@pytest.fixture
def planet(tmp_path):
    data = small_planet(times=6)
    data.to_netcdf(tmp_path / "planet.nc")
    return data


def test_to_another_grid(tmp_path):
    TRUTH.to_netcdf(tmp_path / "in.nc")
    asked = {"kind": "gaussian", "rows": 8, "bilinear": ["temperature"]}
    store = run(tmp_path, tmp_path / "in.nc", grid=asked)
    source, target = Grid.from_coordinates(LATITUDE, LONGITUDE), Grid.gaussian(8)
    assert grid_of(store).same_as(target)
    for name, method in (("temperature", "bilinear"), ("geopotential_at_surface", "conservative")):
        expected = Regridder(source, target, method)(TRUTH[name].values)
        np.testing.assert_allclose(store[name].values, expected, rtol=1e-6, atol=1e-4)
    rain = store.mean_total_precipitation_rate
    np.testing.assert_allclose(target.mean(rain.values), source.mean(TRUTH[rain.name].values), rtol=1e-6)


def test_sources_on_several_grids_are_joined(tmp_path):
    """Sea surface temperature on a grid of its own, with land left out."""
    TRUTH[["temperature"]].to_netcdf(tmp_path / "t.nc")
    fine = Grid.equiangular(36, 72)
    warm = np.where(fine.mesh()[1] < 180, 290.0, np.nan)
    sst = ("time", "latitude", "longitude"), np.broadcast_to(warm, (8, 36, 72)), {"units": "K"}
    place = {"time": TIMES, "latitude": fine.latitude[::-1], "longitude": fine.longitude}
    xr.Dataset({"sea_surface_temperature": sst}, place).to_netcdf(tmp_path / "sst.nc")
    sources = [{"path": str(tmp_path / "t.nc")}, {"path": str(tmp_path / "sst.nc")}]
    with pytest.raises(ValueError, match="Expected one grid"):
        run(tmp_path, sources)
    store = run(tmp_path, sources, grid={"rows": 7, "columns": 12, "poles": True})
    np.testing.assert_array_equal(store.temperature.values, TRUTH.temperature.values)  # on its grid already
    found = store.sea_surface_temperature.values[0]
    np.testing.assert_allclose(found[:, 1:6], 290, rtol=1e-6)
    assert np.isnan(found[:, 7:12]).all()


def test_derived_variables_without_what_they_are_made_from(tmp_path, planet):
    names = ["temperature", "total_column_water_vapour", "wind_speed"]
    store = run(tmp_path, tmp_path / "planet.nc", variables=names, derive=names[1:])
    assert set(store.data_vars) == {*names, "cell_area", "half_level_a", "half_level_b"}
    wind = np.hypot(planet.u_component_of_wind, planet.v_component_of_wind)
    np.testing.assert_allclose(store.wind_speed.values, wind, rtol=1e-6)
    pressure = planet.surface_pressure.values.astype(float)
    layers = np.stack(levels_of(store).thickness(pressure), axis=1)
    gravity = float(store.attrs["constants"].split('"gravity": ')[1].split(",")[0])
    column = (planet.specific_humidity.values * layers).sum(axis=1) / gravity
    np.testing.assert_allclose(store.total_column_water_vapour.values, column, rtol=1e-6)
    assert store.wind_speed.attrs["units"] == "m s-1"
    only = run(tmp_path, tmp_path / "planet.nc", variables=names[1:2], derive=names[1:2], roles={names[1]: "forcing"})
    assert "level" not in only.dims and variables_by_role(only)["forcing"] == [names[1]]


def test_model_levels_to_pressure_levels_and_to_thicker_layers(tmp_path, planet):
    store = run(tmp_path, tmp_path / "planet.nc", vertical={"pressure": [300, 500, 700, 850]})
    assert levels_of(store).kind == "pressure" and store.level.values.tolist() == [300, 500, 700, 850]
    half = planet.half_level_b.values
    full = np.log((half[1:] + half[:-1]) / 2 * float(planet.surface_pressure[0, 3, 4]))
    expected = np.interp(np.log([3e4, 5e4, 7e4]), full, planet.u_component_of_wind.values[0, :, 3, 4])
    np.testing.assert_allclose(store.u_component_of_wind.values[0, :3, 3, 4], expected, rtol=1e-5)
    thick = run(tmp_path, tmp_path / "planet.nc", vertical={"layers": 2})
    levels, pressure = levels_of(thick), planet.surface_pressure.values.astype(float)
    assert levels.kind == "sigma" and len(levels) == 2
    sums = []
    for data, half_levels in ((planet, half), (thick, levels.half_b)):
        layers = np.diff(half_levels)[:, None, None] * pressure[:, None]
        sums.append((data.specific_humidity.values * layers).sum(axis=1))
    np.testing.assert_allclose(sums[1], sums[0], rtol=1e-6)


def test_gaps_are_interpolated_and_recorded(tmp_path):
    """A field linear in time comes back; a gap that is too long, or at the end of a field, is refused."""
    slope = xr.DataArray(np.arange(8.0), dims="time")
    data = TRUTH.assign(
        temperature=(TRUTH.temperature[0].drop_vars("time") + slope * 2.0).transpose(*TRUTH.temperature.dims)
    )
    data["temperature"].attrs["units"] = "K"
    data = data.astype(np.float32)
    data[["temperature"]].isel(time=[0, 1, 4, 5, 7]).to_netcdf(tmp_path / "t.nc")
    data[["mean_total_precipitation_rate"]].to_netcdf(tmp_path / "p.nc")
    sources = [{"path": str(tmp_path / "t.nc")}, {"path": str(tmp_path / "p.nc")}]
    store = run(tmp_path, sources, missing="interpolate", times_per_region=1, derive=["temperature_mean_300_850"])
    np.testing.assert_allclose(store.temperature.values, data.temperature.values, rtol=1e-6)
    assert store.interpolated.values.tolist() == [False, False, True, True, False, False, True, False]
    assert store.attrs["interpolated_times"] == 3 and "missing" not in store
    assert np.isfinite(store.temperature_mean_300_850.values).all()
    np.testing.assert_array_equal(store.mean_total_precipitation_rate.values, data.mean_total_precipitation_rate.values)
    with pytest.raises(ValueError, match="temperature at every time, got nothing complete for 2001-02-27T12"):
        run(tmp_path, sources, missing="interpolate", longest_gap=1)
    data[["temperature"]].isel(time=[0, 1, 2, 3, 4, 5, 6]).to_netcdf(tmp_path / "t.nc")
    data[["mean_sea_level_pressure"]].to_netcdf(tmp_path / "p.nc")
    with pytest.raises(ValueError, match="temperature at every time"):
        run(tmp_path, sources, missing="interpolate")
