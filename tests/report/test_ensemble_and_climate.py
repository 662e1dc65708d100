"""Panels of ensembles, extremes, strata and long runs: what they say is what the scores hold."""

import json
import math

import numpy as np
import pytest
import xarray as xr
from made_scores import long_run, made_analysis, made_forecast_store, verified

from emulator.report.ensemble_rows import ensemble_rows
from emulator.report.gate import judge
from emulator.report.page import render
from emulator.report.panels import climate, extremes
from emulator.report.panels.breakdown import strata_table
from emulator.report.panels.calibration import chance
from emulator.report.panels.caveats import caveats
from emulator.report.style import figures
from emulator.report.tables import to_json
from emulator.report.view import View
from emulator.verify.assemble import open_scores

INITS = [28, 31, 34, 37, 40, 44]


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ensemble")
    truth = made_analysis(folder / "analysis.zarr")
    made_forecast_store(folder / "one.zarr", truth, INITS, 12, 0.2)
    store = xr.open_zarr(folder / "one.zarr", decode_timedelta=True).load()
    fields = ["temperature", "surface_pressure", "mean_total_precipitation_rate"]
    rng = np.random.default_rng(0)
    noise = xr.DataArray(
        rng.standard_normal((5, *store["surface_pressure"].shape)), dims=("number", *store["surface_pressure"].dims)
    )
    many = xr.Dataset()
    for name in fields:
        size = 0.3 * float(store[name].std())
        field = (store[name] + size * noise).transpose("time", "prediction_timedelta", "number", ...)
        many[name] = field.astype(np.float32).assign_attrs(store[name].attrs)
    many = many.assign(half_level_a=store["half_level_a"], half_level_b=store["half_level_b"]).assign_attrs(store.attrs)
    for array in many.variables.values():
        array.encoding = {}
    many.to_zarr(folder / "many.zarr", zarr_format=3)
    long_run(truth, folder / "long.zarr", 1.5)
    path = verified(
        folder / "scores.nc",
        folder / "analysis.zarr",
        {"ensemble": folder / "many.zarr"},
        long_runs={"ensemble": folder / "long.zarr"},
        variables=tuple(fields),
        climatology=(None, "2001-01-07"),
    )
    return open_scores(path)


def test_the_page_of_an_ensemble_has_its_panels(scores):
    text = render(View(scores), "An ensemble")
    for title in (
        "CRPS against lead",
        "Spread and error of the ensemble",
        "Where the truth ranks among the members",
        "Probabilities of extremes",
        "Spread over error by scale",
        "Where the truth's field ranks among the members'",
        "Coverage of whole fields (TARP)",
        "What the forecast of extremes is worth",
        "CRPS of the tail",
        "Extremes.",
        "Mean bias of the long run",
        "Zonal means, annual cycle and blocking",
        "The worst forecast beside the truth",
    ):
        assert title in text, title
    assert "http://" not in text.replace("http://www.w3.org", "") and "<script" not in text


def test_rows_and_curves_of_an_ensemble_are_its_scores(scores):
    view = View(scores)
    rows = ensemble_rows(view)
    assert len(rows) == np.prod([scores.sizes[n] for n in ("forecast", "map_channel", "region", "lead_time")])
    place = {"forecast": "ensemble", "region": "tropics", "lead_time": "72h"}
    row = next(r for r in rows if (r["forecast"], r["region"], r["lead_days"]) == ("ensemble", "tropics", 3.0))
    at = scores.sel(place | {"channel": row["channel"], "map_channel": row["channel"]})
    for name in ("crps", "energy_score", "spread_skill", "variogram", "tarp_departure", "tarp_flag"):
        np.testing.assert_allclose(row[name], at[name])
    np.testing.assert_allclose(row["twcrps_above_0.95"], at["twcrps"].sel(event=0.95))
    curves = json.loads(to_json(view))["ensemble"]
    curve = next(c for c in curves if c["score"] == "field_rank_histogram" and c["pre_rank"] == "energy")
    assert curve["rank"] == list(range(6)) and sum(curve["values"]) == pytest.approx(1)
    assert ensemble_rows(View(scores.assign(members=scores["members"] * 0 + 1))) == []


