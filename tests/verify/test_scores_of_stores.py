import numpy as np
import pytest
import scores as oracle
import xarray as xr
from made_forecasts import made_forecast, made_truth

from emulator.planet.regions import region_weights
from emulator.store.schema import grid_of, levels_of
from emulator.verify import climatology
from emulator.verify.align import align
from emulator.verify.assemble import assemble
from emulator.verify.channels import scored
from emulator.verify.merging import merge
from emulator.verify.score import binning, score_variables, wind_vectors
from emulator.verify.significance import mean_interval

INITS = [16, 20, 24, 31, 38, 44]
REGIONS = ["global", "tropics"]
VARIABLES = ["temperature", "surface_pressure"]


@pytest.fixture(scope="module")
def truth():
    return made_truth(60)


def score(truth, forecasts, variables=VARIABLES, regions=REGIONS):
    grid = grid_of(truth)
    chosen, _ = scored(truth, forecasts, grid, levels_of(truth), variables)
    times = {name: (f["init_time"].values, f["lead_time"].values) for name, f in forecasts.items()}
    alignment = align({time: i for i, time in enumerate(truth["time"].values)}, times)
    plan = climatology.recipe(truth["time"], np.arange(16))
    members = [*(f.sizes.get("member", 1) for f in forecasts.values()), 1]
    bins = binning(grid, region_weights(grid, regions), alignment, members=max(members), step_seconds=21600.0)
    return assemble(score_variables(chosen, plan, bins), bins, list(forecasts), regions, members)


@pytest.fixture(scope="module")
def result(truth):
    forecasts = {"good": made_forecast(truth, INITS, 8, 0.1), "bad": made_forecast(truth, INITS[1:], 8, 0.6, seed=1)}
    return forecasts, score(truth, forecasts)


def matching_truth(truth, forecast, name):
    valid = forecast["init_time"] + forecast["lead_time"]
    return truth[name].sel(time=valid).drop_vars("time")


def test_scores_agree_with_the_scores_package(truth, result):
    forecasts, found = result
    weights = xr.DataArray(
        grid_of(truth).area * grid_of(truth).area.size, truth["surface_pressure"].isel(time=0).coords
    )
    weights = weights.drop_vars("time")
    for name, forecast in forecasts.items():
        forecast = forecast.sel(init_time=found["init_time"]).astype(np.float64)
        for variable in VARIABLES:
            observed = matching_truth(truth, forecast, variable).astype(np.float64)
            kept = ["lead_time", *(["level"] if "level" in observed.dims else [])]
            ours = found.sel(forecast=name, region="global").isel(channel=found["variable"].values == variable)
            options = {"preserve_dims": kept, "weights": weights}
            theirs = oracle.continuous.rmse(forecast[variable], observed, **options)
            np.testing.assert_allclose(ours["rmse"].squeeze(), theirs.transpose(*kept[::-1]), rtol=1e-10, atol=1e-12)
            theirs = oracle.continuous.mae(forecast[variable], observed, **options)
            np.testing.assert_allclose(ours["mae"].squeeze(), theirs.transpose(*kept[::-1]), rtol=1e-10, atol=1e-12)
            theirs = oracle.continuous.additive_bias(forecast[variable], observed, **options)
            np.testing.assert_allclose(ours["bias"].squeeze(), theirs.transpose(*kept[::-1]), rtol=1e-9, atol=1e-9)


def test_persistence_and_climatology_are_what_they_say(truth, result):
    _, found = result
    grid = grid_of(truth)
    pressure = truth["surface_pressure"].values.astype(np.float64)
    errors = [grid.mean((pressure[i] - pressure[i + 8]) ** 2) for i in INITS[1:]]
    last = found.sel(region="global", channel="surface_pressure").isel(lead_time=-1)
    np.testing.assert_allclose(last["rmse"].sel(forecast="persistence"), np.sqrt(np.mean(errors)), rtol=1e-12)
    hourly = np.stack([pressure[:16][h::4].mean(axis=0) for h in range(4)])
    errors = [grid.mean((hourly[(i + 8) % 4] - pressure[i + 8]) ** 2) for i in INITS[1:]]
    np.testing.assert_allclose(last["rmse"].sel(forecast="climatology"), np.sqrt(np.mean(errors)), rtol=1e-12)
    np.testing.assert_array_equal(found["rmse"].sel(forecast="persistence").isel(lead_time=0), 0)


def test_every_forecast_is_scored_on_the_same_initial_times(truth, result):
    _, found = result
    np.testing.assert_array_equal(found["init_time"], truth["time"].values[INITS[1:]])
    assert (found["count"] == 5).all()
    means = found["squared_error"].mean("init_time")
    xr.testing.assert_allclose(np.sqrt(means).transpose(*found["rmse"].dims), found["rmse"].drop_attrs(), rtol=1e-12)


