"""Forecasts in a NetCDF file are opened as those of a store are."""

import pytest
import xarray as xr
from small_forecast import small_forecast, write_forecast

import emulator as em


def test_a_file_gives_what_the_store_gives(planet, tmp_path):
    store = write_forecast(tmp_path / "forecast.zarr", small_forecast(planet, members=2))
    expected = em.open_forecast(store).load()
    written = xr.open_zarr(store, decode_timedelta=False).load()
    for variable in written.variables.values():
        variable.encoding = {}
    written.attrs.pop("complete")  # NetCDF has no truth values
    written.to_netcdf(tmp_path / "forecast.nc", engine="netcdf4")
    found = em.open_forecast(tmp_path / "forecast.nc")
    xr.testing.assert_equal(found.load(), expected)


def test_what_is_no_netcdf_is_told_by_its_path(tmp_path):
    path = tmp_path / "forecast.nc"
    path.write_text("no forecast")
    with pytest.raises(ValueError, match="Expected a NetCDF file that opens at .*forecast.nc, got "):
        em.open_forecast(path)
