"""`scripts/compare.py`: variants trained for the same time, each in a process of its own, stopped and started again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_experiment import tiny_experiment

ROOT = Path(__file__).parents[2]
SECONDS = 1800  # twelve processes that each import torch, on a machine that others share


@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
def test_variants_of_one_training_time_are_compared_and_one_that_fails_is_told(tmp_path):
    experiment = tiny_experiment(tmp_path)
    text = yaml.safe_load(experiment.read_text())
    text["rollout"] |= {"uncorrected_inits": 0, "long_run_days": 2}
    experiment.write_text(yaml.safe_dump(text))
    wrong = {"kind": "unet", "width": 4, "depth": 9}
    variants = {"SFNO": {}, "U-Net": {"train": {"network": {"kind": "unet", "width": 4, "depth": 1}}}}
    plan = {"experiment": "experiment.yaml", "directory": str(tmp_path / "compared"), "free_run_days": 2}
    (tmp_path / "plan.yaml").write_text(
        yaml.safe_dump(plan | {"variants": variants | {"wrong": {"train": {"network": wrong}}}})
    )

    def compare(*more):
        command = [sys.executable, str(ROOT / "scripts" / "compare.py"), str(tmp_path / "plan.yaml"), *more]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    how = "--minutes", "0.02", "--clock", "cpu", "train.threads=1"
    done = compare(*how)
    assert done.returncode != 0 and done.stderr.rstrip().endswith(
        "wrong failed, see the log above; the table is without"
    )
    table = json.loads((tmp_path / "compared" / "table.json").read_text())
    assert [row["variant"] for row in table] == ["SFNO", "U-Net", "persistence", "climatology"]
    for row, place in zip(table[:2], ("SFNO", "U-Net"), strict=True):
        kept = json.loads((tmp_path / "compared" / place / "phases.json").read_text())
        spent = sum(n * pace for n, pace in zip(kept["updates"], kept["seconds"], strict=True))
        assert abs(spent - 1.2) < max(kept["seconds"]) and row["updates"] == sum(kept["updates"])
        assert row["parameters"] > 100 and row["peak memory of training [GB]"] > 0.1
        assert row["largest departure in 2 days [std]"] > 0 and row["the same in 2 days without the envelope"] > 0
    again = compare(*how, "--only", "U-Net,SFNO")
    assert again.returncode == 0, again.stderr
    assert "train: starting" not in again.stderr and "| U-Net | SFNO |" in again.stdout
    after = json.loads((tmp_path / "compared" / "table.json").read_text())
    same = {key: value for key, value in table[1].items() if "time" not in key}
    assert same == {key: after[0][key] for key in same}


@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
def test_two_trainings_share_a_time_and_a_checkpoint_needs_none(tmp_path):
    experiment, compared = tiny_experiment(tmp_path), tmp_path / "compared"
    text = yaml.safe_load(experiment.read_text())
    text["rollout"] |= {"uncorrected_inits": 0, "long_run_days": 0, "ensemble": {"members": 3, "kind": "noise"}}
    experiment.write_text(yaml.safe_dump(text))
    phases = [{"updates": 12, "batch_size": 2}]
    network = {"kind": "unet", "width": 4, "depth": 1}
    inside = {"objective": {"kind": "dyffusion_interpolator", "horizon": 2}, "network": network | {"dropout": 0.2}}
    taken = str(compared / "in-two" / "first" / "train" / "checkpoint")
    ahead = {"objective": {"kind": "dyffusion", "interpolator": taken}, "network": network}
    both = {"loss": {"kind": "l1"}, "phases": phases}
    variants = {
        "in two": {
            "first": {"share": 0.25, "train": inside | both},
            "train": ahead | both,
            "rollout": {"ensemble": {"kind": "none"}},
        },
        "as it is": {"minutes": None, "train": {"phases": phases}},
        "trained": {"trained": str(compared / "as-it-is" / "train" / "checkpoint")},
    }
    plan = {"experiment": "experiment.yaml", "directory": str(compared), "variants": variants}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    how = "--minutes", "0.04", "--clock", "cpu", "--results", str(tmp_path / "results"), "train.threads=1"
    command = [sys.executable, str(ROOT / "scripts" / "compare.py"), str(tmp_path / "plan.yaml"), *how]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    rows = {row["variant"]: row for row in json.loads((tmp_path / "results" / "table.json").read_text())}
    for folder, seconds in (("in-two/first", 0.6), ("in-two", 1.8)):
        kept = json.loads((compared / folder / "phases.json").read_text())
        assert abs(kept["updates"][0] * kept["seconds"][0] - seconds) < kept["seconds"][0]
    numbers = [
        json.loads((compared / at / "phases.json").read_text())["updates"][0] for at in ("in-two/first", "in-two")
    ]
    assert rows["in two"]["updates"] == numbers and len(rows["in two"]["updates a second"]) == 2
    assert rows["as it is"]["updates"] == 12 and not (compared / "as-it-is" / "phases.json").exists()
    assert rows["trained"]["updates"] is None and rows["trained"]["parameters"] == rows["as it is"]["parameters"]
    for name in variants:
        assert rows[name]["memory of a member-step [MiB]"] > 0
        assert rows[name]["processor time of a member-step [ms]"] > 0
        scores = [key for key in rows[name] if key.startswith(("CRPS of", "spread over error of"))]
        assert scores and all(value > 0 for key in scores for value in rows[name][key])
    same = [key for key in rows["trained"] if key.startswith("CRPS of")]
    assert all(rows["trained"][key] == rows["as it is"][key] for key in same)
