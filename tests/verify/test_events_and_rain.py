"""Events beyond a quantile, and precipitation: against scores and xskillscore, and by hand."""

import operator

import numpy as np
import pytest
import scores
import xarray as xr
import xskillscore
from hypothesis import given, settings
from hypothesis import strategies as st
from scores.spatial import fss_2d_single_field

from emulator.planet.grid import Grid
from emulator.verify.climatology import SlotFields, recipe
from emulator.verify.metric import scores_of
from emulator.verify.metrics import events, rain
from emulator.verify.metrics.events import quantiles

GRID = Grid.equiangular(6, 12)
CELLS = int(np.prod(GRID.shape))
EQUAL = np.full((1, CELLS), 1 / CELLS)
UPPER = np.array([False, True])


def made(members=1, leads=3, seed=0):
    rng = np.random.default_rng(seed)
    forecast, truth = rng.standard_normal((members, leads, 1, CELLS)), rng.standard_normal((leads, 1, CELLS))
    limits = np.broadcast_to(np.array([-0.5, 0.4])[None, :, None, None], (leads, 2, 1, CELLS))
    return forecast + 0.7 * truth, truth, limits


def means(forecast, truth, limits, weights=EQUAL, mask=None):
    """Mean statistics over leads, `(event,)` each."""
    probability, happened = events.event_fields(forecast, truth, limits, UPPER)
    found = events.event_statistics(probability, happened, len(forecast), weights, mask)
    if len(forecast) > 1:
        found |= events.reliability_statistics(probability, happened, weights, mask)
    named = {}
    for name, values in found.items():
        dims = ("event", "probability_bin") if name in events.RELIABILITY else ("event",)
        named[name] = (dims, values.mean(axis=0)[:, 0, 0])
    named |= {"members": len(forecast), "initial_times": len(truth)}
    return xr.Dataset(named, {"event": [0.3, 0.7]})


def test_yes_or_no_forecasts_agree_with_scores():
    forecast, truth, limits = made()
    found = scores_of(means(forecast, truth, limits))
    for index, side in enumerate((np.less, np.greater)):
        yes, was = side(forecast[0], limits[:, index]), side(truth, limits[:, index])
        table = scores.categorical.BinaryContingencyManager(
            xr.DataArray(yes.ravel().astype(float), dims="x"), xr.DataArray(was.ravel().astype(float), dims="x")
        )
        at = found.isel(event=index)
        np.testing.assert_allclose(at["hit_rate"], table.hit_rate(), rtol=1e-10)
        np.testing.assert_allclose(at["false_alarm_rate"], table.probability_of_false_detection(), rtol=1e-10)
        np.testing.assert_allclose(at["frequency_bias"], table.frequency_bias(), rtol=1e-10)
        np.testing.assert_allclose(at["sedi"], table.symmetric_extremal_dependence_index(), rtol=1e-10)
        np.testing.assert_allclose(at["brier"], np.mean((yes * 1.0 - was) ** 2), rtol=1e-10)


@settings(deadline=None, max_examples=15)
@given(members=st.integers(2, 12), seed=st.integers(0, 99))
def test_brier_score_and_its_fair_form_agree_with_scores(members, seed):
    forecast, truth, limits = made(members, seed=seed)
    found = scores_of(means(forecast, truth, limits)).isel(event=1)
    f = xr.DataArray(forecast[:, :, 0], dims=("member", "lead", "cell"))
    o = xr.DataArray(truth[:, 0], dims=("lead", "cell"))
    for name, fair in (("brier", False), ("brier_fair", True)):
        theirs = scores.probability.brier_score_for_ensemble(
            f, o, "member", 0.4, fair_correction=fair, event_threshold_operator=operator.gt
        )
        np.testing.assert_allclose(found[name], theirs.squeeze(), rtol=1e-10)


