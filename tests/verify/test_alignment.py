from datetime import date

import cftime
import numpy as np
import pytest
import xarray as xr

from emulator.planet.calendar import valid_times, within
from emulator.planet.grid import Grid
from emulator.verify.align import align, check_grids, check_units, common_levels

START = np.datetime64("2001-01-01T00", "ns")


def hours(*values):
    return np.array(values, "timedelta64[h]").astype("timedelta64[ns]")


def positions(count, missing=()):
    return {START + hours(6 * i)[0]: i for i in range(count) if i not in missing}


def test_every_forecast_has_the_same_sample_and_drops_are_counted():
    times = {
        "a": (START + hours(0, 12, 24, 36), hours(0, 6, 12, 18)),
        "b": (START + hours(12, 24, 36, 48), hours(0, 12, 24)),
    }
    found = align(positions(20), times)
    np.testing.assert_array_equal(found.init_time, START + hours(12, 24, 36))
    np.testing.assert_array_equal(found.lead_time, hours(0, 12))
    np.testing.assert_array_equal(found.truth_valid, [[2, 4], [4, 6], [6, 8]])
    assert found.dropped_inits == {"a": 1, "b": 1}
    assert found.dropped_leads == {"a": 2, "b": 1}
    assert found.missing_truth == 0


def test_missing_truth_is_counted_and_its_initial_times_dropped():
    times = {"a": (START + hours(0, 6, 12), hours(6, 12))}
    found = align(positions(4, missing=(1,)), times)
    np.testing.assert_array_equal(found.init_time, START + hours(0, 12))  # 6 h has no analysis
    np.testing.assert_array_equal(found.truth_valid, [[-1, 2], [3, -1]])
    assert found.missing_truth == 2
    assert found.dropped_inits == {"a": 1}


def test_empty_overlaps_are_one_sentence():
    a, b = (START + hours(0, 6), hours(6)), (START + hours(100), hours(6))
    with pytest.raises(ValueError, match="common initial times, got .* in a; .* in b"):
        align(positions(9), {"a": a, "b": b})
    with pytest.raises(ValueError, match="common leads"):
        align(positions(9), {"a": a, "b": (a[0], hours(12))})
    with pytest.raises(ValueError, match="truth that covers"):
        align(positions(2), {"a": (START + hours(600), hours(6))})
    with pytest.raises(ValueError, match="distinct"):
        align(positions(2), {"a": (START + hours(0, 0), hours(6))})


def test_periods_are_inclusive_and_a_date_is_its_whole_day():
    times = START + hours(*range(0, 96, 6))
    assert within(times, date(2001, 1, 2), date(2001, 1, 3)).sum() == 8
    assert times[within(times, None, date(2001, 1, 1))][-1] == START + hours(18)[0]
    found = align(positions(20), {"a": (times, hours(0, 6))}, date(2001, 1, 2), date(2001, 1, 3))
    np.testing.assert_array_equal(found.init_time, times[4:12])


def test_other_calendars():
    inits = np.array([cftime.DatetimeNoLeap(2001, 2, 28, 18), cftime.DatetimeNoLeap(2001, 3, 1, 0)])
    valid = valid_times(inits, hours(6, 12))
    assert valid[0, 0] == cftime.DatetimeNoLeap(2001, 3, 1, 0)
    found = align({time: i for i, time in enumerate(inits)}, {"a": (inits, hours(0, 6))})
    np.testing.assert_array_equal(found.truth_valid, [[0, 1], [1, -1]])


def test_grids_units_and_levels_must_agree():
    with pytest.raises(ValueError, match="one grid .* 8 x 16 gaussian .* 9 x 16 equiangular"):
        check_grids({"truth": Grid.gaussian(8), "other": Grid.equiangular(9, 16, poles=True)})
    kelvin, celsius = (xr.DataArray(0.0, attrs={"units": unit}) for unit in ("K", "degC"))
    with pytest.raises(ValueError, match="temperature in one unit, got 'K' in truth and 'degC' in tool"):
        check_units("temperature", {"truth": kelvin, "tool": celsius})
    assert check_units("temperature", {"truth": kelvin, "tool": xr.DataArray(0.0)}) == "K"
    levels = {
        name: xr.DataArray(np.zeros(len(v)), {"level": np.array(v)}, dims="level")
        for name, v in {"truth": [300, 500, 850], "tool": [500, 700, 850.0001]}.items()
    }
    np.testing.assert_array_equal(common_levels("t", levels), [500, 850])
    with pytest.raises(ValueError, match="common levels"):
        common_levels("t", {"truth": levels["truth"], "tool": levels["tool"].isel(level=[1])})
