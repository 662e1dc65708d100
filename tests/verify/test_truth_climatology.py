import numpy as np
import pytest
import xarray as xr

from emulator.planet.calendar import hour_and_leap_day
from emulator.verify.climatology import Climatology, recipe, record, triangular_weights

AREA = np.full(2, 0.5)


def axis(start, days, step=6):
    hours = np.arange(0, days * 24, step)
    return xr.DataArray(
        np.datetime64(start, "ns") + hours.astype("timedelta64[h]").astype("timedelta64[ns]"), dims="time"
    )


def climatology(time, values, positions=None):
    plan = recipe(time, np.arange(len(time)) if positions is None else positions)
    return plan, Climatology(lambda places: values[places], plan, AREA)


def test_triangular_window_of_61_days_has_zero_ends_and_59_days_inside():
    weights = triangular_weights(61)
    assert weights[0] == weights[-1] == 0
    assert np.count_nonzero(weights) == 59
    np.testing.assert_allclose(weights.sum(), 1)
    np.testing.assert_allclose(weights[30] / weights[15], 2)


def test_dates_mean_the_same_season_in_every_year():
    time = xr.DataArray(
        np.array(["2001-03-01", "2004-03-01", "2004-02-29", "2003-12-31"], "datetime64[ns]"), dims="time"
    )
    np.testing.assert_array_equal(hour_and_leap_day(time)[1], [61, 61, 60, 366])
    np.testing.assert_array_equal(hour_and_leap_day(axis("2001-01-01", 1))[0], [0, 6, 12, 18])


def test_short_record_is_the_mean_by_hour_and_says_so():
    time = axis("2001-01-01", 300)
    values = np.random.default_rng(0).standard_normal((len(time), 1, 2)) + 5 * hour_and_leap_day(time)[0][:, None, None]
    plan, climate = climatology(time, values)
    assert plan.kind == "mean" and "too short" in plan.describe() and "300 days" in plan.describe()
    np.testing.assert_allclose(
        climate.at(np.array([6, 18]), np.array([1, 340])),
        values[[1, 3]] * 0 + np.stack([values[1::4].mean(axis=0), values[3::4].mean(axis=0)]),
    )
    np.testing.assert_allclose(climate.mean, values.mean())
    np.testing.assert_allclose(climate.deviation, values.std(), rtol=1e-10)
    np.testing.assert_allclose(climate.series[:, 0], values[:, 0] @ AREA)
    # An hour that the record lacks takes the nearest one.
    np.testing.assert_array_equal(climate.at(np.array([23]), np.array([9])), climate.at(np.array([0]), np.array([9])))


@pytest.mark.parametrize(("days", "window"), [(400, 121), (3 * 366, 91), (5 * 366, 61)])
def test_window_narrows_as_years_grow_and_the_annual_cycle_is_kept(days, window):
    time = axis("2001-01-01", days, 24)
    cycle = np.cos(2 * np.pi * hour_and_leap_day(time)[1] / 366)
    plan, climate = climatology(time, np.repeat(cycle[:, None, None], 2, axis=2))
    assert plan.kind == "daily" and plan.window == window
    days_wanted = np.array([1, 60, 100, 200, 366])
    found = climate.at(np.zeros(5, int), days_wanted)[:, 0, 0]
    # A triangle of half-width a damps a wave of period T by sinc(a / T)^2.
    damped = np.sinc(window / 2 / 366) ** 2 * np.cos(2 * np.pi * days_wanted / 366)
    np.testing.assert_allclose(found, damped, atol=0.03)


@pytest.mark.parametrize(("days", "step"), [(5 * 365, 120), (10 * 365, 240), (4 * 366, 36)])
def test_steps_longer_than_a_day_have_an_annual_cycle_on_every_day(days, step):
    """Five-daily means of an ocean fall on other days of every year; 61 days keep 98 % of the amplitude, 91 days 95 %."""
    time = axis("2001-01-01", days, step)
    cycle = np.cos(2 * np.pi * hour_and_leap_day(time)[1] / 366)
    plan, climate = climatology(time, np.repeat(cycle[:, None, None], 2, axis=2))
    assert plan.kind == "daily" and plan.window == 61
    day = np.arange(1, 367)
    found = climate.at(np.zeros(366), day)[:, 0, 0]
    np.testing.assert_allclose(found, 0.98 * np.cos(2 * np.pi * day / 366), rtol=0, atol=0.02)


@pytest.mark.parametrize(
    "time",
    [axis("2001-01-01", 250, 120), axis("2001-01-01", 3650, 40 * 24)]
    + [xr.concat([axis("2001-01-01", 180, 120), axis("2002-01-04", 180, 120)], "time")],
    ids=["part of a year", "a window holds no two of them", "the same half of two years"],
)
def test_times_that_do_not_cover_the_year_have_none(time):
    assert recipe(time, np.arange(len(time))).kind == "mean"


def test_leap_day_is_one_day_among_its_neighbours():
    time = axis("2001-01-01", 4 * 365 + 1, 24)
    values = np.where(hour_and_leap_day(time)[1] == 60, 100.0, 0.0)[:, None, None] * np.ones((1, 1, 2))
    plan, climate = climatology(time, values)
    peak = 100 * triangular_weights(plan.window).max()
    np.testing.assert_allclose(climate.at(np.array([0, 0]), np.array([60, 61]))[:, 0, 0], [peak, peak * 29 / 30])
    # A record without one fills it from its neighbours.
    plain = axis("2001-01-01", 365, 24)
    _, climate = climatology(plain, np.ones((365, 1, 2)))
    np.testing.assert_allclose(climate.at(np.array([0]), np.array([60])), 1.0)


def test_missing_values_are_left_out():
    time = axis("2001-01-01", 40)
    values = np.ones((len(time), 1, 2))
    values[::8, 0, 0] = np.nan
    values[:, 0, 1] = np.nan
    _, climate = climatology(time, values)
    found = climate.at(np.array([0, 6]), np.array([5, 5]))
    np.testing.assert_array_equal(found[:, 0, 0], 1)
    assert np.isnan(found[:, 0, 1]).all()


def test_blocks_of_the_record_give_the_same(monkeypatch):
    time = axis("2001-01-01", 50)
    values = np.random.default_rng(1).standard_normal((len(time), 3, 2))
    _, whole = climatology(time, values)
    monkeypatch.setattr("emulator.verify.climatology.BLOCK_BYTES", 8 * 6 * 7)
    _, parts = climatology(time, values)
    np.testing.assert_allclose(
        parts.at(np.array([12]), np.array([3])), whole.at(np.array([12]), np.array([3])), rtol=1e-12
    )
    np.testing.assert_allclose(parts.deviation, whole.deviation, rtol=1e-12)


def test_what_is_verified_is_not_in_the_record_unless_asked_for():
    time = axis("2001-01-01", 100).values
    np.testing.assert_array_equal(record(time, time[300]), np.arange(300))
    np.testing.assert_array_equal(record(time, time[20]), np.arange(400))  # five days are no climatology
    np.testing.assert_array_equal(record(time, time[120]), np.arange(400))  # nor are the 29.75 that 120 times span
    np.testing.assert_array_equal(record(time, time[121]), np.arange(121))
    np.testing.assert_array_equal(record(time, time[20], end="2001-01-02"), np.arange(8))
    with pytest.raises(ValueError, match="no times"):
        recipe(axis("2001-01-01", 2), np.array([], int))
