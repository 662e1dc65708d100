"""A metric is one entry: what it accumulates, its scores, its interval and its merging follow."""

import numpy as np
import pytest
import xarray as xr
from made_forecasts import made_forecast, made_truth

import emulator.verify.metric as registry
from emulator.store.schema import grid_of
from emulator.verify.merging import merge
from emulator.verify.metric import Interval, Statistics, area_means, metric, register
from emulator.verify.verification import score

CHOSEN = {"variables": ["surface_pressure"], "regions": ["global"]}
INITS = [16, 20, 24, 31, 38, 44]


@pytest.fixture
def fourth(monkeypatch):
    """The fourth root of the mean fourth power of the error, and the share of small errors, as a user would add them."""
    monkeypatch.setattr(registry.METRICS, "_entries", registry.METRICS.all())
    limits = np.array([0.1, 0.3])

    def power(sample):
        return {"fourth_power": area_means((sample.mean - sample.truth) ** 4, sample.weights, sample.mask)}

    def share(sample):
        small = np.abs(sample.mean - sample.truth)[:, None] < limits[:, None, None]  # (lead, limit, level, cell)
        return {"small": area_means(small.astype(float), sample.weights)}

    by_limit = {"limit": lambda binning: limits}
    powers = Statistics(("fourth_power",), power)
    shares = Statistics(("small",), share, front=by_limit, headline=True)

    @metric("Fourth", (powers,), "of the channel", "lower", Interval("fourth_power"))
    def fourth(mean):
        """fourth root of the mean fourth power"""
        return mean["fourth_power"] ** 0.25

    @metric("Small", (shares,), better="higher")
    def small_share(mean):
        """share of small errors"""
        return mean["small"]


def test_a_new_metric_is_accumulated_merged_and_given_an_interval(fourth):
    truth = made_truth(60)
    forecast = made_forecast(truth, INITS, 4, 0.3)
    options = CHOSEN | {"climatology": (None, truth["time"].values[15])}
    found = score(forecast, truth, **options)
    at = found.sel(forecast="forecast", channel="surface_pressure", region="global")
    valid = forecast["init_time"] + forecast["lead_time"]
    error = forecast["surface_pressure"].astype(float) - truth["surface_pressure"].sel(time=valid).drop_vars("time")
    area = grid_of(truth).area
    power = (error**4).mean("init_time").transpose("lead_time", "latitude", "longitude").values
    np.testing.assert_allclose(at["fourth"], (power * area).sum(axis=(1, 2)) ** 0.25, rtol=1e-10)
    assert at["fourth"].attrs == {"long_name": "fourth root of the mean fourth power", "units": "of the channel"}
    share = found["small_share"].sel(forecast="forecast", map_channel="surface_pressure", region="global", limit=0.3)
    small = (np.abs(error) < 0.3).mean("init_time").transpose("lead_time", "latitude", "longitude")
    np.testing.assert_allclose(share, (small.values * area).sum(axis=(1, 2)), rtol=1e-12, atol=1e-14)
    assert found["each_fourth_power"].dims[0] == "init_time" and "fourth_low" in found


def test_parts_of_a_new_metric_add_up(fourth):
    truth = made_truth(60)
    forecast = made_forecast(truth, INITS, 4, 0.3)
    options = CHOSEN | {"climatology": (None, truth["time"].values[15])}
    whole = score(forecast, truth, **options)
    together = merge([score(forecast.isel(init_time=part), truth, **options) for part in (slice(0, 2), slice(2, 6))])
    for name in ("fourth", "fourth_low", "small_share", "rmse", "acc_high"):
        np.testing.assert_allclose(together[name], whole[name], rtol=1e-12, atol=1e-14, err_msg=name)


def test_names_are_taken_once_and_every_metric_says_what_it_is():
    with pytest.raises(ValueError, match="one metric of the name 'rmse'"):
        register(registry.registered()[0])
    for entry in registry.registered():
        assert entry.label and entry.title and entry.units
        assert entry.better in ("lower", "higher", "one", "zero", "")
    assert isinstance(
        registry.scores_of(xr.Dataset({"error": 1.0, "squared_error": 4.0, "absolute_error": 1.0})), xr.Dataset
    )
