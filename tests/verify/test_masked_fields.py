"""Fields that do not exist everywhere: scores by hand, and nothing under a mask changes any of them."""

import json

import numpy as np
import pytest
import xarray as xr
from masked_ocean import HEIGHT, SPACE, THETAO, grid, made_forecast, made_truth, masks, with_outside

from emulator.verify.merging import check_same, combine
from emulator.verify.verification import score

RAIN = "mean_total_precipitation_rate"
INITS, LEADS = (24, 28, 32, 40, 44), 8
OPTIONS = {"regions": ["global", "tropics", "arctic"]}


@pytest.fixture(scope="module")
def stores():
    truth = made_truth()
    return truth, made_forecast(truth, INITS, LEADS)


@pytest.fixture(scope="module")
def found(stores):
    truth, forecast = stores
    return score(forecast, truth, **OPTIONS)


def at(scores, channel, lead=-1, region="global", forecast="forecast"):
    return scores.sel(channel=channel, region=region, forecast=forecast).isel(lead_time=lead)


def valid(truth, name, lead):
    return np.stack([truth[name].values[init + lead] for init in INITS]).astype(np.float64)


def test_channels_are_named_by_their_own_axis(found):
    names = [str(name) for name in found["channel"].values]
    assert names == [
        f"{THETAO} 5 m",
        f"{THETAO} 100 m",
        HEIGHT,
        "soil_temperature layer 1",
        "soil_temperature layer 2",
        "temperature 500 hPa",
        "temperature 850 hPa",
    ]
    pressures = found["pressure"].values
    np.testing.assert_array_equal(pressures, [np.nan] * 5 + [500, 850])
    np.testing.assert_array_equal(found["level"].values, [5, 100, np.nan, 1, 2, 500, 850])


@pytest.mark.parametrize("region", ["global", "tropics"])
def test_errors_are_means_over_where_the_field_exists(stores, found, region):
    truth, forecast = stores
    rows = np.abs(grid().latitude) <= (20 if region == "tropics" else 90)
    for name, level, channel, exists in (
        (THETAO, 0, f"{THETAO} 5 m", masks()["sea_floor"][0] > 0),
        (THETAO, 1, f"{THETAO} 100 m", masks()["sea_floor"][1] > 0),
        ("soil_temperature", 1, "soil_temperature layer 2", masks()["land_sea_mask"] > 0),
    ):
        weight = grid().area * exists * rows[:, None]
        weight = (weight / weight.sum())[exists]
        error = forecast[name].values[:, LEADS].astype(np.float64) - valid(truth, name, LEADS)
        error = error[:, level][:, exists]
        ours = at(found, channel, region=region)
        np.testing.assert_allclose(ours["rmse"], np.sqrt((error**2 @ weight).mean()), rtol=1e-12)
        np.testing.assert_allclose(ours["bias"], (error @ weight).mean(), rtol=1e-9)
        np.testing.assert_allclose(ours["mae"], (np.abs(error) @ weight).mean(), rtol=1e-12)


def test_persistence_climatology_and_anomalies_by_hand(stores, found):
    truth, forecast = stores
    exists = masks()["sea_floor"][1] > 0
    weight = grid().area[exists] / grid().area[exists].sum()
    record = truth[THETAO].values[:, 1][:, exists].astype(np.float64)
    start = np.stack([record[init] for init in INITS])
    after = np.stack([record[init + LEADS] for init in INITS])
    hourly = np.stack([record[hour::4].mean(axis=0) for hour in range(4)])
    expected = np.stack([hourly[(init + LEADS) % 4] for init in INITS])
    last = at(found, f"{THETAO} 100 m", forecast="persistence")
    np.testing.assert_allclose(last["rmse"], np.sqrt((((start - after) ** 2) @ weight).mean()), rtol=1e-12)
    last = at(found, f"{THETAO} 100 m", forecast="climatology")
    np.testing.assert_allclose(last["rmse"], np.sqrt((((expected - after) ** 2) @ weight).mean()), rtol=1e-10)
    ours = forecast[THETAO].values[:, LEADS, 1][:, exists] - expected
    theirs = after - expected
    ratio = ((ours * theirs) @ weight) / np.sqrt((ours**2 @ weight) * (theirs**2 @ weight))
    np.testing.assert_allclose(at(found, f"{THETAO} 100 m")["acc"], ratio.mean(), rtol=1e-9)


