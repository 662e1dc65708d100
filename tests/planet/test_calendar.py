"""Times of every kind: periods as xarray's own slices have them, steps, hours and days."""

import datetime

import cftime
import numpy as np
import pytest
import xarray as xr

from emulator.planet.calendar import (
    MONTH_SECONDS,
    TimeStep,
    day_and_hour,
    hour_and_leap_day,
    later,
    seconds_between,
    select_period,
    valid_times,
    within,
)
from emulator.planet.months import months_later

GREGORIAN = np.datetime64("2000-12-25T00", "ns") + np.arange(3000) * np.timedelta64(6, "h")
DAYS_360 = xr.date_range("2000-12-25", periods=3000, freq="6h", calendar="360_day", use_cftime=True).values
BOUNDS = [
    ("2001", "2001"),
    ("2001-02", "2001-12"),
    (datetime.date(2001, 3, 1), datetime.date(2001, 3, 30)),
    (datetime.datetime(2001, 1, 1, 6), datetime.datetime(2001, 1, 2, 12)),
    ("2001-05-01T05", "2001-05-02T06"),
    (None, "2002-10-30"),
    (datetime.date(2002, 2, 28), None),
]


@pytest.mark.parametrize("times", [GREGORIAN, DAYS_360], ids=["gregorian", "360 days"])
@pytest.mark.parametrize(("start", "end"), BOUNDS)
def test_a_period_is_xarrays_slice_of_its_text(times, start, end):
    dataset = xr.Dataset({"x": ("time", np.arange(len(times)))}, {"time": times})
    bounds = slice(*(None if bound is None else str(bound) for bound in (start, end)))
    expected = dataset.sel(time=bounds)
    np.testing.assert_array_equal(np.flatnonzero(within(times, start, end)), expected.x.values)
    xr.testing.assert_identical(select_period(dataset, start, end), expected)
    mixed = np.random.default_rng(0).permutation(len(times))
    np.testing.assert_array_equal(within(times[mixed], start, end), within(times, start, end)[mixed])


@pytest.mark.parametrize(
    ("calendar", "day"), [("360_day", "2001-12-31"), ("noleap", "2001-02-29"), ("360_day", "2001-03-31")]
)
def test_a_day_that_a_calendar_has_not_is_the_end_of_its_month(calendar, day):
    """As the end of a period it takes the whole month, as its start nothing; the standard calendar refuses it."""
    times = xr.date_range("2001-01-01", periods=1600, freq="6h", calendar=calendar, use_cftime=True).values
    whole = datetime.date(2001, int(day[5:7]), 28)
    np.testing.assert_array_equal(within(times, None, day), within(times, None, day[:7]))
    np.testing.assert_array_equal(within(times, day), ~within(times, None, day[:7]))
    assert within(times, None, whole).sum() < within(times, None, day).sum() or calendar == "noleap"
    if day != "2001-02-29":
        np.testing.assert_array_equal(within(times, None, datetime.date.fromisoformat(day)), within(times, None, day))
    with pytest.raises(ValueError, match="Expected a date of the calendar of the times, got 2001-02-29"):
        within(GREGORIAN, None, "2001-02-29")
    with pytest.raises(ValueError, match="got 2001-13-01"):
        within(times, None, "2001-13-01")


def test_ends_are_included_and_nothing_is_refused_in_a_sentence():
    assert within(GREGORIAN, GREGORIAN[3], GREGORIAN[5]).sum() == 3
    assert within(GREGORIAN, None, "9999-12-31").all() and not len(within(GREGORIAN[:0], "2001", "2002"))
    dataset = xr.Dataset(coords={"time": GREGORIAN})
    with pytest.raises(ValueError, match="Expected times from 2050-01-01 to the end, the store holds 2000-12-25"):
        select_period(dataset, "2050-01-01")


