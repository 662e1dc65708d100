"""Stages under torchrun whose processes hold one state together."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny_experiment import tiny_experiment

from emulator.model import checkpoint
from emulator.store.forecast import open_forecast
from pipelines.cli import main

pytestmark = pytest.mark.timeout(1200)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Path:
    """The YAML of a tiny experiment whose store and statistics are there."""
    path = tiny_experiment(tmp_path_factory.mktemp("space"))
    for stage in ("ingest", "stats"):
        assert main(["run", str(path), "--only", stage]) == 0
    return path


def torchrun(processes: int, *command: str) -> subprocess.CompletedProcess:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = [*launcher, "-m", "pipelines.cli", *command]
    return subprocess.run(run, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)


@pytest.mark.slow
def test_two_processes_train_and_forecast_with_one_state(experiment, tmp_path):
    how = ["train.parallel.space=2", f"train.output={tmp_path / 'train'}", "train.network.norm=layer"]
    done = torchrun(2, "train", str(experiment), *how)
    assert done.returncode == 0, done.stderr
    tensors, saved = checkpoint.load(tmp_path / "train" / "checkpoint")
    nlat = len(saved["grid"]["latitude"])
    assert tensors["lower"].shape[1] == nlat and saved["config"]["parallel"] == {"space": 2, "weights": "ddp"}
    stores = {number: tmp_path / f"forecast{number}.zarr" for number in (1, 2)}
    options = [f"rollout.checkpoint={tmp_path / 'train' / 'checkpoint'}", "rollout.uncorrected_inits=0"]
    options += ["rollout.long_run_days=0", "rollout.maximum_inits=3"]
    done = torchrun(2, "rollout", str(experiment), *options, f"rollout.output={stores[2]}", "rollout.parallel.space=2")
    assert done.returncode == 0, done.stderr
    assert main(["rollout", str(experiment), *options, f"rollout.output={stores[1]}"]) == 0
    ours, theirs = (open_forecast(stores[number]).load() for number in (2, 1))
    for name, field in theirs.data_vars.items():
        if "latitude" in field.dims:
            near = 1e-5 * float(np.abs(field).max())
            np.testing.assert_allclose(ours[name], field, rtol=1e-5, atol=near, err_msg=name)


def test_the_check_tells_the_memory_of_each_process(experiment, capsys):
    assert main(["train", str(experiment), "--check", "train.parallel.space=3"]) == 0
    assert "MiB of activations a sample and step in each of 3 processes" in capsys.readouterr().out


REFUSED = [
    (["train.parallel.space=13"], "each of 13 processes, got 12 rows"),
    (["train.parallel.space=2", "train.network={kind: external, factory: other_network:columns}"], "hold together"),
    (["train.parallel={weights: other}"], "parallel"),
    (["rollout.parallel.space=0"], "rollout.parallel.space"),
]


@pytest.mark.parametrize("options, message", REFUSED, ids=[message for _, message in REFUSED])
def test_what_cannot_be_split_is_refused_in_one_sentence(experiment, capsys, options, message):
    stage = options[0].split(".")[0]
    assert main([stage, str(experiment), "--check", *options]) == 1
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said


@pytest.mark.parametrize("given", ["fsdp", {"space": 2}, {"space": 2, "weights": "fsdp"}, "ddp"])
def test_both_spellings_are_read_and_old_ones_written_as_before(given):
    from pipelines.config.training import TrainConfig

    paths = {"store": "s", "statistics": "t", "output": "o"}
    config = TrainConfig.model_validate(paths | {"parallel": given})
    written = yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))["parallel"]
    expected = given if isinstance(given, str) else {"weights": "ddp"} | given
    assert written == expected
    assert TrainConfig.model_validate(paths | {"parallel": written}) == config
