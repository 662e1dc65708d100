"""Times of every kind: periods as xarray's own slices have them, steps, hours and days."""

import datetime

import cftime
import numpy as np
import pytest
import xarray as xr

from emulator.planet.calendar import hour_and_leap_day, later, seconds_between, select_period, within

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
