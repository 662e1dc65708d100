"""Pieces put together: time axes, windows of means, accumulations, members, and what must be refused."""

import numpy as np
import pytest
import xarray as xr
from source_files import TIMES, truth

from emulator.ingestion.assemble import assemble
from emulator.planet.calendar import TimeStep
from emulator.sources.harmonise import pieces
from emulator.sources.open import Source
from emulator.sources.options import SourceOptions

HOUR = np.timedelta64(1, "h")
TRUTH = truth()
RAIN = "mean_total_precipitation_rate"
SPACE = (7, 12)


def plan_of(*datasets, period=(None, None), step_hours=None, keep=False, roles=None, **options):
    found = []
    for number, dataset in enumerate(datasets):
        found += pieces(Source(f"{number}.nc", dataset), SourceOptions(**options))
    step = step_hours and TimeStep(3600.0 * step_hours)
    return assemble(found, roles or {}, period, step, keep)


def whole(plan, name, **leads):
    return plan.fields[name].read(0, len(plan.times), plan.grid.shape, **leads)


def test_fields_files_and_statics_come_together():
    parts = [TRUTH[["temperature"]].isel(time=slice(0, 3)), TRUTH[["temperature"]].isel(time=slice(3, None))]
    plan = plan_of(parts[1], TRUTH.drop_vars("temperature"), parts[0])
    np.testing.assert_array_equal(plan.times, TIMES)
    for name in ("temperature", "mean_sea_level_pressure", RAIN):
        np.testing.assert_array_equal(whole(plan, name), TRUTH[name].values)
        np.testing.assert_array_equal(plan.fields[name].part(2, 5).read(0, 3, SPACE), TRUTH[name].values[2:5])
    np.testing.assert_array_equal(plan.static["geopotential_at_surface"], TRUTH.geopotential_at_surface.values)
    assert plan.step_seconds == 21600 and plan.vertical == "pressure" and not plan.missing.any()


def test_levels_in_different_files_join():
    upper, lower = TRUTH[["temperature"]].sel(level=[300]), TRUTH[["temperature"]].sel(level=[850, 500])
    plan = plan_of(lower, upper)
    np.testing.assert_array_equal(plan.levels, [300, 500, 850])
    np.testing.assert_array_equal(whole(plan, "temperature"), TRUTH.temperature.values)


def hourly(**attributes):
    times = TIMES[0] + np.arange(1, 13) * HOUR
    values = np.arange(1.0, 13)[:, None, None] * np.ones(SPACE)
    rain = (("time", "latitude", "longitude"), values * 1e-5, {"units": "kg m-2 s-1", **attributes})
    return xr.Dataset({RAIN: rain}, {"time": times, "latitude": TRUTH.latitude, "longitude": TRUTH.longitude})


def test_hourly_means_become_means_over_the_step_that_ends():
    """Six-hourly snapshots beside hourly means: (1 + ... + 6) / 6 and (7 + ... + 12) / 6; nothing ends at the first time."""
    plan = plan_of(hourly(), TRUTH[["temperature"]].isel(time=slice(0, 3)))
    np.testing.assert_array_equal(plan.times, TIMES[1:3])
    np.testing.assert_allclose(whole(plan, RAIN)[:, 0, 0], [3.5e-5, 9.5e-5], rtol=1e-6)
    np.testing.assert_array_equal(whole(plan, "temperature"), TRUTH.temperature.values[1:3])
    np.testing.assert_allclose(plan.fields[RAIN].part(1, 2).read(0, 1, SPACE)[:, 0, 0], [9.5e-5], rtol=1e-6)


def test_a_longer_step_takes_snapshots_and_averages_means():
    plan = plan_of(TRUTH, step_hours=12)
    np.testing.assert_array_equal(plan.times, TIMES[2::2])
    np.testing.assert_array_equal(whole(plan, "temperature"), TRUTH.temperature.values[2::2])
    rain = TRUTH[RAIN].values
    np.testing.assert_allclose(whole(plan, RAIN), (rain[1:-1:2] + rain[2::2]) / 2, rtol=1e-6)
    assert plan.step_seconds == 43200


