"""Scenarios from sources to forecasts by one command: a store for each, trained on by name, forecast where none was seen."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml
from small_planet import small_planet
from tiny_experiment import tiny_experiment

from emulator.data.normalisation import open_statistics
from emulator.store.analysis import open_analysis
from emulator.store.forecast import open_forecast
from emulator.training.identity import data_digests, stores_of
from emulator.training.options import TrainOptions
from emulator.training.options.sections import ForecastOptions
from pipelines.check import check_experiment
from pipelines.cli import main
from pipelines.config import ConfigError, IngestConfig
from pipelines.load import load_experiment
from pipelines.parse import parse
from pipelines.status import status

OFFSETS = {"control": 0.0, "warm4": 4.0, "warm2": 2.0}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An experiment over three planets of other temperatures, of which two are trained on; run to its forecasts."""
    folder = tmp_path_factory.mktemp("scenarios")
    path = tiny_experiment(folder)
    for name, offset in OFFSETS.items():
        planet = small_planet(times=24)
        planet["temperature"] = planet["temperature"] + np.float32(offset)
        planet["temperature"].attrs = small_planet(times=2)["temperature"].attrs
        (folder / "source" / name).mkdir()
        planet.to_netcdf(folder / "source" / name / "all.nc")
    raw = yaml.safe_load(path.read_text())
    raw["ingest"] = {"sources": [{"path": f"{folder}/source/{{scenario}}/*.nc"}], "scenarios": list(OFFSETS)}
    raw["stats"] = {}
    raw["train"] |= {"store": "control", "scenarios": ["warm4"], "period": {}, "phases": [{"updates": 3}]}
    raw["rollout"] = {"store": "warm2", "lead_days": 0.5, "maximum_inits": 2}
    del raw["verify"], raw["report"]
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    assert main(["run", str(path)]) == 0
    return path


def test_every_scenario_is_a_store_and_the_stages_take_those_that_are_named(finished):
    run = finished.parent / "run"
    stores = {name: open_analysis(run / f"{name}.zarr") for name in OFFSETS}
    for name, offset in OFFSETS.items():
        change = stores[name]["temperature"] - stores["control"]["temperature"]
        np.testing.assert_allclose(change, offset, rtol=0, atol=1e-4)
    both = xr.concat([stores[name]["temperature"].isel(level=0) for name in ("control", "warm4")], "time")
    with open_statistics(run / "statistics.nc") as statistics:
        assert statistics.attrs["samples"] == 48
        np.testing.assert_array_equal(statistics["temperature:highest"].isel(level=0), both.max("time"))
    forecast = open_forecast(run / "forecast.zarr")
    start = stores["warm2"]["temperature"].sel(time=forecast["init_time"].values)
    np.testing.assert_allclose(forecast["temperature"].isel(lead_time=0), start, rtol=1e-5)
    assert not (run / "analysis.zarr").exists()
    raw = yaml.safe_load(finished.read_text()) | {"verify": {}}
    (finished.parent / "whole.yaml").write_text(yaml.safe_dump(raw))
    experiment = load_experiment(finished.parent / "whole.yaml")
    assert experiment.stats.scenarios == experiment.train.scenarios == [run / "warm4.zarr"]
    assert experiment.stats.store == experiment.train.store == run / "control.zarr"
    assert experiment.verify.truth == experiment.rollout.store == run / "warm2.zarr"


def test_a_second_run_does_nothing_and_a_lost_store_is_made_again(finished, tmp_path):
    run = finished.parent / "run"
    assert [stage.state for stage in status(run)] == ["complete"] * 4
    marks = {path.name: path.read_text() for path in (run / ".stages").glob("*.json")}
    assert main(["run", str(run / "experiment.yaml")]) == 0
    assert {path.name: path.read_text() for path in (run / ".stages").glob("*.json")} == marks
    (run / "warm2.zarr").rename(tmp_path / "away")
    assert [stage.state for stage in status(run)] == ["open", *["complete"] * 3]
    assert main(["run", str(finished)]) == 0
    again = json.loads((run / ".stages" / "ingest.json").read_text())
    assert again["fingerprint"] == json.loads(marks["ingest.json"])["fingerprint"]
    assert (
        open_analysis(run / "warm2.zarr").attrs["fingerprint"] == open_analysis(tmp_path / "away").attrs["fingerprint"]
    )


def test_a_training_knows_a_scenario_from_a_store_that_goes_on(finished):
    """Of the same stores: windows may cross from one to the next, which are other data."""
    run, places = finished.parent / "run", {"statistics": Path("s.nc"), "output": Path("t")}
    one = {"store": run / "control.zarr", "network": {"kind": "sfno"}, "conservation": {"kind": "none"}} | places
    scenarios = TrainOptions(scenarios=(run / "warm4.zarr",), **one)
    later = TrainOptions(later_stores=(run / "warm4.zarr",), **one)
    assert scenarios.paths == later.paths
    marks = []
    for options in (scenarios, later):
        options = dataclasses.replace(options, statistics=run / "statistics.nc")
        marks.append(data_digests(options, stores_of(options)))
    assert marks[0] != marks[1] and [mark.removeprefix("scenario ") for mark in marks[0]] == marks[1]
    with pytest.raises(ValueError, match="forecasts, or scenarios"):
        dataclasses.replace(scenarios, forecasts=ForecastOptions(Path("f.zarr")))


def test_a_simulations_scenarios_are_ingested_each_by_itself(tmp_path):
    path, scenarios = tmp_path / "e.yaml", {"control": {}, "warm4": {"sst_offset": 4}}
    raw = {"directory": str(tmp_path / "r"), "simulate": {"scenarios": scenarios}, "ingest": {}, "train": {}}
    path.write_text(yaml.safe_dump(raw))
    experiment = load_experiment(path)
    assert [(one.output, one.sources[0].path) for one in experiment.ingest.stores()] == [
        (tmp_path / "r" / f"{name}.zarr", f"{tmp_path}/r/simulation/{name}/*.nc") for name in scenarios
    ]
    assert experiment.train.store == tmp_path / "r" / "control.zarr" and experiment.train.scenarios == []
    assert any("warm4.zarr" in line or "come from an earlier" in line for line in check_experiment(experiment))
    path.write_text(yaml.safe_dump(raw | {"train": {"scenarios": ["warm3"]}}))
    with pytest.raises(ConfigError, match=r"Expected train.scenarios at warm3, got nothing there"):
        list(check_experiment(load_experiment(path)))


def test_scenarios_and_their_place_in_a_path_come_together():
    section = {"output": "r/analysis.zarr", "sources": [{"path": "s/{scenario}/*.nc"}]}
    assert [one.output.name for one in parse(IngestConfig, section | {"scenarios": ["a", "b"]}, "x").stores()] == [
        "a.zarr",
        "b.zarr",
    ]
    plain = {"output": "r/analysis.zarr", "sources": [{"path": "s/*.nc"}]}
    assert [one.output.name for one in parse(IngestConfig, plain, "x").stores()] == ["analysis.zarr"]
    for wrong in (section, plain | {"scenarios": ["a"]}):
        with pytest.raises(ConfigError, match=r"Expected {scenario} in the path of a source with scenarios"):
            parse(IngestConfig, wrong, "x")
