"""CRPS of a tail, economic value, bars of reliability and spread by scale: against scores, and by their closed forms."""

import numpy as np
import pytest
import scores
import xarray as xr
from made_forecasts import made_forecast, made_truth

from emulator.planet.grid import Grid
from emulator.verify.assemble import open_scores, write_scores
from emulator.verify.merging import merge
from emulator.verify.metric import Sample, scores_of
from emulator.verify.metrics import events, spread_spectra
from emulator.verify.metrics.ensemble import ascending, crps_terms
from emulator.verify.metrics.spectra import SPECTRA
from emulator.verify.metrics.tails import tail_scores
from emulator.verify.sample import Binning
from emulator.verify.verification import score

UPPER = np.array([False, True])
INITS = [16, 20, 24, 31, 38, 44]


def means(probability, happened, members, cases: int, series: int = 1) -> xr.Dataset:
    """Mean statistics of events `(series * cases, cell)` over cases, each cell of equal weight."""
    fields = (x[:, None, None] for x in (probability, happened))
    equal = np.full((1, happened.shape[-1]), 1 / happened.shape[-1])
    fields = tuple(fields)
    found = events.event_statistics(*fields, members, equal) | events.reliability_statistics(*fields, equal)
    found |= events.consistency_statistics(*(found[name] for name in events.RELIABILITY))
    named = {"members": members, "initial_times": ("map_channel", np.full(series, cases))}
    for name, values in found.items():
        back = ("probability_bin",) if name.startswith("reliability") else ()
        values = values[:, 0, 0, 0].reshape(series, cases, *values.shape[4:]).mean(axis=1)
        named[name] = (("map_channel", *back), values)
    return xr.Dataset(named, {"event": 0.7})


@pytest.mark.parametrize("members", [1, 2, 7])
def test_the_tails_crps_is_that_of_scores_and_both_tails_add_up_to_the_crps(members):
    rng = np.random.default_rng(members)
    forecast, truth = rng.standard_normal((members, 3, 1, 8)), rng.standard_normal((3, 1, 8))
    limits = np.broadcast_to(0.4, (3, 2, 1, 8))
    cells = np.eye(8)
    ordered = ascending(forecast) if members > 1 else forecast
    found = tail_scores(ordered, truth, limits, UPPER, cells)[:, :, 0]
    e, o = (
        xr.DataArray(forecast[:, :, 0], dims=("member", "lead", "cell")),
        xr.DataArray(truth[:, 0], dims=("lead", "cell")),
    )
    for place, tail in enumerate(("lower", "upper")):
        method = "fair" if members > 1 else "ecdf"
        theirs = scores.probability.tail_tw_crps_for_ensemble(
            e, o, "member", 0.4, tail=tail, method=method, preserve_dims=("lead", "cell")
        )
        np.testing.assert_allclose(found[:, place], theirs, rtol=1e-10, atol=1e-13)
    absolute, pairs = crps_terms(forecast, truth) if members > 1 else (np.abs(forecast[0] - truth), 0)
    np.testing.assert_allclose(found.sum(axis=1), (absolute - pairs / 2)[:, 0], rtol=1e-10, atol=1e-13)


def test_economic_value_is_scores_best_over_all_probabilities():
    rng = np.random.default_rng(0)
    chance = rng.beta(1, 4, (5, 400))
    probability, happened = rng.binomial(10, chance) / 10, (rng.random(chance.shape) < chance).astype(float)
    value = scores_of(means(probability, happened, 10, 5))["economic_value"].isel(map_channel=0)
    ratios = value["cost_loss"].values
    theirs = scores.probability.relative_economic_value(
        xr.DataArray(probability, dims=("time", "cell")),
        xr.DataArray(happened, dims=("time", "cell")),
        cost_loss_ratios=ratios.tolist(),
        probability_thresholds=[*(np.arange(11) / 10 - 0.01).clip(0).tolist(), 1.0],
        generate_maximum_rev=True,
    )
    best = theirs["maximum"] if isinstance(theirs, xr.Dataset) else theirs.max("probability_threshold")
    np.testing.assert_allclose(value, np.maximum(best, 0), atol=1e-10)
    assert value.max() > 0.2 and abs(ratios[int(value.argmax())] - happened.mean()) < 0.11  # greatest at the base rate


