"""Scenarios by the stage, from stores on disk to the page's panels."""

import html
import json
import re
import warnings

import numpy as np
import pytest
import xarray as xr

import emulator as em
from emulator.planet.grid import Grid
from emulator.report.panel import PANELS
from emulator.report.style import Panel, figures
from emulator.report.view import View
from emulator.verify.assemble import open_scores
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


def test_from_the_configuration_to_the_page(config):
    assert "and the scenarios other" in " ".join(check_stage("verify", config))
    verify(config)
    view = View(open_scores(config.output))
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