def test_difference_and_its_sign(result):
    _, found = result
    at = {"region": "global", "channel": "surface_pressure"}
    rmse = found["rmse"].sel(**at).isel(lead_time=1)
    ours = found["difference"].sel(**at, forecast="good", baseline="climatology").isel(lead_time=1)
    expected = 100 * (rmse.sel(forecast="good") / rmse.sel(forecast="climatology") - 1)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)
    assert ours < 0
    assert (found["rmse_low"] <= found["rmse"] + 1e-12).all() and (found["rmse"] <= found["rmse_high"] + 1e-12).all()


@pytest.mark.parametrize("parts", [1, 3])
def test_tasks_and_blocks_do_not_change_the_scores(truth, result, monkeypatch, parts):
    forecasts, found = result
    monkeypatch.setattr("emulator.verify.score.PARTS", parts)
    monkeypatch.setattr("emulator.verify.sample.BLOCK_BYTES", 1)
    again = score(truth, {n: f.chunk({"init_time": 1, "lead_time": 2}) for n, f in forecasts.items()})
    for name in found.data_vars:
        if found[name].dtype.kind == "f":
            # Sums of both signs cancel: what counts is their size beside the largest.
            atol = 1e-12 * float(np.abs(found[name]).max())
            np.testing.assert_allclose(again[name], found[name], rtol=1e-12, atol=atol, err_msg=name)


def test_parts_over_initial_times_merge_to_the_whole(truth, result):
    forecasts, found = result
    kept = [truth["time"].values[INITS[1:]][part] for part in (slice(0, 2), slice(2, 5))]
    parts = [score(truth, {n: f.sel(init_time=times) for n, f in forecasts.items()}) for times in kept]
    together = merge(parts)
    names = (
        "rmse",
        "acc",
        "bias",
        "activity",
        "difference",
        "difference_half_width",
        "rmse_high",
        "p_value",
        "acc_low",
    )
    for name in names:
        np.testing.assert_allclose(together[name], found[name], rtol=1e-12, atol=1e-13, err_msg=name)
    with pytest.raises(ValueError, match="without common initial times"):
        merge([parts[0], parts[0]])
    for order in (1, -1):  # a sum that the first or a later part lacks
        with pytest.raises(ValueError, match="got sum_error in some of them only"):
            merge([parts[0], parts[1].drop_vars("sum_error")][::order])


def test_maps_and_spectra(truth, result):
    _, found = result
    error = found["mean_error_map"].sel(forecast="bad", map_channel="surface_pressure").isel(map_lead=-1)
    bias = found["bias"].sel(
        forecast="bad", region="global", channel="surface_pressure", lead_time=error["map_lead"].values
    )
    np.testing.assert_allclose(grid_of(truth).mean(error.values), bias, rtol=1e-4)
    power = found["power"].sel(source="truth", channel="surface_pressure").isel(spectrum_lead=0)
    assert np.all(power >= 0) and power.argmax() == 0
    same = found["power_ratio"].sel(source="truth")
    np.testing.assert_allclose(same.where(same.notnull(), 1.0), 1.0)


def test_failed_forecast_is_not_hidden_and_missing_truth_is_not_charged(truth):
    forecast = made_forecast(truth, INITS, 4)
    forecast["surface_pressure"][2, 3, 1, 1] = np.nan
    holes = truth.copy(deep=True)
    holes["temperature"][INITS[0] + 2] = np.nan
    found = score(holes, {"a": forecast}).sel(region="global")
    rmse = found["rmse"].sel(forecast="a", channel="surface_pressure")
    np.testing.assert_array_equal(np.isnan(rmse), [False, False, False, True, False])
    counts = found["count"].isel(channel=found["variable"].values == "temperature")
    # As a valid time of the first, and as the initial time of none.
    np.testing.assert_array_equal(counts.isel(lead_time=2), len(INITS) - 1)
    assert np.isfinite(found["rmse"].isel(channel=found["variable"].values == "temperature")).all()


def test_ensemble(truth):
    forecast = made_forecast(truth, INITS, 4, 0.3, members=6)
    found = score(truth, {"many": forecast, "one": forecast.isel(member=0)}, ["surface_pressure"])
    at = found.sel(channel="surface_pressure", region="global").isel(lead_time=-1)
    members = forecast["surface_pressure"].isel(lead_time=-1).astype(np.float64)
    observed = matching_truth(truth, forecast, "surface_pressure").isel(lead_time=-1).astype(np.float64)
    weights = xr.DataArray(grid_of(truth).area, members.isel(init_time=0, member=0).coords)
    crps = oracle.probability.crps_for_ensemble(members, observed, "member", method="fair", preserve_dims="all")
    np.testing.assert_allclose(at["crps"].sel(forecast="many"), (crps * weights).sum() / len(INITS), rtol=1e-10)
    error = (members.mean("member") - observed) ** 2
    np.testing.assert_allclose(
        at["rmse"].sel(forecast="many"), np.sqrt((error * weights).sum() / len(INITS)), rtol=1e-10
    )
    spread = np.sqrt((members.var("member", ddof=1) * weights).sum() / len(INITS))
    np.testing.assert_allclose(at["spread"].sel(forecast="many"), spread, rtol=1e-10)
    # Noise of the same size in every member and none in the truth: the spread is sqrt(M) too large for the mean.
    np.testing.assert_allclose(at["spread_skill"].sel(forecast="many"), np.sqrt(7), rtol=0.1)
    np.testing.assert_allclose(at["crps"].sel(forecast="one"), at["mae"].sel(forecast="one"))