def test_a_perfect_forecast_is_worth_everything_and_chance_nothing():
    happened = (np.random.default_rng(1).random((4, 300)) < 0.3).astype(float)
    for members in (1, 10):
        found = scores_of(means(happened, happened, members, 4))["economic_value"]
        np.testing.assert_allclose(found, 1, atol=1e-12)
    constant = scores_of(means(np.full_like(happened, 0.3), happened, 10, 4))["economic_value"]
    np.testing.assert_allclose(constant, 0, atol=1e-12)
    yes = happened.copy()
    yes[:, :60] = 1 - yes[:, :60]
    found = scores_of(means(yes, happened, 1, 4))["economic_value"].isel(map_channel=0)
    s, hit, alarm = (
        happened.mean(),
        (yes * happened).sum() / happened.sum(),
        (yes * (1 - happened)).sum() / (1 - happened).sum(),
    )
    a = found["cost_loss"].values
    value = (np.minimum(a, s) - alarm * a * (1 - s) + hit * s * (1 - a) - s) / (np.minimum(a, s) - s * a)
    np.testing.assert_allclose(found, np.maximum(value, 0), atol=1e-12)  # Richardson (2000), eq. 8, or not to act by it


def test_bars_hold_nine_of_ten_reliable_points_over_1000_verifications_and_are_the_binomials():
    series, cases, cells = 1000, 20, 40
    rng = np.random.default_rng(2)
    chance = rng.integers(2, 9, (series * cases, cells)) / 10
    happened = (rng.random(chance.shape) < chance).astype(float)
    mean = means(chance, happened, 10, cases, series)
    weight, bar = mean["reliability_weight"], scores_of(mean)["reliability_bar"]
    off = np.abs(mean["reliability_event"] - mean["reliability_probability"]) / weight > bar
    inside = slice(2, 9)
    np.testing.assert_allclose(off.isel(probability_bin=inside).mean(), 0.1, atol=0.015)
    # of independent cells the bars of Broecker and Smith (2007): quantiles of binomial frequencies
    p = np.arange(11)[inside] / 10
    count = (weight * cases * cells).isel(probability_bin=inside).mean("map_channel")
    drawn = [
        np.quantile(rng.binomial(int(n), q, 20000) / int(n) - q, [0.05, 0.95])
        for n, q in zip(count.values, p, strict=True)
    ]
    expected = np.diff(drawn, axis=1)[:, 0] / 2
    np.testing.assert_allclose(bar.isel(probability_bin=inside).mean("map_channel"), expected, rtol=0.1)


