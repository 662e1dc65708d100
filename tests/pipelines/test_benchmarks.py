"""The benchmarks and trials of rollout and verification run from end to end, small."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


def lines(script, *options) -> list[dict]:
    command = [sys.executable, str(ROOT / "scripts" / script), "--json", *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_the_long_rollout(finished, tmp_path):
    options = ("--run", finished.parent / "run", "--years", 0.05, "--repeats", 1, "--embedded-days", 0)
    machine, rate, writing, memory, *parts = lines("bench/rollout.py", *options, "--threads", 1, "--folder", tmp_path)
    assert machine["torch"] and rate["ours"] > 0 and rate["peer"] is None
    assert writing["ratio"] > 0 and memory["ours"] >= memory["peer"] > 0
    named = {row["case"] for row in parts}
    assert {"a step: network", "a step: corrections", "a step: all"} < named and "8 members" in parts[-1]["case"]
    assert not list(tmp_path.iterdir())


SMALL = ("--device", "cpu", "--small", "--threads", 1, "--repeats", 1)


def test_the_gpu_benchmark_without_time_or_a_gpu():
    """Rates, transforms and steps with budgets, and all that is left out by name; without a GPU it is refused."""
    head, *rows = lines("bench/gpu.py", *SMALL, "--seconds", 0)
    assert head["device"] == "cpu"
    done, left = ([row for row in rows if ("left_out" in row) == late] for late in (False, True))
    assert len(left) == 10 and all(row["ours"] > 0 for row in done)
    transforms = [row for row in done if row["case"].startswith("transform")]
    assert len(transforms) in (2, 0) and all(row["ratio"] > 0 for row in transforms)
    assert sum("forecast step" in row["case"] for row in done) == 3
    if not torch.cuda.is_available():
        command = [sys.executable, str(ROOT / "scripts" / "bench" / "gpu.py")]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 1 and "Expected a GPU, torch finds none" in done.stderr


@pytest.mark.slow
def test_the_gpu_benchmark_in_full_on_a_cpu():
    pytest.importorskip("torch_harmonics")
    _, *rows = lines("bench/gpu.py", *SMALL, "--seconds", 1000, "--backend", "eager")
    steps = [row for row in rows if row["case"].startswith(("SFNO", "graph"))]
    assert {(row["precision"], row["compiled"]) for row in steps} == {
        (name, compiled) for name in ("float32", "tf32", "bfloat16") for compiled in (False, True)
    } - {("tf32", True)}
    for row in steps:
        assert row["ours"] > 0 and row["product_share"] > 0
        assert (row["ratio"] is None) == row["case"].startswith("graph")


def test_a_folder_that_is_no_run_is_one_sentence(tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "bench" / "rollout.py"), "--run", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1 and "Expected analysis.zarr and train/checkpoint" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_verification_against_xskillscore(tmp_path):
    pytest.importorskip("xskillscore")
    _, seconds, processor, memory = lines("bench/verify.py", "--inits", 1, "--threads", 1, "--folder", tmp_path)
    assert seconds["ratio"] > 0 and processor["ratio"] > 0 and memory["ours"] > 0


@pytest.mark.slow
def test_memory_does_not_grow_with_the_store(tmp_path):
    """Four times the store, the same memory."""
    found = []
    for size in (0.2, 0.8):
        command = [sys.executable, str(ROOT / "scripts" / "trials" / "verify_large_store.py"), "--gib", str(size)]
        done = subprocess.run([*command, "--threads", "1", "--folder", str(tmp_path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        found.append(float(done.stdout.split("peak memory ")[1].split()[0]))
    assert found[1] < found[0] + 0.25
