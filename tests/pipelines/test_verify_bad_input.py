"""What cannot be verified ends in one sentence, or in a gap that the report marks and counts."""

import json
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from emulator.report.panels.caveats import caveats
from emulator.report.view import View
from emulator.verify.assemble import open_scores
from pipelines.config import ReportConfig, VerifyConfig
from pipelines.report import compare, report
from pipelines.verify import verify

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from made_scores import made_analysis, made_forecast_store

INITS = [30, 34, 38, 42, 46]


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    made_forecast_store(folder / "forecast.zarr", made_analysis(folder / "analysis.zarr"), INITS, 8, 0.2)
    return folder


def changed(stores, path, change, kind="forecast") -> Path:
    """A copy of a store with something changed."""
    dataset = change(xr.open_zarr(stores / f"{kind}.zarr", decode_timedelta=True).load())
    for array in dataset.variables.values():
        array.encoding = {}
    dataset.to_zarr(path, zarr_format=3)
    return path


def config(stores, output, **options) -> VerifyConfig:
    settings = {
        "forecasts": {"emulator": stores / "forecast.zarr"},
        "truth": stores / "analysis.zarr",
        "output": output,
        "variables": ["temperature", "surface_pressure"],
        "regions": ["global"],
        "climatology": {"end": "2001-01-07"},
    }
    return VerifyConfig(**(settings | options))


def shifted(days):
    return lambda d: d.assign_coords(time=d["time"].values + np.timedelta64(days, "D"))


def other_calendar(dataset):
    times = xr.date_range("2001-01-08", periods=dataset.sizes["time"], freq="D", calendar="noleap", use_cftime=True)
    return dataset.assign_coords(time=times)


def in_celsius(dataset):
    dataset["temperature"] = (dataset["temperature"] - 273.15).assign_attrs(units="degC")
    return dataset


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shifted(400), "Expected a truth that covers the forecasts' initial and valid times"),
        (other_calendar, "Expected one calendar for all stores, got standard in the truth and noleap in emulator"),
        (in_celsius, "Expected temperature in one unit, got 'K' in truth and 'degC' in emulator"),
        (lambda d: d.isel(latitude=slice(0, 6)), "Expected one grid for all stores"),
        (lambda d: d.drop_vars("temperature"), "Expected 'temperature' in the truth and in every forecast"),
    ],
)
def test_what_cannot_be_compared_is_refused(stores, tmp_path, change, message):
    path = changed(stores, tmp_path / "f.zarr", change)
    with pytest.raises(ValueError, match=message):
        verify(config(stores, tmp_path / "scores.nc", forecasts={"emulator": path}))
    assert not (tmp_path / "scores.nc").exists()


def test_forecasts_without_a_common_time_or_lead_are_refused(stores, tmp_path):
    late = changed(
        stores, tmp_path / "late.zarr", lambda d: d.assign_coords(time=d["time"].values + np.timedelta64(6, "h"))
    )
    both = {"a": stores / "forecast.zarr", "b": late}
    with pytest.raises(ValueError, match="common initial times, got .* in a; .* in b"):
        verify(config(stores, tmp_path / "s.nc", forecasts=both))
    odd = changed(
        stores,
        tmp_path / "odd.zarr",
        lambda d: d.assign_coords(prediction_timedelta=d["prediction_timedelta"].values + np.timedelta64(1, "h")),
    )
    with pytest.raises(ValueError, match="common leads"):
        verify(config(stores, tmp_path / "s.nc", forecasts={"a": stores / "forecast.zarr", "b": odd}))


def test_missing_leads_are_dropped_and_counted(stores, tmp_path):
    short = changed(stores, tmp_path / "short.zarr", lambda d: d.isel(prediction_timedelta=slice(0, 5)))
    verify(config(stores, tmp_path / "s.nc", forecasts={"long": stores / "forecast.zarr", "short": short}))
    scores = open_scores(tmp_path / "s.nc")
    assert scores.sizes["lead_time"] == 5
    assert "4 leads of long were left out: not in every forecast, or without truth." in caveats(View(scores))


