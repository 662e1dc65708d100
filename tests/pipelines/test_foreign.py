"""Truths and forecasts of other tools give the scores of stores of ours."""

import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from emulator.sources.foreign import open_any_forecast, open_truth
from emulator.verify.assemble import open_scores
from pipelines.cli import main
from pipelines.config import VerifyConfig
from pipelines.verify import verify

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from made_scores import made_analysis, made_forecast_store

INITS = [30, 33, 36, 40]


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("foreign")
    truth = made_analysis(folder / "analysis.zarr")
    made_forecast_store(folder / "forecast.zarr", truth, INITS, 6, 0.2)
    bare = truth[["temperature", "surface_pressure"]].load()
    bare.attrs = {}
    for array in bare.variables.values():
        array.encoding = {}
        array.attrs.pop("role", None)
    bare = bare.assign_coords(level=[100.0, 500.0, 900.0])
    bare.to_netcdf(folder / "bare.nc")
    forecast = xr.open_zarr(folder / "forecast.zarr", decode_timedelta=True).load()[["temperature", "surface_pressure"]]
    forecast = forecast.assign_coords(level=[100.0, 500.0, 900.0])
    forecast.attrs = {}
    for array in forecast.variables.values():
        array.encoding = {}
    forecast.to_zarr(folder / "bare_forecast.zarr", zarr_format=2)
    return folder


def score(stores, output, truth, forecast="bare_forecast.zarr") -> xr.Dataset:
    settings = {"regions": ["global"], "climatology": {"end": "2001-01-07"}, "output": output}
    verify(VerifyConfig(truth=truth, forecasts={"a": stores / forecast}, **settings))
    return open_scores(output)


@pytest.fixture(scope="module")
def plain(stores) -> xr.Dataset:
    return score(stores, stores / "plain.nc", stores / "bare.nc")


def as_weatherbench(bare, folder):
    """Zarr 2, longitude before latitude, south first, units in another spelling."""
    store = bare.isel(latitude=slice(None, None, -1)).transpose("time", "level", "longitude", "latitude")
    store["surface_pressure"].attrs["units"] = "kg m**-1 s**-2"
    store["temperature"].attrs["units"] = "kelvin"
    store.to_zarr(folder / "wb.zarr", zarr_format=2)
    return folder / "wb.zarr"


def as_files(bare, folder):
    """Monthly NetCDF, CF's short names for the dimensions, levels from the ground in Pa."""
    store = bare.isel(level=slice(None, None, -1)).rename(latitude="lat", longitude="lon", level="plev")
    store = store.assign_coords(plev=("plev", store["plev"].values * 100, {"units": "Pa"}))
    store.isel(time=slice(0, 20)).to_netcdf(folder / "part2.nc")  # names do not follow time
    store.isel(time=slice(20, None)).to_netcdf(folder / "part1.nc")
    return folder / "part*.nc"


def as_url(bare, folder):
    bare.to_zarr(folder / "url.zarr", zarr_format=3)
    return f"file://{folder / 'url.zarr'}"


@pytest.mark.parametrize("make", [as_weatherbench, as_files, as_url])
def test_truths_of_other_tools_score_the_same(stores, plain, tmp_path, make):
    bare = xr.open_dataset(stores / "bare.nc").load()
    for array in bare.variables.values():
        array.encoding = {}
    found = score(stores, tmp_path / "s.nc", make(bare, tmp_path))
    found = found.sel(channel=plain["channel"].values)
    assert set(found["channel_units"].values) == {"K", "Pa"}
    for name in ("rmse", "acc", "mae", "climatology_std"):
        np.testing.assert_allclose(found[name], plain[name], rtol=1e-9, atol=1e-12, err_msg=name)


def cf(dataset: xr.Dataset, names: dict, **units) -> xr.Dataset:
    """A dataset under CF's standard names and short ones."""
    dataset = dataset.rename(names)
    for name in names.values():
        dataset[name].attrs["units"] = units.get(name, dataset[name].attrs["units"])
    dataset["t"].attrs["standard_name"] = "air_temperature"
    return dataset


def test_short_and_standard_names_are_known_as_to_ingest(stores, plain, tmp_path, caplog):
    forecast = xr.open_zarr(stores / "bare_forecast.zarr", decode_timedelta=True).load()
    names = {"temperature": "t", "surface_pressure": "sp"}
    cf(forecast, names).to_netcdf(tmp_path / "cf.nc")
    found = score(stores, tmp_path / "s.nc", stores / "bare.nc", tmp_path / "cf.nc")
    np.testing.assert_allclose(found["rmse"], plain["rmse"], rtol=1e-6)
    caplog.set_level("INFO")
    other = open_any_forecast(_written(cf(forecast, names, sp="hPa"), tmp_path / "hpa.nc"))
    assert "temperature" in other and "sp" in other and "surface_pressure" not in other
    assert "sp (surface_pressure in hPa)" in caplog.text and "emulator ingest" in caplog.text
    only = _written(cf(forecast, names, sp="hPa")[["sp"]], tmp_path / "sp.nc")
    with pytest.raises(ValueError, match="share, got none: .*; emulator ingest .*kind: forecast.* makes a store"):
        score(stores, tmp_path / "s.nc", stores / "bare.nc", only)


