"""Scores of downscaled stores: zero and one for the truth itself, and what was put in for fields that are wrong by it."""

import json

import numpy as np
import pytest
from pair_of_stores import COARSE, FINE, coarsened, fine_planet

from emulator.planet.grid import Grid
from emulator.sphere.cell_means import CellMeans
from emulator.store.interval_forecasts import interval_forecasts
from emulator.verify.verification import score

RAIN, PRESSURE = "mean_total_precipitation_rate", "surface_pressure"
STEPS = 4
ABOUT = {"emulator_schema": "analysis-1", "downscaling": json.dumps({"method": "x", "coarse_step_hours": 24})}


@pytest.fixture(scope="module")
def truth():
    return fine_planet(8 * STEPS + 1)


@pytest.fixture(scope="module")
def daily(truth):
    """Departures from the mean of their place and day, by hour, that all days share: `(hour, row, column)`, Pa."""
    wave = np.cos(2 * np.pi * np.arange(STEPS) / STEPS)[:, None, None] * np.cos(np.radians(FINE.mesh()[0]))
    return 300 * wave


def as_downscaled(dataset):
    return dataset.isel(time=slice(1, None)).assign_attrs(dataset.attrs | ABOUT)


@pytest.fixture(scope="module")
def scores(truth, daily):
    """Of the truth itself, of one with a coarse cell too warm by 1 K, twice the cycle of the day and a tenth more rain."""
    hours = truth["time"].dt.hour.values // 6
    truth = truth.copy()
    truth[PRESSURE] = truth[PRESSURE] * 0 + 1e5 + daily[hours].astype(np.float32)
    wrong = truth.copy()
    wrong[PRESSURE] = truth[PRESSURE] + daily[hours].astype(np.float32)
    wrong[RAIN] = truth[RAIN] * 1.1
    means, one = CellMeans.of(FINE, COARSE), np.zeros(COARSE.shape)
    one[3, 5] = 1.0
    lift = means.lifts[0] @ one @ means.lifts[1].T
    wrong["temperature"] = truth["temperature"] + lift.astype(np.float32)
    made = {"same": as_downscaled(truth), "wrong": as_downscaled(wrong)}
    return truth, score(made, truth, coarse=coarsened(truth, STEPS), events=()), coarsened(truth, STEPS)


def test_an_analysis_is_read_as_forecasts_of_its_intervals(truth):
    made = as_downscaled(truth)
    forecasts = interval_forecasts(made)
    assert list(forecasts["lead_time"].values / np.timedelta64(1, "h")) == [6, 12, 18, 24]
    assert forecasts.sizes["init_time"] == 8
    for init, lead in ((0, 0), (3, 2), (7, 3)):
        one = forecasts["temperature"].isel(init_time=init, lead_time=lead)
        valid = one["init_time"].values + one["lead_time"].values
        np.testing.assert_array_equal(one.values, made["temperature"].sel(time=valid).values)
    np.testing.assert_array_equal(forecasts["land_sea_mask"].values, made["land_sea_mask"].values)


def test_departures_of_coarse_means_are_those_that_were_put_in(scores):
    _, found, coarse = scores
    same = found["coarse_departure"].sel(downscaled="same")
    assert float(same.sel(coarse_variable=["temperature", RAIN, PRESSURE]).max()) < 1e-6
    wrong = found["coarse_departure"].sel(downscaled="wrong")
    warmest = float(coarse["temperature"].max(["time", "latitude", "longitude"]).min())  # of the colder level
    assert float(wrong.sel(coarse_variable="temperature")) == pytest.approx(1 / warmest, rel=1e-3)
    assert float(wrong.sel(coarse_variable=RAIN)) == pytest.approx(0.1, rel=1e-3)


def test_the_cycle_of_the_day_has_the_size_that_was_put_in(scores):
    _, found, _ = scores
    for name, strength, error in (("same", 1, 0), ("wrong", 2, 1)):
        at = {"downscaled": name, "downscaled_channel": PRESSURE}
        assert float(found["diurnal_strength"].sel(at)) == pytest.approx(strength, abs=1e-4)
        assert float(found["diurnal_error"].sel(at)) == pytest.approx(error, abs=1e-4)


