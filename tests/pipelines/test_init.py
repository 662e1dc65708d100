"""`emulator init`: an experiment over a person's files that every stage takes as written, and a model to hand on from it."""

import re

import numpy as np
import pytest
import torch
import yaml
from small_planet import FLUXES, small_planet
from source_files import truth

import emulator as em
from emulator.ingestion.survey import survey
from emulator.training.proposal import propose
from pipelines.cli import main
from pipelines.init import as_yaml
from pipelines.load import load_experiment


@pytest.fixture
def planet(tmp_path):
    data = small_planet(times=72)
    (tmp_path / "data").mkdir()
    for number, part in enumerate((slice(0, 30), slice(30, 72))):
        data.isel(time=part).to_netcdf(tmp_path / "data" / f"{number}.nc")
    return tmp_path


def written(folder, *files, more=()):
    path = folder / "experiment.yaml"
    assert main(["init", *map(str, files), "--output", str(path), "--directory", str(folder / "run"), *more]) == 0
    return path


def test_it_says_what_it_found_and_writes_what_every_stage_takes(planet, capsys):
    path = written(planet, planet / "data")
    said = capsys.readouterr().out
    for words in ("12 x 24 gaussian", "4 sigma", "72 times, every 6 h", "surface_pressure", "energy   can be closed"):
        assert words in said
    experiment = load_experiment(path)
    assert experiment.directory == planet / "run" and experiment.train.conservation.kind == "sequential"
    assert experiment.train.network.kind == "sfno" and experiment.train.validation is not None
    assert experiment.stats.period.end == experiment.train.period.end < experiment.train.validation.period.start
    assert experiment.train.validation.period.end < experiment.rollout.period.start
    assert main(["run", str(path), "--check"]) == 0
    text = path.read_text()
    assert text.count("#") > 5 and f"emulator run {path}" in said


def test_its_yaml_is_its_proposal(planet):
    proposal = propose(survey([planet / "data"]))
    assert yaml.safe_load(as_yaml(proposal, "runs/a")) == {"directory": "runs/a", **proposal.sections}
    assert all("#" in line for line in as_yaml(proposal, "a").splitlines() if "Written by" in line)


def test_budgets_are_closed_as_far_as_the_fields_allow(tmp_path, capsys):
    planet = small_planet(times=30)
    radiation = [name for name in FLUXES if "radiation" in name]
    planet.drop_vars(radiation).to_netcdf(tmp_path / "some.nc")
    experiment = load_experiment(written(tmp_path, tmp_path / "some.nc"))
    assert experiment.train.conservation.budgets == ["dry_air", "water"]
    assert "energy   lacks mean_top_net_short_wave_radiation_flux" in capsys.readouterr().out
    (tmp_path / "experiment.yaml").unlink()


@pytest.mark.parametrize("stop", [["--check"], pytest.param([], marks=pytest.mark.slow)], ids=["checked", "run"])
def test_what_is_too_little_to_train_is_said_and_the_rest_is_written(tmp_path, capsys, stop):
    data = truth()
    data.to_netcdf(tmp_path / "eight.nc")
    data.isel(time=[0]).to_netcdf(tmp_path / "one.nc")
    data[["mean_total_precipitation_rate"]].to_netcdf(tmp_path / "rain.nc")
    for name, sections, words in (
        ("eight", {"ingest", "stats"}, "8 times are too few to train on, 24 the least"),
        ("one", {"ingest"}, "1 time is too few for statistics"),
        ("rain", {"ingest", "stats"}, "no field among them is a state"),
    ):
        path = written(tmp_path, tmp_path / f"{name}.nc")
        assert words in capsys.readouterr().out
        assert set(yaml.safe_load(path.read_text())) == {"directory", *sections}
        assert main(["run", str(path), *stop]) == 0
        path.rename(tmp_path / f"{name}.yaml")
        if not stop:
            (tmp_path / "run").rename(tmp_path / f"run-{name}")


def test_what_cannot_be_is_refused_in_a_sentence_and_nothing_is_written(planet, capsys):
    output = planet / "e.yaml"

    def said(*words) -> str:
        assert main(["init", *map(str, words), "--output", str(output)]) == 1 and not output.exists()
        return capsys.readouterr().err.strip().splitlines()[-1]

    assert said(planet / "no.nc") == f"error: init: Expected files at {planet}/no.nc, got none"
    (planet / "text.nc").write_text("no data")
    assert re.search("Expected CSV, GRIB, (Icechunk, )?NetCDF or Zarr", said(planet / "text.nc"))
    strange = truth()[["mean_sea_level_pressure"]].rename(mean_sea_level_pressure="mystery")
    strange["mystery"].attrs = {}
    strange.to_netcdf(planet / "strange.nc")
    assert "--source rename.NAME=temperature" in said(planet / "strange.nc")
    assert "Expected options among path" in said(planet / "data", "--source", "unit.x=1")
    assert "dotted.name=value" in said(planet / "data", "--source", "units")
    more = ["--source", "rename.mystery=2m_temperature", "--source", "units.2m_temperature=K"]
    path = written(planet, planet / "strange.nc", more=more)
    assert load_experiment(path).ingest.sources[0].rename == {"mystery": "2m_temperature"}
    assert main(["init", str(planet / "data"), "--output", str(path)]) == 1
    assert f"got {path}, which is there" in capsys.readouterr().err


@pytest.mark.slow
def test_from_files_to_a_model_that_another_runs(tmp_path, capsys):
    """As written to the report; then published, fetched, and the same forecasts from what was fetched."""
    planet = tmp_path
    small_planet(times=48, nlat=8, levels=2).to_netcdf(planet / "planet.nc")
    path = written(planet, planet / "planet.nc")
    assert main(["run", str(path)]) == 0
    run = planet / "run"
    assert (run / "report" / "report.html").stat().st_size > 100_000
    assert main(["publish", str(run), "--output", str(planet / "small.tar"), "--licence", "cc-by-4.0"]) == 0
    digest = capsys.readouterr().out.split()[-2]
    assert main(["fetch", f"file://{planet}/small.tar", "--output", str(planet / "got"), "--sha256", digest]) == 0
    card = (planet / "got" / "README.md").read_text()
    assert "temperature" in card and "| RMSE |" in card and "dry air, water, energy closed in every step" in card
    output = planet / "again.zarr"
    assert main(["rollout", str(path), f"checkpoint={planet / 'got'}", f"output={output}", "uncorrected_inits=0"]) == 0
    theirs, ours = em.open_forecast(output), em.open_forecast(run / "forecast.zarr")
    for name in ("temperature", "surface_pressure"):
        np.testing.assert_array_equal(theirs[name], ours[name])
    expected = em.load_model(run / "train" / "checkpoint", "cpu").state_dict()
    for name, tensor in em.load_model(planet / "got", "cpu").state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)
