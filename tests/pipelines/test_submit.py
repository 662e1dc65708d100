"""What is written for Slurm, and what is made of its answers, without a Slurm."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_experiment import tiny_experiment

from pipelines import slurm
from pipelines.chain import chain
from pipelines.cli import main
from pipelines.config import ConfigError
from pipelines.load import load_experiment
from pipelines.run import run
from pipelines.sbatch import Places, script
from pipelines.site import SiteConfig, load_site
from pipelines.slurm import JobState
from pipelines.status import _of_stage, as_text, status
from pipelines.submit import places, plan, queue, submit

ROOT = Path(__file__).resolve().parents[2]
EIGHT = [f"train.phases.{number}.batch_size=8" for number in (0, 1)]  # for as many tasks as the sites' trainings have
SITES = sorted((ROOT / "conf" / "site").glob("*.yaml"))


@pytest.mark.parametrize("path", SITES, ids=lambda path: path.stem)
def test_every_site_gives_scripts_that_bash_can_read(path, tmp_path):
    experiment, site = load_experiment(tiny_experiment(tmp_path), EIGHT), load_site(path)
    jobs = plan(experiment, site)
    assert [job.stage for job in jobs if not job.array > 1] == [
        "ingest",
        "stats",
        "train",
        "rollout",
        "verify",
        "report",
    ]
    for job in jobs:
        text = script(job, site, places(experiment))
        assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
        assert text.startswith("#!/bin/bash\n") and str(tmp_path / "run" / "experiment.yaml") in text


def test_a_dry_run_prints_the_scripts_and_writes_nothing(tmp_path, capsys):
    path = tiny_experiment(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main(["submit", str(path), *EIGHT, "--site", str(ROOT / "conf/site/gpu_cluster.yaml"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "#SBATCH --gpus-per-node=4" in said and "waits for stats to succeed" in said and "--only train" in said
    assert sorted(tmp_path.rglob("*")) == before


def test_jobs_ask_for_what_the_site_says(tmp_path):
    experiment = load_experiment(tiny_experiment(tmp_path))
    site = SiteConfig(
        account="a",
        partition="p",
        options=["--mail-type=FAIL"],
        setup=["module load x"],
        environment={"A": "two words"},
        requeue=False,
        continuations=2,
        default={"cpus_per_task": 3},
        stages={"train": {"nodes": 2, "time": "1-00:00:00", "options": ["--constraint=a100"]}},
    )
    jobs = {job.name: job for job in plan(experiment, site)}
    assert jobs["train-1"].after_any == ("train",) and jobs["train-2"].after_any == ("train-1",)
    assert jobs["rollout"].after == ("train-2",)
    text = script(jobs["train"], site, places(experiment))
    for line in (
        "account=a",
        "partition=p",
        "nodes=2",
        "cpus-per-task=3",
        "time=1-00:00:00",
        "constraint=a100",
        "no-requeue",
    ):
        assert f"#SBATCH --{line}\n" in text, line
    assert "module load x\n" in text and "export A='two words'\n" in text and "scontrol requeue" not in text


@pytest.mark.parametrize(
    "text, message",
    [
        ("stages: {train: {time: 24:00:00}}", "time limit in quotes"),
        ("stages: {trian: {}}", "trian"),
        ("acount: x", "nearest: account"),
        ("default: {time: soon}", "hours:minutes:seconds"),
        ("stages: {train: {nods: 2}}", "nods"),
    ],
)
def test_mistakes_in_a_site_file_are_named(tmp_path, text, message):
    path = tmp_path / "site.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_site(path)


def test_several_tasks_of_a_stage_that_is_one_task_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="one task for the stage verify"):
        plan(load_experiment(tiny_experiment(tmp_path)), SiteConfig(stages={"verify": {"tasks_per_node": 2}}))


@pytest.mark.parametrize(
    "entry, notes, log, state, words",
    [
        (JobState("PENDING", "Dependency", 0, 0, ""), "", "", "waiting", "Dependency"),
        (JobState("RUNNING", "None", 2, 0, "01:00"), "t 7 started", "a\nb", "running", "started again 2 times"),
        (JobState("FAILED", "NonZeroExitCode", 0, 1, ""), "", "x\nerror: run: Expected y\n", "failed", "Expected y"),
        (JobState("TIMEOUT", "TimeLimit", 0, 0, ""), "", "", "failed", "TIMEOUT TimeLimit"),
        (None, "t 7 started\nt 7 ended 1", "error: run: Expected z", "failed", "Expected z"),
        (None, "t 7 started\nt 7 ended 75", "", "failed", "not queued again"),
        (None, "t 7 started", "", "failed", "without a word"),
        (None, "", "", "open", ""),
    ],
)
def test_a_stage_is_told_from_slurm_its_notes_and_its_log(tmp_path, entry, notes, log, state, words):
    experiment = load_experiment(tiny_experiment(tmp_path))
    where = Places(tmp_path / "run", tmp_path)
    where.notes.mkdir(parents=True)
    where.logs.mkdir()
    if notes:
        (where.notes / "stats").write_text(notes)
    (where.notes / "stats-later").write_text("t 9 ended 0")
    (where.logs / "stats-7.log").write_text(log)
    link = next(link for link in chain(experiment) if link.stage == "stats")
    found = _of_stage(link, [("stats", 7)], {7: [entry]} if entry else {}, where, "", 3)
    assert found.state == state and words in found.detail, found


def test_of_an_array_and_the_job_behind_it_the_one_that_failed_is_told(tmp_path):
    experiment = load_experiment(tiny_experiment(tmp_path))
    where = Places(tmp_path / "run", tmp_path)
    where.notes.mkdir(parents=True)
    where.logs.mkdir()
    (where.logs / "ingest-parts-5_1.log").write_text("fine\n")
    (where.logs / "ingest-parts-5_2.log").write_text("error: ingest: Expected y\n")
    behind = JobState("CANCELLED", "DependencyNeverSatisfied", 0, 0, "")
    tasks = [JobState("COMPLETED", "None", 0, 0, ""), JobState("FAILED", "NonZeroExitCode", 0, 1, "")]
    link = next(link for link in chain(experiment) if link.stage == "ingest")
    jobs = [("ingest-parts", 5), ("ingest", 6)]
    found = _of_stage(link, jobs, {5: tasks, 6: [behind]}, where, "", 3)
    assert found.state == "failed" and found.detail == "job 5, exit code 1: error: ingest: Expected y"
    assert _of_stage(link, jobs, {5: tasks[:1], 6: [behind]}, where, "", 3).detail.startswith("job 6: CANCELLED")


def test_status_needs_a_run_directory_and_says_what_was_never_started(finished, tmp_path):
    with pytest.raises(ConfigError, match="experiment.yaml"):
        status(tmp_path)
    said = as_text(status(finished.parent / "run"))
    assert said.count("complete") == 6 and "took" in said


def test_several_processes_may_share_training_alone(tmp_path, monkeypatch):
    path = tiny_experiment(tmp_path)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"one process for ingest, .* got 2"):
        run(load_experiment(path))
    assert not (tmp_path / "run").exists()


def test_one_stage_alone_needs_those_before_it(tmp_path):
    experiment = load_experiment(tiny_experiment(tmp_path))
    with pytest.raises(ConfigError, match="Expected ingest, stats complete in .* before train"):
        run(experiment, only="train")
    with pytest.raises(ConfigError, match="stages ingest, stats, .* got 'simulate'"):
        run(experiment, only="simulate")


@pytest.mark.parametrize(
    "changes, tasks, words",
    [
        ({"phases": [{"updates": 3, "batch_size": 6}]}, 4, r"phases.0.batch_size as a multiple of .* 4 tasks, got 6"),
        ({"phases": [{"updates": 3, "batch_size": 8, "accumulate": 4}]}, 4, "got 8 in 4 parts"),
        ({"validation": {"period": {}, "windows": 3}}, 4, "windows of at least 4 tasks, got 3"),
        ({"parallel": {"space": 3}}, 4, "multiple of its parallel.space 3, got 4"),
        ({"parallel": {"space": 2}, "phases": [{"updates": 3, "batch_size": 3}]}, 4, "2 groups of 2 tasks .*, got 3"),
    ],
)
def test_batches_that_the_tasks_cannot_share_are_refused_before_anything_is_queued(tmp_path, changes, tasks, words):
    path = tiny_experiment(tmp_path)
    raw = yaml.safe_load(path.read_text())
    raw["train"] |= changes
    path.write_text(yaml.safe_dump(raw))
    plan(load_experiment(path), SiteConfig())
    with pytest.raises(ConfigError, match=words):
        plan(load_experiment(path), SiteConfig(stages={"train": {"tasks_per_node": tasks}}))


def test_jobs_ask_for_as_many_tasks_as_hold_a_state_together(tmp_path):
    path = tiny_experiment(tmp_path)
    raw = yaml.safe_load(path.read_text())
    raw["train"]["parallel"], raw["rollout"]["parallel"] = {"space": 2, "weights": "fsdp"}, {"space": 3}
    path.write_text(yaml.safe_dump(raw))
    jobs = {job.name: job.resources for job in plan(load_experiment(path), SiteConfig())}
    assert {name: need.tasks_per_node for name, need in jobs.items() if need.tasks_per_node > 1} == {
        "train": 2,
        "rollout": 3,
    }
    four = SiteConfig(stages={"train": {"tasks_per_node": 4}})
    assert next(job for job in plan(load_experiment(path), four) if job.name == "train").resources.tasks_per_node == 4
    with pytest.raises(ConfigError, match="3 tasks, as parallel.space says, for the stage rollout, .* 2"):
        plan(load_experiment(path), SiteConfig(stages={"rollout": {"tasks_per_node": 2}}))
    with pytest.raises(ConfigError, match="a GPU for each of the 3 tasks .* rollout .* gives it 1"):
        plan(load_experiment(path), SiteConfig(stages={"rollout": {"gpus_per_node": 1}}))


def test_of_two_people_who_submit_at_once_one_is_refused(tmp_path, monkeypatch):
    """The second comes while the first is between two calls of sbatch; what the first has queued is on record by then."""
    experiment, site, numbers = load_experiment(tiny_experiment(tmp_path)), SiteConfig(), iter(range(1, 99))
    code = "import sys; from pathlib import Path; from emulator.files.one_writer import one_writer\n"
    code += "with one_writer(Path(sys.argv[1]), 0): pass"

    def queued(script, after, after_any):
        number = next(numbers)
        assert [entry[1] for entry in queue(tmp_path / "run").jobs.values()] == list(range(1, number))
        if number == 2:  # locks are of processes, so the second person has to be one
            said = subprocess.run(
                [sys.executable, "-c", code, tmp_path / "run" / "slurm"], capture_output=True, text=True
            )
            assert "Busy" in said.stderr and f"process {os.getpid()} on " in said.stderr
        return number

    monkeypatch.setattr(slurm, "submit", queued)
    monkeypatch.setattr(slurm, "states", lambda jobs: {})
    assert len(submit(experiment, site)) == 6


def test_a_submission_that_is_stopped_in_the_middle_leaves_nothing_queued(tmp_path, monkeypatch):
    numbers, cancelled = iter((11, 12)), []

    def queued(script, after, after_any):
        if (number := next(numbers, None)) is None:
            raise KeyboardInterrupt
        return number

    monkeypatch.setattr(slurm, "submit", queued)
    monkeypatch.setattr(slurm, "states", lambda jobs: {})
    monkeypatch.setattr(slurm, "cancel", cancelled.extend)
    with pytest.raises(KeyboardInterrupt):
        submit(load_experiment(tiny_experiment(tmp_path)), SiteConfig())
    assert cancelled == [11, 12] and queue(tmp_path / "run").jobs == {}


def test_a_task_of_an_array_requeues_itself_and_not_the_array(tmp_path):
    experiment = load_experiment(tiny_experiment(tmp_path))
    site = SiteConfig(stages={"ingest": {"array": 3}})
    parts, last = plan(experiment, site)[:2]
    assert (parts.name, parts.array, last.name, last.after) == ("ingest-parts", 3, "ingest", ("ingest-parts",))
    text = script(parts, site, places(experiment))
    assert "#SBATCH --array=1-3\n" in text and "--part $SLURM_ARRAY_TASK_ID/3" in text
    assert 'me="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"' in text
    assert 'me="$SLURM_JOB_ID"' in script(last, site, places(experiment))
