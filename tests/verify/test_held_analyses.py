"""Persistence of analyses beside forecasts, and errors of analyses against the truth."""

import dataclasses

import numpy as np
import pytest
import xarray as xr
from made_forecasts import made_forecast, made_truth

from emulator.verify.analysis_errors import analysis_scores
from emulator.verify.held import Held, held
from emulator.verify.inputs import open_inputs
from emulator.verify.verification import score


@pytest.fixture(scope="module")
def truth() -> xr.Dataset:
    return made_truth(times=24, nlat=6, levels=2)


def rmse(scores: xr.Dataset, name: str) -> np.ndarray:
    return scores["rmse"].sel(forecast=name).values


def test_the_truth_held_is_persistence_and_other_states_are_not(truth):
    forecasts = {"emulator": made_forecast(truth, [4, 8, 12], 3)}
    warmer = truth.assign(temperature=truth["temperature"] + 1.0)
    inputs = open_inputs(truth, forecasts | {"same": Held(truth), "warmer": Held(warmer)})
    assert list(inputs.forecasts) == ["emulator", "same", "warmer"] and list(inputs.audited) == ["emulator"]
    scores = score(forecasts | {"same": Held(truth), "warmer": Held(warmer)}, truth)
    np.testing.assert_allclose(rmse(scores, "same"), rmse(scores, "persistence"), rtol=1e-12)
    warm = scores["rmse"].sel(forecast="warmer", channel=[c for c in scores["channel"].values if "temperature" in c])
    np.testing.assert_allclose(warm.isel(lead_time=0), 1.0, rtol=1e-5)


def test_held_states_are_those_of_initial_times_that_the_analyses_have(truth):
    forecasts = {"emulator": made_forecast(truth, [4, 8, 12], 2)}
    states = held(truth.isel(time=slice(8, None)), "own", forecasts)
    assert states["init_time"].values.tolist() == forecasts["emulator"]["init_time"].values[1:].tolist()
    assert states["temperature"].dims == forecasts["emulator"]["temperature"].dims
    for lead in range(3):
        expected = truth["temperature"].isel(time=[8, 12]).values
        np.testing.assert_array_equal(states["temperature"].isel(lead_time=lead).values, expected)


def test_held_needs_forecasts_and_analyses_of_their_initial_times(truth):
    with pytest.raises(ValueError, match="Expected forecasts beside own"):
        open_inputs(truth, {"own": Held(truth)})
    with pytest.raises(ValueError, match="Expected analyses of own at initial times of emulator"):
        open_inputs(truth, {"emulator": made_forecast(truth, [4], 2), "own": Held(truth.isel(time=slice(5, None)))})


def written(dataset: xr.Dataset, folder, **attributes):
    """The feedback of a cycle whose analyses are the dataset's."""
    own = dataset.assign_attrs(dataset.attrs | {"emulator_schema": "analysis-1", "complete": True} | attributes)
    own.to_zarr(folder / "analysis.zarr", zarr_format=3)
    return folder / "feedback"


def test_errors_of_analyses_are_against_the_truth_of_their_times(truth, tmp_path):
    """Half a day of them lies beyond the truth, and is not judged."""
    inputs = open_inputs(truth.isel(time=slice(0, 22)), {"emulator": made_forecast(truth, [4, 8, 12], 2)})
    ramp = xr.DataArray(np.arange(24.0), dims="time")
    analyses = truth.assign(temperature=(truth["temperature"] + 0.5 * ramp).astype(np.float64)).isel(time=slice(10, 24))
    with_cycle = dataclasses.replace(inputs, feedback=written(analyses, tmp_path, fingerprint="own"))
    names = ["wind_vector", *score({"emulator": made_forecast(truth, [4], 1)}, truth)["channel"].values]
    found = analysis_scores(with_cycle, names)["analysis_rmse"]
    assert found["analysis_time"].values.tolist() == truth["time"].values[10:22].tolist()
    assert found["channel"].values.tolist() == names
    assert bool(found.sel(channel="wind_vector").isnull().all())  # of both components, which analyses have one by one
    found = found.dropna("channel", how="all")
    for channel, errors in zip(found["channel"].values, found.values.T, strict=True):
        expected = 0.5 * np.arange(10, 22) if channel.startswith("temperature") else np.zeros(12)
        np.testing.assert_allclose(errors, expected, rtol=1e-6, atol=1e-12)


def test_times_and_fields_that_are_missing_have_no_error(truth, tmp_path):
    """A missing slot of either store is no analysis time; a field without any value has an error that is not a number."""
    lost = np.arange(24) == 12
    moving = [name for name in truth.data_vars if "time" in truth[name].dims]
    judge = truth.assign({name: truth[name].where(xr.DataArray(~lost, dims="time")) for name in moving})
    judge = judge.assign(missing=("time", lost))
    inputs = open_inputs(judge, {"emulator": made_forecast(truth, [4, 8], 2)})
    absent = np.arange(24) == 15
    analyses = truth.assign({name: truth[name] + 2.0 for name in moving}).assign(missing=("time", absent))
    analyses["surface_pressure"] = analyses["surface_pressure"].where(xr.DataArray(np.arange(24) != 20, dims="time"))
    with_cycle = dataclasses.replace(inputs, feedback=written(analyses, tmp_path, fingerprint="own"))
    names = [
        c for c in score({"emulator": made_forecast(truth, [4], 1)}, truth)["channel"].values if c != "wind_vector"
    ]
    found = analysis_scores(with_cycle, names)["analysis_rmse"].dropna("channel", how="all")
    assert found["analysis_time"].values.tolist() == truth["time"].values[~lost & ~absent].tolist()
    pressure = found.sel(channel="surface_pressure")
    assert pressure["analysis_time"].values[pressure.isnull().values].tolist() == truth["time"].values[[20]].tolist()
    np.testing.assert_allclose(pressure.dropna("analysis_time"), 2.0, rtol=1e-3)
    np.testing.assert_allclose(found.drop_sel(channel="surface_pressure"), 2.0, rtol=1e-3)


def test_analyses_have_no_errors_against_themselves(truth, tmp_path):
    own = truth.assign_attrs(truth.attrs | {"fingerprint": "own"})
    inputs = open_inputs(own, {"emulator": made_forecast(truth, [4], 2)})
    with_cycle = dataclasses.replace(inputs, feedback=written(truth, tmp_path, fingerprint="own"))
    assert not analysis_scores(with_cycle, ["temperature"]).data_vars
    nowhere = dataclasses.replace(inputs, feedback=tmp_path / "none" / "feedback")
    assert not analysis_scores(nowhere, ["temperature"]).data_vars
