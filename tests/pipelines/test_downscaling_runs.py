"""Downscaling as stages: from a fine store to the report, goes on where it was killed, and what is refused early."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import yaml
from pair_of_stores import COARSE, FINE, SMALL, fine_planet
from small_store import write_store

import emulator as em
from emulator.sphere.cell_means import CellMeans
from emulator.verify.assemble import open_scores
from pipelines.chain import chain
from pipelines.cli import main
from pipelines.load import load_experiment
from pipelines.status import status

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
    assert float(made.isel(region=0).mean()) < 0.9 * float(plain.isel(region=0).mean())
    page = (run / "report" / "report.html").read_text()
    assert "Downscaling" in page and "99.9" in page
    assert [state.state for state in status(run)] == ["complete"] * 5


def test_scores_are_those_of_the_stores(ended):
    """Quantiles, means and cycles of the day against the formulas on whole arrays."""
    run = ended / "run"
    scores, truth, fine = (
        open_scores(run / "scores.nc"),
        em.open_analysis(ended / "fine.zarr"),
        em.open_analysis(run / "downscaled.zarr"),
    )
    known = truth.sel(time=fine["time"])
    weights = np.broadcast_to(FINE.area, known[RAIN].shape).ravel()
    for store, name in ((fine, "downscaled"), (known, "truth")):
        field = store[RAIN].values.astype(np.float64)
        order = np.argsort(field.ravel())
        share = np.cumsum(weights[order]) / weights.sum()
        own = np.interp([0.9, 0.99, 0.999], share, field.ravel()[order])
        found = scores["downscaled_quantile"].sel(downscaled=name, downscaled_channel=RAIN)
        np.testing.assert_allclose(
            found.sel(downscaled_quantile_level=[0.9, 0.99, 0.999]), own, rtol=0.02, atol=0.02 * field.std()
        )
    coarse = em.open_analysis(run / "analysis.zarr").sel(time=fine["time"].values[3::4])
    own = CellMeans.of(FINE, COARSE)(fine[RAIN].values).reshape(-1, 4, *COARSE.shape).mean(1)
    worst = np.abs(own - coarse[RAIN].values).max() / coarse[RAIN].values.max()
    found = float(scores["coarse_departure"].sel(downscaled="downscaled", coarse_variable=RAIN))
    assert found == pytest.approx(worst, rel=1e-6)
    cycles = []
    for store in (fine, known):
        hours = store["surface_pressure"].astype(np.float64).groupby("time.hour").mean().values
        cycles.append(hours - hours.mean(0))
    size = [np.sqrt(FINE.mean(c**2).mean()) for c in (*cycles, cycles[0] - cycles[1])]
    at = {"downscaled": "downscaled", "downscaled_channel": "surface_pressure"}
    assert float(scores["diurnal_strength"].sel(at)) == pytest.approx(size[0] / size[1], rel=1e-6)
    assert float(scores["diurnal_error"].sel(at)) == pytest.approx(size[2] / size[1], rel=1e-6)


def test_what_is_complete_is_not_made_again_and_a_changed_network_is(ended):
    links = {link.stage: link for link in chain(load_experiment(ended / "experiment.yaml"))}
    assert all(link.complete for link in links.values())
    changed = chain(load_experiment(ended / "experiment.yaml", ["train_downscaling.seed=1"]))
    assert [link.stage for link in changed if not link.complete] == list(links)[1:]
    later = chain(load_experiment(ended / "experiment.yaml", ["downscale.seed=1"]))
    assert [link.stage for link in later if not link.complete] == ["downscale", "verify", "report"]


KILLED = """
import os, signal, sys
from emulator.store import marks
from emulator.model import checkpoint
from pipelines.cli import main
kind, number, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
module, name = (checkpoint, "save") if kind == "train_downscaling" else (sys.modules["emulator.downscaling.apply"], "mark") \
    if "emulator.downscaling.apply" in sys.modules else (__import__("emulator.downscaling.apply", fromlist=["mark"]), "mark")
own, count = getattr(module, name), [0]
def wrapped(*given, **more):
    own(*given, **more)
    count[0] += 1
    if count[0] == number:
        os.kill(os.getpid(), signal.SIGKILL)
setattr(module, name, wrapped)
main(["run", path])
"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["train_downscaling", "downscale"])
def test_a_killed_run_goes_on_to_the_same_bits(ended, tmp_path, stage):
    write_store(tmp_path, fine_planet(41), "fine.zarr")
    path = experiment(tmp_path, downscale={"batch_size": 2})
    subprocess.run([sys.executable, "-c", KILLED, stage, "2", str(path)], env=os.environ, check=False)
    states = {state.stage: state.state for state in status(tmp_path / "run")}
    assert states[stage] == "open"
    assert main(["run", str(path)]) == 0
    for name in (RAIN, "temperature"):
        one, other = (em.open_analysis(f / "run" / "downscaled.zarr")[name].values for f in (ended, tmp_path))
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["train_downscaling.kind=generative", "train_downscaling.objective={kind: flow}"], "flow"),
        (["train_downscaling.kind=generative", "train_downscaling.objective={kind: edm, rho: -1}"], "rho"),
        (["train_downscaling.network={kind: unet, wdth: 3}"], "network.wdth"),
        (["downscale.members=3"], "generative network, got 3"),
        (["downscale.period={start: 2009-01-01}"], "from 2009-01-01"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(ended, capsys, values, said):
    assert main(["run", str(ended / "experiment.yaml"), "--check", *values]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.slow
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