def test_a_region_without_the_field_has_no_score(found):
    arctic = found.sel(region="arctic", channel=f"{THETAO} 5 m")
    assert (masks()["sea_floor"][0][grid().latitude > 60] > 0).any()
    assert (found["count"].sel(region="arctic", channel=f"{THETAO} 5 m") == len(INITS)).all()
    assert np.isfinite(arctic["rmse"]).all()
    desert = score(*reversed(with_land_everywhere(made_truth())), regions=["global", "arctic"])
    assert (desert["count"].sel(region="arctic", channel=HEIGHT) == 0).all()
    assert desert["rmse"].sel(region="arctic", channel=HEIGHT).isnull().all()
    assert np.isfinite(desert["rmse"].sel(region="global", channel=HEIGHT, forecast="forecast")).all()


def with_land_everywhere(truth):
    """Truth and forecast of a planet whose arctic is land."""
    land = truth["land_sea_mask"].where(truth["latitude"] < 60, 1.0).assign_attrs(truth["land_sea_mask"].attrs)
    truth = truth.assign(land_sea_mask=land).drop_vars(["soil_temperature", "soil_layer_bounds"])
    forecast = made_forecast(made_truth(), INITS, LEADS).drop_vars(["soil_temperature", "land_sea_mask"])
    return truth, forecast  # whose own mask is absent: the truth's holds


@pytest.mark.parametrize("members", [0, 3])
def test_nothing_under_a_mask_changes_any_score(stores, members):
    truth, _ = stores
    forecast = made_forecast(truth, INITS, LEADS, members)
    first = score(forecast, truth, **OPTIONS)
    for ours, theirs in ((7.0, np.nan), (np.nan, 1e9), (1e30, 3.0)):
        other = score(with_outside(forecast, ours), with_outside(truth, theirs), **OPTIONS)
        assert set(other.data_vars) == set(first.data_vars)
        for name in first.data_vars:
            np.testing.assert_array_equal(other[name].values, first[name].values, err_msg=name)
    assert int(first["gap_count"].sum()) == 0


def test_inside_a_missing_value_is_one_and_a_failed_forecast_too(stores):
    truth, forecast = stores
    row, column = 6, 3  # sea
    holed = truth.copy(deep=True)
    holed[THETAO].values[40, 0, row, column] = np.nan
    scores = score(forecast, holed, variables=[THETAO])
    assert (
        int(scores["gap_count"].sel(gap_source="truth")) == 2
    )  # at lead 0 of one initial time, at lead 48 h of another
    assert np.isfinite(at(scores, f"{THETAO} 5 m")["rmse"])
    failed = forecast.copy(deep=True)
    failed[THETAO].values[2, LEADS, 0, row, column] = np.nan
    scores = score(failed, truth, variables=[THETAO])
    assert np.isnan(at(scores, f"{THETAO} 5 m")["rmse"]) and np.isfinite(at(scores, f"{THETAO} 100 m")["rmse"])


def test_maps_are_missing_exactly_where_the_field_is(found):
    exists = masks()["sea_floor"][0] > 0
    channel = f"{THETAO} 5 m"
    for name in ("case_truth", "case_forecast", "mean_error_map"):
        field = found[name].sel(map_channel=channel)
        field = field.sel(forecast="forecast") if "forecast" in field.dims else field
        missing = ~np.isfinite(field.transpose(..., "latitude", "longitude").values)
        np.testing.assert_array_equal(missing, np.broadcast_to(~exists, missing.shape))


def test_the_scores_say_where_fields_exist_and_what_spectra_are_of(found):
    domains = json.loads(found.attrs["domains"])
    area = grid().area
    share = (area * masks()["sea_floor"][1]).sum() / area.sum()
    deep = domains[f"{THETAO} 100 m"]
    assert deep["domain"] == "sea_floor" and deep["share"] == pytest.approx(share, abs=1e-6)
    assert deep["where"] != domains[f"{THETAO} 5 m"]["where"] == domains[HEIGHT]["where"]
    assert "temperature 500 hPa" not in domains
    assert "filled" in found.attrs["spectrum_of_masked"]
    power = found["power"].sel(channel=f"{THETAO} 5 m")
    assert np.isfinite(power).all() and (found["power_count"] == len(INITS)).all()


