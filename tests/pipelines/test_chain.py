"""The chain from sources to report: complete, skipped when complete, continued when killed, refused when wrong."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from tiny_experiment import tiny_experiment

from emulator.model import checkpoint
from emulator.model.saved_model import load_model
from emulator.store.analysis import open_analysis
from emulator.store.forecast import open_forecast
from pipelines.chain import chain
from pipelines.cli import main
from pipelines.load import load_experiment, load_stage
from pipelines.train import identity


def test_every_stage_leaves_its_file(finished):
    run = finished.parent / "run"
    for name in (
        "analysis.zarr",
        "statistics.nc",
        "train/checkpoint/weights.safetensors",
        "train/metrics.jsonl",
        "forecast.zarr",
        "uncorrected.zarr",
        "long_run.zarr",
        "scores.nc",
        "report/report.html",
        "experiment.yaml",
        "provenance.json",
    ):
        assert (run / name).exists(), name
    assert not list(run.rglob("*.partial")) and not list(run.rglob("*.writing"))


def test_the_forecast_store_opens_in_plain_xarray_under_weatherbench_names(finished):
    forecast = xr.open_zarr(finished.parent / "run" / "forecast.zarr", decode_timedelta=True)
    assert forecast["temperature"].dims == ("time", "prediction_timedelta", "level", "latitude", "longitude")
    assert forecast["prediction_timedelta"].values[1] == np.timedelta64(6, "h")
    assert np.isfinite(forecast["temperature"].values).all()
    assert (forecast["correction_rms_temperature"].values[:, 1:] > 0).all()
    assert (forecast["specific_humidity"].values >= 0).all()


def test_lead_zero_is_the_analysis_and_init_times_leave_room_for_the_truth(finished):
    run = finished.parent / "run"
    forecast, truth = open_forecast(run / "forecast.zarr"), open_analysis(run / "analysis.zarr")
    start = truth["temperature"].sel(time=forecast["init_time"].values)
    np.testing.assert_array_equal(forecast["temperature"].values[:, 0], start.values)
    assert forecast["init_time"].values[-1] + np.timedelta64(36, "h") <= truth["time"].values[-1]


def test_written_budgets_are_closed(finished):
    run = finished.parent / "run"
    forecast, plain = open_forecast(run / "forecast.zarr"), open_forecast(run / "uncorrected.zarr")
    for name in ("dry_air", "water", "energy"):
        assert abs(forecast[f"residual_after_{name}"].values[:, 1:]).max() < 1e-7
        assert abs(forecast[f"residual_before_{name}"].values[:, 1:]).max() > 1e-6
    area = forecast["cell_area"].values
    dry = []
    for store in (forecast, plain):
        thickness = np.diff(store["half_level_b"].values)[:, None, None] * store["surface_pressure"].values[:, :, None]
        column = (thickness * (1 - store["specific_humidity"].values.astype(float))).sum(2)
        mass = (column * area).sum((-2, -1))
        dry.append(abs(mass / mass[:, :1] - 1).max())
    assert dry[0] < 1e-7 < dry[1]


def test_a_second_run_does_nothing(finished):
    before = {p: p.stat().st_mtime_ns for p in (finished.parent / "run").rglob("*") if p.is_file()}
    assert main(["run", str(finished)]) == 0
    changed = {p.name for p, t in before.items() if p.stat().st_mtime_ns != t}
    assert changed <= {"experiment.yaml", "provenance.json"}


def _started(said: str) -> list[str]:
    """Stages that were run, by the log."""
    return re.findall(r"(\w+): starting$", said, re.MULTILINE)


@pytest.fixture
def moved(finished, tmp_path) -> Path:
    """A copy of the finished run in another directory."""
    shutil.copytree(finished.parent / "run", tmp_path / "moved")
    return tmp_path / "moved"


def test_a_changed_stage_alone_is_run_again(finished, moved, capsys):
    assert main(["run", str(finished), f"directory={moved}", "report.title=Another title"]) == 0
    said = capsys.readouterr().err
    assert _started(said) == ["report"]
    assert said.strip().endswith(f"report: {moved / 'report' / 'report.html'}")  # where it was asked for
    assert "Another title" in (moved / "report" / "report.html").read_text()


def test_a_report_goes_where_its_options_say(finished, tmp_path):
    title = "A: b: 1"
    assert main(["report", str(finished), "--output", str(tmp_path / "page"), "--title", title]) == 0
    assert title in (tmp_path / "page" / "report.html").read_text()


def test_a_run_that_was_moved_is_complete_where_it_is_now(finished, moved, capsys, monkeypatch):
    assert main(["run", str(finished), f"directory={moved}"]) == 0
    assert _started(capsys.readouterr().err) == []
    monkeypatch.chdir(moved.parent)
    assert main(["run", str(finished), "directory=./moved/../moved"]) == 0
    assert _started(capsys.readouterr().err) == []


def test_a_training_that_was_moved_goes_on_where_it_was(finished, moved, capsys):
    """Also when its checkpoint has to be written again: what the data are decides, not where they lie."""
    trained = checkpoint.load(moved / "train" / "checkpoint")[0]
    shutil.rmtree(moved / "train" / "checkpoint")
    assert main(["run", str(finished), f"directory={moved}"]) == 0
    said = capsys.readouterr().err
    assert "resuming after update 36" in said and "another configuration" not in said
    for name, tensor in checkpoint.load(moved / "train" / "checkpoint")[0].items():
        torch.testing.assert_close(tensor, trained[name], rtol=0, atol=0)


def test_the_identity_of_a_training_is_that_of_its_data(finished, moved):
    here, there = (load_stage("train", finished, [f"directory={d}"]) for d in (finished.parent / "run", moved))
    stores = [open_analysis(here.store)]
    assert identity(here, stores) == identity(there, stores)
    assert identity(here, stores) != identity(here.model_copy(update={"seed": 5}), stores)
    assert identity(here, stores) != identity(here, [stores[0].assign_attrs(fingerprint="other")])
    with open(moved / "statistics.nc", "ab") as stream:
        stream.write(b"more")
    assert identity(here, stores) != identity(there, stores)


@pytest.mark.parametrize(
    ("stage", "lost"),
    [
        ("ingest", "analysis.zarr"),
        ("stats", "statistics.nc"),
        ("train", "train/checkpoint"),
        ("rollout", "forecast.zarr"),
        ("rollout", "uncorrected.zarr"),
        ("rollout", "long_run.zarr"),
        ("verify", "scores.nc"),
        *(("report", f"report/{name}") for name in ("report.html", "scores.csv", "scores.json", "scores.nc")),
    ],
)
def test_a_stage_without_one_of_its_files_is_not_complete(finished, moved, stage, lost):
    links = chain(load_experiment(finished, [f"directory={moved}"]))
    assert all(link.complete for link in links)
    (moved / lost).rename(moved / "away")
    assert [link.stage for link in links if not link.complete] == [stage]


def test_only_the_store_that_is_lost_is_written_again(finished, moved, capsys):
    shutil.rmtree(moved / "uncorrected.zarr")
    before = {p: p.stat().st_ino for p in moved.glob("*.zarr")}
    assert main(["run", str(finished), f"directory={moved}"]) == 0
    assert _started(capsys.readouterr().err) == ["rollout"] and (moved / "uncorrected.zarr").exists()
    assert {p: p.stat().st_ino for p in before} == before


def test_a_changed_source_in_a_globbed_folder_or_inside_a_store_is_noticed(tmp_path):
    path = tiny_experiment(tmp_path)
    with xr.open_dataset(tmp_path / "source" / "part0.nc") as planet:
        planet.to_zarr(tmp_path / "a" / "planet.zarr", consolidated=False)
    (tmp_path / "b").mkdir()
    patterns = [str(tmp_path / "sour*" / "*.nc"), str(tmp_path / "a" / "*.zarr"), str(tmp_path / "[ab]" / "none*.nc")]

    def ingest():
        return chain(load_experiment(path, [f"ingest.sources=[{{path: {json.dumps(patterns)}}}]"]))[0].fingerprint

    found = [ingest(), ingest()]
    assert found[0] == found[1]
    os.utime(tmp_path / "source" / "part0.nc", (1, 1))
    found.append(ingest())
    os.utime(tmp_path / "a" / "planet.zarr" / "zarr.json", (1, 1))
    found.append(ingest())
    (tmp_path / "b" / "none1.nc").touch()
    found.append(ingest())
    assert len(set(found)) == 4


def test_what_no_stage_makes_is_told_by_its_date(finished, moved):
    """Statistics from elsewhere: when they change, the training is not complete, though its configuration is the same."""
    elsewhere = moved.parent / "elsewhere.nc"
    shutil.copy(moved / "statistics.nc", elsewhere)

    def train():
        links = chain(load_experiment(finished, [f"directory={moved}", f"train.statistics={elsewhere}"]))
        return next(link.fingerprint for link in links if link.stage == "train")

    before = train()
    os.utime(elsewhere, (1, 1))
    assert train() != before


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_damaged_mark_is_no_mark(finished, moved, capsys, text):
    (moved / ".stages" / "stats.json").write_text(text)
    assert main(["run", str(finished), f"directory={moved}"]) == 0
    assert _started(capsys.readouterr().err) == ["stats"]


@pytest.mark.parametrize("stage", ["ingest", "stats", "train", "rollout", "verify", "report", "run"])
def test_check_passes_and_writes_nothing(finished, stage, capsys):
    before = sorted(p for p in finished.parent.rglob("*"))
    assert main([stage, str(finished), "--check"]) == 0
    assert stage in capsys.readouterr().out or stage == "run"
    assert sorted(p for p in finished.parent.rglob("*")) == before


def test_a_loaded_checkpoint_gives_the_written_forecast(finished):
    run = finished.parent / "run"
    step = load_model(run / "train" / "checkpoint")
    metadata = step.metadata
    assert metadata["config"]["network"]["embed_dim"] == 12
    forecast, truth = open_forecast(run / "forecast.zarr"), open_analysis(run / "analysis.zarr")
    from emulator.data.forcing import Forcing

    time_ = forecast["init_time"].values[0]
    fields = {n: torch.from_numpy(truth[n].sel(time=[time_]).values) for n in step.layout.prognostic.names}
    state = step.layout.prognostic.pack(fields)
    with torch.no_grad():
        result = step(state, *Forcing(truth, step.layout.forcing).inputs([time_])[:2], step.anchor(state))
    expected = step.layout.prognostic.pack(
        {n: torch.from_numpy(forecast[n].values[:1, 1]) for n in step.layout.prognostic.names}
    )
    torch.testing.assert_close(result.state, expected, rtol=1e-5, atol=1e-4)


def test_a_checkpoint_that_does_not_match_the_store_is_refused_naming_both(finished, tmp_path, capsys):
    run = finished.parent / "run"
    other = tmp_path / "checkpoint"
    shutil.copytree(run / "train" / "checkpoint", other)
    tensors, metadata = checkpoint.load(other)
    checkpoint.save(other, tensors, metadata | {"step_seconds": 3600.0})
    assert main(["rollout", str(finished), f"checkpoint={other}", f"output={tmp_path / 'f.zarr'}"]) == 1
    said = capsys.readouterr().err
    assert str(other) in said and str(run / "analysis.zarr") in said and "1 h" in said and "6 h" in said
    assert not (tmp_path / "f.zarr").exists()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["train", "optimizr.lr=1"], ["optimizr", "nearest: train.optimizer"]),
        (["train", "prognostic=[temperature, geopotential]"], ["geopotential", "analysis.zarr"]),
        (["train", "period={start: 2005-01-01}"], ["2005-01-01", "the store holds"]),
        (["rollout", "period={start: 2001-01-18}"], ["initial times", "analysis.zarr"]),
        (["rollout", "checkpoint=nowhere"], ["nowhere"]),
        (["train", "statistics=nowhere.nc"], ["nowhere.nc", "stats"]),
        (["train", "output=/proc/nothing/here"], ["/proc/nothing"]),
    ],
)
def test_bad_input_ends_in_one_sentence(finished, arguments, words, capsys, tmp_path):
    stage, *overrides = arguments
    if not any(o.startswith("output=") for o in overrides):
        overrides.append(f"output={tmp_path / 'out'}")
    assert main([stage, str(finished), *overrides]) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert "Traceback" not in "".join(said)
    assert all(word in said[-1] for word in words), said[-1]
    assert not (tmp_path / "out").exists()


def test_a_killed_chain_goes_on_and_ends_with_the_same_forecasts(finished, tmp_path):
    """Kill -9 the chain at several moments; what it ends with is bit for bit what an uninterrupted run ends with."""
    path = tiny_experiment(tmp_path)
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    for pattern in ("run/analysis.zarr*", "run/train/state-*", "run/forecast.zarr.partial/temperature/c/*"):
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", "run", str(path)], env=environment, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and not list(tmp_path.glob(pattern)):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, f"it ended by itself before {pattern}"
    assert main(["run", str(path)]) == 0
    for name in ("forecast.zarr", "uncorrected.zarr", "long_run.zarr"):
        ours, theirs = (open_forecast(folder / "run" / name).load() for folder in (tmp_path, finished.parent))
        xr.testing.assert_equal(ours, theirs)
    ours, theirs = (checkpoint.load(Path(f) / "run/train/checkpoint")[0] for f in (tmp_path, finished.parent))
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=0)


# Runs a stage, and kills the process when the Nth file is about to be given its final name.
KILLED_AT_RENAME = """
import os, signal, sys
count, renamed, replace = int(sys.argv.pop(1)), [], os.replace
def killed(*paths, **options):
    renamed.append(paths)
    if len(renamed) == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(*paths, **options)
