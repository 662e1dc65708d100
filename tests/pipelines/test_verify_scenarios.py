"""Scenarios by the stage, from stores on disk to the page's panels."""

import csv
import html
import json
import re
import warnings

import numpy as np
import pytest
import xarray as xr

import emulator as em
from emulator.planet.grid import Grid
from emulator.report.page import write_comparison
from emulator.report.panel import PANELS
from emulator.report.style import Panel, figures
from emulator.report.view import View
from emulator.verify.assemble import open_scores
from emulator.verify.combined_scenarios import combine_scenarios
from emulator.verify.merging import combine
from pipelines.check import check_stage
from pipelines.config import ConfigError, VerifyConfig
from pipelines.verify import verify

GRID, CO2, YEARS = Grid.gaussian(4), "carbon_dioxide_mole_fraction", 12
RATES = {"slow": 1e-6, "fast": 4e-6, "other": 5e-6}
MAP = 1 + np.sin(np.radians(GRID.mesh()[0])) ** 2


def write(path, rate, seed, warmer=0.0) -> None:
    """Annual means that follow CO2 in a pattern, with noise, as ingest leaves them."""
    years = np.arange(YEARS)
    co2 = 3e-4 + rate * years
    noise = 0.1 * np.random.default_rng(seed).standard_normal((YEARS, *GRID.shape))
    fields = 285 + 2e5 * (co2 - 3e-4)[:, None, None] * MAP + noise + warmer
    place = ("latitude", "longitude")
    data = {
        "2m_temperature": (("time", *place), fields.astype(np.float32), {"units": "K"}),
        CO2: ("time", co2, {"units": "mol mol-1", "role": "forcing"}),
        "cell_area": (place, GRID.area),
    }
    times = np.array([np.datetime64(f"{2001 + year}-01-01", "ns") for year in years])
    attributes = {"emulator_schema": "analysis-1", "complete": True, "fingerprint": path.name}
    attributes |= {"time_step_months": 12, "time_step_seconds": 12 * 2629746.0}
    coordinates = {"time": times, "latitude": GRID.latitude, "longitude": GRID.longitude}
    xr.Dataset(data, coordinates, attributes).to_zarr(path, zarr_format=3, consolidated=False)


def write_forecast(path, source) -> None:
    """The years of a store, which begin at its first time."""
    run = xr.open_zarr(source, consolidated=False)[["2m_temperature"]].load()
    run = run.rename(time="prediction_timedelta").expand_dims(time=run["time"].values[:1])
    run = run.assign_coords(prediction_timedelta=("prediction_timedelta", 12 * np.arange(YEARS), {"units": "months"}))
    run.attrs["emulator_schema"] = "forecast-1"
    for array in run.variables.values():
        array.encoding = {}
    run.to_zarr(path, zarr_format=3, consolidated=False)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> VerifyConfig:
    at = tmp_path_factory.mktemp("scenarios")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed, (name, scenario) in enumerate(
            [
                ("s1", "slow"),
                ("s2", "slow"),
                ("f1", "fast"),
                ("f2", "fast"),
                ("o1", "other"),
                ("o2", "other"),
                ("e", "other"),
            ]
        ):
            write(at / f"{name}.zarr", RATES[scenario], seed, 0.5 if name == "e" else 0.0)
        write_forecast(at / "forecast.zarr", at / "e.zarr")
    scenarios = {
        "train": {"slow": [at / "s1.zarr", at / "s2.zarr"], "fast": [at / "f1.zarr", at / "f2.zarr"]},
        "held_out": {"other": [at / "o1.zarr", at / "o2.zarr"]},
        "forecasts": {"network": {"other": at / "forecast.zarr"}},
        "control": at / "s1.zarr",
        "years": [2003, 2011],
    }
    return VerifyConfig(truth=at / "o1.zarr", output=at / "scores.nc", events=[], scenarios=scenarios)


@pytest.fixture(scope="module")
def scores(config) -> xr.Dataset:
    verify(config)
    return open_scores(config.output)


def test_from_the_configuration_to_the_page(config, scores):
    assert "and the scenarios other" in " ".join(check_stage("verify", config))
    view = View(scores)
    at = view.scores.squeeze(["scenario", "scenario_channel"])
    errors = dict(zip(map(str, at["scenario_source"].values), at["scenario_nrmse_spatial"].values, strict=True))
    np.testing.assert_allclose(errors["network"], 0.5 / float(at["scenario_norm"]), rtol=0.1)
    assert errors["pattern scaling"] < 0.3 * errors["network"]
    with figures():
        parts = [part for entry in PANELS.all().values() if entry.section == "scenarios" for part in entry.parts(view)]
    text = " ".join(f"{p.title}. {p.caption}" if isinstance(p, Panel) else re.sub("<[^>]+>", " ", p) for p in parts)
    text = html.unescape(text)
    assert "network is better than pattern scaling in 0 of 1 fields and scenarios" in text
    assert "goes from 0.0003 to 0.000355, beyond the training's 0.0003 to 0.000344" in text
    for title in (
        "Global means of the scenarios",
        "Errors of the time means under other",
        "Error by the number of members",
    ):
        assert title in text


