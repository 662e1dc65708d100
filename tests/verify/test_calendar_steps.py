"""Verification in calendar steps: true lengths in the audit, months as leads, climatology and persistence by month."""

import numpy as np
import pytest
import xarray as xr
from made_forecasts import made_truth
from monthly_files import CALENDARS, month_edges

from emulator.planet.calendar import TimeStep, seconds_between
from emulator.store.schema import constants_of, grid_of
from emulator.verify.align import align
from emulator.verify.assemble import open_scores, write_scores
from emulator.verify.audit import audit
from emulator.verify.verification import score

CALENDAR = pytest.mark.parametrize("calendar", CALENDARS)
RAIN, EVAPORATION = "mean_total_precipitation_rate", "mean_evaporation_rate"


def monthly_truth(calendar: str, times: int) -> xr.Dataset:
    edges = month_edges(calendar, 2000, times // 12 + 1)[:times]
    truth = made_truth(times).assign_coords(time=edges)
    step = TimeStep(months=1)
    return truth.assign_attrs(time_step_seconds=step.seconds, time_step_months=1).astype(np.float64)


def balanced(calendar: str, times: int = 14) -> tuple[xr.Dataset, np.ndarray]:
    """Snapshots at the beginnings of months whose water is what mean fluxes over the true months bring."""
    truth = monthly_truth(calendar, times)
    gravity, seconds = constants_of(truth).gravity, seconds_between(truth.time.values)
    rain = 3e-5 + 1e-6 * np.arange(times)
    evaporation = -3e-5 + 2e-6 * np.sin(np.arange(times))
    water = 20 + np.concatenate([[0], np.cumsum(seconds * -(evaporation + rain)[1:])])
    truth["surface_pressure"][:] = 1e5
    for name, series in (("specific_humidity", gravity * water / 1e5), (RAIN, rain), (EVAPORATION, evaporation)):
        column = series.reshape(-1, *[1] * (truth[name].ndim - 1))
        truth[name] = truth[name].copy(data=np.broadcast_to(column, truth[name].shape))
    return truth, rain + evaporation


@CALENDAR
def test_fluxes_over_true_months_explain_the_change_of_water(calendar):
    truth, loss = balanced(calendar)
    found = audit(truth).sel(budget="water")
    assert found.lead_time.dtype == np.int64 and list(found.lead_time.values) == list(range(14))
    np.testing.assert_allclose(found.budget_residual.values[0, 1:], 0, atol=2e-5)  # of 20 kg m-2, read as float32
    nominal = np.diff(found.budget_total.values[0]) + TimeStep(months=1).seconds * loss[1:]
    assert np.abs(nominal).max() > 0.3  # of months of one length, ten thousand times as much


@CALENDAR
def test_a_forecast_is_audited_over_the_months_of_its_own_initial_time(calendar):
    """Two initial times, whose first steps are January and February."""
    truth, _ = balanced(calendar)
    parts = [
        truth.isel(time=slice(first, first + 4)).rename(time="lead_time").assign_coords(lead_time=np.arange(4))
        for first in (0, 1)
    ]
    moving = [name for name, field in truth.data_vars.items() if "time" in field.dims]
    both = xr.concat([part[moving] for part in parts], "init_time").assign_coords(init_time=truth.time.values[:2])
    both = both.assign({name: truth[name] for name in truth.data_vars if name not in moving}).assign_attrs(truth.attrs)
    both["lead_time"].attrs["units"] = "months"
    found = audit(both, truth).sel(budget="water")
    np.testing.assert_allclose(found.budget_residual.values[:, 1:], 0, atol=2e-5)


def forecasts(truth: xr.Dataset, inits, leads: int) -> xr.Dataset:
    """One degree too warm in the first month, two in the second, ...; otherwise the truth."""
    valid = xr.DataArray(np.asarray(inits)[:, None] + np.arange(leads + 1), dims=("init_time", "lead_time"))
    field = truth[["temperature", "half_level_a", "half_level_b"]].isel(time=valid).drop_vars("time")
    field["temperature"] = (field.temperature + xr.DataArray(np.arange(leads + 1.0), dims="lead_time")).transpose(
        "init_time", "lead_time", "level", "latitude", "longitude"
    )
    field = field.assign_coords(init_time=truth.time.values[inits], lead_time=np.arange(leads + 1))
    field["lead_time"].attrs["units"] = "months"
    return field


@CALENDAR
def test_months_are_scored_by_their_valid_times(calendar, tmp_path):
    """Errors are the degrees put in; persistence and climatology are those of the same months, computed here."""
    truth, inits = monthly_truth(calendar, 60), np.arange(36, 50)
    forecast = forecasts(truth, inits, 4)
    scores = score(forecast, truth, variables=("temperature",), climatology=(None, "2002-12"), events=())
    write_scores(scores, tmp_path / "scores.nc")
    again = open_scores(tmp_path / "scores.nc")
    assert again.lead_time.dtype == np.int64 and again.lead_time.attrs["units"] == "months"
    assert "calendar month, 12 in a year" in again.attrs["climatology"] and again.attrs["time_step_months"] == 1
    rmse = again.rmse.sel(region="global").transpose("forecast", "lead_time", "channel")
    np.testing.assert_allclose(
        rmse.sel(forecast="forecast").values, np.arange(5.0)[:, None] * np.ones((1, 3)), atol=1e-4
    )
    values, weights = truth.temperature.values, grid_of(truth).area
    valid = inits[:, None] + np.arange(5)
    climatology = values[:36].reshape(3, 12, *values.shape[1:]).mean(axis=0)
    for name, expected in (("persistence", values[inits][:, None]), ("climatology", climatology[valid % 12])):
        square = ((expected - values[valid]) ** 2 * weights).sum(axis=(-2, -1)).mean(axis=0)
        np.testing.assert_allclose(rmse.sel(forecast=name).values, np.sqrt(square), rtol=1e-4, atol=1e-4, err_msg=name)
    alone = score({}, truth, variables=("temperature",), climatology=(None, "2002-12"), events=())
    assert list(alone.lead_time.values) == list(range(1, 13))


def test_months_and_days_are_not_compared():
    times = month_edges("noleap", 2000, 2)
    truth = {time: n for n, time in enumerate(times)}
    days = np.arange(3) * np.timedelta64(30, "D").astype("timedelta64[ns]")
    with pytest.raises(ValueError, match="common leads"):
        align(truth, {"months": (times[:3], np.arange(3)), "days": (times[:3], days)})
