"""Downscaling as stages: from a fine store to the report, goes on where it was killed, and what is refused early."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import yaml
from pair_of_stores import SMALL, fine_planet, two_stores
from small_store import write_store

import emulator as em
from emulator.verify.assemble import open_scores
from pipelines.chain import chain
from pipelines.cli import main
from pipelines.load import load_experiment
from pipelines.status import status

pytestmark = pytest.mark.slow
RAIN = "mean_total_precipitation_rate"


def experiment(folder, **more):
    """The YAML of a downscaling of a small planet; returns its path."""
    raw = {
        "directory": str(folder / "run"),
        "ingest": {"grid": {"kind": "gaussian", "rows": 8}, "step_hours": 24},
        "train_downscaling": {
            "fine": str(folder / "fine.zarr"),
            "network": SMALL,
            "updates": 30,
            "batch_size": 4,
            "save_every": 7,
            "scale_samples": 8,
            "optimizer": {"warmup_steps": 5},
        },
        "downscale": {"period": {"start": "2001-01-03"}},
        "verify": {},
        "report": {"title": "Downscaling"},
    }
    for stage, changes in more.items():
        raw[stage] = raw[stage] | changes
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """The folder of an experiment that has run: 24 h to 6 h and 8 to 16 rows."""
    folder = tmp_path_factory.mktemp("downscaling")
    write_store(folder, fine_planet(41), "fine.zarr")
    path = experiment(folder)
    assert main(["run", str(path), "--check"]) == 0
    assert main(["run", str(path)]) == 0
    return folder


def test_the_report_tells_that_means_are_kept_and_what_interpolation_lacks(ended):
    run = ended / "run"
    scores = open_scores(run / "scores.nc")
    assert list(scores["lead_time"].values / np.timedelta64(1, "h")) == [6, 12, 18, 24]
    kept = scores["coarse_departure"].sel(coarse_variable=["temperature", RAIN])
    assert float(kept.sel(downscaled="downscaled").max()) < 1e-6
    assert float(kept.sel(downscaled="bilinear").min()) > 1e-5
    made, plain = (scores["rmse"].sel(forecast=n, channel="surface_pressure") for n in ("downscaled", "bilinear"))
    assert float(made.isel(region=0, lead_time=-1)) < 0.9 * float(plain.isel(region=0, lead_time=-1))
    page = (run / "report" / "report.html").read_text()
    assert "Downscaled fields" in page and "Diurnal cycle" in page
    assert [state.state for state in status(run)] == ["complete"] * 5


def test_what_is_complete_is_not_made_again_and_a_changed_network_is(ended):
    links = {link.stage: link for link in chain(load_experiment(ended / "experiment.yaml"))}
    assert all(link.complete for link in links.values())
    changed = chain(load_experiment(ended / "experiment.yaml", ["train_downscaling.seed=1"]))
    assert [link.stage for link in changed if not link.complete] == list(links)[1:]
    later = chain(load_experiment(ended / "experiment.yaml", ["downscale.seed=1"]))
    assert [link.stage for link in later if not link.complete] == ["downscale", "verify", "report"]


KILLED = """
import os, signal, sys
from emulator.downscaling import apply
from emulator.training import saved
from pipelines.cli import main
module, name = {"train_downscaling": (saved.checkpoint, "save"), "downscale": (apply, "mark")}[sys.argv[1]]
own, count = getattr(module, name), [0]
def wrapped(*given, **more):
    own(*given, **more)
    count[0] += 1
    if count[0] == 2:
        os.kill(os.getpid(), signal.SIGKILL)
setattr(module, name, wrapped)
main(["run", sys.argv[2]])
"""


@pytest.mark.parametrize("stage", ["train_downscaling", "downscale"])
def test_a_killed_run_goes_on_to_the_same_bits(ended, tmp_path, stage):
    write_store(tmp_path, fine_planet(41), "fine.zarr")
    path = experiment(tmp_path)
    ended_by = subprocess.run([sys.executable, "-c", KILLED, stage, str(path)], env=os.environ, check=False)
    states = {state.stage: state.state for state in status(tmp_path / "run")}
    assert ended_by.returncode == -signal.SIGKILL and states[stage] == "open"
    assert main(["run", str(path)]) == 0
    for name in (RAIN, "temperature"):
        one, other = (em.open_analysis(f / "run" / "downscaled.zarr")[name].values for f in (ended, tmp_path))
        np.testing.assert_array_equal(one, other)


def test_a_checkpoint_is_published_with_what_it_makes_of_what(ended, tmp_path):
    assert main(["publish", str(ended / "run"), "--output", str(tmp_path / "model")]) == 0
    card = (tmp_path / "model" / "README.md").read_text()
    assert "8 x 16 gaussian" in card and "16 x 32 gaussian" in card and "24 h to 6 h" in card
    assert "em.downscale(" in card and f"`{RAIN}`" in card
    again = tmp_path / "again.zarr"
    em.downscale(tmp_path / "model", ended / "run" / "analysis.zarr", again, period={"start": "2001-01-03"})
    np.testing.assert_array_equal(*(em.open_analysis(p)[RAIN].values for p in (again, ended / "run/downscaled.zarr")))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["downscale.members=3"], "generative network, got 3"),
        (["downscale.period={start: 2009-01-01}"], "from 2009-01-01"),
        (["train_downscaling.targets=[vorticity]"], "none named vorticity"),
        (
            ["train_downscaling.kind=generative", "train_downscaling.mean=none"],
            "train_downscaling.mean at none, got nothing",
        ),
    ],
)
def test_what_the_stores_cannot_give_is_refused_before_anything_runs(ended, capsys, values, said):
    assert main(["run", str(ended / "experiment.yaml"), "--check", *values]) == 1
    assert said in capsys.readouterr().err


def test_samples_that_are_trained_need_the_file_of_their_mean_no_more(tmp_path, capsys):
    fine, coarse = two_stores(tmp_path, times=9)
    section = {"fine": str(fine), "coarse": str(coarse), "network": SMALL, "updates": 1, "scale_samples": 2}
    mean, path = tmp_path / "mean" / "downscaling" / "checkpoint", tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump({"directory": str(tmp_path / "mean"), "train_downscaling": section}))
    assert main(["run", str(path)]) == 0
    section |= {"kind": "generative", "mean": str(mean)}
    path.write_text(yaml.safe_dump({"directory": str(tmp_path / "samples"), "train_downscaling": section}))
    assert main(["run", str(path)]) == 0
    shutil.rmtree(mean)
    capsys.readouterr()
    assert main(["run", str(path), "--check"]) == 0 and "complete in" in capsys.readouterr().out
    assert main(["run", str(path)]) == 0 and "holds the mean" in capsys.readouterr().err
    assert main(["run", str(path), "train_downscaling.seed=1"]) == 1


def test_members_are_scored_as_an_ensemble(ended, tmp_path):
    """A generative network's members by the CRPS, beside what is deterministic."""
    (tmp_path / "fine.zarr").symlink_to(ended / "fine.zarr")
    path = experiment(
        tmp_path,
        train_downscaling={"kind": "generative", "updates": 4},
        downscale={"members": 3, "sampling_steps": 2},
    )
    assert main(["run", str(path)]) == 0
    scores = open_scores(tmp_path / "run" / "scores.nc")
    assert int(scores["members"].sel(forecast="downscaled")) == 3
    assert np.isfinite(scores["crps"].sel(forecast="downscaled")).any()
    assert float(scores["coarse_departure"].sel(downscaled="downscaled").max()) < 1e-6
    assert json.loads(scores.attrs["provenance"])["downscaled"]["downscaling"]
