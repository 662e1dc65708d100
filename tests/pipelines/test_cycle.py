"""Cycles from the command line: analyses that are stores, killed and gone on with, budgets, and what is refused."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from small_planet import small_planet
from small_store import write_store

import emulator as em
from emulator.assimilation.observations import Observations
from emulator.store.analysis import open_analysis
from pipelines.cli import main

START = "2001-01-14T00:00"
LETKF = {"analysis": {"kind": "letkf", "radius_km": 6000}, "initial": {"members": 3}, "additive": 0.5}


@pytest.fixture(scope="module")
def observed(finished, tmp_path_factory) -> Path:
    """Observations of the tiny planet's own states."""
    nature = open_analysis(finished.parent / "run" / "analysis.zarr")
    errors = {"temperature": 1.0, "specific_humidity": 1e-3}
    network = {"name": "soundings", "kind": "profiles", "errors": errors, "share": 0.1}
    path = tmp_path_factory.mktemp("observed") / "observations.parquet"
    em.observe({"networks": [network], "seed": 1}, nature, period=("2001-01-13", None)).write(path)
    return path


def written(finished, observed, folder: Path, **more) -> Path:
    """A configuration of a cycle over three analyses from a wrong date."""
    run = finished.parent / "run"
    values = {
        "store": str(run / "analysis.zarr"),
        "checkpoint": str(run / "train" / "checkpoint"),
        "observations": str(observed),
        "output": str(folder / "cycle"),
        "start": START,
        "end": "2001-01-14T18:00",
        "initial": {"time": "2001-01-10T00:00"},
        "covariance": {"samples": 4, "short_hours": 6, "long_hours": 12},
    }
    for name, value in more.items():
        values[name] = {**values[name], **value} if isinstance(values.get(name), dict) else value
    folder.mkdir(exist_ok=True)
    path = folder / "cycle.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def cycled(path: Path) -> Path:
    assert main(["cycle", str(path)]) == 0
    return path.parent / "cycle"


@pytest.fixture(scope="module")
def three(finished, observed, tmp_path_factory) -> Path:
    return cycled(written(finished, observed, tmp_path_factory.mktemp("three")))


def error(nature, analyses, name: str) -> np.ndarray:
    truth = nature[name].sel(time=analyses["time"]).values
    return np.sqrt(((analyses[name].values - truth) ** 2).mean((1, 2, 3)))


def test_analyses_draw_a_wrong_date_to_the_observations(finished, observed, three, tmp_path):
    nature = open_analysis(finished.parent / "run" / "analysis.zarr")
    free = open_analysis(cycled(written(finished, observed, tmp_path, analysis={"kind": "none"})) / "analysis.zarr")
    analyses = open_analysis(three / "analysis.zarr")
    assert analyses.sizes["time"] == 3
    assert (error(nature, analyses, "temperature") < error(nature, free, "temperature")).all()
    assert float(analyses["specific_humidity"].min()) >= 0


def test_records_tell_of_each_analysis_and_dry_mass_is_constant(three):
    records = [json.loads(line) for line in (three / "windows.jsonl").read_text().splitlines()]
    assert [record["window"] for record in records] == [0, 1, 2]
    wanted = {"observations", "rejected", "added_water", "added_energy", "clipped_water", "added_pressure", "seconds"}
    assert all(wanted <= set(record) and record["observations"] > 0 for record in records)
    assert len(list((three / "feedback").glob("*.parquet"))) == 3
    assert np.ptp(dry_mass(open_analysis(three / "analysis.zarr"))) < 1e-6


def dry_mass(analyses) -> np.ndarray:
    """Over the first, by time."""
    from emulator.assimilation.differences import stored_states
    from emulator.assimilation.increments import Increments
    from emulator.data.channels import Layout

    channels = Layout.of(analyses).prognostic
    mass = Increments.of(analyses, channels).dry_mass(stored_states(analyses, channels, list(analyses["time"].values)))
    return (mass / mass[0]).numpy()


@pytest.mark.slow
def test_forecasts_start_from_the_analyses(finished, three, tmp_path):
    rollout = {
        "store": str(three / "analysis.zarr"),
        "checkpoint": str(finished.parent / "run" / "train" / "checkpoint"),
        "output": str(tmp_path / "forecast.zarr"),
        "beyond_store": True,
        "every_hours": 12,
        "lead_days": 0.5,
    }
    (tmp_path / "rollout.yaml").write_text(yaml.safe_dump(rollout))
    assert main(["rollout", str(tmp_path / "rollout.yaml")]) == 0