@pytest.mark.parametrize("times", [GREGORIAN, DAYS_360], ids=["gregorian", "360 days"])
def test_steps_are_added_and_found(times):
    np.testing.assert_array_equal(later(times[:-1], 21600), times[1:])
    np.testing.assert_array_equal(later(times[1:], -21600.0), times[:-1])
    assert later(times[0], 21600) == times[1] and type(later(times[0], 1)) is type(times[0])
    np.testing.assert_array_equal(seconds_between(times), 21600)


def test_a_date_is_one_day_of_the_leap_year_in_every_year():
    moments = [(2000, 2, 29, 6), (2001, 3, 1, 18), (2004, 3, 1, 0), (2001, 12, 31, 23), (2001, 1, 1, 0)]
    times = np.array([np.datetime64(datetime.datetime(*moment), "ns") for moment in moments])
    noleap = np.array([cftime.DatetimeNoLeap(*moment) for moment in moments[1:]])
    hour, day = hour_and_leap_day(times)
    assert list(hour) == [6, 18, 0, 23, 0] and list(day) == [60, 61, 61, 366, 1]
    np.testing.assert_array_equal(hour_and_leap_day(noleap), (hour[1:], day[1:]))


def _months(calendar: str, count: int = 75) -> np.ndarray:
    """The first instants of months from March 1999: datetime64, or cftime of a calendar."""
    years, months = np.divmod(2 + np.arange(count), 12)
    if calendar == "datetime64":
        return (np.datetime64("1999-03") + np.arange(count)).astype("datetime64[ns]")
    dates = [cftime.datetime(1999 + y, 1 + m, 1, calendar=calendar) for y, m in zip(years, months, strict=True)]
    return np.array(dates)


CALENDARS = ("datetime64", "standard", "noleap", "360_day")


@pytest.mark.parametrize("calendar", CALENDARS)
@pytest.mark.parametrize("months", [1, 3, 12])
def test_calendar_months_are_a_uniform_step_of_true_lengths(calendar, months):
    times = _months(calendar)[::months]
    step = TimeStep.along(times, "time", "here", calendar=True)
    assert step == TimeStep(months=months) and step.seconds == months * MONTH_SECONDS
    np.testing.assert_array_equal(step.lengths(times[1:]), seconds_between(times))
    np.testing.assert_array_equal(step.later(times[:-1]), times[1:])
    np.testing.assert_array_equal(step.later(times[2:], -2), times[:-2])
    assert step.later(times[0], 2) == times[2] and type(step.later(times[0])) is type(times[0])
    np.testing.assert_array_equal(valid_times(times[:3], step.leads([0, 2])), np.stack([times[:3], times[2:5]], axis=1))
    assert TimeStep.along(step.leads(range(5)), "lead_time", "here") == step
    fixed = np.ptp(seconds_between(times)) == 0  # as months of 30 days, of which only who asks gets months
    assert TimeStep.along(times, "time", "here") == (TimeStep(seconds_between(times)[0]) if fixed else step)


def test_four_centuries_of_months_have_the_nominal_length():
    times = (np.datetime64("1600-01") + np.arange(4801)).astype("datetime64[s]")
    assert TimeStep(months=1).lengths(times[1:]).mean() == MONTH_SECONDS


@pytest.mark.parametrize("calendar", CALENDARS)
def test_leap_days_and_ends_of_months_stay_in_their_months(calendar):
    def date(*parts):
        if calendar == "datetime64":
            return np.datetime64(datetime.datetime(*parts), "ns")
        return cftime.datetime(*parts, calendar=calendar)

    last = {"noleap": 28, "360_day": 30}.get(calendar, 29)
    assert months_later(date(2000, 1, 30, 18), 1) == date(2000, 2, last, 18)
    assert months_later(date(2000, 2, last, 6), -12) == date(1999, 2, 30 if calendar == "360_day" else 28, 6)
    moved = months_later(np.array([date(2000, 12, 5), date(2000, 1, 5)]), np.array([1, -1]))
    np.testing.assert_array_equal(moved, np.array([date(2001, 1, 5), date(1999, 12, 5)]))


