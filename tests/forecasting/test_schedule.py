"""Initial times and leads of stores of calendar steps, beside those of fixed ones."""

import cftime
import numpy as np
import pytest
import xarray as xr
from monthly_files import CALENDARS, month_edges

from emulator.forecasting.schedule import Schedule, Starts, count_steps
from emulator.planet.calendar import TimeStep
from emulator.store.forecast import create_forecast, finish_forecast, open_forecast, write_forecast_init

MONTH, SIX_HOURS = TimeStep(months=1), TimeStep(21600.0)


def store(times, step) -> xr.Dataset:
    attributes = {"time_step_seconds": step.seconds} | ({"time_step_months": step.months} if step.months else {})
    return xr.Dataset(coords={"time": times}, attrs=attributes)


@pytest.mark.parametrize("calendar", CALENDARS)
def test_forecasts_start_every_so_many_months(calendar):
    edges = month_edges(calendar, 2000, 4)
    dataset = store(edges, MONTH)
    every_year = Starts("2001", None, every="1 year").of(dataset, 6)
    assert every_year == list(edges[12:48:12])
    assert Starts("2001", "2001").of(dataset, 6) == list(edges[12:24])  # each month without being asked
    assert Starts("2003", None, every="1 season", most=2).of(dataset, 6) == list(edges[[36, 39]])
    with pytest.raises(ValueError, match="24 months of the store after them"):
        Starts("2003").of(dataset, 24)
    with pytest.raises(ValueError, match="since the step is 1 month; got 24 h"):
        Starts(every="1 day").of(dataset, 6)
    with pytest.raises(ValueError, match="every, such as 12 months, .* step is 1 month, got every_hours 24"):
        Starts(every_hours=24).of(dataset, 6)
    yearly = store(edges[::12], TimeStep(months=12))
    with pytest.raises(ValueError, match="every as a multiple of 12 months, got 6 months"):
        Starts(every="6 months").of(yearly, 1)


def test_days_and_hours_are_as_before():
    times = np.datetime64("2001-01-01", "ns") + np.arange(40) * np.timedelta64(6, "h")
    dataset = store(times, SIX_HOURS)
    assert Starts(every_hours=12).of(dataset, 4) == Starts(every="12 hours").of(dataset, 4) == list(times[:36:2])
    assert count_steps(SIX_HOURS, 10) == count_steps(SIX_HOURS, 0, "10 days") == 40
    np.testing.assert_array_equal(Schedule.every(2).leads(SIX_HOURS), np.arange(3) * np.timedelta64(6, "h"))


def test_leads_are_whole_steps():
    assert count_steps(MONTH, 10, "2 years") == 24 and count_steps(TimeStep(months=3), 10, "1 year") == 4
    with pytest.raises(ValueError, match=r"lead of whole steps of 1 month, got 10 days; give the lead in months"):
        count_steps(MONTH, 10)
    with pytest.raises(ValueError, match="whole steps of 12 months, got 6 months"):
        count_steps(TimeStep(months=12), 10, "6 months")
    with pytest.raises(ValueError, match="hours or days, since the step is 6 h; got 1 month"):
        count_steps(SIX_HOURS, 10, "1 month")
    with pytest.raises(ValueError, match="whole steps of 1 month, got 60 days; give the lead in months"):
        count_steps(MONTH, 60)
    with pytest.raises(ValueError, match="whole steps of 48 h, got 3 days"):
        count_steps(TimeStep(172800.0), 3)
    assert count_steps(TimeStep(28800.0), 0.333) == 1


@pytest.mark.parametrize("calendar", CALENDARS)
def test_a_store_of_months_keeps_them(tmp_path, calendar):
    """Whole numbers with the units of months, for others to read; days are not made of them."""
    inits, leads = month_edges(calendar, 2000, 1)[:2], Schedule.every(6, 2).leads(MONTH)
    values = np.random.default_rng(0).random((2, 4, 3, 4)).astype(np.float32)
    place = {"latitude": [60.0, 0, -60], "longitude": [0.0, 90, 180, 270]}
    path = tmp_path / "forecast.zarr"
    forecast = [xr.Dataset({"x": (("lead_time", *place), v)}, place | {"lead_time": leads}) for v in values]
    create_forecast(path, forecast[0], inits, leads, {"fingerprint": "a"})
    for index, one in enumerate(forecast):
        write_forecast_init(path, one.isel(lead_time=slice(0, 2)), index, done=False)
        write_forecast_init(path, one.isel(lead_time=slice(2, 4)), index)
    finish_forecast(path)
    opened = open_forecast(path)
    np.testing.assert_array_equal(opened.x.values, values)
    assert opened.lead_time.dtype == np.int64 and list(opened.lead_time.values) == [0, 2, 4, 6]
    raw = xr.open_zarr(path, decode_timedelta=True)
    assert raw.prediction_timedelta.attrs["units"] == "months" and raw.prediction_timedelta.dtype == np.int64
    assert isinstance(opened.init_time.values[0], cftime.datetime) or calendar == "standard"
