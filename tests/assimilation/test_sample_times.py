"""Times that covariances are estimated from lie in a period as every stage's do."""

import datetime

import numpy as np
import xarray as xr

from emulator.assimilation.differences import sample_times


def test_an_end_without_an_hour_is_that_whole_day():
    times = np.datetime64("2001-01-01", "ns") + np.arange(12) * np.timedelta64(6, "h")
    found = sample_times(xr.Dataset(coords={"time": times}), 4, 1, datetime.date(2001, 1, 2), datetime.date(2001, 1, 2))
    assert found == list(times[4:8])
    assert sample_times(xr.Dataset(coords={"time": times}), 2, 1, None, "2001-01")[-1] == times[-1]