os.replace = os.rename = killed
from pipelines.chain import chain
from pipelines.cli import main
from pipelines.load import load_experiment, load_stage
from pipelines.train import identity
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "stage, at",
    [
        ("stats", 3),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("stats", 1), ("verify", 1), ("report", 3))),
    ],
)
def test_a_stage_killed_while_it_names_its_files_ends_the_same_when_started_again(finished, stage, at, tmp_path):
    run = finished.parent / "run"
    name = {"stats": "statistics.nc", "verify": "scores.nc", "report": "report"}[stage]
    output, last = tmp_path / name, tmp_path / name / "report.html" if stage == "report" else tmp_path / name
    command = [stage, str(finished), f"output={output}"]
    child = subprocess.run([sys.executable, "-c", KILLED_AT_RENAME, str(at), *command], stderr=subprocess.DEVNULL)
    assert child.returncode == -signal.SIGKILL
    assert not last.exists()
    assert main(command) == 0
    if stage == "report":
        assert (output / "scores.csv").read_bytes() == (run / name / "scores.csv").read_bytes()
        assert [p.name for p in sorted(output.iterdir())] == [p.name for p in sorted((run / name).iterdir())]
    else:
        with xr.open_dataset(output) as ours, xr.open_dataset(run / name) as theirs:
            xr.testing.assert_equal(ours.load(), theirs.load())
        beside = [p.name for p in run.glob(f"{name}*")]  # statistics have the budgets' residuals beside them
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted(beside)


@pytest.mark.parametrize("stage", ["ingest", "stats", "train", "rollout", "verify", "report"])
def test_a_full_disk_ends_in_one_sentence_and_nothing_that_looks_finished(finished, stage, tmp_path, capsys):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk can only be mounted by root")
    try:
        output = disk / {"stats": "s.nc", "verify": "s.nc", "train": "train", "report": "report"}.get(stage, "s.zarr")
        assert main([stage, str(finished), f"output={output}"]) == 1
        said = capsys.readouterr().err.strip().splitlines()
        assert "No space left" in said[-1] and "Traceback" not in "".join(said), said
        finished_looking = output / "checkpoint" if stage == "train" else output
        assert not finished_looking.exists() or (stage == "report" and not (output / "report.html").exists())
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