def test_the_gate_sees_an_ensemble_that_has_lost_its_spread(scores):
    before = json.loads(to_json(View(scores)))
    each = scores["each_crps"]
    members = scores["members"] > 1
    noise = xr.ones_like(each) + 0.01 * np.arange(each.sizes["init_time"]).reshape([-1] + [1] * (each.ndim - 1))
    after = json.loads(to_json(View(scores.assign(each_crps=xr.where(members, each * (1.2 + noise / 100), each)))))
    found = {finding.what: finding for finding in judge(after, before)}
    assert all(f.verdict == "same" for what, f in found.items() if not what.startswith("CRPS"))
    at = scores.sel(forecast="ensemble", region="global", map_channel="surface_pressure", lead_time="72h")["each_crps"]
    assert f"CRPS of surface_pressure, global, day {3:g}" in found and len(at) == len(INITS)
    worse = [f for what, f in found.items() if what.startswith("CRPS")]
    assert {f.verdict for f in worse} == {"worse"} and all(20 < f.change < 23 for f in worse)


def test_a_single_forecast_has_no_ensemble_panels(view):
    assert view.ensembles() == []
    with figures():
        assert extremes.extremes_panel(view) is not None
    text = render(view, "One forecast")
    assert "Spread and error" not in text and "Climate of the long runs" not in text


def test_the_climate_of_a_warmer_run_is_warmer_by_as_much(scores):
    at = scores.sel(climate_run="ensemble", climate_channel="temperature 500 hPa (sigma 0.5)")
    np.testing.assert_allclose(at["climate_bias_mean"], 1.5, rtol=1e-4)
    np.testing.assert_allclose(at["climate_bias_rmse"], 1.5, rtol=1e-4)
    np.testing.assert_allclose(at["climate_deviation_ratio"], 1.0, rtol=1e-4)
    np.testing.assert_allclose(at["climate_zonal_mean"].diff("climate_record"), -1.5, rtol=1e-3)
    pressure = scores.sel(climate_run="ensemble", climate_channel="surface_pressure")
    np.testing.assert_allclose(pressure["climate_bias_map"], 0, atol=1e-2)
    table = climate.climate_table(View(scores))
    assert "1.50" in table and "Variability, ratio" in table


def test_error_by_hour_adds_up_to_the_whole(scores):
    view = View(scores)
    table = strata_table(view)
    assert "from 00 UTC" in table and "from 18 UTC" in table
    error = (
        scores["squared_error"].sel(forecast="ensemble", region="global", channel="surface_pressure").isel(lead_time=-1)
    )
    hours = error["init_time"].dt.hour
    parts = [error[hours == h] for h in np.unique(hours)]
    whole = np.sqrt(sum(float(p.sum()) for p in parts) / error.size)
    rmse = scores["rmse"].sel(forecast="ensemble", region="global", channel="surface_pressure").isel(lead_time=-1)
    np.testing.assert_allclose(whole, rmse, rtol=1e-12)


def test_bars_of_few_initial_times_have_the_binomials_range():
    low, high = chance(12, 11)
    shares = [math.comb(12, k) * (1 / 11) ** k * (10 / 11) ** (12 - k) for k in range(13)]
    assert sum(shares[low : high + 1]) >= 0.9
    assert sum(shares[: low + 1]) >= 0.05 > sum(shares[:low]) and sum(shares[high:]) > 0.05 >= sum(shares[high + 1 :])


def test_the_page_says_that_coverage_is_left_out_where_its_references_are_verified(scores):
    without = scores.drop_vars([name for name in scores if "tarp" in str(name)])
    without.attrs["climatology_overlap"] = 1
    assert any("TARP) is left out" in text for text in caveats(View(without)))
    assert not any("TARP) is left out" in text for text in caveats(View(scores.assign_attrs(climatology_overlap=0))))