def test_reliability_and_roc_agree_with_xskillscore():
    forecast, truth, limits = made(10, leads=9)
    mean = means(forecast, truth, limits)
    said = xr.DataArray((forecast > 0.4).mean(axis=0)[:, 0].ravel(), dims="x")
    was = xr.DataArray((truth > 0.4).ravel(), dims="x")
    at = mean.isel(event=1)
    curve = xskillscore.reliability(was, said, probability_bin_edges=np.linspace(-0.05, 1.05, 12))
    share = at["reliability_event"] / at["reliability_weight"]
    np.testing.assert_allclose(share, curve, rtol=1e-10)
    np.testing.assert_allclose(at["reliability_weight"] * was.size, curve["samples"], rtol=1e-10)
    np.testing.assert_allclose(
        at["reliability_probability"] / at["reliability_weight"], np.linspace(0, 1, 11), rtol=1e-10, atol=1e-12
    )
    area = xskillscore.roc(was, said, bin_edges=np.append(np.linspace(0, 1, 11) - 0.05, 1.05), return_results="area")
    np.testing.assert_allclose(scores_of(mean)["roc_area"].isel(event=1), area, rtol=1e-10)


def test_a_perfect_forecast_an_empty_one_and_a_failed_one():
    _, truth, limits = made()
    perfect = scores_of(means(truth[None], truth, limits))
    np.testing.assert_allclose(perfect["hit_rate"], 1)
    np.testing.assert_array_equal(perfect["false_alarm_rate"], 0)
    np.testing.assert_allclose(perfect["brier"], 0, atol=1e-15)
    assert np.isnan(perfect["sedi"]).all()  # has no value at rates of 0 and 1
    failed = truth[None].copy()
    failed[0, 1, 0, 4] = np.nan
    assert np.isnan(means(failed, truth, limits)["hit"]).all()
    mask = np.ones(truth.shape, bool)
    mask[1, 0, 4] = False
    assert np.isfinite(means(failed, truth, limits, mask=mask)["hit"]).all()


def test_climatological_probability_has_no_brier_skill():
    base = 0.3
    mean = xr.Dataset({n: ("event", [v]) for n, v in (("hit", 0.3 * base), ("miss", 0.7 * base))})
    mean["false_alarm"] = ("event", [0.3 * (1 - base)])
    mean["brier"], mean["brier_correction"] = ("event", [base * (1 - base)]), ("event", [0.0])
    found = scores_of(mean.assign_coords(event=[0.3]))
    np.testing.assert_allclose(found["brier_skill"], 0, atol=1e-15)
    np.testing.assert_allclose(found["frequency_bias"], 1)


def test_a_value_at_the_threshold_is_no_event():
    field = np.array([1.0, 1.0 + 1e-9, 1.0 - 1e-9]).reshape(1, 1, 3)
    limits = np.ones((1, 2, 1, 3))
    np.testing.assert_array_equal(
        events.exceeds(field, limits, UPPER)[0, :, 0], [[False, False, True], [False, True, False]]
    )


def test_seeps_agrees_with_scores():
    rng = np.random.default_rng(3)
    forecast, truth = (np.where(rng.random((40, CELLS)) < 0.5, 0, rng.gamma(0.8, 4.0, (40, CELLS))) for _ in range(2))
    forecast[0, :5], truth[1, :5] = 0.25, 0.25  # exactly at the threshold: dry
    p = rng.uniform(0.05, 0.95, CELLS)
    heavy = rng.uniform(2, 8, CELLS)
    forecast[2], truth[3] = heavy, heavy  # exactly at the threshold: light
    ours = rain.seeps_errors(forecast, truth, p, heavy, 0.25)
    as_array = [xr.DataArray(x, dims=("time", "cell")) for x in (forecast, truth)]
    theirs = scores.categorical.seeps(
        *as_array,
        xr.DataArray(p, dims="cell"),
        xr.DataArray(heavy, dims="cell"),
        dry_light_threshold=0.25,
        preserve_dims="all",
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)
    assert np.isnan(ours[:, p > 0.85]).all() and np.isnan(ours[:, p < 0.1]).all()


def test_the_climate_of_rain_is_its_definition():
    rng = np.random.default_rng(0)
    samples = np.where(rng.random((200, 1, 4)) < 0.6, 0.0, rng.gamma(1.0, 3.0, (200, 1, 4)))
    probability, heavy = rain.seeps_climate(samples, 0.1)
    for cell in range(4):
        wet = samples[:, 0, cell][samples[:, 0, cell] > 0.1]
        np.testing.assert_allclose(probability[0, cell], 1 - len(wet) / 200)
        np.testing.assert_allclose(heavy[0, cell], np.quantile(wet, 2 / 3))
    np.testing.assert_allclose(rain.dry_rate(21600) * 21600, 0.1)
    np.testing.assert_allclose(rain.dry_rate(86400) * 86400, 0.25)


