"""Forecasts of masked fields on depths and soil layers as CF NetCDF and GRIB 2."""

import netCDF4
import numpy as np
import pytest
from masked_ocean import HEIGHT, THETAO, made_forecast, made_truth, masks, with_outside

from emulator.exports.cf import to_cf
from emulator.exports.messages import write_grib
from emulator.files.whole_file import write_netcdf
from emulator.forecasting.thinning import thinned


@pytest.fixture(scope="module")
def forecast():
    """One forecast with numbers under its masks, as a network may leave them."""
    return with_outside(made_forecast(made_truth(), (0,), 2), 1e5).isel(init_time=0)


def exists(name):
    known = masks()
    land = known["land_sea_mask"] >= 0.5
    return {THETAO: known["sea_floor"] > 0.5, HEIGHT: ~land, "soil_temperature": np.stack([land, land])}[name]


def test_netcdf_has_axes_as_cf_names_them_and_fill_values_under_masks(forecast, tmp_path):
    write_netcdf(to_cf(forecast), tmp_path / "a.nc")
    with netCDF4.Dataset(tmp_path / "a.nc") as file:
        assert file[THETAO].dimensions == ("time", "depth", "latitude", "longitude")
        depth = {name: file["depth"].getncattr(name) for name in ("units", "standard_name", "positive", "axis")}
        assert depth == {"units": "m", "standard_name": "depth", "positive": "down", "axis": "Z"}
        assert file["soil_layer"].bounds == "soil_layer_bounds" and "bounds" not in file["depth"].ncattrs()
        np.testing.assert_allclose(file["soil_layer_bounds"][:], [[0, 0.07], [0.07, 0.28]])
        for name in (THETAO, HEIGHT, "soil_temperature"):
            assert "domain" not in file[name].ncattrs()
            values = np.ma.filled(file[name][:], np.nan)
            here = np.broadcast_to(exists(name), values.shape)
            np.testing.assert_array_equal(np.isfinite(values), here)
            np.testing.assert_array_equal(values[here], forecast[name].values[here])
        assert np.isfinite(file["temperature"][:]).all()


def messages(path) -> list[dict]:
    import eccodes

    found = []
    keys = ("typeOfLevel", "discipline", "parameterCategory", "parameterNumber", "step", "bitmapPresent")
    floats = ("level", "topLevel", "bottomLevel")
    with open(path, "rb") as file:
        while (message := eccodes.codes_grib_new_from_file(file)) is not None:
            known = {key: eccodes.codes_get(message, key) for key in keys}
            known |= {key: eccodes.codes_get(message, key, float) for key in floats}
            eccodes.codes_set(message, "missingValue", 1e30)
            values = eccodes.codes_get_values(message)
            found.append(known | {"values": np.where(values == 1e30, np.nan, values).reshape(8, 16)})
            eccodes.codes_release(message)
    return found


def test_grib_has_depths_layers_and_bitmaps(forecast, tmp_path):
    pytest.importorskip("eccodes")
    chosen = forecast[
        [THETAO, HEIGHT, "soil_temperature", "temperature", "land_sea_mask", "sea_floor", "soil_layer_bounds"]
    ]
    count = write_grib(chosen, tmp_path / "a.grib2")
    found = messages(tmp_path / "a.grib2")
    assert len(found) == count == 3 * (2 + 1 + 2 + 2) + 1  # leads of levels, and the land-sea mask once
    ocean = [m for m in found if (m["discipline"], m["parameterCategory"], m["parameterNumber"]) == (10, 4, 18)]
    assert [m["level"] for m in ocean] == [5, 100] * 3 and {m["typeOfLevel"] for m in ocean} == {"depthBelowSea"}
    soil = [m for m in found if m["typeOfLevel"] == "depthBelowLandLayer"]
    np.testing.assert_allclose([[m["topLevel"], m["bottomLevel"]] for m in soil], [[0, 0.07], [0.07, 0.28]] * 3)
    assert [m["level"] for m in found if m["typeOfLevel"] == "isobaricInhPa"] == [500, 850] * 3
    for name, some in ((THETAO, ocean), ("soil_temperature", soil)):
        for number, message in enumerate(some):
            here = exists(name)[number % 2]
            np.testing.assert_array_equal(np.isfinite(message["values"]), here)
            expected = forecast[name].values[number // 2, number % 2][here]
            np.testing.assert_allclose(message["values"][here], expected, rtol=1e-6)


def test_soil_layers_without_bounds_are_numbered(forecast, tmp_path):
    pytest.importorskip("eccodes")
    write_grib(forecast[["soil_temperature", "land_sea_mask"]], tmp_path / "a.grib2")
    soil = [m for m in messages(tmp_path / "a.grib2") if m["typeOfLevel"] == "soilLayer"]
    assert [m["level"] for m in soil] == [1, 2] * 3


def test_members_of_fields_on_depths_stay_apart(tmp_path):
    pytest.importorskip("eccodes")
    ensemble = made_forecast(made_truth(), (0,), 1, members=3).isel(init_time=0, lead_time=[1])
    ensemble = ensemble[[THETAO, "sea_floor"]]
    write_grib(ensemble, tmp_path / "a.grib2")
    found = messages(tmp_path / "a.grib2")
    here = exists(THETAO)
    for number, message in enumerate(found):
        level, member = divmod(number, 3)
        expected = ensemble[THETAO].values[0, member, level][here[level]]
        np.testing.assert_allclose(message["values"][here[level]], expected, rtol=1e-6)
    assert len(found) == 6


def test_a_field_whose_mask_is_absent_is_written_as_it_is(forecast):
    bare = forecast[[HEIGHT]]
    np.testing.assert_array_equal(to_cf(bare)[HEIGHT].values, bare[HEIGHT].values)


def test_a_selection_of_variables_keeps_their_masks(forecast):
    chosen = thinned(forecast, [THETAO, "temperature"])
    assert set(chosen.data_vars) == {THETAO, "temperature", "sea_floor", "soil_layer_bounds"}
    assert "land_sea_mask" in thinned(forecast, [HEIGHT])
    values = to_cf(chosen)[THETAO].values
    np.testing.assert_array_equal(np.isfinite(values), np.broadcast_to(exists(THETAO), values.shape))