def test_a_hole_in_the_means_of_a_window():
    data = hourly().isel(time=[0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11])
    with pytest.raises(ValueError, match=r"at every time, got nothing complete for 2001-02-27T12.*5 means before it"):
        plan_of(data, TRUTH[["temperature"]].isel(time=slice(0, 3)))


def test_means_that_are_too_coarse():
    coarse = hourly().isel(time=[5, 11])
    times = TIMES[0] + np.arange(1, 13) * HOUR
    with pytest.raises(ValueError, match="whose step divides 1 h, got 6 h"):
        plan_of(coarse, truth(times)[["temperature"]])


def test_a_net_flux_is_the_sum_of_its_terms():
    def flux(name, values, standard):
        array = (("time", "latitude", "longitude"), values * np.ones((8, *SPACE)), {"units": "W m-2"})
        data = TRUTH.drop_vars([*TRUTH.data_vars, "level"]).assign({name: array})
        data[name].attrs["standard_name"] = standard
        return data

    down = flux("rsdt", 340.0, "toa_incoming_shortwave_flux")
    up = flux("rsut", 100.0, "toa_outgoing_shortwave_flux")
    plan = plan_of(down, up)
    np.testing.assert_allclose(whole(plan, "mean_top_net_short_wave_radiation_flux"), 240.0)
    np.testing.assert_allclose(whole(plan, "mean_top_downward_short_wave_radiation_flux"), 340.0)
    assert "mean_top_net_short_wave_radiation_flux" not in plan_of(down).fields


def test_members_and_deterministic_fields():
    members = TRUTH[["temperature"]].expand_dims(number=[2, 0, 1]) + xr.DataArray([2.0, 0, 1], dims="number")
    members.temperature.attrs = TRUTH.temperature.attrs
    plan = plan_of(members, TRUTH[["mean_sea_level_pressure"]].assign_coords(number=0))
    np.testing.assert_array_equal(plan.members, [0, 1, 2])
    expected = TRUTH.temperature.values[:, None] + np.arange(3, dtype=np.float32)[:, None, None, None]
    np.testing.assert_array_equal(whole(plan, "temperature"), expected)
    assert not plan.fields["mean_sea_level_pressure"].has_member
    one = plan_of(members, select={"member": 1})
    np.testing.assert_array_equal(whole(one, "temperature"), TRUTH.temperature.values + 1)
    with pytest.raises(ValueError, match="nothing complete for 2001-02-27T12"):  # a member ends early
        plan_of(members.isel(time=slice(0, 2)), members.isel(number=[0, 1], time=slice(2, None)))


# --- refusals -------------------------------------------------------------------------------------------------------


def test_an_irregular_axis_names_the_interval():
    with pytest.raises(ValueError, match=r"step of 6 h and 12 h from 2001-02-27T12.* to 2001-02-28T00.*\(0.nc\)"):
        plan_of(TRUTH.isel(time=[0, 1, 2, 4, 5]))


def test_missing_times_may_be_kept():
    holes = [0, 1, 3, 4, 6, 7]
    data = TRUTH.isel(time=holes).drop_vars(RAIN)
    plan = plan_of(data, keep=True)
    np.testing.assert_array_equal(plan.times, TIMES)
    np.testing.assert_array_equal(np.flatnonzero(plan.missing), [2, 5])
    values = whole(plan, "temperature")
    np.testing.assert_array_equal(values[holes], TRUTH.temperature.values[holes])
    assert np.isnan(values[[2, 5]]).all()
    with pytest.raises(ValueError, match="gaps of whole steps of 6 h, got 9 h"):
        times = TIMES[:4].copy()
        times[3] += 3 * HOUR
        plan_of(TRUTH.isel(time=slice(0, 4)).assign_coords(time=times), keep=True)


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ([TRUTH, TRUTH.isel(time=[3, 4])], "once for 2001-02-27T18.*1.nc and in 0.nc"),
        ([TRUTH.isel(time=[0, 1, 1, 2])], "once for 2001-02-27T06.*0.nc twice"),
        ([TRUTH[["temperature"]], TRUTH[["mean_sea_level_pressure"]].isel(time=slice(0, 6))], "2 times in all .1.nc"),
        (
            [TRUTH[["temperature"]], TRUTH[["mean_sea_level_pressure"]].isel(latitude=slice(0, 5))],
            "one grid, got 7 x 12",
        ),
        (
            [TRUTH[["temperature"]], TRUTH[["temperature"]].sel(level=[500]).rename(temperature="w")],
            "same levels for all fields",
        ),
        ([TRUTH[["geopotential_at_surface"]]], "static ones alone"),
        ([TRUTH[[]]], "Expected variables of the table"),
    ],
)
def test_what_does_not_fit(datasets, message):
    for dataset in datasets:
        if "w" in dataset:
            dataset["w"].attrs["units"] = "Pa s-1"
            dataset["w"].attrs.pop("standard_name", None)
    with pytest.raises(ValueError, match=message) as caught:
        plan_of(*datasets)
    assert "\n" not in str(caught.value)


