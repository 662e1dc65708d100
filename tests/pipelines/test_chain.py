"""The chain from sources to report: complete, skipped when complete, continued when killed, refused when wrong."""

import json
import os
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

from emulator import checkpoint
from emulator.store import open_analysis, open_forecast
from pipelines import checkpoints
from pipelines.cli import main


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


def test_a_second_run_does_nothing(finished, caplog):
    before = {p: p.stat().st_mtime_ns for p in (finished.parent / "run").rglob("*") if p.is_file()}
    caplog.set_level("INFO", "pipelines")
    assert main(["run", str(finished)]) == 0
    changed = {p.name for p, t in before.items() if p.stat().st_mtime_ns != t}
    assert changed <= {"experiment.yaml", "provenance.json"}


def test_a_changed_stage_alone_is_run_again(finished):
    run = finished.parent / "run"
    stages = {p.stem: p.stat().st_mtime_ns for p in (run / ".stages").iterdir()}
    assert main(["run", str(finished), "report.title=Another title"]) == 0
    again = {p.stem: p.stat().st_mtime_ns for p in (run / ".stages").iterdir()}
    assert {name for name in stages if stages[name] != again[name]} == {"report"}
    assert "Another title" in (run / "report" / "report.html").read_text()


@pytest.mark.parametrize("stage", ["ingest", "stats", "train", "rollout", "verify", "report", "run"])
def test_check_passes_and_writes_nothing(finished, stage, capsys):
    before = sorted(p for p in finished.parent.rglob("*"))
    assert main([stage, str(finished), "--check"]) == 0
    assert stage in capsys.readouterr().out or stage == "run"
    assert sorted(p for p in finished.parent.rglob("*")) == before


def test_a_loaded_checkpoint_gives_the_written_forecast(finished):
    run = finished.parent / "run"
    step, metadata = checkpoints.load_step(run / "train" / "checkpoint")
    assert metadata["config"]["network"]["embed_dim"] == 12
    forecast, truth = open_forecast(run / "forecast.zarr"), open_analysis(run / "analysis.zarr")
    from emulator.forcing import Forcing

    time_ = forecast["init_time"].values[0]
    fields = {n: torch.from_numpy(truth[n].sel(time=[time_]).values) for n in step.layout.prognostic.names}
    state = step.layout.prognostic.pack(fields)
    with torch.no_grad():
        result = step(state, *Forcing(truth, step.layout.forcing).told([time_]), step.anchor(state))
    expected = step.layout.prognostic.pack(
        {n: torch.from_numpy(forecast[n].values[:1, 1]) for n in step.layout.prognostic.names}
    )
    torch.testing.assert_close(result.state, expected, rtol=1e-5, atol=1e-4)


def test_a_checkpoint_that_does_not_match_the_store_is_refused_naming_both(finished, tmp_path, capsys):
    run = finished.parent / "run"
    other = tmp_path / "checkpoint"
    shutil.copytree(run / "train" / "checkpoint", other)
    metadata = json.loads((other / checkpoint.METADATA).read_text())
    metadata["step_seconds"] = 3600.0
    (other / checkpoint.METADATA).write_text(json.dumps(metadata))
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
        process.wait()
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
from pipelines.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("stage, at", [("stats", 1), ("stats", 3), ("verify", 1), ("report", 3)])
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
        assert [p.name for p in tmp_path.iterdir()] == [name]


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
