"""The public library beside the command line: the same functions, the same bits, from a notebook."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.figure import Figure

import emulator as em
from emulator.model import checkpoint
from emulator.model.conserving import ConservationOptions
from emulator.model.step import Step
from emulator.model.stepper import Cascade
from pipelines.cli import main
from pipelines.load import load_stage


def in_a_fresh_process(code):
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200)


def test_importing_the_library_loads_no_torch_and_no_xarray():
    in_a_fresh_process("import sys, emulator; assert not {'torch', 'xarray', 'dask', 'zarr'} & set(sys.modules)")


def test_every_name_is_what_it_says_whatever_was_imported_before():
    """A folder of the same name would take the place of a function."""
    in_a_fresh_process(
        "import importlib, pkgutil, emulator\n"
        "for module in pkgutil.walk_packages(emulator.__path__, 'emulator.'):\n"
        "    if not module.name.endswith(('speedy', '_kernels', 's.earth2studio')): importlib.import_module(module.name)\n"
        "for name in emulator.__all__: assert callable(getattr(emulator, name)) and getattr(emulator, name).__doc__, name"
    )


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(AttributeError, match="no attribute 'forecasts'; it has .*forecast, "):
        em.forecasts  # noqa: B018


@pytest.fixture(scope="module")
def parts(finished):
    run = finished.parent / "run"
    return em.open_analysis(run / "analysis.zarr"), em.load_model(run / "train" / "checkpoint", "cpu")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ensemble": {"members": 3, "kind": "bred", "cycles": 2, "cycle_hours": 6}},
        {"ensemble": 2, "thin": {"mean": "every", "every_hours": 12, "variables": ["temperature"]}},
    ],
    ids=["single", "bred", "means"],
)
def test_forecasts_in_memory_are_those_that_are_written_bit_for_bit(parts, tmp_path, options):
    truth, model = parts
    init = [str(time) for time in truth["time"].values[[20, 23]]]
    held = em.forecast(model, truth, init, 1, **options)
    written = em.forecast(model, truth, init, 1, output=tmp_path / "forecast.zarr", **options)
    assert set(held.data_vars) == set(written.data_vars) and dict(held.sizes) == dict(written.sizes)
    for name in written.data_vars:
        np.testing.assert_array_equal(held[name].transpose(*written[name].dims), written[name], err_msg=name)
    assert held.attrs["checkpoint"] == written.attrs["checkpoint"]


def test_they_are_those_of_the_stage(finished, parts):
    stage = em.open_forecast(finished.parent / "run" / "forecast.zarr")
    truth, model = parts
    times = stage["init_time"].values[:2]
    days = float(stage["lead_time"][-1] / np.timedelta64(1, "D"))
    batch_size = load_stage("rollout", finished).batch_size
    ours = em.forecast(model, truth, times, days, batch_size=batch_size)
    for name in ("temperature", "surface_pressure"):
        np.testing.assert_allclose(ours[name], stage[name].isel(init_time=slice(0, 2)), rtol=2e-6)


def test_a_date_is_its_first_time_and_another_is_refused(parts):
    truth, model = parts
    first = truth["time"].values[0]
    forecast = em.forecast(model, truth, str(first)[:10], 0.25)
    assert forecast["init_time"].values == first
    with pytest.raises(ValueError, match="Expected initial times of the analysis, 2001.* got 1999-01-01"):
        em.forecast(model, truth, "1999-01-01", 0.25)


def test_the_page_of_the_readme(parts):
    """Forecasts are scored, their budgets are closed to rounding, and figures are figures."""
    truth, model = parts
    forecast = em.forecast(model, truth, init=truth["time"].values[[20, 24]], days=1)
    scores = em.score(forecast, truth)
    rmse = scores["rmse"].sel(forecast="forecast", region="global")
    assert (rmse.isel(lead_time=0) == 0).all() and (rmse.isel(lead_time=-1) > 0).all()
    budgets = em.budgets(forecast)
    assert {"dry_air", "water", "energy"} <= set(budgets["budget"].values)
    assert float(abs(budgets["budget_relative"]).max()) < 1e-7
    residual = em.budgets(truth.isel(time=slice(0, 5)))["budget_residual"]
    assert residual.sizes["init_time"] == 1 and bool((abs(residual).isel(lead_time=slice(1, None)) > 0).any())
    assert isinstance(em.plot(forecast, "temperature", lead="1D"), Figure)
    assert isinstance(em.plot(scores, "temperature", kind="curves"), Figure)
    assert isinstance(em.plot(budgets, kind="budgets"), Figure)


def test_a_store_of_another_model_is_not_taken_for_ones_own(parts, tmp_path):
    """Corrections left out, weights changed after loading, a cascade: each writes forecasts of its own."""
    truth, model = parts
    init, path = truth["time"].values[20], tmp_path / "forecast.zarr"
    changed = copy.deepcopy(model)
    with torch.no_grad():
        next(changed.network.parameters()).add_(0.1)
    models = [model, Step.without_scheme(model), changed, Cascade([(0, model), (2, Step.without_scheme(model))])]
    marks = [em.forecast(one, truth, init, 1, output=path).attrs for one in models]
    assert len({attributes["fingerprint"] for attributes in marks[:3]}) == 3
    assert [attributes["conservation"] for attributes in marks] == ["sequential", "none", "sequential", "sequential"]
    assert em.forecast(model, truth, init, 1, output=path).attrs["fingerprint"] == marks[0]["fingerprint"]


@pytest.mark.parametrize(
    "options, words",
    [
        ({"ensemble": {"members": 2, "kind": "none"}}, "a network with noise"),
        ({"days": 0.01}, "6 h.*0.01 days"),
        ({"ensemble": {"member": 2}}, "Expected options among members.*got member"),
        ({"ensemble": {"kind": "bred"}}, "got no members"),
        ({"thin": {"variables": "temperature"}}, "Expected a sequence as variables, got 'temperature'"),
    ],
)
def test_forecasts_that_cannot_be_are_refused_in_a_sentence(parts, options, words):
    truth, model = parts
    with pytest.raises(ValueError, match=words):
        em.forecast(model, truth, truth["time"].values[20], **({"days": 1} | options))
    with pytest.raises(ValueError, match="at least 2 members for 2 checkpoints"):
        em.forecast([model, model], truth, truth["time"].values[20], 1)


def test_trainings_that_cannot_be_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="got no phases|Expected a sequence as phases, got 5"):
        em.train("a", "b", "c", phases=5)
    with pytest.raises(ValueError, match="got 'temperature'"):
        em.train("a", "b", "c", prognostic="temperature")
    with pytest.raises(ValueError, match="among .*kind.*, got kindd"):
        ConservationOptions.of({"kindd": 1})


def test_a_rollout_step_by_step_is_the_forecast(parts):
    truth, model = parts
    forcing, start = em.Forcing(truth, model.layout.forcing), truth["time"].values[20]
    fields = {n: torch.from_numpy(truth[n].sel(time=[start]).values) for n in model.layout.prognostic.names}
    inputs = (forcing.inputs([forcing.later(start, step)]) for step in range(4))
    results = list(em.rollout(model, model.layout.prognostic.pack(fields), inputs))
    assert isinstance(model, em.Stepper) and all(isinstance(result, em.StepResult) for result in results)
    last = model.fields(results[-1].state)["temperature"][0]
    np.testing.assert_array_equal(
        last, em.forecast(model, truth, start, 1)["temperature"].isel(init_time=0, lead_time=-1)
    )


def test_a_training_from_python_has_the_weights_of_the_command(finished, tmp_path):
    run, phases = finished.parent / "run", [{"updates": 4, "batch_size": 2}]
    assert main(["train", str(finished), f"output={tmp_path / 'stage'}", "phases=[{updates: 4, batch_size: 2}]"]) == 0
    config = load_stage("train", finished)
    asked = config.model_dump(exclude={"store", "statistics", "output", "tensorboard", "mlflow", "threads", "phases"})
    step = em.train(run / "analysis.zarr", run / "statistics.nc", tmp_path / "ours", phases=phases, **asked)
    tensors, _ = checkpoint.load(tmp_path / "stage" / "checkpoint")
    for name, tensor in step.state_dict().items():
        torch.testing.assert_close(tensor.cpu(), tensors[name], rtol=0, atol=0, msg=name)


def test_statistics_from_python_are_those_of_the_stage(finished, tmp_path):
    run, period = finished.parent / "run", load_stage("stats", finished).period
    em.statistics(run / "analysis.zarr", tmp_path / "statistics.nc", period.start, period.end)
    ours, stage = (xr.open_dataset(path / "statistics.nc").load() for path in (tmp_path, run))
    xr.testing.assert_equal(ours, stage)