def test_a_period_without_times_and_mixed_calendars():
    with pytest.raises(ValueError, match=r"Expected times of .* in the period, got none"):
        plan_of(TRUTH, period=("2050-01-01", None))
    other = xr.date_range("2001-03-01", periods=8, freq="6h", calendar="noleap", use_cftime=True)
    with pytest.raises(ValueError, match="Expected one calendar"):
        plan_of(TRUTH[["temperature"]], TRUTH[["temperature"]].assign_coords(time=other))


# --- forecasts ------------------------------------------------------------------------------------------------------

LEADS = np.arange(4) * 6 * HOUR


def forecast(name="temperature", **attributes):
    values = np.arange(3.0)[:, None, None, None] + 10 * np.arange(4)[:, None, None] + np.zeros(SPACE)
    array = (("time", "step", "latitude", "longitude"), 250 + values, attributes)
    coordinates = {"time": TIMES[:3], "step": LEADS, "latitude": TRUTH.latitude, "longitude": TRUTH.longitude}
    return xr.Dataset({name: array}, coordinates)


def test_a_forecast_keeps_initial_and_lead_times():
    data = forecast("msl", units="hPa")
    plan = plan_of(data.isel(step=[2, 0, 3, 1]), forecast=True)
    np.testing.assert_array_equal(plan.leads, LEADS)
    np.testing.assert_array_equal(plan.times, TIMES[:3])
    values = whole(plan, "mean_sea_level_pressure", leads=np.arange(4))
    np.testing.assert_allclose(values[..., 0, 0], data.msl.values[..., 0, 0] * 100)
    some = plan.fields["mean_sea_level_pressure"].part(1, 2).read(0, 1, SPACE, np.array([2, 3]))
    np.testing.assert_allclose(some[0, :, 0, 0], data.msl.values[1, 2:, 0, 0] * 100)
    with pytest.raises(ValueError, match="set kind: forecast"):
        plan_of(data)
    with pytest.raises(ValueError, match="nothing complete for 2001-02-27T06"):
        plan_of(data.isel(time=[0]), data.isel(time=[1], step=slice(0, 2)), forecast=True)


def test_accumulations_from_the_start_become_means_over_each_step():
    """A total of L^2 mm after L steps: 1, 3, 5 mm in the first three."""
    total = 1e-3 * (np.arange(4.0) ** 2)[None, :, None, None] * np.ones((3, 4, *SPACE))
    data = forecast().drop_vars("temperature")
    data["tp"] = (("time", "step", "latitude", "longitude"), total, {"units": "m", "from_start": 1})
    plan = plan_of(data, forecast=True)
    for leads in (np.arange(4), np.array([2, 3])):
        values = whole(plan, RAIN, leads=leads)[1, :, 0, 0] * 21600
        np.testing.assert_allclose(values, np.array([np.nan, 1, 3, 5])[leads], rtol=1e-6)
    later = whole(plan_of(data.isel(step=slice(1, None)), forecast=True), RAIN, leads=np.arange(3))
    np.testing.assert_allclose(later[0, :, 0, 0] * 21600, [1, 3, 5], rtol=1e-6)