def test_fields_without_units_are_taken_as_the_tables_and_said_to_be(stores, plain, tmp_path, caplog):
    forecast = xr.open_zarr(stores / "bare_forecast.zarr", decode_timedelta=True).load()
    for name in forecast.data_vars:
        forecast[name].attrs.pop("units")
    found = score(stores, tmp_path / "s.nc", stores / "bare.nc", _written(forecast, tmp_path / "f.nc"))
    np.testing.assert_allclose(found["rmse"], plain["rmse"], rtol=1e-6)
    assert "assumed: surface_pressure [Pa], temperature [K]" in caplog.text
    assert "are the units right" not in caplog.text
    forecast["temperature"] = forecast["temperature"] - 273.15
    score(stores, tmp_path / "s.nc", stores / "bare.nc", _written(forecast, tmp_path / "c.nc"))
    assert "a is far from the truth in temperature 100 hPa" in caplog.text and "are the units right?" in caplog.text


def _written(dataset: xr.Dataset, path: Path) -> Path:
    for array in dataset.variables.values():
        array.encoding = {}
    dataset.to_netcdf(path)
    return path


def test_files_that_rollout_writes_in_netcdf_score_as_its_store(stores, plain, tmp_path):
    from emulator.exports.cf import to_cf
    from emulator.store.forecast import open_forecast

    store = open_forecast(stores / "bare_forecast.zarr").load()
    for index, init in enumerate(store["init_time"].values):
        one = to_cf(store.isel(init_time=index))
        one.to_netcdf(tmp_path / f"{np.datetime_as_string(init, 'h')}.nc")
    found = open_any_forecast(tmp_path / "*.nc")
    np.testing.assert_array_equal(found["init_time"], store["init_time"])
    np.testing.assert_array_equal(found["temperature"], store["temperature"])
    scores = score(stores, tmp_path / "scores.nc", stores / "bare.nc", tmp_path / "*.nc")
    np.testing.assert_allclose(scores["rmse"], plain["rmse"], rtol=1e-12)


def test_the_check_finds_patterns(stores, tmp_path, capsys):
    config = tmp_path / "v.yaml"
    lines = [f"forecasts: {{a: {stores / 'bare_forecast.zarr'}}}", f"output: {tmp_path / 's.nc'}"]
    config.write_text("\n".join([*lines, f"truth: '{stores / 'bare*.nc'}'"]))
    assert main(["verify", str(config), "--check"]) == 0
    config.write_text("\n".join([*lines, f"truth: '{stores / 'none*.nc'}'"]))
    assert main(["verify", str(config), "--check"]) != 0
    assert "got nothing there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.rename(time="when"), "Expected a dimension time or valid_time in .*odd.nc"),
        (lambda d: d.isel(time=[0, 1, 3]), "Expected a uniform time axis in .*odd.nc"),
        (lambda d: d.rename(latitude="y").drop_vars("y"), "Expected a coordinate latitude in .*odd.nc"),
        (lambda d: d.expand_dims(prediction_timedelta=2), "Expected a truth with one time axis at .*odd.nc"),
    ],
)
def test_what_is_no_truth_is_one_sentence(stores, tmp_path, change, message):
    change(xr.open_dataset(stores / "bare.nc").load()).to_netcdf(tmp_path / "odd.nc")
    with pytest.raises(ValueError, match=message) as caught:
        open_truth(tmp_path / "odd.nc")
    assert "\n" not in str(caught.value)


def test_files_that_do_not_belong_together_are_refused(stores, tmp_path):
    bare = xr.open_dataset(stores / "bare.nc").load()
    bare.isel(time=slice(0, 20)).to_netcdf(tmp_path / "a.nc")
    bare.isel(time=slice(20, 40), latitude=slice(0, 4)).to_netcdf(tmp_path / "b.nc")
    with pytest.raises(ValueError, match="Expected files .* on one grid with the same leads and levels"):
        open_truth(tmp_path / "*.nc")
    bare[["temperature"]].isel(time=slice(20, 40)).to_netcdf(tmp_path / "b.nc")
    with pytest.raises(ValueError, match="Expected surface_pressure in all of the files"):
        open_truth(tmp_path / "*.nc")


def test_grib_is_sent_to_ingest(shared_data):
    with pytest.raises(ValueError, match="got GRIB; make a store of it by emulator ingest"):
        open_any_forecast(shared_data / "nwp" / "pl_regular_ll.grib")