def test_scores_in_other_cells_are_not_compared_or_added_up(stores):
    truth, forecast = stores
    smaller = forecast.copy(deep=True)
    smaller["sea_floor"].values[0, 6, :4] = 0
    models = {}
    for name, store in (("first", forecast), ("second", smaller)):
        models[name] = score(store, truth, variables=[THETAO]).assign_attrs(scores_schema="scores-1")
    with pytest.raises(ValueError, match=f"first and second.*same cells, got {THETAO} 5 m on .* and .* of the area"):
        combine(models)
    combined = combine({"first": models["first"], "again": models["first"]})
    assert list(combined["forecast"].values[:2]) == ["first", "again"]
    with pytest.raises(ValueError, match="scores of the same domains"):
        check_same(*models.values())


def test_a_uniform_field_has_no_power_but_its_mean(stores):
    truth, forecast = stores
    truth, forecast = truth.copy(deep=True), forecast.copy(deep=True)
    for dataset in (truth, forecast):
        dataset[THETAO] = dataset[THETAO].where(dataset[THETAO].isnull(), 4.0).astype(np.float32)
    power = score(forecast, truth, variables=[THETAO])["power"].isel(source=0, channel=0)
    np.testing.assert_allclose(power.isel(wavenumber=0), 16, rtol=1e-12)
    np.testing.assert_allclose(power.isel(wavenumber=slice(1, None)), 0, atol=1e-20)


def test_levels_are_chosen_axis_by_axis(stores):
    truth, forecast = stores
    names = lambda levels: [str(n) for n in score(forecast, truth, levels=levels)["channel"].values]  # noqa: E731
    on_level = names([500])
    assert "temperature 850 hPa" not in on_level and f"{THETAO} 100 m" in on_level
    chosen = names({"depth": [80], "soil_layer": [1]})
    assert f"{THETAO} 5 m" not in chosen and f"{THETAO} 100 m" in chosen and "temperature 850 hPa" in chosen
    assert "soil_temperature layer 2" not in chosen and "soil_temperature layer 1" in chosen
    with pytest.raises(ValueError, match="soil_layer, depth, level.*got those of 'height'"):
        names({"height": [10]})


def test_one_variable_on_two_axes_is_refused(stores):
    truth, forecast = stores
    other = forecast.assign(temperature=forecast["temperature"].rename(level="height").assign_coords(height=[9.0, 1.0]))
    with pytest.raises(ValueError, match="temperature on one vertical axis.*levels in truth.*heights in forecast"):
        score(other, truth, variables=["temperature"])


def test_events_and_crps_by_hand(stores):
    truth, _ = stores
    forecast = made_forecast(truth, INITS, LEADS, members=3)
    scores = score(forecast, truth, variables=[THETAO], levels={"depth": [5]})
    exists = masks()["sea_floor"][0] > 0
    weight = grid().area[exists] / grid().area[exists].sum()
    members = forecast[THETAO].values[:, LEADS, :, 0][..., exists].astype(np.float64)
    observed = valid(truth, THETAO, LEADS)[:, 0][:, exists]
    absolute = np.abs(members - observed[:, None]).mean(axis=1)
    pairs = np.abs(members[:, :, None] - members[:, None]).sum(axis=(1, 2)) / (3 * 2)
    expected = ((absolute - pairs / 2) @ weight).mean()
    np.testing.assert_allclose(at(scores, f"{THETAO} 5 m")["crps"], expected, rtol=1e-12)
    record = truth[THETAO].values[:, 0][:, exists].astype(np.float32)
    threshold = np.stack(
        [np.quantile(record[(init + LEADS) % 4 :: 4], 0.95, axis=0).astype(np.float32) for init in INITS]
    )
    rate = ((observed > threshold) @ weight).mean()
    chosen = scores["base_rate"].sel(forecast="forecast", map_channel=f"{THETAO} 5 m", region="global", event=0.95)
    np.testing.assert_allclose(chosen.isel(lead_time=-1), rate, rtol=1e-12)
    ranks = scores["rank_histogram"].sel(forecast="forecast", map_channel=f"{THETAO} 5 m", region="global")
    np.testing.assert_allclose(ranks.isel(lead_time=-1).sum("rank"), 1, rtol=1e-12)


