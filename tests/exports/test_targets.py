"""Stores as other tools have them: values, names, units and signs; blocks of any size alike; whole or not there."""

import json

import netCDF4
import numpy as np
import pytest
import xarray as xr
import zarr
from small_forecast import small_forecast, write_forecast
from small_planet import small_planet
from small_store import write_store

import emulator as em
from emulator.exports import source
from emulator.exports.registry import TARGETS
from emulator.planet.grid import Grid

KEPT = ["temperature", "specific_humidity", "surface_pressure", "mean_total_precipitation_rate"]
FLUXES = ["mean_surface_latent_heat_flux", "mean_top_net_long_wave_radiation_flux"]
FIXED = ["geopotential_at_surface", "land_sea_mask", "half_level_a", "half_level_b"]
PLANET = small_planet(times=5, nlat=6)[[*KEPT, *FLUXES, *FIXED]]
LEVELS = [500.0, 850.0]
ON_LEVELS = em.on_pressure(PLANET, LEVELS)


@pytest.fixture(scope="module")
def analysis(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("analysis"), PLANET)


@pytest.fixture(scope="module")
def forecast(tmp_path_factory):
    return write_forecast(tmp_path_factory.mktemp("forecast") / "f.zarr", small_forecast(PLANET, (0,), 3, members=2))


def opened(path, name):
    with xr.open_dataset(path) as file:
        return file[name].load()


def only(folder, pattern):
    (path,) = folder.glob(pattern)
    return path


def test_every_target_is_listed():
    assert TARGETS.names() == ["anemoi", "cmip6", "grib", "netcdf", "weatherbench"]


@pytest.mark.slow
def test_netcdf_of_an_analysis_is_ingested_as_the_store_that_it_was(analysis, tmp_path, monkeypatch):
    monkeypatch.setattr(source, "BLOCK_BYTES", 1)  # time by time
    folder = em.export(analysis, "netcdf", tmp_path / "cf")
    with netCDF4.Dataset(only(folder, "2001.nc")) as file:
        assert (np.diff(file["time_bounds"][:]) == 21600).all()
        assert file["level"].formula_terms == "sigma: level ps: surface_pressure ptop: ptop"
        assert file["mean_surface_latent_heat_flux"].cell_methods == "time: mean"
    em.ingest(str(folder / "*.nc"), tmp_path / "again.zarr")
    again = em.open_analysis(tmp_path / "again.zarr")
    for name in (*KEPT, *FLUXES, *FIXED):
        np.testing.assert_array_equal(again[name].values, PLANET[name].values)


def test_weatherbench_has_its_names_and_units(analysis, forecast, tmp_path, monkeypatch):
    monkeypatch.setattr(source, "BLOCK_BYTES", 1)
    found = xr.open_zarr(em.export(analysis, "weatherbench", tmp_path / "a.zarr", LEVELS)).load()
    assert found["level"].dtype == np.int32 and found["level"].values.tolist() == [500, 850]
    assert found["temperature"].dims == ("time", "level", "latitude", "longitude")
    assert {found[n].dtype for n in ("temperature", "total_precipitation_6hr", "land_sea_mask")} == {
        np.dtype(np.float32)
    }
    for name in ("temperature", "geopotential", "surface_pressure", "land_sea_mask"):
        np.testing.assert_array_equal(found[name].values, ON_LEVELS[name].values)
    rain = PLANET["mean_total_precipitation_rate"].values * 21.6
    np.testing.assert_allclose(found["total_precipitation_6hr"].values, rain, rtol=1e-6)
    assert found["total_precipitation_6hr"].attrs["units"] == "m" and "half_level_a" not in found
    found = xr.open_zarr(em.export(forecast, "weatherbench", tmp_path / "f.zarr", LEVELS)).load()
    expected = em.on_pressure(em.open_forecast(forecast).load(), LEVELS)
    assert found["temperature"].dims == ("time", "prediction_timedelta", "number", "level", "latitude", "longitude")
    np.testing.assert_array_equal(found["temperature"].values, expected["temperature"].values)
    assert found["prediction_timedelta"].dtype.kind == "m"