def test_steps_that_are_no_months_are_refused_or_of_fixed_length():
    times = _months("datetime64")
    uneven = "uniform time axis in here, got a step of 744 h .*720 h"
    for wrong in (
        times[[0, 1, 2, 4]],
        times + np.arange(len(times)) * np.timedelta64(1, "h"),
        times - np.timedelta64(1, "D"),
    ):
        with pytest.raises(ValueError, match=r"Expected a uniform time axis in here, got a step of 7\d\d h"):
            TimeStep.along(wrong, "time", "here", calendar=True)
    with pytest.raises(ValueError, match=uneven):
        TimeStep.along(times + np.timedelta64(30, "D"), "time", "here")
    with pytest.raises(ValueError, match="strictly increasing time in here"):
        TimeStep.along(times[::-1], "time", "here", calendar=True)
    week = times[0] + np.arange(9) * np.timedelta64(7, "D")
    assert TimeStep.along(week, "time", "here", calendar=True) == TimeStep(7 * 86400.0)
    assert TimeStep.along(times[:1], "time", "here") == TimeStep()
    np.testing.assert_array_equal(TimeStep(21600).lengths(week), 21600.0)


def test_spans_are_read_and_counted_in_steps():
    spans = {"6 hours": 21600, "1 day": 86400, "0.5 days": 43200, "week": 604800}
    assert all(TimeStep.parse(text) == TimeStep(seconds) for text, seconds in spans.items())
    months = {"1 month": 1, "2 seasons": 6, "year": 12, "3 Months": 3}
    assert all(TimeStep.parse(text) == TimeStep(months=count) for text, count in months.items())
    assert TimeStep(months=3).count(TimeStep.parse("2 years")) == 8 and TimeStep(21600).count(TimeStep(86400)) == 4
    for text in ("1.5 months", "0 days", "12", "fortnight", "1.2.3 days"):
        with pytest.raises(ValueError, match=r"Expected a number of seconds, .*, got"):
            TimeStep.parse(text)
    with pytest.raises(ValueError, match="since the step is 6 h; got 1 month"):
        TimeStep(21600).count(TimeStep(months=1))
    with pytest.raises(ValueError, match="since the step is 3 months; got 24 h"):
        TimeStep(months=3).count(TimeStep(86400))


def test_a_year_of_360_days_is_a_whole_year_of_the_sun():
    """The last day is next to the first, 30 February is no day of March, and other calendars count as they do."""
    first, last = (cftime.datetime(2000, *date, calendar="360_day") for date in ((1, 1), (12, 30)))
    day = day_and_hour(np.array([first, last]))[0]
    np.testing.assert_allclose(day[0] + 365.25 - day[1], 365.25 / 360)
    february, march = (cftime.datetime(2000, *date, calendar="360_day") for date in ((2, 30), (3, 1)))
    assert list(hour_and_leap_day(np.array([february, march]))[1]) == [60, 61]
    noleap = np.array([cftime.DatetimeNoLeap(2001, 12, 31)])
    assert day_and_hour(noleap)[0][0] == 365 and day_and_hour(np.array(["2004-12-31"], "M8[ns]"))[0][0] == 366


@pytest.mark.parametrize("unit", ["ns", "us", "s"])
def test_day_and_hour_are_xarrays_bit_for_bit(unit):
    times = np.datetime64("1899-12-30T23:59:58", unit) + np.arange(9000) * np.timedelta64(87_907, "s")
    clock = xr.DataArray(times, dims="time").dt
    day, hour = day_and_hour(times)
    np.testing.assert_array_equal(day, clock.dayofyear.values)
    np.testing.assert_array_equal(hour, (clock.hour + clock.minute / 60 + clock.second / 3600).values)