def test_the_climate_of_a_masked_run_by_hand(stores):
    truth, _ = stores
    run = made_forecast(truth, (0,), 56).isel(lead_time=slice(0, None, 4))
    scores = score(run, truth, long_runs={"run": run}, variables=[THETAO])
    exists = masks()["sea_floor"][0] > 0
    weight = grid().area[exists] / grid().area[exists].sum()
    ours = run[THETAO].values[0, :, 0][:, exists].astype(np.float64).mean(axis=0)
    theirs = truth[THETAO].values[::4, 0][:, exists].astype(np.float64).mean(axis=0)
    channel = f"{THETAO} 5 m"
    chosen = scores.sel(climate_run="run", climate_channel=channel)
    np.testing.assert_allclose(chosen["climate_bias_rmse"], np.sqrt((ours - theirs) ** 2 @ weight), rtol=1e-9)
    np.testing.assert_array_equal(np.isnan(chosen["climate_bias_map"].values), ~exists)
    zonal = chosen["climate_zonal_mean"].sel(climate_record="truth").values
    for row in range(grid().shape[0]):
        cells = exists[row]
        mean = truth[THETAO].values[::4, 0, row][:, cells].astype(np.float64).mean() if cells.any() else np.nan
        np.testing.assert_allclose(zonal[row], mean, rtol=1e-10)


def test_stations_take_the_cells_in_which_a_field_exists(stores):
    from emulator.verify.at_points import at_points

    truth, _ = stores
    place, exists = grid(), masks()["land_sea_mask"] < 0.5
    row, column = 3, 7  # sea; land to the west
    assert exists[row, column] and not exists[row, column - 1]
    west = (place.longitude[column] + place.longitude[column - 1]) / 2
    points = xr.Dataset(
        {"cell_area": ("cell", [0.5, 0.5])},
        {
            "station": ("cell", ["coast", "inland"]),
            "latitude": ("cell", [place.latitude[row], place.latitude[row]]),
            "longitude": ("cell", [west, place.longitude[4]]),
            "elevation": ("cell", [0.0, 0.0]),
        },
    )
    found = at_points(with_outside(truth, 1e6)[[HEIGHT, "land_sea_mask"]], points)
    np.testing.assert_allclose(found[HEIGHT].values[:, 0], truth[HEIGHT].values[:, row, column], rtol=1e-6)
    assert np.isnan(found[HEIGHT].values[:, 1]).all() and "domain" not in found[HEIGHT].attrs


def rainy(outside, seed=3):
    """Truth and forecast of rain that falls on land alone, with numbers or nothing over the sea."""
    rng, land, truth = np.random.default_rng(seed), masks()["land_sea_mask"] >= 0.5, made_truth()
    values = rng.gamma(0.4, 2e-5, (truth.sizes["time"], *land.shape)).astype(np.float32)
    attributes = {"units": "kg m-2 s-1", "role": "diagnostic", "domain": "land"}
    rain = np.where(land, values, outside * np.abs(values)).astype(np.float32)
    truth = truth[["land_sea_mask", "carbon_dioxide"]].assign({RAIN: (("time", *SPACE), rain, attributes)})
    blocks = np.stack([rain[init : init + LEADS + 1] for init in INITS])
    blocks = blocks * rng.uniform(0.5, 2, blocks.shape)
    forecast = xr.Dataset(
        {RAIN: (("init_time", "lead_time", *SPACE), blocks.astype(np.float32), attributes)},
        {
            "init_time": truth["time"].values[list(INITS)],
            "lead_time": (np.arange(LEADS + 1) * 6).astype("timedelta64[h]").astype("timedelta64[ns]"),
            **{name: truth[name] for name in SPACE},
        },
        truth.attrs,
    )
    return truth, forecast