def test_anemoi_has_values_statistics_and_dates(analysis, tmp_path, monkeypatch):
    monkeypatch.setattr(source, "BLOCK_BYTES", 1)
    group = zarr.open_group(em.export(analysis, "anemoi", tmp_path / "a.zarr", LEVELS), mode="r")
    index = {name: number for number, name in enumerate(group.attrs["variables"])}
    data = group["data"][:]
    assert data.shape == (5, len(index), 1, 6 * 12) and group.attrs["field_shape"] == [6, 12]
    assert {"t_500", "t_850", "q_500", "z_500", "sp", "tp", "slhf", "ttr", "lsm", "z"} == set(index) - {
        "q_850",
        "z_850",
    }
    shape = (5, 6, 12)
    np.testing.assert_array_equal(data[:, index["t_850"], 0].reshape(shape), ON_LEVELS["temperature"].values[:, 1])
    amount = PLANET["mean_surface_latent_heat_flux"].values * 21600
    np.testing.assert_allclose(data[:, index["slhf"], 0].reshape(shape), amount, rtol=1e-6)
    rain = PLANET["mean_total_precipitation_rate"].values * 21.6
    np.testing.assert_allclose(data[:, index["tp"], 0].reshape(shape), rain, rtol=1e-6)
    values = data.astype(np.float64)
    np.testing.assert_allclose(group["mean"][:], values.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(group["stdev"][:], values.std(axis=(0, 2, 3)), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(group["maximum"][:], data.max(axis=(0, 2, 3)))
    change = np.diff(values, axis=0).std(axis=(0, 2, 3))
    np.testing.assert_allclose(group["statistics_tendencies_6h_stdev"][:], change, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(group["dates"][:], PLANET["time"].values.astype("datetime64[s]"))
    assert group.attrs["frequency"] == "6h" and group.attrs["missing_dates"] == [] and not group.attrs["allow_nans"]
    assert group.attrs["constant_fields"] == ["z", "lsm"]


@pytest.mark.slow
def test_anemoi_of_points_with_a_missing_date(tmp_path):
    area = Grid.gaussian(6).area.ravel()
    cells = PLANET[["temperature", "surface_pressure"]].stack(cell=("latitude", "longitude"))
    places = {n: ("cell", cells[n].values) for n in ("latitude", "longitude")}
    cells = cells.drop_vars(["cell", "latitude", "longitude"]).assign_coords(places)
    gone = np.array([0, 0, 1, 0, 0], bool)
    cells = cells.where(xr.DataArray(~gone, dims="time")).astype(np.float32).transpose("time", "level", "cell")
    cells = cells.assign(cell_area=("cell", area), missing=("time", gone), half_level_a=PLANET["half_level_a"])
    attributes = PLANET.attrs | {"emulator_schema": "analysis-1", "complete": True, "time_step_seconds": 21600.0}
    cells = cells.assign(half_level_b=PLANET["half_level_b"]).assign_attrs(attributes)
    cells.to_zarr(tmp_path / "points.zarr", zarr_format=3, consolidated=False)
    group = zarr.open_group(em.export(tmp_path / "points.zarr", "anemoi", tmp_path / "a.zarr"), mode="r")
    assert group.attrs["variables"][-2:] == ["t_3", "t_4"] and group.attrs["field_shape"] == [72]
    assert group.attrs["missing_dates"] == [str(PLANET["time"].values[2].astype("datetime64[s]"))]
    some = PLANET["temperature"].values[~gone][:, 3].astype(np.float64)
    np.testing.assert_allclose(group["mean"][:][-1], some.mean(), rtol=1e-12)
    steps = np.diff(PLANET["temperature"].values[:, 3].astype(np.float64), axis=0)[[0, 3]]  # none across the gap
    np.testing.assert_allclose(group["statistics_tendencies_6h_mean"][:][-1], steps.mean(), rtol=1e-9)


def test_cmip6_has_names_signs_bounds_and_orders_of_its_own(analysis, tmp_path, monkeypatch):
    monkeypatch.setattr(source, "BLOCK_BYTES", 1)
    folder = em.export(analysis, "cmip6", tmp_path / "cmor", LEVELS)
    names = {path.name.split("_")[0] for path in folder.iterdir()}
    assert names == {"ta", "hus", "zg", "ps", "pr", "hfls", "rlut", "orog", "sftlf"}
    flux = opened(only(folder, "hfls_6hrPlev_emulator_analysis_r1i1p1f1_gn_200012312100-200101012100.nc"), "hfls")
    np.testing.assert_array_equal(flux.values[:, ::-1], -PLANET["mean_surface_latent_heat_flux"].values)
    assert flux.attrs["positive"] == "up" and flux.attrs["standard_name"] == "surface_upward_latent_heat_flux"
    assert flux["lat"].values[0] < 0 and flux.attrs["cell_methods"] == "area: mean time: mean"
    height = opened(only(folder, "zg_6hrPlevPt_*_200101010000-200101020000.nc"), "zg")
    gravity = json.loads(PLANET.attrs["constants"])["gravity"]
    np.testing.assert_allclose(height.values[:, ::-1, ::-1], ON_LEVELS["geopotential"].values / gravity, rtol=1e-6)
    assert height["plev"].values.tolist() == [85000, 50000] and height.attrs["units"] == "m"
    with xr.open_dataset(only(folder, "pr_*.nc")) as file:
        assert (file["time_bnds"].diff("bnds") == np.timedelta64(6, "h")).all()
        assert (file["time"] == file["time_bnds"].isel(bnds=1) - np.timedelta64(3, "h")).all()
        weights = np.diff(np.sin(np.radians(file["lat_bnds"].values)), axis=1)[:, 0] / 2
        np.testing.assert_allclose(weights[::-1], Grid.gaussian(6).area.sum(axis=1), rtol=1e-9)
        assert file.attrs["table_id"] == "6hrPlev" and file.attrs["variable_id"] == "pr"
    share = opened(only(folder, "sftlf_fx_*.nc"), "sftlf")
    np.testing.assert_array_equal(share.values[::-1], 100 * PLANET["land_sea_mask"].values)


@pytest.mark.slow
def test_cmip6_is_ingested_again(analysis, tmp_path):
    folder = em.export(analysis, "cmip6", tmp_path / "cmor", LEVELS)
    chosen = [str(folder / f"{name}_*.nc") for name in ("hfls", "pr", "rlut")]
    em.ingest(chosen, tmp_path / "again.zarr")
    again = em.open_analysis(tmp_path / "again.zarr")
    for name in (*FLUXES, "mean_total_precipitation_rate"):
        np.testing.assert_allclose(again[name].values, PLANET[name].values, rtol=1e-6)
    np.testing.assert_array_equal(again["time"].values, PLANET["time"].values)


@pytest.mark.slow
def test_members_of_a_forecast_are_realizations_and_means_begin_after_the_start(forecast, tmp_path):
    folder = em.export(forecast, "cmip6", tmp_path / "cmor", LEVELS)
    expected = em.open_forecast(forecast).load()["mean_total_precipitation_rate"][0]
    for member in (0, 1):
        name = f"pr_6hrPlev_emulator_forecast_r{member + 1}i1p1f1_gn_200101010300-200101011500.nc"
        found = opened(folder / name, "pr")
        np.testing.assert_array_equal(found.values[:, ::-1], expected[1:, member].values)


def test_whole_or_not_there(analysis, tmp_path, monkeypatch):
    from emulator.exports.targets import weatherbench

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weatherbench, "_as_theirs", full)
    (tmp_path / "a.zarr.partial").mkdir()  # somebody else's
    with pytest.raises(OSError, match="No space"):
        em.export(analysis, "weatherbench", tmp_path / "a.zarr", LEVELS)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr.partial"]
    (tmp_path / "taken").mkdir()
    with pytest.raises(ValueError, match="Expected nothing at .*taken yet, got a folder"):
        em.export(analysis, "netcdf", tmp_path / "taken")


@pytest.mark.parametrize(
    ("store", "target", "output", "levels", "said"),
    [
        ("analysis", "weatherbnech", "a.zarr", LEVELS, "nearest: weatherbench"),
        ("analysis", "weatherbench", "a.zarr", None, r"Expected levels \(in hPa\) to interpolate the sigma levels"),
        ("analysis", "weatherbench", "a", LEVELS, "Expected an output that ends in .zarr"),
        ("forecast", "anemoi", "a.zarr", LEVELS, "Expected an analysis for anemoi-datasets"),
        ("analysis", "netcdf", "a", [850.0, 500.0], "Expected increasing pressures"),
    ],
)
def test_what_cannot_be_exported_is_said(request, store, target, output, levels, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        em.export(request.getfixturevalue(store), target, tmp_path / output, levels)
    assert not list(tmp_path.iterdir())


def test_what_has_no_counterpart_is_left_out_in_one_line_or_refused(analysis, tmp_path, caplog):
    em.export(analysis, "cmip6", tmp_path / "cmor")
    (line,) = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert line.startswith("left out, without a counterpart in CMIP6") and "specific_humidity, temperature" in line
    odd = PLANET[["temperature", "half_level_a", "half_level_b"]].rename(temperature="plankton")
    odd["plankton"].attrs = {"units": "kg m-3", "role": "prognostic"}
    store = write_store(tmp_path, odd, "odd.zarr")
    with pytest.raises(
        ValueError, match="Expected a field that CMIP6 at this interval has a counterpart for, got plankton"
    ):
        em.export(store, "cmip6", tmp_path / "none")
    assert not list(tmp_path.glob("none*"))