def same(one: Path, other: Path) -> None:
    """Two cycles of the same bits, in stores and feedback."""
    names = [n for n in ("analysis.zarr", "members.zarr") if (one / n).exists()]
    for name in names:
        pair = [open_analysis(folder / name) for folder in (one, other)]
        assert all(np.array_equal(pair[0][n].values, pair[1][n].values, equal_nan=True) for n in pair[0].data_vars)
    tables = [sorted((folder / "feedback").glob("*")) for folder in (one, other)]
    assert [t.name for t in tables[0]] == [t.name for t in tables[1]]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*tables, strict=True))


# Kills the process when the Nth file is about to be given its final name.
KILLED = """
import os, signal, sys
from pipelines.cli import main
left, replace = [int(sys.argv[2])], os.replace
def killed(*paths, **options):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(*paths, **options)
os.replace = killed
main(["cycle", sys.argv[1]])
"""


@pytest.mark.slow
@pytest.mark.parametrize("at", [5, 40, 80])
@pytest.mark.parametrize("kind", ["3dvar", "letkf", "hybrid"])
def test_a_killed_cycle_ends_with_the_same_bits(finished, observed, kind, at, tmp_path):
    more = {} if kind == "3dvar" else LETKF | {"analysis": LETKF["analysis"] | {"kind": kind, "every": 2}}
    whole = cycled(written(finished, observed, tmp_path / "whole", **more))
    path = written(finished, observed, tmp_path / "killed", **more)
    child = subprocess.run([sys.executable, "-c", KILLED, str(path), str(at)], env=os.environ, capture_output=True)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()[-500:]
    assert not (tmp_path / "killed" / "cycle" / "analysis.zarr").exists()
    same(whole, cycled(path))


def stop_before_the_second_window(path: Path, monkeypatch) -> None:
    """Runs the cycle of a configuration until its first window is written."""
    from emulator.assimilation.cycle_store import CycleStore

    write = CycleStore.write

    def once(self, window, *rest):
        if window == 1:
            raise KeyboardInterrupt
        write(self, window, *rest)

    monkeypatch.setattr(CycleStore, "write", once)
    assert main(["cycle", str(path)]) == 130
    monkeypatch.undo()


def test_a_cycle_that_stopped_between_windows_goes_on_to_the_same_bits(
    finished, observed, three, tmp_path, monkeypatch
):
    path = written(finished, observed, tmp_path)
    stop_before_the_second_window(path, monkeypatch)
    same(three, cycled(path))


@pytest.mark.slow
def test_a_cycle_that_stopped_between_its_two_stores_goes_on(finished, observed, tmp_path, monkeypatch):
    """The members' store is whole under its name, that of the analyses not yet."""
    from emulator.assimilation import cycle_store

    whole = cycled(written(finished, observed, tmp_path / "whole", **LETKF))
    path, finish = written(finished, observed, tmp_path / "stopped", **LETKF), cycle_store.finish

    def once(store, *rest):
        if store.name == "analysis.zarr":
            raise KeyboardInterrupt
        finish(store, *rest)

    monkeypatch.setattr(cycle_store, "finish", once)
    assert main(["cycle", str(path)]) == 130
    monkeypatch.undo()
    same(whole, cycled(path))


@pytest.mark.slow
def test_members_of_an_ensemble_are_kept_and_lie_about_their_mean(finished, observed, tmp_path):
    folder = cycled(written(finished, observed, tmp_path, **LETKF))
    members, mean = (open_analysis(folder / name) for name in ("members.zarr", "analysis.zarr"))
    assert members.sizes["member"] == 3
    np.testing.assert_allclose(members["temperature"].mean("member"), mean["temperature"], atol=1e-2)
    assert float(members["temperature"].std("member").mean()) > 0


@pytest.mark.slow
def test_windows_of_several_times_hold_the_models_trajectory(finished, observed, tmp_path):
    analysis = {"kind": "4dvar", "iterations": 4}
    path = written(finished, observed, tmp_path, analysis=analysis, window=2, end="2001-01-15T00:00")
    folder = cycled(path)
    records = [json.loads(line) for line in (folder / "windows.jsonl").read_text().splitlines()]
    assert len(records) == 2 and open_analysis(folder / "analysis.zarr").sizes["time"] == 4
    assert all(r["cost_background"] + r["cost_observations"] < r["cost_before"] for r in records)


