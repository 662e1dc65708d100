"""The same numbers from WeatherBench 2's own code, where that is installed."""

import numpy as np
import pytest
import xarray as xr

from emulator.planet.grid import Grid
from emulator.verify.metrics.anomaly import anomaly_statistics
from emulator.verify.metrics.ensemble import crps_terms
from emulator.verify.metrics.errors import error_statistics

metrics = pytest.importorskip("weatherbench2.metrics")

GRID = Grid.equiangular(12, 24)
PLACE = {"latitude": GRID.latitude[::-1], "longitude": GRID.longitude}  # its latitudes increase
TIMES = np.datetime64("2020-01-01", "ns") + np.arange(5) * np.timedelta64(1, "D")


def as_dataset(values, *front):
    dims = (*front, "time", "latitude", "longitude")
    return xr.Dataset(
        {"temperature": (dims, values.reshape(*values.shape[:-1], *GRID.shape)[..., ::-1, :])}, PLACE | {"time": TIMES}
    )


def test_errors_and_anomaly_correlation():
    rng = np.random.default_rng(0)
    forecast, truth, climate = rng.standard_normal((3, 5, GRID.area.size))
    weights = GRID.area.reshape(1, -1)
    ours = error_statistics(forecast, truth, weights) | anomaly_statistics(forecast, truth, climate, weights)
    f, o = as_dataset(forecast), as_dataset(truth)
    for name, metric in (
        ("squared_error", metrics.MSE()),
        ("absolute_error", metrics.MAE()),
        ("error", metrics.Bias()),
    ):
        theirs = metric.compute(f, o)["temperature"]
        np.testing.assert_allclose(ours[name].mean(), theirs, rtol=1e-10, atol=1e-14)
    daily = as_dataset(climate).assign_coords(time=np.arange(1, 6)).rename(time="dayofyear")
    theirs = metrics.ACC(climatology=daily).compute(f, o)["temperature"]
    np.testing.assert_allclose(ours["anomaly_correlation"].mean(), theirs, rtol=1e-10)


def test_fair_crps():
    rng = np.random.default_rng(1)
    members, truth = rng.standard_normal((6, 5, GRID.area.size)), rng.standard_normal((5, GRID.area.size))
    absolute, pairs = crps_terms(members, truth)
    ours = ((absolute - pairs / 2) @ GRID.area.ravel()).mean()
    theirs = metrics.CRPS(ensemble_dim="number").compute(as_dataset(members, "number"), as_dataset(truth))
    np.testing.assert_allclose(ours, theirs["temperature"], rtol=1e-10)