def test_a_truth_that_ends_before_the_last_leads_leaves_a_counted_gap(stores, tmp_path):
    short = changed(stores, tmp_path / "a.zarr", lambda d: d.isel(time=slice(0, 50)), "analysis")
    verify(config(stores, tmp_path / "s.nc", truth=short))
    scores = open_scores(tmp_path / "s.nc")
    count = scores["count"].sel(channel="surface_pressure", region="global").values
    np.testing.assert_array_equal(count, [5, 5, 5, 5, 4, 4, 4, 4, 3])  # the last initial time has 3 leads, the next 7
    assert any(text.startswith("The truth lacks 6 valid times") for text in caveats(View(scores)))


def page_of(scores: Path, output: Path) -> tuple[str, str]:
    """Verdict and page of a report that is made without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        report(ReportConfig(scores=scores, output=output))
    return json.loads((output / "scores.json").read_text())["verdict"], (output / "report.html").read_text()


@pytest.fixture(scope="module")
def three_days(tmp_path_factory) -> Path:
    """Forecasts to day 3 from initial times of which a truth of 40 times reaches none whole."""
    folder = tmp_path_factory.mktemp("three_days")
    truth = made_analysis(folder / "analysis.zarr")
    made_forecast_store(folder / "forecast.zarr", truth, [28, 30, 32, 33, 34], 12, 0.2)
    return folder


def test_a_truth_that_ends_early_is_no_failure_of_the_forecast(three_days, tmp_path, caplog):
    short = changed(three_days, tmp_path / "a.zarr", lambda d: d.isel(time=slice(0, 38)), "analysis")
    verify(config(three_days, tmp_path / "s.nc", truth=short))
    assert "no initial time has a truth at the leads 60 h, 66 h, 72 h: they are not scored" in caplog.text
    scores = open_scores(tmp_path / "s.nc")
    view = View(scores)
    verdict, page = page_of(tmp_path / "s.nc", tmp_path / "r")
    assert "failed" not in verdict
    assert verdict.startswith(
        "The truth does not reach 3 days ahead of any initial time. Over 4 of 5 forecasts, errors of emulator 1 day ahead are"
    )
    assert "no truth" in page and "No initial time has a truth at day 2.5, 2.75, 3 of the forecast" in page
    for channel in view.headline:
        assert view.missing("emulator", channel)[-3:] == ["no truth"] * 3 and not any(
            view.missing("emulator", channel)[:-3]
        )
        day, _ = view.useful_until("emulator", channel)
        assert day <= 2.25
    whole = View(scores.isel(lead_time=slice(0, 10)))  # without the leads that have no truth nothing else is said
    for channel in view.headline:
        assert view.useful_until("emulator", channel) == whole.useful_until("emulator", channel)
        first = view.judged_lead((1,))
        assert view.days_gained("emulator", "persistence", channel, first) == whole.days_gained(
            "emulator", "persistence", channel, first
        )


def test_a_forecast_that_is_not_finite_is_said_to_be_everywhere(three_days, tmp_path, caplog):
    def broken(dataset):
        dataset["surface_pressure"][2, 3:, 2, 3] = np.nan
        return dataset

    path = changed(three_days, tmp_path / "f.zarr", broken)
    verify(config(three_days, tmp_path / "ok.nc"))
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    verify(config(three_days, tmp_path / "nan.nc", forecasts={"emulator": path}))
    told = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert told == [
        "emulator is not finite at 10 places where there is a truth: scores of surface_pressure are missing"
    ]
    verdict, page = page_of(tmp_path / "nan.nc", tmp_path / "r")
    assert "headline fields" in verdict and "not finite in 1" in verdict
    assert not re.search(r'<td class="value">[^0-9]*–?<span class="interval">[0-9.]+–', page)  # an interval of nothing
    assert '<td class="value"><span class="interval">not finite</span></td>' in page
    compare([f"ok={tmp_path / 'ok.nc'}", f"nan={tmp_path / 'nan.nc'}"], tmp_path / "c")
    page = (tmp_path / "c" / "report.html").read_text()
    fields = len(View(open_scores(tmp_path / "ok.nc")).headline)
    assert f"of {2 * (fields - 1)} headline scores" in page  # days 1 and 3
    assert "Not compared: 2 (not finite in nan)." in page
    assert "nan is not finite at some leads in Surface pressure" in page


def test_holes_in_truth_and_forecast_are_told_apart_and_counted(stores, tmp_path):
    def holes(dataset):
        dataset["temperature"][46, 0, 2, 3] = np.nan  # verified at one lead of three initial times, and initial for one
        return dataset

    def broken(dataset):
        dataset["surface_pressure"][1, 4, 2, 2] = np.inf
        return dataset

    truth = changed(stores, tmp_path / "a.zarr", holes, "analysis")
    forecast = changed(stores, tmp_path / "f.zarr", broken)
    verify(config(stores, tmp_path / "s.nc", truth=truth, forecasts={"emulator": forecast}))
    scores = open_scores(tmp_path / "s.nc")
    assert int(scores["gap_count"].sel(gap_source="emulator")) == 1
    assert int(scores["gap_count"].sel(gap_source="truth")) == 3
    at = scores["rmse"].sel(forecast="emulator", region="global")
    assert np.isnan(at.sel(channel="surface_pressure")).values.tolist() == [i == 4 for i in range(9)]
    assert np.isfinite(at.drop_sel(channel="surface_pressure")).all()
    found = caveats(View(scores))
    assert "3 values of the truth are missing; those cells have no weight." in found
    assert "1 values of emulator are not finite where there is truth: those scores are missing." in found
    report(ReportConfig(scores=tmp_path / "s.nc", output=tmp_path / "r"))
    assert "those scores are missing" in (tmp_path / "r" / "report.html").read_text()


def test_initial_times_that_are_not_there_yet_are_left_out_counted_and_added_later(stores, tmp_path):
    def unfinished(dataset):
        fields = [n for n, array in dataset.data_vars.items() if {"time", "prediction_timedelta"} <= set(array.dims)]
        for name in fields:
            dataset[name][[1, 4]] = np.nan
        dataset.attrs.pop("emulator_schema", None)
        return dataset.drop_vars([n for n in fields if n not in ("temperature", "surface_pressure")])

    path, output = changed(stores, tmp_path / "f.zarr", unfinished), tmp_path / "s.nc"
    verify(config(stores, output, forecasts={"emulator": path}))
    scores, whole = open_scores(output), xr.open_zarr(stores / "forecast.zarr")["time"].values
    np.testing.assert_array_equal(scores["init_time"], whole[[0, 2, 3]])
    assert np.isfinite(scores["rmse"]).all()
    assert "2 initial times of emulator hold no value at all: taken as not there, and left out." in caveats(
        View(scores)
    )
    verify(config(stores, output, forecasts={"emulator": stores / "forecast.zarr"}, regions=["global"]), append=True)
    verify(config(stores, tmp_path / "whole.nc"))
    added, once = open_scores(output), open_scores(tmp_path / "whole.nc")
    np.testing.assert_allclose(added["rmse"], once["rmse"], rtol=1e-12)
    nothing = changed(stores, tmp_path / "n.zarr", lambda d: unfinished(d).isel(time=[1, 4]))
    with pytest.raises(ValueError, match="Expected values in the forecasts, got none at any initial time of emulator"):
        verify(config(stores, tmp_path / "n.nc", forecasts={"emulator": nothing}))


def test_a_member_dimension_of_one_is_a_single_forecast(stores, tmp_path):
    def with_number(dataset):
        fields = ("temperature", "surface_pressure")
        return dataset.assign(
            {n: dataset[n].expand_dims(number=[0], axis=2).assign_attrs(dataset[n].attrs) for n in fields}
        )

    one = changed(stores, tmp_path / "one.zarr", with_number)
    verify(config(stores, tmp_path / "one.nc", forecasts={"emulator": one}))
    verify(config(stores, tmp_path / "plain.nc"))
    found, plain = open_scores(tmp_path / "one.nc"), open_scores(tmp_path / "plain.nc")
    np.testing.assert_allclose(found["rmse"], plain["rmse"], rtol=1e-12)
    assert "spread" not in found and "rank_histogram" not in found
    report(ReportConfig(scores=tmp_path / "one.nc", output=tmp_path / "r"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"forecasts": {"persistence": "f.zarr"}}, "names of forecasts other than persistence, climatology, truth"),
        ({"forecasts": {" ": "f.zarr"}}, "names of forecasts other than"),
        (
            {"forecasts": {"a": "f.zarr"}, "audit": {"a": "g.zarr"}},
            "names in audit that forecasts does not have, got 'a'",
        ),
        ({"events": [0.05, 0.05]}, "each of events once, got 0.05"),
        ({"events": [0.0]}, "events at quantiles between 0 and 1, got 0"),
        ({"regions": ["global", "global"]}, "each of regions once, got 'global'"),
    ],
)
def test_configurations_that_contradict_themselves(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        VerifyConfig(**({"truth": "t.zarr", "output": tmp_path / "s.nc"} | options))


def test_names_are_text_and_nothing_else(stores, tmp_path):
    name = "my $a_b$ <script>alert(1)</script> & \\frac{"
    verify(config(stores, tmp_path / "s.nc", forecasts={name: stores / "forecast.zarr"}))
    report(ReportConfig(scores=tmp_path / "s.nc", output=tmp_path / "r", title="<b>$title$</b>"))
    text = (tmp_path / "r" / "report.html").read_text()
    assert "mathdefault" not in text and "10⁻" in text  # nor do the axes need what dollars mean to matplotlib
    assert "<script>" not in text and "<b>$" not in text and "my $a_b$ &lt;script&gt;" in text


def blank(dataset):
    for name in ("temperature", "surface_pressure"):
        dataset[name] = dataset[name] * np.nan
    return dataset


def huge(dataset):
    dataset["temperature"] = (dataset["temperature"] * 1e30).assign_attrs(units="K")
    return dataset


def constant(dataset):
    for name in ("temperature", "surface_pressure"):
        dataset[name] = (dataset[name] * 0 + 250).assign_attrs(dataset[name].attrs)
    return dataset


@pytest.mark.parametrize(
    "change", [blank, pytest.param(huge, marks=pytest.mark.slow), constant], ids=lambda f: f.__name__
)
def test_a_forecast_that_has_failed_still_gets_its_page(stores, tmp_path, change):
    path = changed(stores, tmp_path / "f.zarr", change)
    verify(config(stores, tmp_path / "s.nc", forecasts={"emulator": path}))
    report(ReportConfig(scores=tmp_path / "s.nc", output=tmp_path / "r"))
    text = (tmp_path / "r" / "report.html").read_text()
    if change is blank:
        assert "the forecast has failed" in text and "not finite where there is truth" in text
    scores = open_scores(tmp_path / "s.nc").sel(forecast="emulator", region="global", channel="surface_pressure")
    assert np.isnan(scores["rmse"]).all() == (change is blank)


def test_a_truth_that_never_changes_has_no_skill_to_show(stores, tmp_path):
    truth = changed(stores, tmp_path / "a.zarr", constant, "analysis")
    verify(config(stores, tmp_path / "s.nc", truth=truth))
    scores = open_scores(tmp_path / "s.nc")
    assert np.isnan(scores["acc"]).all() and np.isfinite(scores["rmse"]).all()
    report(ReportConfig(scores=tmp_path / "s.nc", output=tmp_path / "r"))


@pytest.mark.parametrize("leads", [slice(0, 1), slice(3, 4)], ids=["the analysis alone", "one lead"])
def test_one_initial_time_and_one_lead(stores, tmp_path, leads):
    path = changed(stores, tmp_path / "f.zarr", lambda d: d.isel(time=slice(0, 1), prediction_timedelta=leads))
    verify(config(stores, tmp_path / "s.nc", forecasts={"emulator": path}))
    report(ReportConfig(scores=tmp_path / "s.nc", output=tmp_path / "r"))
    text = (tmp_path / "r" / "report.html").read_text()
    assert "Only 1 initial times: no intervals or significance can be given." in text
