"""The stage learn, and cycles with what it has learned: resumed as uninterrupted, killed and gone on with, and refusals."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from test_cycle import KILLED, cycled, dry_mass, same, stop_before_the_second_window, written

import emulator as em
from emulator.assimilation.kinds.registry import build
from emulator.assimilation.learned.model import LearnedAnalysis
from emulator.assimilation.observations import Observations
from emulator.files.interruption import Interrupted
from emulator.model import checkpoint
from emulator.store.analysis import open_analysis
from pipelines.cli import main
from pipelines.load import load_experiment, load_stage

SOUNDINGS = {"name": "soundings", "kind": "profiles", "errors": {"temperature": 1.0, "specific_humidity": 1e-3}}
SOUNDER = {"name": "sounder", "kind": "swath", "errors": {"temperature": 0.5}, "levels": [0.4, 0.6], "share": 0.5}


def section(finished, output: Path, **more) -> dict:
    run = finished.parent / "run"
    values = {
        "store": str(run / "analysis.zarr"),
        "checkpoint": str(run / "train" / "checkpoint"),
        "output": str(output),
        "networks": [SOUNDINGS | {"share": 0.1}],
        "density": [0.5, 2.0],
        "period": {"end": "2001-01-12"},
        "network": {"width": 4, "depth": 1, "heads": 2, "reach": 1},
        "backgrounds": {"cycles": 4, "analyses": 5, "wrong_days": 3},
        "optimizer": {"warmup_steps": 2},
        "updates": 6,
        "batch_size": 2,
        "save_every": 4,
        "log_every": 2,
    }
    return values | more


def learned(finished, folder: Path, **more) -> Path:
    """The folder of a training that has ended."""
    folder.mkdir(exist_ok=True)
    path = folder / "learn.yaml"
    path.write_text(yaml.safe_dump(section(finished, folder / "learn", **more)))
    assert main(["learn", str(path), "--check"]) == 0
    assert main(["learn", str(path)]) == 0
    return folder / "learn"


@pytest.fixture(scope="module")
def six(finished, tmp_path_factory) -> Path:
    """Six updates."""
    return learned(finished, tmp_path_factory.mktemp("six"))


@pytest.fixture(scope="module")
def observed(finished, tmp_path_factory) -> Path:
    nature = open_analysis(finished.parent / "run" / "analysis.zarr")
    path = tmp_path_factory.mktemp("observed") / "observations.parquet"
    em.observe({"networks": [SOUNDINGS | {"share": 0.1}], "seed": 1}, nature, period=("2001-01-13", None)).write(path)
    return path


def kind(folder: Path) -> dict:
    return {"kind": "learned", "checkpoint": str(folder / "checkpoint")}


def same_weights(one: Path, other: Path) -> None:
    pair = [checkpoint.load(folder / "checkpoint")[0] for folder in (one, other)]
    assert pair[0].keys() == pair[1].keys()
    assert all(torch.equal(pair[0][name], pair[1][name]) for name in pair[0])


def test_a_training_that_was_stopped_ends_with_the_same_bits(finished, six, tmp_path):
    from emulator.assimilation.learned.learning import Learning
    from emulator.assimilation.learned.options import LearnOptions

    options = LearnOptions.of(section(finished, tmp_path / "stopped"))
    asked = iter([False, False, True])
    with pytest.raises(Interrupted, match="saved after update 3 of 6"):
        Learning(options).run(asked=lambda: next(asked))
    assert not (tmp_path / "stopped" / "checkpoint").exists()
    Learning(options).run()
    same_weights(six, tmp_path / "stopped")
    rows = [(folder / "metrics.jsonl").read_text() for folder in (six, tmp_path / "stopped")]
    assert rows[0] == rows[1] and [json.loads(line)["update"] for line in rows[0].splitlines()] == [2, 4, 6]


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_killed_training_ends_with_the_same_bits(finished, six, at, tmp_path):
    """Killed when a state, or the checkpoint, is about to be given its name."""
    path = tmp_path / "learn.yaml"
    path.write_text(yaml.safe_dump(section(finished, tmp_path / "learn")))
    script = KILLED.replace('"cycle"', '"learn"').replace("os.replace", "os.rename")
    child = subprocess.run([sys.executable, "-c", script, str(path), str(at)], env=os.environ, capture_output=True)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()[-500:]
    assert main(["learn", str(path)]) == 0
    same_weights(six, tmp_path / "learn")


@pytest.mark.slow
def test_a_training_goes_on_with_more_updates_and_is_not_replaced_otherwise(finished, tmp_path, capsys):
    learned(finished, tmp_path)
    path = tmp_path / "learn.yaml"
    for arguments in (["--check"], []):
        assert main(["learn", str(path), "seed=1", *arguments]) == 1
        assert "learn.overwrite=true, since the finished training in" in capsys.readouterr().err
    assert main(["learn", str(path), "updates=8"]) == 0
    rows = (tmp_path / "learn" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["update"] for line in rows] == [2, 4, 6, 8]
    assert main(["learn", str(path), "seed=1", "overwrite=true"]) == 0


def test_a_cycle_with_it_keeps_dry_mass_and_goes_on_to_the_same_bits(finished, observed, six, tmp_path, monkeypatch):
    whole = cycled(written(finished, observed, tmp_path / "whole", analysis=kind(six)))
    analyses = open_analysis(whole / "analysis.zarr")
    assert np.ptp(dry_mass(analyses)) < 1e-6 and float(analyses["specific_humidity"].min()) >= 0
    path = written(finished, observed, tmp_path / "stopped", analysis=kind(six))
    stop_before_the_second_window(path, monkeypatch)
    same(whole, cycled(path))


@pytest.mark.slow
@pytest.mark.parametrize("at", [5, 40])
def test_a_killed_cycle_with_it_ends_with_the_same_bits(finished, observed, six, at, tmp_path):
    whole = cycled(written(finished, observed, tmp_path / "whole", analysis=kind(six)))
    path = written(finished, observed, tmp_path / "killed", analysis=kind(six))
    child = subprocess.run([sys.executable, "-c", KILLED, str(path), str(at)], env=os.environ, capture_output=True)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()[-500:]
    same(whole, cycled(path))


@pytest.mark.slow
def test_observations_without_confidence_leave_the_forecast_as_it_is(finished, observed, six, tmp_path):
    table = Observations.read(observed)
    table.replace(confidence=np.zeros(len(table))).write(tmp_path / "unsure.parquet")
    free = cycled(written(finished, observed, tmp_path / "free", analysis={"kind": "none"}))
    unsure = cycled(written(finished, tmp_path / "unsure.parquet", tmp_path / "unsure", analysis=kind(six)))
    pair = [open_analysis(folder / "analysis.zarr")["temperature"].values for folder in (free, unsure)]
    assert np.array_equal(*pair)


def test_other_weights_make_another_cycle_wherever_they_lie(finished, observed, six, tmp_path):
    from pipelines.assimilation import without_places

    config = load_stage("cycle", written(finished, observed, tmp_path, analysis=kind(six)))
    plain, told = without_places(config, build(config.analysis.model_dump()))
    assert told == [checkpoint.describe(six / "checkpoint")["sha256"]] and plain.analysis.checkpoint is None
    assert without_places(config, build({"kind": "none"})) == (config, [])


@pytest.mark.slow
def test_raw_values_are_taken_without_an_operator(finished, tmp_path, capsys):
    """Of a swath of radiances; a channel that the training had not is refused when it is met."""
    networks = [SOUNDINGS | {"share": 0.1}, SOUNDER]
    folder = learned(finished, tmp_path, networks=networks, raw=["sounder"], density=[1.0])
    saved = LearnedAnalysis.load(folder / "checkpoint")
    assert [str(channel) for channel in saved.raw] == [f"temperature of sounder at {level}" for level in (0.4, 0.6)]
    nature = open_analysis(finished.parent / "run" / "analysis.zarr")
    for name, levels, code in (("same", [0.4, 0.6], 0), ("other", [0.5], 1)):
        table = tmp_path / f"{name}.parquet"
        period = ("2001-01-13", None)
        em.observe({"networks": [SOUNDER | {"levels": levels}], "seed": 1}, nature, period=period).write(table)
        path = written(finished, table, tmp_path / name, analysis=kind(folder))
        assert main(["cycle", str(path)]) == code
    assert (
        "Expected of raw systems temperature of sounder at 0.4, temperature of sounder at 0.6"
        in capsys.readouterr().err
    )


def test_what_it_was_not_trained_for_is_refused_in_a_sentence(finished, observed, six, tmp_path, capsys):
    run = finished.parent / "run"
    cases = {
        "Expected analysis.checkpoint, where the stage learn has put a network": {"kind": "learned"},
        "Expected cycle.analysis.checkpoint at": {"kind": "learned", "checkpoint": str(tmp_path / "nothing")},
        "Expected the checkpoint of a learned analysis in": {
            "kind": "learned",
            "checkpoint": str(run / "train" / "checkpoint"),
        },
    }
    for sentence, analysis in cases.items():
        assert main(["cycle", str(written(finished, observed, tmp_path, analysis=analysis)), "--check"]) == 1
        assert sentence in capsys.readouterr().err, sentence


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"raw": ["sounder"]}, "raw systems among the networks soundings, got sounder"),
        ({"density": [2.0, 1.0]}, "a density, or the least and the most of it"),
        ({"density": [20.0]}, "shares of at most 1 at the largest density, got 2"),
        ({"backgrounds": {"cycles": 1}}, "as many backgrounds.cycles as an update takes, 2, got 1"),
        ({"networks": []}, "networks"),
        ({"network": {"width": 4, "heads": 3}}, "heads that divide a width of 4"),
        (
            {"networks": [SOUNDER]},
            "Expected observations of the operator point of all systems but raw ones, got radiance",
        ),
    ],
)
def test_a_training_that_cannot_be_is_refused_in_a_sentence(finished, more, sentence, tmp_path, capsys):
    path = tmp_path / "learn.yaml"
    path.write_text(yaml.safe_dump(section(finished, tmp_path / "learn", **more)))
    assert main(["learn", str(path), "--check"]) == 1
    assert sentence in capsys.readouterr().err


def test_an_experiment_gives_its_analyses_the_network_that_it_trains(tmp_path):
    path = tmp_path / "experiment.yaml"
    experiment = {
        "directory": "here",
        "learn": {"networks": [SOUNDINGS]},
        "cycle": {"start": "2001-01-02", "end": "2001-01-03", "analysis": {"kind": "learned"}},
    }
    path.write_text(yaml.safe_dump(experiment))
    found = load_experiment(path)
    assert found.cycle.analysis.checkpoint == Path("here/learn/checkpoint")
    assert found.learn.store == Path("here/analysis.zarr") and found.learn.output == Path("here/learn")
    path.write_text(yaml.safe_dump({name: part for name, part in experiment.items() if name != "learn"}))
    assert load_experiment(path).cycle.analysis.checkpoint is None
