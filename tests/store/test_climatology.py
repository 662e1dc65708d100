"""Climatology by hour and day of the year: closed forms, direct sums, and independence of how the work was split."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.planet.calendar import hour_and_leap_day
from emulator.store.climatology import DAYS, Sums, window_matrix

HOURS = np.array([0, 12])


def axis(start, years, hours=12):
    return np.arange(
        np.datetime64(start, "ns"),
        np.datetime64(start, "ns") + np.timedelta64(365 * years, "D"),
        np.timedelta64(hours, "h"),
    )


def direct(values, times, window):
    """The definition, term by term: means of days, then the weighted mean of those days that there are."""
    hour, day = hour_and_leap_day(times)
    out = np.full((len(HOURS), DAYS), np.nan)
    half = window // 2
    for slot, h in enumerate(HOURS):
        means = {d: values[(hour == h) & (day == d)].mean() for d in np.unique(day[hour == h])}
        for d in range(1, DAYS + 1):
            total = weight = 0.0
            for offset in range(-half, half + 1):
                other = (d - 1 + offset) % DAYS + 1
                if other in means:
                    total += (1 - abs(offset) / half) * means[other]
                    weight += 1 - abs(offset) / half
            out[slot, d - 1] = total / weight
    return out


@pytest.mark.parametrize("window", [3, 31, 61])
def test_it_is_the_direct_sum(window):
    times = axis("2003-03-01", 3)
    values = np.random.default_rng(0).normal(280, 10, len(times))
    found = Sums.of(values, times, HOURS).climatology(window)
    np.testing.assert_allclose(found, direct(values, times, window), rtol=1e-12)


def test_an_annual_cycle_comes_back_with_the_amplitude_that_the_window_leaves():
    """A triangular window of half width h multiplies cos(w d) by its transform, a closed form; hours stay apart."""
    times = axis("2000-01-01", 8)
    hour, day = hour_and_leap_day(times)
    omega, half = 2 * np.pi / DAYS, 30
    values = 280 + 10 * np.cos(omega * day) + np.where(hour == 12, 5.0, 0.0)
    found = Sums.of(values, times, HOURS).climatology()
    kernel = (np.sin(half * omega / 2) / (half * np.sin(omega / 2))) ** 2
    every = np.arange(1, DAYS + 1)
    expected = 280 + 10 * kernel * np.cos(omega * every)
    np.testing.assert_allclose(found[0], expected, rtol=1e-12)
    np.testing.assert_allclose(found[1], expected + 5, rtol=1e-12)
    assert 0.95 < kernel < 0.98


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(1, 1400), max_size=5, unique=True))
def test_any_split_gives_the_same(seed, edges):
    times = axis("2001-05-05", 2)
    values = np.random.default_rng(seed).normal(5, 1, (len(times), 3))
    values[np.random.default_rng(seed + 1).random(values.shape) < 0.01] = np.nan
    whole = Sums.of(values, times, HOURS)
    merged = Sums.none(HOURS, (3,))
    for part in reversed(np.split(np.arange(len(times)), sorted(edges))):
        merged = merged.plus(values[part], times[part])
    np.testing.assert_array_equal(np.broadcast_to(merged.count, whole.count.shape), whole.count)
    np.testing.assert_allclose(merged.climatology(), whole.climatology(), rtol=1e-12)


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "standard"])
def test_a_date_means_the_same_season_in_every_calendar(calendar):
    times = xr.date_range("2001-01-01", "2004-12-30", freq="12h", calendar=calendar, use_cftime=True).values
    day = hour_and_leap_day(times)[1]
    first_of_march = np.array([t.month == 3 and t.day == 1 for t in times])
    assert set(day[first_of_march]) == {61} and day.min() == 1 and day.max() in (365, 366)
    values = np.array([float(t.month) for t in times])
    found = Sums.of(values, times, HOURS).climatology()
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[:, 74], 3.0, atol=0.06)  # mid-March: as much of February as of April


def test_where_the_record_has_nothing_there_is_nothing():
    times = axis("2001-01-01", 1)[:60]
    values = np.ones((60, 2))
    values[:, 1] = np.nan
    found = Sums.of(values, times, HOURS).climatology()
    assert np.isnan(found[..., 1]).all()
    assert np.isfinite(found[0, :40, 0]).all() and np.isnan(found[0, 150:250, 0]).all()


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"hours \[.*0.*12.*\], got \[.*6"):
        Sums.of(np.ones(4), axis("2001-01-01", 1, 6)[:4], HOURS)
    for window in (2, 60, 1, 401):
        with pytest.raises(ValueError, match="odd window"):
            window_matrix(window)
    np.testing.assert_allclose(window_matrix(61).sum(axis=1), 1, rtol=1e-14)
