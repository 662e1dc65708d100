"""The chain on a real Slurm of one node: run whole, signalled in the middle, cancelled, failing."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from slurm_cluster import slurm_cluster
from tiny_experiment import tiny_experiment

from emulator.model import checkpoint
from pipelines import slurm
from pipelines.config import ConfigError
from pipelines.load import load_experiment
from pipelines.site import SiteConfig, load_site
from pipelines.status import as_text, status
from pipelines.submit import queue, submit

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A running Slurm, found by its commands through the environment."""
    with slurm_cluster(tmp_path_factory.mktemp("slurm")) as variables:
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        yield variables
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def site(**changed) -> SiteConfig:
    """The test cluster's site file with this interpreter as the program."""
    shipped = load_site(ROOT / "conf" / "site" / "test_cluster.yaml")
    paths = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"
    environment = {**shipped.environment, "PYTHONPATH": paths, "MPLBACKEND": "Agg"}
    return shipped.model_copy(
        update={"command": f"{sys.executable} -m pipelines.cli", "environment": environment} | changed
    )


def states(run: Path) -> dict[str, str]:
    return {entry.stage: entry.state for entry in status(run)}


def until(condition, run: Path, seconds: float = 900):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, as_text(status(run, lines=8))
        time.sleep(0.2)


def settled(run: Path) -> bool:
    """No stage waits or works, and no job is still on its way out."""
    known = slurm.states(number for _, number in queue(run).jobs.values())
    leaving = any(entry.state in ("RUNNING", "COMPLETING") for entries in known.values() for entry in entries)
    return not leaving and not set(states(run).values()) & {"running", "waiting"}


@pytest.fixture(scope="module")
def chained(cluster, tmp_path_factory) -> Path:
    """The YAML of a tiny experiment whose whole chain ran as jobs, training as two tasks."""
    path = tiny_experiment(tmp_path_factory.mktemp("chain"))
    raw = yaml.safe_load(path.read_text())
    raw["train"] |= {"phases": [{"updates": 150}, {"updates": 6, "rollout_steps": 2}], "log_every": 2}
    path.write_text(yaml.safe_dump(raw))
    submit(load_experiment(path), site())
    until(lambda: settled(path.parent / "run"), path.parent / "run")
    return path


def test_the_whole_chain_runs_as_dependent_jobs(chained):
    run = chained.parent / "run"
    assert set(states(run).values()) == {"complete"}, as_text(status(run))
    assert (run / "report" / "report.html").exists()
    jobs = queue(run).jobs
    numbers = [number for _, number in jobs.values()]
    assert list(jobs) == [
        "ingest-parts",
        "ingest",
        "stats",
        "train",
        "rollout",
        "verify",
        "report",
    ] and numbers == sorted(numbers)
    for name in jobs:
        assert subprocess.run(["bash", "-n", run / "slurm" / f"{name}.sbatch"]).returncode == 0
    log = next((run / "slurm" / "logs").glob("train-*.log")).read_text()
    assert "process 0 of 2" in log and "process 1 of 2" in log
    parts = [path.read_text() for path in sorted((run / "slurm" / "logs").glob("ingest-parts-*.log"))]
    assert len(parts) == 2 and "part 1/2" in parts[0] and "part 2/2" in parts[1]
    assert submit(load_experiment(chained), site()) == {}


@pytest.fixture
def untrained(chained):
    """The chain's run directory without its training; gives the directory of the training that was."""
    run, before = chained.parent / "run", chained.parent / "uninterrupted"
    if not before.exists():
        shutil.copytree(run / "train", before)
    shutil.rmtree(run / "train")
    (run / ".stages" / "train.json").unlink()
    return before


