"""A store of one analysis time starts a forecast: the step is the checkpoint's."""

import numpy as np
import pytest
import xarray as xr
from small_planet import small_planet
from small_store import FREE, NETWORK, store_of, write_store

import emulator as em
from emulator.forecasting.schedule import Starts
from emulator.planet.calendar import TimeStep


def test_it_is_the_forecast_from_that_time_of_a_longer_store(tmp_path):
    planet = small_planet(times=24)  # whose forcing is the same at all times
    paths = store_of(tmp_path, planet)
    step = em.train(
        *paths, tmp_path / "out", network=NETWORK, conservation=FREE, phases=[{"updates": 2, "batch_size": 2}]
    )
    one = write_store(tmp_path, planet.isel(time=[10]).drop_attrs(deep=False).assign_attrs(
        {n: v for n, v in planet.attrs.items() if n != "time_step_seconds"}), "one.zarr")  # fmt: skip
    init = planet.time.values[10]
    expected = em.forecast(step, paths[0], init, days=1)
    found = em.forecast(step, one, init, days=1)
    written = em.forecast(tmp_path / "out" / "checkpoint", one, init, days=1, output=tmp_path / "f.zarr")
    np.testing.assert_array_equal(found.lead_time / np.timedelta64(1, "h"), [0, 6, 12, 18, 24])
    for name in ("temperature", "surface_pressure"):
        xr.testing.assert_equal(found[name].load(), expected[name].load())
        xr.testing.assert_equal(written[name].load(), expected[name].load())


def test_starts_of_one_time():
    time = np.array(["2001-01-01"], "datetime64[ns]")
    store = xr.Dataset(coords={"time": time}, attrs={"time_step_seconds": 21600.0})
    assert TimeStep.of(store).seconds == 21600
    assert Starts(every_hours=24).of(store, 40) == list(time)
    assert TimeStep.of(store.drop_attrs()).seconds == 0
    longer = xr.Dataset(coords={"time": time[0] + np.arange(4) * np.timedelta64(6, "h")})
    with pytest.raises(ValueError, match="got none"):
        Starts(every_hours=24).of(longer, 40)
