"""Statistics of feedback: the true errors where theory says so, sums that add up, every rejected row counted."""

import numpy as np
import pytest
import xarray as xr

from emulator.assimilation.feedback import write_feedback
from emulator.assimilation.observations import Observations
from emulator.verify.feedback import feedback_scores, reduction

pytest.importorskip("pyarrow")
TIME = np.datetime64("2001-01-01T06", "ns")


def observed(value, error, system="temp", variable="temperature", level=0.5, time=TIME):
    count = len(value)
    columns = {"operator": "point", "variable": variable, "time": time, "latitude": 0.0, "longitude": 0.0}
    columns |= {"error": error, "level": level, "system": system}
    return Observations(value=value, **{name: np.full(count, each) for name, each in columns.items()})


def linear_case(rng, count, sigma_o, sigma_b, used_o, used_b, members=0):
    """Scalar analyses: the background's error, the observation's error, and the gain of the errors that were assumed."""
    background = rng.normal(size=count)
    truth = background + sigma_b * rng.normal(size=count)
    value = truth + sigma_o * rng.normal(size=count)
    gain = used_b**2 / (used_b**2 + used_o**2)
    ensemble = background + sigma_b * rng.normal(size=(members, count)) if members else None
    return value, background, background + gain * (value - background), ensemble


def write(folder, name, value, background, analysis, error, members=None, rejected=None, **more):
    none = np.full(len(value), "")
    table = observed(value, error, **more)
    return write_feedback(
        folder / name, table.time[0], table, none if rejected is None else rejected, background, analysis, members
    )


def test_estimates_are_the_true_errors_where_the_assumed_ones_are(tmp_path):
    rng, count = np.random.default_rng(0), 40000
    value, background, analysis, members = linear_case(rng, count, 1.5, 0.8, 1.5, 0.8, members=9)
    write(tmp_path, "a.parquet", value, background, analysis, 1.5, members)
    scores = feedback_scores(tmp_path)
    one = {name.removeprefix("feedback_"): scores[name].values for name in scores}
    np.testing.assert_allclose([one["sigma_o"][0], one["sigma_b"][0]], [1.5, 0.8], rtol=0.03)
    np.testing.assert_allclose([one["sigma_o_used"][0], one["sigma_b_used"][0]], [1.5, 0.8], rtol=0.01)
    np.testing.assert_allclose(one["background_std"][0], np.hypot(1.5, 0.8), rtol=0.02)
    np.testing.assert_allclose(one["analysis_std"][0], 1.5**2 / np.hypot(1.5, 0.8), rtol=0.02)
    np.testing.assert_allclose(one["background_mean"][0], 0, atol=0.03)
    # members and observation are alike once members have errors too: all ranks are as frequent
    np.testing.assert_allclose(one["rank_count"][0], count / 10, atol=4 * (count / 10) ** 0.5)


def test_wrong_assumptions_are_seen(tmp_path):
    """One step of Desroziers' iteration: with gain K from wrong errors the estimate is (1 - K) times the true variance."""
    rng = np.random.default_rng(1)
    value, background, analysis, _ = linear_case(rng, 40000, 2.0, 1.0, 1.0, 1.0)
    write(tmp_path, "a.parquet", value, background, analysis, 1.0)
    scores = feedback_scores(tmp_path)
    total = 2.0**2 + 1.0**2
    np.testing.assert_allclose(scores["feedback_sigma_o"], (0.5 * total) ** 0.5, rtol=0.03)
    np.testing.assert_allclose(scores["feedback_sigma_b"], (0.5 * total) ** 0.5, rtol=0.03)
    assert float(scores["feedback_sigma_o"][0]) > 1.3 * float(scores["feedback_sigma_o_used"][0])
    assert np.isnan(scores["feedback_sigma_b_used"]).all() and "feedback_rank_count" not in scores


