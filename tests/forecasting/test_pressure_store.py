"""Forecasts on pressure levels in a store of their own: the interpolated fields, resumed and left alone."""

import numpy as np
import pytest
import xarray as xr
from small_forecast import small_forecast, write_forecast
from small_planet import small_planet

from emulator.forecasting import pressure
from emulator.forecasting.options import ThinOptions, pressure_store
from emulator.forecasting.pressure import check_pressures, write_on_pressure
from emulator.store.forecast import open_forecast
from emulator.store.pressure import on_pressure

PRESSURES = [300.0, 850.0]
KEPT = ["temperature", "specific_humidity", "surface_pressure", "mean_evaporation_rate", "sea_surface_temperature"]
FIXED = ["geopotential_at_surface", "land_sea_mask", "half_level_a", "half_level_b"]
PLANET = small_planet(times=8, nlat=6)[KEPT + FIXED]


@pytest.mark.parametrize("members", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_the_store_beside_holds_the_interpolated_forecasts(tmp_path, members, monkeypatch):
    monkeypatch.setattr(pressure, "BLOCK_BYTES", 1)  # lead by lead
    path = write_forecast(tmp_path / "f.zarr", small_forecast(PLANET, leads=2, members=members))
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    output = write_on_pressure(path, PRESSURES)
    assert output == tmp_path / "f-pressure.zarr" and before == {f: f.stat().st_mtime_ns for f in path.rglob("*")}
    found, expected = open_forecast(output).load(), on_pressure(open_forecast(path).load(), PRESSURES)
    assert set(found.data_vars) == set(expected.data_vars) >= {"geopotential", "temperature", "surface_pressure"}
    for name in expected.data_vars:
        np.testing.assert_array_equal(found[name].values, expected[name].values)
        assert found[name].dims == expected[name].dims
    written = (output / "zarr.json").stat().st_mtime_ns
    write_on_pressure(path, PRESSURES)
    assert (output / "zarr.json").stat().st_mtime_ns == written
    write_on_pressure(path, [500.0])
    assert open_forecast(output)["level"].values.tolist() == [500.0]


def test_a_stopped_one_goes_on_with_the_next_initial_time(tmp_path, monkeypatch):
    path = write_forecast(tmp_path / "f.zarr", small_forecast(PLANET, leads=1))
    whole = open_forecast(write_on_pressure(path, PRESSURES)).load()
    other = write_forecast(tmp_path / "g.zarr", small_forecast(PLANET, leads=1))
    real, calls = pressure.write_forecast_init, []

    def until_the_second(output, dataset, index, done):
        if index == 1 and not calls:
            raise KeyboardInterrupt
        real(output, dataset, index, done=done)

    monkeypatch.setattr(pressure, "write_forecast_init", until_the_second)
    with pytest.raises(KeyboardInterrupt):
        write_on_pressure(other, PRESSURES)
    assert not pressure_store(other).exists()

    def counted(output, dataset, index, done):
        calls.append(index)
        real(output, dataset, index, done=done)

    monkeypatch.setattr(pressure, "write_forecast_init", counted)
    xr.testing.assert_equal(open_forecast(write_on_pressure(other, PRESSURES)).load(), whole)
    assert calls == [1]


@pytest.mark.parametrize(
    ("predicted", "thin", "said"),
    [
        (["temperature"], {}, "a model that predicts surface_pressure"),
        (["surface_pressure"], {"levels": (0.5,)}, "keep all levels"),
        (["surface_pressure"], {"variables": ("temperature",)}, "keep all levels"),
    ],
)
def test_what_forecasts_would_lack_is_said_before_they_are_made(predicted, thin, said):
    with pytest.raises(ValueError, match=said):
        check_pressures(PLANET, PRESSURES, predicted, ThinOptions(**thin))
    check_pressures(PLANET, PRESSURES, ["surface_pressure"], ThinOptions())