@pytest.mark.slow
def test_emulators_verified_apart_stand_side_by_side(config):
    """As if they had been verified together, in the page, the tables and the JSON too."""
    at = config.output.parent
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write(at / "better.zarr", RATES["other"], 7, 0.1)
        write_forecast(at / "better_forecast.zarr", at / "better.zarr")
    found = {name: {"other": at / f"{path}.zarr"} for name, path in (("a", "forecast"), ("b", "better_forecast"))}
    for folder, forecasts in (("a", {"net": found["a"]}), ("b", {"net": found["b"]}), ("both", found)):
        scenarios = config.scenarios.model_copy(update={"forecasts": forecasts})
        verify(config.model_copy(update={"scenarios": scenarios, "output": at / folder / "scores.nc"}))
    together = open_scores(at / "both" / "scores.nc")
    write_comparison([str(at / "a"), str(at / "b")], at / "page")
    apart = open_scores(at / "page" / "scores.nc")
    names = [name for name in together.data_vars if str(name).startswith("scenario_")]
    assert len(names) > 8 and apart["scenario_source"].values.tolist() == together["scenario_source"].values.tolist()
    for name in names:
        np.testing.assert_array_equal(apart[name].transpose(*together[name].dims), together[name], err_msg=name)
    total = together["scenario_nrmse_total"].squeeze(["scenario", "scenario_channel"])
    expected = {str(s): float(total.sel(scenario_source=s)) for s in total["scenario_source"].values}
    assert expected["a"] > 3 * expected["b"]
    with open(at / "page" / "scenarios.csv") as file:
        rows = {row["source"]: float(row["nrmse_total"]) for row in csv.DictReader(file)}
    told = json.loads((at / "page" / "scores.json").read_text())["scenarios"]
    for score in (rows, {row["source"]: row["nrmse_total"] for row in told}):
        assert score == pytest.approx(expected, rel=1e-6)
    assert "a is better than pattern scaling" in html.unescape((at / "page" / "report.html").read_text())


def test_every_model_keeps_its_emulators_and_the_truths_own_rows_stand_once(scores):
    """A field, or a scenario, that one model did not score takes nothing from the other."""
    other = scores.assign_coords(scenario=["third"])
    found = combine({"a": scores, "b": scores, "c": other})
    own = ["pattern scaling", "noise floor", "another member"]
    assert found["scenario_source"].values.tolist() == ["a", "b", "c", *own]
    assert found["scenario_predicted"].values.tolist() == ["a", "b", "c", "pattern scaling"]
    at = found["scenario_nrmse_total"].squeeze("scenario_channel")
    before = scores["scenario_nrmse_total"].squeeze()
    for name, scenario in (("a", "other"), ("b", "other"), ("c", "third")):
        expected = before.sel(scenario_source="network")
        np.testing.assert_array_equal(at.sel(scenario_source=name, scenario=scenario), expected)
    assert np.isnan(at.sel(scenario_source="c", scenario="other"))
    for scenario in ("other", "third"):
        np.testing.assert_array_equal(at.sel(scenario_source=own, scenario=scenario), before.sel(scenario_source=own))
    assert "scenario" not in combine({n: scores.drop_dims("scenario") for n in "ab"}).dims


def test_emulators_on_other_truths_of_a_scenario_are_refused(scores):
    others = {
        "number of members": scores.assign(scenario_members=scores["scenario_members"] + 1),
        "truth": scores.assign(scenario_truth_map=scores["scenario_truth_map"] + 1e-3),
        "forcing": scores.assign(scenario_forcing=scores["scenario_forcing"] * 2),
        "training scenarios beside it": scores.assign(scenario_nrmse_total=scores["scenario_nrmse_total"] * 2),
    }
    for what, other in others.items():
        with pytest.raises(ValueError, match=f"a and b scored with the same {what} of other, got another"):
            combine_scenarios({"a": scores, "b": other})
    with pytest.raises(ValueError, match="over the same years of other, got 2003 to 2011 and 2004 to 2011"):
        combine_scenarios({"a": scores, "b": scores.isel(scenario_year=slice(1, None))})


@pytest.mark.slow
def test_a_map_without_a_state_is_scored_like_any_emulator(config):
    """From the forcing to annual fields, trained on one scenario."""
    at = config.output.parent
    em.statistics(at / "f1.zarr", at / "statistics.nc")
    roles = {"prognostic": [], "forcing": [CO2], "diagnostic": ["2m_temperature"], "conservation": {"kind": "none"}}
    how = {"network": {"kind": "unet", "width": 4, "depth": 1}, "phases": [{"updates": 60, "batch_size": 4}]}
    how |= {"optimizer": {"lr": 0.02, "warmup_steps": 5}}
    em.train(at / "f1.zarr", at / "statistics.nc", at / "out", **roles, **how)
    truth = em.open_analysis(at / "o1.zarr")
    forecast = em.forecast(
        at / "out" / "checkpoint", truth, truth.time.values[0], lead="11 years", output=at / "map.zarr"
    )
    assert json.loads(forecast.attrs["forcing_beyond_training"])[CO2]["given"][1] == pytest.approx(3.5e-4, rel=1e-5)
    scenarios = config.scenarios.model_dump() | {"forecasts": {"map": {"other": at / "map.zarr"}}}
    errors = em.score(forecast, truth, events=(), scenarios=scenarios)["scenario_nrmse_total"].squeeze()
    floor, ours = (float(errors.sel(scenario_source=name)) for name in ("noise floor", "map"))
    assert floor < ours < 2.0  # better than no change at all, which is 6


def test_a_store_that_is_not_there_is_named_before_anything_runs(config):
    missing = config.scenarios.model_copy(update={"control": [config.output.parent / "none.zarr"]})
    with pytest.raises(ConfigError, match="Expected a store of verify.scenarios at .*none.zarr, got nothing there"):
        list(check_stage("verify", config.model_copy(update={"scenarios": missing})))
    with pytest.raises(ValueError, match="train"):
        VerifyConfig(truth="t", output="o", scenarios={"train": {}, "held_out": {"a": "b"}})
    assert not {"scenarios", "references"} & set(VerifyConfig(truth="t", output="o").model_dump())