@pytest.mark.parametrize("window", [3, 5])
def test_fractions_agree_with_scores_away_from_the_poles(window):
    """On rows copied from a band, with periodic columns: scores knows neither poles nor the date line."""
    rng = np.random.default_rng(window)
    said, was = (rng.random((20, 24)) < 0.3 for _ in range(2))
    half = window // 2
    ours = [rain.neighbourhood(x.astype(float), window)[half:-half] for x in (said, was)]
    wide = [np.concatenate([x[:, -half:], x, x[:, :half]], axis=1).astype(float) for x in (said, was)]
    theirs = fss_2d_single_field(*wide, event_threshold=0.5, window_size=(window, window))
    fss = 1 - np.mean((ours[0] - ours[1]) ** 2) / (np.mean(ours[0] ** 2) + np.mean(ours[1] ** 2))
    np.testing.assert_allclose(fss, theirs, rtol=1e-10)


def test_a_neighbourhood_wraps_in_longitude_and_ends_at_the_poles():
    field = np.zeros((4, 6))
    field[0, 0] = 1.0
    near = rain.neighbourhood(field, 3)
    np.testing.assert_allclose(near[0, [5, 0, 1]], 1 / 6)  # two rows of three cells
    np.testing.assert_allclose(near[1, [5, 0, 1]], 1 / 9)
    np.testing.assert_array_equal(near[2:], 0)
    np.testing.assert_allclose(rain.neighbourhood(np.ones((4, 6)), 5), 1.0)


def test_a_displaced_shower_gains_with_the_window():
    truth, forecast = np.zeros((1, 1, 1, 72)), np.zeros((1, 1, 1, 72))
    truth[..., 30], forecast[..., 32] = 1.0, 1.0
    found = rain.fss_statistics(forecast, truth, GRID, EQUAL)
    fss = 1 - found["fss_difference"] / found["fss_power"]
    rising = fss.ravel()
    assert rising[0] == 0 and np.all(np.diff(rising) >= 0) and rising[-1] > 0.7


def slots_of(days, step_hours=6, years=1.0):
    count = int(days * 24 / step_hours)
    time = np.datetime64("2001-01-01", "ns") + np.arange(count) * np.timedelta64(step_hours, "h")
    record = xr.DataArray(time, dims="time")
    return recipe(record, np.arange(count)), time


def test_thresholds_are_quantiles_of_the_same_hour_and_season():
    plan, time = slots_of(730)
    assert plan.kind == "daily"
    rng = np.random.default_rng(0)
    record = rng.standard_normal((len(time), 1, 3)).astype(np.float32)
    record += 10 * np.cos(2 * np.pi * plan.day / 366)[:, None, None].astype(np.float32)
    fields = SlotFields(plan, record.__getitem__, np.array([6]), np.array([15]), lambda s: quantiles(s, [0.1, 0.9]))
    found = fields.at(np.array([6]), np.array([15]))
    assert found.shape == (1, 2, 1, 3)
    held = (plan.hour == 6) & (np.abs((plan.day - 15.5 + 183) % 366 - 183) <= 30)
    np.testing.assert_allclose(found[0], np.quantile(record[held], [0.1, 0.9], axis=0), rtol=1e-6)
    assert 115 <= held.sum() <= 125
    with pytest.raises(KeyError):
        fields.at(np.array([6]), np.array([200]))


def test_a_short_record_has_one_season_and_missing_cells_no_threshold():
    plan, time = slots_of(40)
    record = np.random.default_rng(0).standard_normal((len(time), 1, 3))
    record[:, 0, 1] = np.nan
    record[5, 0, 2] = np.nan
    found = SlotFields(
        plan, record.__getitem__, np.array([0, 12]), np.array([300, 1]), lambda s: quantiles(s, [0.5])
    ).at(np.array([12]), np.array([1]))
    assert np.isnan(found[..., 1]).all() and np.isfinite(found[..., [0, 2]]).all()
    np.testing.assert_allclose(found[0, 0, 0, 0], np.median(record[plan.hour == 12, 0, 0]), rtol=1e-6)
