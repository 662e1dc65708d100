"""Forcing with an offset: the same forecasts as from a store that holds it, and what lies beyond training is said."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from small_planet import small_planet
from small_store import FREE, NETWORK, store_of, write_store

import emulator as em
from emulator.data.trained_range import TrainedRange
from emulator.model import checkpoint
from emulator.store.forecast import open_forecast
from pipelines import rollout
from pipelines.config import Experiment, RolloutConfig
from pipelines.load import load_experiment
from pipelines.outputs import files

ROOT = Path(__file__).resolve().parents[2]
SST = "sea_surface_temperature"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of a store, its statistics and a network of two updates."""
    folder, planet = tmp_path_factory.mktemp("warm"), small_planet(times=24, nlat=8, levels=2)
    phases = [{"updates": 2, "batch_size": 2}]
    em.train(*store_of(folder, planet), folder / "out", network=NETWORK, conservation=FREE, phases=phases)
    warm = planet.assign({SST: (planet[SST] + np.float32(2)).assign_attrs(planet[SST].attrs)})
    write_store(folder, warm, "warm.zarr")
    return folder


def test_it_is_the_forecast_from_a_warmer_store(trained):
    model, init = trained / "out" / "checkpoint", small_planet(times=24).time.values[4]
    plain = em.forecast(model, trained / "analysis.zarr", init, days=1)
    warmer = em.forecast(model, trained / "analysis.zarr", init, days=1, offsets={SST: 2.0})
    xr.testing.assert_equal(warmer.load(), em.forecast(model, trained / "warm.zarr", init, days=1).load())
    assert not np.array_equal(warmer["temperature"], plain["temperature"])
    assert json.loads(warmer.attrs["forcing_offsets"]) == {SST: 2.0} and "forcing_offsets" not in plain.attrs
    with pytest.raises(ValueError, match=f"offsets of the network's forcing .*{SST}.*got one of 'temperature'"):
        em.forecast(model, trained / "analysis.zarr", init, days=1, offsets={"temperature": 2.0})


def test_the_stage_makes_the_forecasts_again_under_other_offsets(trained, tmp_path, caplog):
    """Every store says what it was given; parts that are computed apart say together what they found."""
    limits = checkpoint.describe(trained / "out" / "checkpoint")["forcing_range"][SST]
    given = {"store": trained / "analysis.zarr", "checkpoint": trained / "out" / "checkpoint", "every_hours": 24}
    given |= {"scenarios": {"warm": {"offsets": {SST: 2}}}, "lead_days": 1, "batch_size": 1}
    config = RolloutConfig(output=tmp_path / "forecast.zarr", **given)
    with caplog.at_level(logging.WARNING, "emulator"):
        for part in ((1, 2), (2, 2)):
            rollout.rollout(config, part)
    assert f"{SST} goes beyond what the network was trained on" in caplog.text
    plain, warm = (open_forecast(tmp_path / name) for name in ("forecast.zarr", "warm.zarr"))
    assert "forcing_beyond_training" not in plain.attrs and "forcing_offsets" not in plain.attrs
    found = json.loads(warm.attrs["forcing_beyond_training"])
    assert list(found) == [SST] and found[SST]["trained"] == pytest.approx([limits[0][0], limits[1][0]])
    assert found[SST]["given"] == pytest.approx([limits[0][0] + 2, limits[1][0] + 2])
    assert tmp_path / "warm.zarr" in files("rollout", config)
    whole = RolloutConfig(output=tmp_path / "whole" / "forecast.zarr", **given)
    rollout.rollout(whole)
    xr.testing.assert_identical(open_forecast(tmp_path / "whole" / "warm.zarr").load(), warm.load())


def test_scenarios_have_stores_of_their_own_and_unused_keys_change_nothing():
    given = {"store": "a", "checkpoint": "b", "output": "run/forecast.zarr"}
    with pytest.raises(ValueError, match="Expected scenarios named otherwise .* got 'long_run'"):
        RolloutConfig(**given, scenarios={"long_run": {"offsets": {}}})
    with pytest.raises(ValueError, match="Expected scenarios named otherwise .* got 'analysis'"):
        RolloutConfig(**given | {"store": "run/analysis.zarr"}, scenarios={"analysis": {"offsets": {}}})
    ingest = {"sources": [{"path": "{scenario}/*.nc"}], "output": "run/analysis.zarr", "scenarios": ["warm"]}
    with pytest.raises(ValueError, match="named otherwise than the stores of ingest, got 'warm'"):
        Experiment(directory="run", ingest=ingest, rollout=given | {"scenarios": {"warm": {"offsets": {}}}})
    with pytest.raises(ValueError, match="Expected no offset of sea_surface_temperature with an ocean"):
        RolloutConfig(**given, ocean={"kind": "slab"}, offsets={SST: 2.0})
    assert not {"offsets", "scenarios"} & set(RolloutConfig(**given).model_dump())


@pytest.mark.parametrize(
    ("values", "beyond"),
    [
        ([280, 300.2], None),
        ([269, 290], [269, 290]),
        ([280, 301], [280, 301]),
        ([np.nan, 301], [301, 301]),
        ([np.nan] * 2, None),
    ],
)
def test_a_hundredth_of_the_range_may_be_passed(values, beyond):
    trained = TrainedRange({"sst": [[270.0], [300.0]]})
    trained.see("sst", np.array(values))
    assert trained.beyond == ({} if beyond is None else {"sst": {"trained": [270, 300], "given": beyond}})


def test_what_never_varied_has_no_slack_but_rounding():
    """Levels each have a range; both ends grow with what is seen, and what has no limits is not compared."""
    trained = TrainedRange({"co2": [[4.2e-4], [4.2e-4]], "levels": [[0.0, 10.0], [1.0, 11.0]]})
    trained.see("co2", np.float32(4.2e-4))
    trained.see("levels", np.array([[0.5], [10.5]]))
    trained.see("unknown", np.array([1e9]))
    assert trained.beyond == {}
    trained.see("levels", np.array([[10.5], [10.5]]))
    trained.see("co2", np.float32(5e-4))
    trained.see("co2", np.float32(2e-4))
    np.testing.assert_allclose(trained.beyond["co2"]["given"], [2e-4, 5e-4], rtol=1e-6)
    assert trained.beyond["levels"] == {"trained": [0, 11], "given": [10.5, 10.5]}


def test_the_protocol_of_long_runs_names_the_stores_that_its_rollout_makes():
    experiment = load_experiment(ROOT / "conf" / "climate" / "aimip.yaml")
    forecasts, analyses = (
        experiment.rollout.scenario_stores,
        {s.output.stem: s.output for s in experiment.ingest.stores()},
    )
    made = {name.removeprefix("forecast_"): store for name, store in forecasts.items()}
    assert experiment.verify.long_runs == made | {"control": experiment.rollout.output}
    assert experiment.verify.references == {name: analyses[name] for name in ("plus_2K", "plus_4K")} and len(made) == 2
    assert experiment.train.store == experiment.verify.truth == analyses["control"]
    for name, scenario in experiment.rollout.scenarios.items():
        warmer = experiment.simulate.scenarios[name.removeprefix("forecast_")]
        assert scenario.offsets[SST] == warmer.sst_offset
    assert experiment.rollout.ensemble.members == 5