@pytest.mark.parametrize("name", ["USR1", pytest.param("TERM", marks=pytest.mark.slow)])
def test_a_training_that_is_told_to_stop_goes_back_into_the_queue_and_ends_with_the_same_bits(chained, untrained, name):
    run = chained.parent / "run"
    (job,) = submit(load_experiment(chained), site()).values()
    until((run / "train" / "metrics.jsonl").exists, run)
    subprocess.run(["scancel", f"--signal={name}", str(job)], check=True)
    until(lambda: settled(run), run)
    assert states(run)["train"] == "complete", as_text(status(run))
    notes = (run / "slurm" / "notes" / "train").read_text()
    assert "ended 75" in notes and "requeued" in notes and notes.count("started") == 2, notes
    assert slurm.states([job])[job][0].restarts == 1
    ours, theirs = (checkpoint.load(folder / "checkpoint")[0] for folder in (run / "train", untrained))
    for key, tensor in theirs.items():
        torch.testing.assert_close(ours[key], tensor, rtol=0, atol=0, msg=key)
    assert (run / "train" / "metrics.jsonl").read_bytes() == (untrained / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_a_cancelled_training_stays_cancelled_and_a_busy_run_is_not_submitted_twice(chained, untrained):
    run = chained.parent / "run"
    (job,) = submit(load_experiment(chained), site()).values()
    with pytest.raises(ConfigError, match=f"to stop them: scancel {job}"):
        submit(load_experiment(chained), site())
    until((run / "train" / "metrics.jsonl").exists, run)
    subprocess.run(["scancel", str(job)], check=True)
    until(lambda: settled(run), run)
    entry = next(entry for entry in status(run) if entry.stage == "train")
    assert entry.state == "failed" and "CANCELLED" in entry.detail and "of 156" in entry.detail, as_text([entry])
    assert slurm.states([job])[job][0].restarts == 0
    submit(load_experiment(chained), site())
    until(lambda: settled(run), run)
    ours, theirs = (checkpoint.load(folder / "checkpoint")[0] for folder in (run / "train", untrained))
    assert all(torch.equal(ours[key], tensor) for key, tensor in theirs.items())


@pytest.mark.slow
def test_where_requeueing_is_forbidden_queued_jobs_go_on(chained, untrained):
    run = chained.parent / "run"
    first, second = submit(load_experiment(chained), site(requeue=False, continuations=1)).values()
    until((run / "train" / "metrics.jsonl").exists, run)
    subprocess.run(["scancel", "--signal=USR1", str(first)], check=True)
    until(lambda: settled(run), run)
    assert states(run)["train"] == "complete", as_text(status(run))
    assert slurm.states([first])[first][0].code == 75 and slurm.states([second])[second][0].code == 0
    ours, theirs = (checkpoint.load(folder / "checkpoint")[0] for folder in (run / "train", untrained))
    assert all(torch.equal(ours[key], tensor) for key, tensor in theirs.items())


def test_a_failing_stage_stops_its_dependants_and_says_why(cluster, tmp_path):
    path = tiny_experiment(tmp_path)
    raw = yaml.safe_load(path.read_text())
    raw["stats"]["period"] = {"start": "2005-01-01"}
    path.write_text(yaml.safe_dump(raw))
    submit(load_experiment(path), site())
    run = tmp_path / "run"
    until(lambda: settled(run), run)
    found = {entry.stage: entry for entry in status(run)}
    assert found["ingest"].state == "complete"
    assert found["stats"].state == "failed" and "2005-01-01" in found["stats"].detail, as_text(found.values())
    assert "exit code 1" in found["stats"].detail and any("2005-01-01" in line for line in found["stats"].tail)
    assert {found[name].state for name in ("train", "rollout", "verify", "report")} == {"stopped"}
    assert all("needs stats" in found[name].detail for name in ("train", "report"))
    assert json.loads((run / "slurm" / "jobs.json").read_text())["start"] == str(Path.cwd())


@pytest.mark.parametrize("path", sorted((ROOT / "scripts" / "slurm").glob("*.sbatch")), ids=lambda path: path.name)
def test_slurm_accepts_the_templates(cluster, path):
    known = [
        "--partition=test",
        "--account=",
        "--nodes=1",
        "--ntasks-per-node=1",
        "--cpus-per-task=1",
        "--mem=0",
        "--gpus-per-node=0",
    ]
    done = subprocess.run(["sbatch", "--test-only", *known, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert subprocess.run(["bash", "-n", path]).returncode == 0


@pytest.mark.slow
def test_the_templates_run_the_whole_chain_after_the_edits_that_they_ask_for(cluster, tmp_path):
    """In a folder with a space; the arrays with two tasks, training as two tasks."""
    home = tmp_path / "a project"
    tiny_experiment(home)
    shutil.copytree(ROOT / "scripts" / "slurm", home / "scripts" / "slurm")
    asked = {"nodes": "1", "ntasks-per-node": "2", "cpus-per-task": "1", "mem": "0", "time": "20", "array": "1-2"}
    for path in (home / "scripts" / "slurm").glob("*.sbatch"):
        text = re.sub(r"(?m)^#SBATCH --gpus-per-node=.*\n", "", path.read_text())
        for name, value in asked.items():
            text = re.sub(rf"(?m)^#SBATCH --{name}=\S+", f"#SBATCH --{name}={value}", text)
        path.write_text(text.replace("##SBATCH --partition=PARTITION", "#SBATCH --partition=test"))
    (home / ".venv" / "bin").mkdir(parents=True)
    (home / ".venv" / "bin" / "activate").write_text(f'export PYTHONPATH={ROOT} PATH="$PWD/.venv/bin:$PATH"\n')
    program = home / ".venv" / "bin" / "emulator"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m pipelines.cli "$@"\n')
    program.chmod(0o755)
    command = "source .venv/bin/activate && bash scripts/slurm/chain.sh experiment.yaml"
    said = subprocess.run(["bash", "-c", command], cwd=home, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    jobs = [int(line.split()[-1]) for line in said.stdout.splitlines() if ": job " in line]
    assert len(jobs) == 8
    end = time.monotonic() + 900
    while any(entry.state in slurm.WAITS_OR_WORKS for entries in slurm.states(jobs).values() for entry in entries):
        assert time.monotonic() < end
        time.sleep(0.5)
    assert set(states(home / "run").values()) == {"complete"}, "\n".join(p.read_text() for p in home.glob("*.log"))
    assert len(list(home.glob("rollout-parts-*.log"))) == 2
    assert "process 1 of 2" in next(home.glob("train-*.log")).read_text()


def test_a_script_that_slurm_refuses_leaves_nothing_queued(cluster, tmp_path):
    path = tiny_experiment(tmp_path)
    wrong = site()
    stages = wrong.stages | {"train": wrong.stages["train"].model_copy(update={"partition": "nowhere"})}
    with pytest.raises(slurm.SlurmError, match="partition"):
        submit(load_experiment(path), wrong.model_copy(update={"stages": stages}))
    assert not (tmp_path / "run" / "slurm" / "jobs.json").exists()
    asked = ["squeue", "--noheader", "--states=PENDING,RUNNING", "--name=ingest-parts.run"]
    assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout == ""