def test_quantiles_are_those_of_all_values_by_area(scores):
    truth, found, _ = scores
    field = truth[RAIN].values[1:].astype(np.float64)
    order = np.argsort(field.ravel())
    share = np.cumsum(np.broadcast_to(FINE.area, field.shape).ravel()[order]) / len(field)
    levels = [0.5, 0.9, 0.99, 0.999]
    own = np.interp(levels, share, field.ravel()[order])
    for name, factor in (("truth", 1.0), ("same", 1.0), ("wrong", 1.1)):
        quantiles = found["downscaled_quantile"].sel(downscaled=name, downscaled_channel=RAIN)
        quantiles = quantiles.sel(downscaled_quantile_level=levels)
        np.testing.assert_allclose(quantiles, factor * own, rtol=0.01, atol=0.01 * field.std())


def test_nothing_is_said_of_forecasts_that_are_not_downscaled(truth):
    made = as_downscaled(truth)
    assert "coarse_departure" not in score({"same": made}, truth, variables=[PRESSURE], events=())


def test_missing_values_are_no_kept_means_and_are_left_out_of_the_truth_too(truth, caplog):
    """Of a store that has no value in the rainier half of the planet: its quantiles are those of the truth in the other."""
    made = truth.copy(deep=True)
    rain = made[RAIN]
    made[RAIN] = rain.where(rain.mean("time") < float(rain.mean("time").median()))
    found = score({"made": as_downscaled(made)}, truth, coarse=coarsened(truth, STEPS), variables=[RAIN], events=())
    assert np.isnan(found["coarse_departure"].sel(downscaled="made", coarse_variable=RAIN))
    assert f"made lacks values of {RAIN}" in caplog.text
    quantiles, halved = found["downscaled_quantile"], made[RAIN].values[1:]
    np.testing.assert_allclose(*(quantiles.sel(downscaled=name) for name in ("made", "truth")), rtol=1e-6)
    assert float(quantiles.sel(downscaled="truth").max()) <= np.nanmax(halved) * 1.01 < 0.99 * rain.values.max()
    np.testing.assert_allclose(found["diurnal_error"].sel(downscaled=["made"]), np.nan)


def test_a_coarse_value_that_is_missing_is_not_compared(truth):
    coarse, made = coarsened(truth, STEPS), as_downscaled(truth)
    gone = coarse.copy(deep=True)
    gone[PRESSURE][3, 2, 5] = np.nan
    missing = made.copy(deep=True)
    missing[PRESSURE][3 * STEPS : 4 * STEPS] = np.nan  # what `downscale` makes of it
    found = score({"made": missing}, truth, coarse=gone, variables=[PRESSURE], events=())
    assert 0 <= float(found["coarse_departure"].sel(downscaled="made", coarse_variable=PRESSURE)) < 1e-6


def test_departures_are_relative_to_the_largest_value_of_their_own_level(truth):
    """A thousandth too much at the thin level is a thousandth, however large the other level's values are."""
    thin = truth.copy(deep=True)
    thin["temperature"][:, 0] *= 1e-4
    wrong = thin.copy(deep=True)
    wrong["temperature"][:, 0] *= 1.001
    found = score(
        {"wrong": as_downscaled(wrong)}, thin, coarse=coarsened(thin, STEPS), variables=["temperature"], events=()
    )
    kept = found["coarse_departure"].sel(downscaled="wrong", coarse_variable="temperature")
    assert float(kept) == pytest.approx(1e-3, rel=1e-2)


def test_a_coarse_store_of_other_fields_times_or_cells_is_refused_and_a_shorter_one_told(truth, caplog):
    made, coarse = {"made": as_downscaled(truth)}, coarsened(truth, STEPS)

    def compared(store):
        return score(made, truth, coarse=store, variables=[PRESSURE], events=())["coarse_departure"]

    with pytest.raises(ValueError, match=f"that made was made of, with {PRESSURE}, got one with only"):
        compared(coarse.drop_vars(PRESSURE))
    with pytest.raises(ValueError, match="times of its intervals from 2001-01-01.* on, got one from 2011-"):
        compared(coarse.assign_coords(time=coarse["time"] + np.timedelta64(3652, "D")))
    with pytest.raises(ValueError, match="fine grid of cells below"):
        compared(fine_planet(8 * STEPS + 1, Grid.gaussian(24)))
    assert float(compared(coarse.isel(time=slice(3, None))).max()) < 1e-6
    assert "lacks times of 3 of the 8 initial times of made" in caplog.text