def test_rain_on_land_alone_by_hand_and_whatever_falls_elsewhere():
    truth, forecast = rainy(np.nan)
    found = score(forecast, truth)
    for outside in (0.0, 1e3):
        there, ours = rainy(outside)
        other = score(ours, there)
        for name in found.data_vars:
            np.testing.assert_array_equal(other[name].values, found[name].values, err_msg=name)
    land = masks()["land_sea_mask"] >= 0.5
    weight = grid().area[land] / grid().area[land].sum()
    record = truth[RAIN].values[:, land]
    said, was = [], []
    for row, init in enumerate(INITS):
        limit = np.quantile(record[(init + LEADS) % 4 :: 4], 0.95, axis=0).astype(np.float32)
        said.append(forecast[RAIN].values[row, LEADS][land] > limit)
        was.append(record[init + LEADS] > limit)
    said, was = np.array(said, float), np.array(was, float)
    chosen = found.sel(forecast="forecast", map_channel=RAIN, region="global", event=0.95).isel(lead_time=-1)
    expected = 1 - (((said - was) ** 2) @ weight).mean() / ((said**2 + was**2) @ weight).mean()
    np.testing.assert_allclose(chosen["fss"].sel(window=1), expected, rtol=1e-12)
    assert np.isfinite(chosen["fss"]).all() and np.isfinite(chosen["seeps"])


def test_neighbourhoods_hold_what_exists_alone():
    from emulator.verify.metrics.rain import fss_statistics

    rng, place = np.random.default_rng(0), grid()
    said, was = (rng.integers(0, 2, (1, place.area.size)).astype(float) for _ in range(2))
    exists = masks()["sea_floor"][1].ravel() > 0
    said, was = said * exists, was * exists
    found = fss_statistics(said, was, place, place.area.reshape(1, -1), exists)
    rows, columns = place.shape
    fractions = []
    for field in (said, was):
        field, here = field.reshape(rows, columns), exists.reshape(rows, columns)
        mean = np.zeros((rows, columns))
        for row, column in np.ndindex(rows, columns):
            around = [
                (r, c % columns)
                for r in range(row - 1, row + 2)
                if 0 <= r < rows
                for c in range(column - 1, column + 2)
            ]
            known = [field[at] for at in around if here[at]]
            mean[row, column] = np.mean(known) if known else 0.0
        fractions.append(mean[here])
    weight = place.area.ravel()[exists] / place.area.ravel()[exists].sum()
    difference, power = (fractions[0] - fractions[1]) ** 2 @ weight, sum(f**2 for f in fractions) @ weight
    np.testing.assert_allclose(found["fss_difference"][0, 0, 1], difference, rtol=1e-12)
    np.testing.assert_allclose(found["fss_power"][0, 0, 1], power, rtol=1e-12)


def test_nothing_enters_a_budget_where_its_flux_does_not_exist():
    from small_planet import CONSTANTS, small_planet

    from emulator.verify.budgets import Ledger

    planet = small_planet(6, 8, 3)
    planet.attrs |= {"vertical_coordinate": "sigma", "time_step_seconds": 21600.0, "constants": CONSTANTS.to_json()}
    planet["land_sea_mask"] = (SPACE, masks()["land_sea_mask"])
    land = masks()["land_sea_mask"] >= 0.5
    name = "mean_evaporation_rate"

    def gained(outside, domain):
        values = np.where(land, outside, planet[name].values).astype(np.float32)
        field = planet[name].copy(data=values).assign_attrs({"domain": domain} if domain else {})
        changed = planet.assign({name: field})
        return Ledger(changed, changed).read({}, "time")[1]["water"]

    np.testing.assert_array_equal(gained(np.nan, "ocean"), gained(0.0, None))
    np.testing.assert_array_equal(gained(7.0, "ocean"), gained(0.0, None))
    assert (np.abs(gained(7.0, None) - gained(0.0, None)) > 1e-6).all()
    lost = planet.assign({name: planet[name].assign_attrs(domain="no_such_mask")})
    ledger = Ledger(lost, lost)
    assert name in ledger.skipped["water"] and "dry_air" not in ledger.skipped