@pytest.mark.parametrize("shared", [1, 2, 12])
@pytest.mark.parametrize(
    ("probability", "cases", "filled"), [(0.9, 20, 0.15), (0.9, 20, 0.4), (0.5, 6, 1.0), (0.95, 20, 0.3)]
)
def test_bars_hold_nine_of_ten_where_few_initial_times_fill_a_bin_and_cells_share_events(
    probability, shared, cases, filled
):
    """A patch of 12 cells in `shared` equal parts, each with one event; elsewhere, and at other times, 0 is forecast."""
    series, cells = 1000, 16
    rng = np.random.default_rng(int(100 * probability) + 7 * shared + cases)
    given = rng.random((series * cases, 1)) < filled
    happened = np.repeat(rng.random((series * cases, shared)) < probability, 12 // shared, axis=1) & given
    happened = np.pad(happened.astype(float), ((0, 0), (0, cells - 12)))
    chance = np.where(given & (np.arange(cells) < 12), probability, 0.0)
    mean = means(chance, happened, 20, cases, series)
    times = given.reshape(series, cases).sum(axis=1)
    mean, bar = (
        x.isel(probability_bin=int(10 * probability + 0.5)) for x in (mean, scores_of(mean)["reliability_bar"])
    )
    np.testing.assert_array_equal(bar.notnull(), times >= 4)
    excess = np.abs(mean["reliability_event"] - mean["reliability_probability"])
    off = (excess / mean["reliability_weight"] > bar).values[times >= 4]
    # Of 350 series and more. Events of few initial times come one by one: steps of the rate.
    assert 0.01 < off.mean() < 0.1 + 3 * np.sqrt(0.1 * 0.9 / off.size), off.mean()
    # Not much wider than need be: 1.645 deviations of six initial times, of as many events each.
    deviation = np.sqrt(probability * (1 - probability) / shared / 6)
    assert 1.3 * deviation < float(bar.values[times == 6].mean()) < 2.1 * deviation


def test_there_is_no_bar_where_a_reliable_forecast_has_no_chance():
    zero = np.zeros((8, 5))
    bar = scores_of(means(zero, zero, 10, 8))["reliability_bar"]
    assert bar.isnull().all()


def test_spread_and_error_by_wavenumber_add_up_to_variance_and_mean_square_error():
    grid = Grid.gaussian(8)
    latitude, longitude = (np.radians(x) for x in grid.mesh())
    x, y, z = np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)
    waves = np.stack([np.ones_like(x), x, y, z, x * y, y * z, x * x - y * y, x * y * z]).reshape(8, -1)
    rng = np.random.default_rng(0)
    fields = (rng.standard_normal((9, 1500, 8)) @ waves)[:, :, None] + 300.0
    bins = Binning(grid, grid.area.reshape(1, -1), None, None, None, (0,), (), members=8)
    samples = [
        Sample(f, fields[8], fields[8], None, bins.weights, bins, {}) for f in (fields[:8], fields[:1], fields[8:])
    ]
    known = SPECTRA.of(samples) | spread_spectra.MEAN_SPECTRA.of(samples)
    mean = xr.Dataset({n: (SPECTRA.dims, v.mean(axis=1)[:, :, None]) for n, v in known.items()})
    mean = mean.assign_coords(source=["many", "one", "truth"])
    found = scores_of(mean.assign(members=xr.DataArray([8, 1], {"forecast": ["many", "one"]})))
    many = found.sel(source="many")
    area = grid.area.ravel()
    np.testing.assert_allclose(many["spread_power"].sum(), (fields[:8].var(axis=0, ddof=1) @ area).mean(), rtol=1e-9)
    square = ((fields[:8].mean(axis=0) - fields[8]) ** 2 @ area).mean()
    np.testing.assert_allclose(many["error_power"].sum(), square, rtol=1e-9)
    np.testing.assert_allclose(many["spectral_spread_skill"].isel(wavenumber=slice(0, 4)), 1, atol=0.05)
    assert found["spectral_spread_skill"].sel(source=["one", "truth"]).isnull().all()


def test_parts_add_up_and_files_keep_every_score_of_an_ensemble(tmp_path, caplog):
    truth = made_truth(60)
    forecast = made_forecast(truth, INITS, 4, 0.3, members=3)
    options = {
        "variables": ["surface_pressure"],
        "regions": ["global", "tropics"],
        "climatology": (None, truth["time"].values[15]),
    }
    whole = score(forecast, truth, **options)
    names = (
        "variogram variogram_fair field_rank_histogram tarp_coverage tarp_bar tarp_departure tarp_flag twcrps".split()
    )
    names += "economic_value reliability_bar spread_power error_power spectral_spread_skill".split()
    parts = [score(forecast.isel(init_time=part), truth, **options) for part in (slice(0, 2), slice(2, 6))]
    together = merge(parts)
    write_scores(whole, tmp_path / "scores.nc")
    stored = open_scores(tmp_path / "scores.nc")
    for name in names:
        assert np.isfinite(whole[name].sel({whole[name].dims[0]: "forecast"})).any(), name
        np.testing.assert_allclose(together[name], whole[name], rtol=1e-9, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(stored[name], whole[name], err_msg=name)
    for order in (1, -1):  # TARP alone may be missing from a part, and then is from the whole, which is said once
        caplog.clear()
        without = merge([parts[0].drop_vars(["sum_tarp", "sum_tarp_variance"]), parts[1]][::order])
        assert caplog.text.count("no TARP of all initial times together") == 1
        missing = {n.removeprefix("sum_") for n in map(str, set(together.data_vars) - set(without.data_vars))}
        assert missing == {"tarp", "tarp_variance", "tarp_coverage", "tarp_bar", "tarp_departure", "tarp_flag"}
    one = score(forecast.isel(member=0), truth, **options)
    assert not set(names) & set(one.data_vars)