def test_analyses_add_up_and_are_told_by_kind_and_time(tmp_path):
    rng = np.random.default_rng(2)
    whole, apart = tmp_path / "whole", tmp_path / "apart"
    parts = []
    for n, (system, level) in enumerate((("temp", 0.5), ("temp", np.nan), ("synop", 0.5), ("temp", 0.5))):
        value, background, analysis, _ = linear_case(rng, 50, 1.0, 1.0, 1.0, 1.0)
        later = TIME + np.timedelta64(6 * n, "h")
        write(apart, f"{n}.parquet", value + 3, background, analysis, 1.0, system=system, level=level, time=later)
        parts.append((value + 3, background, analysis, observed(value + 3, 1.0, system, level=level)))
    columns = [np.concatenate([part[i] for part in parts]) for i in range(3)]
    table = Observations.concat([part[3] for part in parts])
    write_feedback(whole / "0.parquet", TIME, table, np.full(200, ""), columns[1], columns[2])
    once, added = feedback_scores(whole), feedback_scores(apart)
    for name in ("count", "background_mean", "background_std", "analysis_mean", "analysis_std", "sigma_o", "sigma_b"):
        np.testing.assert_allclose(added[f"feedback_{name}"], once[f"feedback_{name}"], rtol=1e-10, err_msg=name)
    kinds = zip(*(added[f"feedback_{n}"].values.tolist() for n in ("system", "variable", "level")), strict=True)
    assert [(s, v, None if np.isnan(l) else l) for s, v, l in kinds] == [
        ("synop", "temperature", 0.5), ("temp", "temperature", None), ("temp", "temperature", 0.5)
    ]  # fmt: skip
    assert added["feedback_count"].values.tolist() == [50, 50, 100]
    assert added["feedback_count_by_time"].values.tolist() == [[0, 0, 50], [0, 50, 0], [50, 0, 0], [0, 0, 50]]
    direct = parts[2][0] - parts[2][1]
    np.testing.assert_allclose(added["feedback_background_mean"][0], direct.mean(), rtol=1e-12)
    np.testing.assert_allclose(added["feedback_background_std"][0], direct.std(ddof=1), rtol=1e-12)
    np.testing.assert_allclose(added["feedback_background_mean_by_time"][2, 0], direct.mean(), rtol=1e-12)


def test_rejected_rows_do_not_count_and_are_counted(tmp_path):
    value, background = np.array([1.0, 2.0, 300.0, 4.0, 5.0]), np.array([0.0, 0.0, 0.0, np.nan, 0.0])
    rejected = np.array(["", "", "gross error", "", "duplicate"])
    write(tmp_path, "a.parquet", value, background, background, 1.0, rejected=rejected)
    scores = feedback_scores(tmp_path / "a.parquet")
    assert scores["feedback_count"].values.tolist() == [2] and float(scores["feedback_background_mean"][0]) == 1.5
    count = dict(
        zip(scores["feedback_reason"].values.tolist(), scores["feedback_rejected"].values[0].tolist(), strict=True)
    )
    assert count == {"duplicate": 1, "gross error": 1, "no equivalent": 1}


def test_an_analysis_without_observations_adds_nothing(tmp_path):
    none = np.zeros(0)
    write_feedback(tmp_path / "0.parquet", TIME, observed(none, 1.0), np.zeros(0, str), none, none)
    with pytest.raises(ValueError, match="Expected feedback with observations at .*, got none in any file"):
        feedback_scores(tmp_path)
    write(tmp_path, "1.parquet", np.ones(3), np.zeros(3), np.ones(3), 1.0, time=TIME + np.timedelta64(6, "h"))
    scores = feedback_scores(tmp_path)
    assert scores["feedback_time"].values.tolist() == [
        (TIME + np.timedelta64(6, "h")).astype("datetime64[ns]").astype(int)
    ]
    assert scores["feedback_count"].values.tolist() == [3]


def test_reduction_by_an_observing_system_is_one_less_the_ratio_of_errors():
    rmse = xr.DataArray(
        np.array([[[1.0, 2.0]], [[2.0, 2.0]], [[1.0, 1.0]]])[..., None],
        dims=("forecast", "channel", "lead_time", "region"),
        coords={"forecast": ["all", "denied temp", "denied synop"]},
    )
    found = reduction(xr.Dataset({"rmse": rmse}), "all", ["denied temp", "denied synop"])
    np.testing.assert_allclose(found.values[:, 0], [[0.5, 0.0], [0.0, -1.0]])
    with pytest.raises(ValueError, match="forecasts among all, denied temp, denied synop, got denied ships"):
        reduction(xr.Dataset({"rmse": rmse}), "all", ["denied ships"])


def test_what_is_no_feedback_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="Expected feedback of analyses at .*, got none"):
        feedback_scores(tmp_path)
    observed(np.ones(3), 1.0).write(tmp_path / "observations.parquet")
    with pytest.raises(ValueError, match="emulator_schema 'feedback-1' at .*, got 'observations-1'"):
        feedback_scores(tmp_path)
    ones = np.ones(3)
    with pytest.raises(ValueError, match=r"Expected analysis of 3 observations, got shape \(2,\)"):
        write_feedback(tmp_path / "a", TIME, observed(ones, 1.0), np.full(3, ""), ones, ones[:2])
    with pytest.raises(ValueError, match=r"at least 2 members as \(member, 3\), got \(1, 3\)"):
        write_feedback(tmp_path / "a", TIME, observed(ones, 1.0), np.full(3, ""), ones, ones, ones[None])