@pytest.mark.slow
def test_one_analysis_is_a_stage_of_its_own(finished, observed, tmp_path):
    path = alone(written(finished, observed, tmp_path))
    values = yaml.safe_load(path.read_text())
    assert main(["assimilate", str(path), "--check"]) == 0
    assert main(["assimilate", str(path)]) == 0
    nature, found = open_analysis(values["store"]), open_analysis(tmp_path / "cycle" / "analysis.zarr")
    assert found.sizes["time"] == 1 and found["time"].values[0] == np.datetime64(START)
    assert 0 < np.abs(found["temperature"].values - nature["temperature"].sel(time=START).values).max() < 20


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"analysis": {"kind": "letkf"}}, "at least 2 members for an analysis of kind letkf, got 1"),
        ({"analysis": {"kind": "hybrid"}}, "at least 2 members for an analysis of kind hybrid, got 1"),
        ({"initial": {"members": 2}}, "one member for an analysis of kind 3dvar, got 2"),
        ({"additive": 0.1}, "no additive errors for an analysis of kind 3dvar"),
        ({"window": 2}, "window of one time for an analysis of kind 3dvar, got 2"),
        ({"end": START}, "at least one window of 1 times"),
        ({"covariance": {"long_hours": 3}}, "long_hours above short_hours"),
        ({"analysis": {"kind": "5dvar"}}, "5dvar"),
        (
            {"initial": {"time": "2001-01-01", "members": 3}, "analysis": {"kind": "letkf"}},
            "analysis.zarr has, it has none of",
        ),
        ({"start": "2001-01-11", "end": "2001-01-12"}, "observations.parquet from 2001-01-11T06"),
        ({"initial": {"store": "other"}}, "the grid"),
        ({"covariance": {"path": __file__}}, "a covariance of background errors at"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(finished, observed, more, sentence, tmp_path, capsys):
    if more.get("initial", {}).get("store"):
        store = write_store(tmp_path, small_planet(times=4, nlat=4))
        more = {"initial": {"store": str(store), "time": "2001-01-01"}}
    assert main(["cycle", str(written(finished, observed, tmp_path, **more)), "--check"]) == 1
    assert sentence in capsys.readouterr().err


def alone(path: Path, **more) -> Path:
    """The configuration of one analysis from that of a cycle."""
    values = yaml.safe_load(path.read_text())
    values = {k: v for k, v in values.items() if k not in ("start", "end", "initial")} | {"time": START} | more
    path.write_text(yaml.safe_dump(values))
    return path


def test_an_analysis_beyond_its_stores_is_refused_in_a_sentence(finished, observed, tmp_path, capsys):
    path = written(finished, observed, tmp_path)
    store = write_store(tmp_path, small_planet(times=4, nlat=4))
    cases = {
        "analysis.zarr has, it has none of": {"window": 500, "analysis": {"kind": "4dvar"}},
        "the grid": {"background": str(store), "time": "2001-01-01"},
    }
    for sentence, more in cases.items():
        for options in (["--check"], []):
            assert main(["assimilate", str(alone(path, **more)), *options]) == 1
            assert sentence in capsys.readouterr().err
        path = written(finished, observed, tmp_path)


def test_check_tells_what_it_would_do(finished, observed, tmp_path, capsys):
    assert main(["cycle", str(written(finished, observed, tmp_path)), "--check"]) == 0
    assert "3 analyses of kind 3dvar from 2001-01-14T00:00:00 to 2001-01-14T18:00:00" in capsys.readouterr().out


@pytest.mark.slow
def test_a_table_of_no_observations_leaves_the_forecast_as_it_is(finished, observed, tmp_path):
    table = Observations.read(observed)
    table.where(np.zeros(len(table), bool)).write(tmp_path / "none.parquet")
    plain = cycled(written(finished, observed, tmp_path / "free", analysis={"kind": "none"}))
    empty = cycled(written(finished, tmp_path / "none.parquet", tmp_path / "empty"))
    pair = [open_analysis(folder / "analysis.zarr") for folder in (plain, empty)]
    assert torch.equal(*(torch.from_numpy(each["temperature"].values) for each in pair))
