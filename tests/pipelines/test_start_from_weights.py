"""`train.start` in a configuration: refused before anything is queued, and from the command to a forecast."""

from pathlib import Path

import pytest
import torch
import yaml

from emulator.model.checkpoint import CheckpointError, describe, save
from pipelines.check import check_experiment
from pipelines.cli import main
from pipelines.config import ConfigError
from pipelines.load import load_experiment

RELEASED = Path(__file__).parents[1] / "model" / "released" / "checkpoint-1"  # of a U-Net


def experiment(folder, **start):
    """One whose store an earlier stage will make."""
    path = folder / "experiment.yaml"
    train = {"network": {"kind": "sfno"}, "start": {"checkpoint": str(RELEASED), "statistics": "old"} | start}
    stages = {"simulate": {"days": 1}, "ingest": {}, "stats": {}, "train": train}
    path.write_text(yaml.safe_dump({"directory": str(folder / "run"), **stages}))
    return path


@pytest.mark.parametrize(
    "start, message",
    [
        ({}, "kind 'unet', as the checkpoint .*checkpoint-1 that it starts from has, got 'sfno'"),
        ({"checkpoint": "nowhere"}, "Expected a checkpoint in nowhere"),
    ],
)
def test_what_cannot_start_is_refused_though_the_store_is_yet_to_come(tmp_path, start, message):
    with pytest.raises((ConfigError, ValueError), match=message):
        list(check_experiment(load_experiment(experiment(tmp_path, **start))))


def test_a_state_in_the_middle_of_a_training_is_no_checkpoint_to_start_from(tmp_path):
    save(tmp_path / "state-00000002", {"weight": torch.zeros(1)}, {"update": 2})
    with pytest.raises(CheckpointError, match="a schema among checkpoint-1, .* at .*state-00000002, got None"):
        list(check_experiment(load_experiment(experiment(tmp_path, checkpoint=str(tmp_path / "state-00000002")))))


@pytest.mark.parametrize(
    "start, message",
    [
        ({"statistics": "both"}, "train.start.statistics"),
        ({"freez": ["*"]}, r"Unknown key train.start.freez .*nearest: train.start.freeze"),
        ({"lora": {"rank": 0}}, "train.start.lora.rank"),
        ({"lr_by": {"*": -1.0}}, "train.start.lr_by"),
    ],
)
def test_options_that_no_start_has_are_refused_by_name(tmp_path, start, message):
    with pytest.raises(ConfigError, match=message):
        load_experiment(experiment(tmp_path, **start))


@pytest.mark.slow
def test_from_the_check_to_a_forecast_by_adapters_alone(finished, tmp_path, capsys):
    base, out = finished.parent / "run" / "train" / "checkpoint", tmp_path / "tuned"
    start = f"{{checkpoint: {base}, statistics: new, lora: {{rank: 2, layers: ['blocks.*']}}}}"
    command = ["train", str(finished), f"output={out}", f"start={start}", "phases=[{updates: 4}]"]
    assert main([*command, "--check"]) == 0 and "starts from" in capsys.readouterr().out
    assert main(command) == 0 and main(command) == 0
    assert describe(out / "adapters")["base"] == describe(base)["sha256"]
    forecast = ["rollout", str(finished), f"output={tmp_path / 'f.zarr'}", "uncorrected_inits=0", "long_run_days=0"]
    assert main([*forecast, f"checkpoint={out / 'adapters'}", "maximum_inits=1"]) == 0
