"""Monthly means of a climate model from two files to the report, by one command, and by the library for other calendars."""

import json
import re

import numpy as np
import pytest
import xarray as xr
import yaml
from monthly_files import CALENDARS, monthly, write_files

import emulator as em
from emulator.planet.calendar import TimeStep
from emulator.store.analysis import open_analysis
from emulator.store.forecast import open_forecast
from pipelines.cli import main

YEARS, SUN = 5, "mean_top_downward_short_wave_radiation_flux"


def experiment(folder, calendar):
    pattern = write_files(folder / "source", monthly(calendar, 2000, YEARS), calendar)
    stages = {
        "directory": str(folder / "run"),
        "ingest": {"sources": [{"path": pattern}], "variables": ["2m_temperature", "mean_sea_level_pressure", SUN]},
        "stats": {"period": {"end": "2002"}, "climatology": str(folder / "climatology.zarr")},
        "train": {
            "period": {"end": 2002},
            "network": {"embed_dim": 4, "blocks": 1},
            "phases": [{"updates": 6}, {"updates": 2, "rollout_steps": 2}],
            "optimizer": {"warmup_steps": 2},
            "conservation": {"kind": "none"},
        },
        "rollout": {
            "period": {"start": "2003"},
            "every": "1 month",
            "lead": "6 months",
            "long_run_lead": "2 years",
            "batch_size": 4,
        },
        "verify": {"climatology": {"end": "2002"}, "events": []},
        "report": {},
    }
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(stages, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("months")
    assert main(["run", str(experiment(folder, "noleap"))]) == 0
    return folder / "run"


def test_stores_and_leads_are_in_months(run):
    analysis, forecast = open_analysis(run / "analysis.zarr"), open_forecast(run / "forecast.zarr")
    assert TimeStep.of(analysis) == TimeStep.of(forecast) == TimeStep(months=1)
    assert list(forecast.lead_time.values) == list(range(7)) and forecast.attrs["time_step_months"] == 1
    inits = forecast.init_time.values
    assert str(inits[0])[:10] == "2003-01-01" and len(inits) == 12 * 2 + 1 - 6
    start = analysis["2m_temperature"].sel(time=inits)
    np.testing.assert_array_equal(forecast["2m_temperature"].values[:, 0], start.values)
    assert np.isfinite(forecast["2m_temperature"].values).all()
    assert list(open_forecast(run / "long_run.zarr").lead_time.values) == list(range(25))


def test_training_saw_whole_years(run):
    """January 2000 to December 2002, and not the month that ends when 2003 begins, or the one that ends when 2000 does."""
    with xr.open_dataset(run / "statistics.nc") as statistics:
        assert "2000-02-01" in str(statistics.attrs) and "2003-01-01" in str(statistics.attrs)
    climatology = xr.open_zarr(run.parent / "climatology.zarr")
    values = open_analysis(run / "analysis.zarr")["2m_temperature"].values[:36].reshape(3, 12, 6, 12).mean(axis=0)
    days = climatology["2m_temperature"].sel(hour=0)
    np.testing.assert_allclose(days.sel(dayofyear=32).values, values[0], rtol=1e-6)  # January ends on day 32
    np.testing.assert_allclose(days.sel(dayofyear=15).values, values[0], rtol=1e-6)
    np.testing.assert_allclose(days.sel(dayofyear=366).values, values[11], rtol=1e-6)


def test_scores_and_page_speak_of_months(run):
    scores = xr.open_dataset(run / "scores.nc", decode_timedelta=False)
    assert list(scores.lead_time.values) == list(range(7)) and scores.lead_time.attrs["units"] == "months"
    analysis, forecast = open_analysis(run / "analysis.zarr"), open_forecast(run / "forecast.zarr")
    truth = analysis["2m_temperature"].values
    first = int(np.flatnonzero(analysis.time.values == forecast.init_time.values[0])[0])
    valid = first + np.arange(forecast.sizes["init_time"])[:, None] + np.arange(7)
    square = (forecast["2m_temperature"].values - truth[valid]) ** 2
    error = (square * analysis.cell_area.values).sum(axis=(2, 3)).mean(axis=0)
    rmse = scores.rmse.isel(forecast=0).sel(region="global", channel="2m_temperature").values
    np.testing.assert_allclose(rmse, np.sqrt(error), rtol=1e-5, atol=1e-6)
    page = (run / "report" / "report.html").read_text()
    assert "does not reach" not in page  # the truth has every lead
    text = " ".join(re.sub(r"<style.*?</style>|<svg.*?</svg>|<[^>]+>", " ", page, flags=re.S).split())
    assert "Month 6" in text and "0 to 6 months" in text and not re.search(r"[Dd]ay \d", text)
    table = (run / "report" / "scores.csv").read_text().splitlines()
    assert "lead_months" in table[0]
    headline = json.loads((run / "report" / "scores.json").read_text())["headline"]
    assert {row["lead_months"] for row in headline} >= {1.0, 3.0, 6.0}


@pytest.mark.parametrize("calendar", [c for c in CALENDARS if c != "noleap"])
def test_the_model_of_one_calendar_forecasts_in_another(run, calendar, tmp_path):
    """Months are months: their nominal length is the same, and so is the step."""
    pattern = write_files(tmp_path / "source", monthly(calendar, 2000, 2), calendar)
    em.ingest(pattern, tmp_path / "analysis.zarr")
    analysis = em.open_analysis(tmp_path / "analysis.zarr")
    start = analysis.time.values[3]
    model = run / "train" / "checkpoint"
    inside = em.forecast(model, analysis, start, lead="6 months")
    assert list(inside.lead_time.values) == list(range(7))
    scores = em.score(inside, analysis, events=())
    assert np.isfinite(scores.rmse.sel(forecast="forecast", channel="2m_temperature", region="global").values).all()
    stored = em.forecast(model, analysis, start, lead="6 months", output=tmp_path / "forecast.zarr")
    np.testing.assert_array_equal(stored["2m_temperature"].values, inside["2m_temperature"].values)
    with pytest.raises(ValueError, match="give the lead in months"):
        em.forecast(model, analysis, start, days=10)