def test_intervals_of_correlation_and_crps_come_from_pairs(truth):
    many = made_forecast(truth, INITS, 4, 0.3, members=6)
    forecasts = {"many": many, "one": made_forecast(truth, INITS, 4, 0.4, seed=3)}
    found = score(truth, forecasts, ["surface_pressure"])
    at = found.sel(region="global", map_channel="surface_pressure")
    for name, mean in (("anomaly_correlation", found["acc"]), ("crps", found["crps"])):
        expected = mean.sel(region="global", channel="surface_pressure").transpose("forecast", "lead_time")
        means = at[f"each_{name}"].mean("init_time", skipna=False).transpose("forecast", "lead_time")
        np.testing.assert_allclose(means, expected, rtol=1e-12, err_msg=name)
    for name in ("acc", "crps"):
        value = found[name].sel(region="global", channel="surface_pressure", forecast=["many", "one"])
        low, high = (at[f"{name}_{end}"].sel(forecast=["many", "one"]) for end in ("low", "high"))
        assert (low <= value + 1e-12).all() and (value <= high + 1e-12).all() and (low < high).isel(lead_time=-1).all()
    # The difference to a reference, at the last lead, by hand.
    each = at["each_crps"].isel(lead_time=-1)
    pairs = (each.sel(forecast="many") - each.sel(forecast="climatology")).values
    mean, half, p_value = mean_interval(pairs)
    scale = 100 / float(each.sel(forecast="climatology").mean())
    last = at.sel(forecast="many", baseline="climatology").isel(lead_time=-1)
    np.testing.assert_allclose(last["crps_difference"], mean * scale, rtol=1e-12)
    np.testing.assert_allclose(last["crps_difference_half_width"], half * scale, rtol=1e-12)
    np.testing.assert_allclose(last["crps_p_value"], p_value, rtol=1e-9, atol=1e-14)
    assert last["crps_difference"] < 0 and last["crps_significant"]
    kept = [truth["time"].values[INITS][part] for part in (slice(0, 1), slice(1, 6))]
    together = merge(
        [score(truth, {n: f.sel(init_time=t) for n, f in forecasts.items()}, ["surface_pressure"]) for t in kept]
    )
    for name in ("crps_low", "crps_high", "acc_high", "crps_difference", "crps_p_value"):
        np.testing.assert_allclose(together[name], found[name], rtol=1e-11, atol=1e-13, err_msg=name)


def test_a_failed_forecast_has_no_interval(truth):
    forecast = made_forecast(truth, INITS, 4)
    forecast["surface_pressure"][2, 3, 1, 1] = np.nan
    found = score(truth, {"a": forecast}, ["surface_pressure"]).sel(region="global", forecast="a")
    for name in ("rmse_low", "acc_high"):
        np.testing.assert_array_equal(np.isnan(found[name]).squeeze(), [False, False, False, True, False], err_msg=name)


def test_refusals(truth):
    forecast = made_forecast(truth, INITS, 4)
    with pytest.raises(ValueError, match="'vorticity' in the truth"):
        score(truth, {"a": forecast}, ["vorticity"])
    with pytest.raises(ValueError, match="share, got none"):
        score(truth, {"a": forecast[["temperature"]].drop_vars("temperature")}, None)
    wrong = forecast.assign(temperature=forecast["temperature"].assign_attrs(units="degC"))
    with pytest.raises(ValueError, match="one unit"):
        score(truth, {"a": wrong})


def test_wind_vector_is_the_error_of_the_vector(truth):
    forecast = made_forecast(truth, INITS, 4)
    grid, names = grid_of(truth), ["u_component_of_wind", "v_component_of_wind"]
    chosen, _ = scored(truth, {"a": forecast}, grid, levels_of(truth), names)
    times = {"a": (forecast["init_time"].values, forecast["lead_time"].values)}
    alignment = align({time: i for i, time in enumerate(truth["time"].values)}, times)
    plan = climatology.recipe(truth["time"], np.arange(16))
    shared = binning(grid, region_weights(grid, ["global"]), alignment)
    results = score_variables(chosen, plan, shared)
    found = assemble(results, shared, ["a"], ["global"], [1, 1])
    at = found.sel(forecast="a", region="global").isel(channel=found["variable"].values == "wind_vector")
    squares = sum(
        (forecast[name].astype(np.float64) - matching_truth(truth, forecast, name).astype(np.float64)) ** 2
        for name in names
    )
    expected = np.sqrt(grid.mean(squares.transpose("lead_time", "level", "init_time", ...)).mean(axis=-1))
    np.testing.assert_allclose(at["rmse"], expected.T, rtol=1e-12)
    assert np.isnan(at["bias"]).all() and (at["acc_pooled"].isel(lead_time=0) > 0.999).all()
    assert not wind_vectors(results[:1])
