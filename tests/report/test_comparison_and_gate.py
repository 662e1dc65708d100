"""Several models side by side, and the gate: agreement with scoring them together, and every refusal."""

import json

import numpy as np
import pytest
import xarray as xr
from made_scores import long_run, made_analysis, made_forecast_store, verified

from emulator.report.gate import judge, read
from emulator.report.page import write_comparison, write_report
from emulator.report.panels.comparison import comparison
from emulator.report.view import View
from emulator.verify.assemble import open_scores, write_scores
from emulator.verify.merging import combine

CHOSEN = {
    "variables": ("temperature", "surface_pressure"),
    "regions": ("global", "tropics"),
    "climatology": (None, "2001-01-07"),
}
INITS = [28, 30, 32, 34, 36, 38, 40, 42, 44, 46]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Scores of a good and a bad forecast, each verified alone, and of both together; variables alone keep it small."""
    folder = tmp_path_factory.mktemp("runs")
    truth = made_analysis(folder / "analysis.zarr")
    for name, error in (("good", 0.2), ("bad-model", 0.35)):
        made_forecast_store(folder / f"{name}.zarr", truth, INITS, 12, error)

    def scored(path, forecasts, **options):
        stores = {name: folder / f"{store}.zarr" for name, store in forecasts.items()}
        verified(path, folder / "analysis.zarr", stores, **(CHOSEN | options))

    scored(folder / "a" / "scores.nc", {"emulator": "good"})
    scored(folder / "b" / "scores.nc", {"emulator": "bad-model"})
    scored(folder / "both.nc", {"a": "good", "b": "bad-model"})
    scored(folder / "fewer" / "scores.nc", {"emulator": "good"}, period=(None, "2001-01-10"))
    scored(folder / "other" / "scores.nc", {"emulator": "good"}, climatology=(None, "2001-01-06"))
    for name in "ab":
        write_report(folder / name / "scores.nc", folder / name, "A model")
    return folder


def test_models_verified_apart_score_as_if_verified_together(runs):
    found = combine({name: open_scores(runs / name / "scores.nc") for name in "ab"})
    together = open_scores(runs / "both.nc")
    assert list(found["forecast"].values) == list(together["forecast"].values)
    assert list(found["baseline"].values) == ["persistence", "climatology", "a"]
    for name in ("rmse", "rmse_high", "acc", "difference", "difference_half_width", "p_value", "significant", "sedi"):
        order = together[name].dims
        np.testing.assert_allclose(found[name].transpose(*order), together[name], rtol=1e-12, atol=1e-12, err_msg=name)
    for name in ("power_ratio", "budget_residual", "mean_error_map"):
        np.testing.assert_allclose(
            found[name].transpose(*together[name].dims), together[name], rtol=1e-6, atol=1e-9, err_msg=name
        )


def test_the_difference_is_that_of_paired_errors(runs):
    found = open_scores(runs / "both.nc").sel(region="global", channel="surface_pressure").isel(lead_time=6)
    worse = found["difference"].sel(baseline="a", forecast="b")
    expected = 100 * (found["rmse"].sel(forecast="b") / found["rmse"].sel(forecast="a") - 1)
    np.testing.assert_allclose(worse, expected, rtol=1e-12)
    assert worse > 0 and found["significant"].sel(baseline="a", forecast="b")
    assert worse - found["difference_half_width"].sel(baseline="a", forecast="b") > 0


def test_of_a_single_lead_no_days_are_gained(runs):
    scores = open_scores(runs / "both.nc")
    for leads, told in ((slice(5, 7), True), (slice(6, 7), False)):
        parts = comparison(View(scores.isel(lead_time=leads)))
        assert ("Days gained" in "".join(map(str, parts))) is told


def test_page_of_two_models(runs, tmp_path):
    write_comparison([str(runs / "a"), f"bad={runs / 'b' / 'scores.nc'}"], tmp_path / "c")
    assert {"report.html", "scores.csv", "scores.json", "scores.nc"} <= {p.name for p in (tmp_path / "c").iterdir()}
    text = (tmp_path / "c" / "report.html").read_text()
    assert "Errors of bad are" in text and "significantly smaller in 0 of" in text
    assert "RMSE of bad against a, difference in %" in text
    assert "<caption>RMSE of bad against a</caption>" in text and "Days gained at day 3" in text
    content = json.loads((tmp_path / "c" / "scores.json").read_text())
    assert {entry["forecast"] for entry in content["series"]} == {"a", "bad"}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("fewer", "scored on the same init times, got 10 and .* verify them together"),
        ("other", "scored with the same climatology, got"),
    ],
)
def test_scores_that_are_not_comparable_are_refused(runs, tmp_path, other, message):
    with pytest.raises(ValueError, match=message):
        write_comparison([str(runs / "a"), str(runs / other)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def with_climate(folder, name, long, scored_as):
    """Scores of a model whose long run is `long`, verified alone."""
    stores = {"emulator": folder / f"{scored_as}.zarr"}
    return verified(
        folder / name / "scores.nc", folder / "analysis.zarr", stores, long_runs={"emulator": long}, **CHOSEN
    )


@pytest.mark.slow
def test_climates_of_models_verified_apart_are_set_side_by_side(runs, tmp_path):
    truth = xr.open_zarr(runs / "analysis.zarr").load()
    for array in truth.variables.values():
        array.encoding = {}
    long_run(truth, tmp_path / "cold.zarr", -0.5)
    long_run(truth, tmp_path / "warm.zarr", 1.5)
    short = truth.isel(time=slice(0, 20))
    long_run(short, tmp_path / "short.zarr", 0.1)
    paths = {
        name: with_climate(runs, f"climate-{name}", tmp_path / f"{name}.zarr", store)
        for name, store in (("cold", "good"), ("warm", "bad-model"), ("short", "bad-model"))
    }
    found = combine({name: open_scores(paths[name]) for name in ("cold", "warm")})
    assert found["climate_run"].values.tolist() == ["cold", "warm"]
    at = found.sel(climate_channel="temperature 500 hPa (sigma 0.5)")
    np.testing.assert_allclose(at["climate_bias_mean"], [-0.5, 1.5], rtol=1e-4)
    np.testing.assert_allclose(at["climate_difference"], [0.0, 200.0], rtol=1e-3, atol=1e-9)
    write_comparison([f"{n}={paths[n]}" for n in ("cold", "warm")], tmp_path / "page")
    text = (tmp_path / "page" / "report.html").read_text()
    assert "Biases of warm are" in text and "larger than those of cold" in text
    content = json.loads((tmp_path / "page" / "scores.json").read_text())
    biases = {(e["run"], e["channel"]): e["bias_mean"] for e in content["climate"]}
    np.testing.assert_allclose(biases["warm", "temperature 500 hPa (sigma 0.5)"], 1.5, rtol=1e-4)
    write_comparison([f"{n}={paths[n]}" for n in ("cold", "short")], tmp_path / "other")
    text = (tmp_path / "other" / "report.html").read_text()
    assert "The climate of short is not compared with that of cold: 5 times from 2001-01-01 to 2001-01-05" in text
    one = write_comparison([f"warm={paths['warm']}", f"a={runs / 'a'}"], tmp_path / "one")  # a model without a long run
    assert one is None and "Mean bias of the long run." in (tmp_path / "one" / "report.html").read_text()


def test_fields_that_only_one_model_has_are_named(runs, tmp_path):
    scored = open_scores(runs / "b" / "scores.nc")
    fewer = scored.sel(channel=[c for c in scored["channel"].values if c != "surface_pressure"])
    fewer = fewer.sel(map_channel=[c for c in fewer["map_channel"].values if c != "surface_pressure"])
    write_scores(fewer, tmp_path / "fewer.nc")
    write_comparison([str(runs / "a"), str(tmp_path / "fewer.nc")], tmp_path / "page")
    text = (tmp_path / "page" / "report.html").read_text()
    assert "Not compared, because not scored for every model: surface_pressure." in text


def test_one_model_or_one_name_is_no_comparison(runs, tmp_path):
    with pytest.raises(ValueError, match="at least 2"):
        write_comparison([str(runs / "a")], tmp_path)
    with pytest.raises(ValueError, match="different name for each model, got 'a' twice"):
        write_comparison([str(runs / "a"), str(runs / "a")], tmp_path)


def failed(now, before, **options):
    """Whether the gate stops, as its command does."""
    return any(finding.verdict in ("worse", "missing") for finding in judge(now, before, **options))


def test_gate_lets_pass_what_is_as_good_and_stops_what_is_worse(runs):
    a, b = (read(runs / name / "scores.json") for name in "ab")
    assert not failed(a, a) and failed(b, a)
    assert not failed(a, b)  # better everywhere
    assert not failed(b, a, tolerance=1000)
    found = judge(b, a)
    # of so few initial times: what they may depend on one another by takes 0.002 from below 0.001
    assert found[0].verdict == "worse" and found[0].change > 50 and found[0].p_value < 5e-3
    assert found[0].what.startswith("RMSE of")


def test_gate_stops_a_leak_and_a_failed_forecast(runs):
    a = read(runs / "a" / "scores.json")
    leaking = json.loads(json.dumps(a))
    leaking["budgets"][0]["relative_residual_per_step_rms"] = 1e-3
    a["budgets"][0]["relative_residual_per_step_rms"] = 1e-9
    assert [f.what for f in judge(leaking, a) if f.verdict == "worse"] == ["residual of dry air per step"]
    broken = json.loads(json.dumps(a))
    broken["series"][0]["squared_error"][2] = None
    assert judge(broken, a)[0].verdict == "missing"


def test_gate_finds_forecasts_by_name_where_there_are_several(runs, tmp_path):
    write_report(runs / "both.nc", tmp_path, "Both")
    both, one = read(tmp_path / "scores.json"), read(runs / "a" / "scores.json")
    renamed = json.loads(json.dumps(both).replace('"forecast": "b"', '"forecast": "c"'))
    with pytest.raises(
        ValueError, match="forecasts a, c among the scores, got a, b, without c; forecasts are found by"
    ):
        judge(both, renamed)
    assert {f.verdict for f in judge(both, both)} == {"same"}
    other = json.loads(json.dumps(one).replace('"forecast": "emulator"', '"forecast": "later"'))
    assert {f.verdict for f in judge(other, one)} == {"same"}  # lone forecasts are each other's successors


def test_gate_refuses_other_samples(runs, tmp_path):
    write_report(runs / "fewer" / "scores.nc", tmp_path, "Fewer")
    with pytest.raises(ValueError, match="the same init times as the baseline's"):
        judge(read(tmp_path / "scores.json"), read(runs / "a" / "scores.json"))
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(ValueError, match="scores.json of a report"):
        read(tmp_path / "no.json")
    with pytest.raises(ValueError, match="No such file"):
        read(tmp_path / "none.json")
