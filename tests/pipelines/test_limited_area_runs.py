"""A limited area from a globe's store to its report, by network, and driven by a global emulator that runs beside it."""

import json

import numpy as np
import pytest
import yaml
from limited_area_stores import globe
from regional_sources import lambert, wave
from small_store import store_of, write_store

import emulator as em
from emulator.data.border import Border
from emulator.data.boundary import Boundary
from emulator.store.analysis import open_analysis
from emulator.store.forecast import open_forecast
from emulator.store.schema import grid_of
from emulator.verify.assemble import open_scores
from pipelines.cli import main

NETWORKS = {
    "unet": {"kind": "unet", "width": 8, "depth": 1},
    "graph": {"kind": "graph", "refinement": 2, "width": 16, "rounds": 2},
    "square": {"kind": "graph", "width": 16, "rounds": 2, "square": {"levels": 2, "spacing": 1.5}},
    "hierarchical": {"kind": "hierarchical", "width": 16, "rounds": 1, "levels": 2, "spacing": 1.0},
}
BOX = {"kind": "box", "rows": 9, "columns": 11, "south": -39.375, "north": 61.875, "west": 84.375, "east": 208.125}
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a globe's analysis, and a global emulator of it."""
    folder = tmp_path_factory.mktemp("globe")
    store, statistics = store_of(folder, globe(40))
    em.train(
        store,
        statistics,
        folder / "global",
        network={"kind": "unet", "width": 4, "depth": 1},
        conservation={"kind": "none"},
        phases=[{"updates": 2, "batch_size": 2}],
    )
    return folder


def experiment(world, folder, kind, updates, place="outside"):
    """The YAML of a limited area cut from the globe; returns its path."""
    raw = {
        "directory": str(folder / "run"),
        "ingest": {"sources": [{"path": str(world / "analysis.zarr")}], "grid": BOX},
        "stats": {"period": {"end": "2001-01-07"}},
        "train": {
            "period": {"end": "2001-01-07"},
            "boundary": {"store": str(world / "analysis.zarr"), "width": 2, "place": place},
            "network": NETWORKS[kind],
            "conservation": {"kind": "none"},
            "phases": [{"updates": updates}, {"updates": 2, "rollout_steps": 2}],
            "optimizer": {"warmup_steps": 5, "lr": 0.004},
        },
        "rollout": {"period": {"start": "2001-01-08"}, "every_hours": 12, "lead_days": 1},
        "verify": {"climatology": {"end": "2001-01-07"}},
        "report": {"title": "A limited area"},
    }
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    """The YAML of a limited area that has been trained a little."""
    path = experiment(world, tmp_path_factory.mktemp("area"), "hierarchical", 2)
    for stage in ("ingest", "stats", "train"):
        assert main([stage, str(path)]) == 0
    return path


def beside(world, path, name):
    """Arguments of a rollout driven by the global emulator, and its output."""
    output = path.parent / f"{name}.zarr"
    boundary = f"rollout.boundary={{store: {world / 'analysis.zarr'}, checkpoint: {world / 'global' / 'checkpoint'}}}"
    return ["rollout", str(path), boundary, f"rollout.output={output}"], output


@slow
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_limited_area_from_a_globe_to_the_report_beats_persistence(world, tmp_path, kind):
    path = experiment(world, tmp_path, kind, 400)
    assert main(["run", str(path), "--check"]) == 0
    assert main(["run", str(path)]) == 0
    run = tmp_path / "run"
    rmse = open_scores(run / "scores.nc")["rmse"].sel(region="domain").isel(lead_time=1)
    assert (rmse.sel(forecast="emulator") < 0.9 * rmse.sel(forecast="persistence")).all()
    page = next((run / "report").glob("*.html")).read_text()
    assert "perfect boundaries" in page


def test_a_global_emulator_beside_drives_as_its_stored_forecasts_do(world, trained, tmp_path):
    arguments, output = beside(world, trained, "beside")
    assert main([*arguments, "--check"]) == 0 and not output.exists()
    assert main(arguments) == 0
    found, driving = open_forecast(output), open_forecast(output.with_name("beside-driving.zarr"))
    record = json.loads(found.attrs["boundary"])
    model = em.load_model(world / "global" / "checkpoint", "cpu")
    assert record["kind"] == "emulator" and record["driving"] == f"{model.metadata['sha256']} from small"

    own = em.forecast(model, world / "analysis.zarr", found["init_time"].values, days=1)
    for name in ("temperature", "surface_pressure"):
        np.testing.assert_array_equal(driving[name].values, own[name].values)
    stored, perfect = trained.parent / "stored.zarr", trained.parent / "perfect.zarr"
    given = f"rollout.boundary.store={output.with_name('beside-driving.zarr')}"
    assert main(["rollout", str(trained), given, f"rollout.output={stored}"]) == 0
    assert main(["rollout", str(trained), f"rollout.output={perfect}"]) == 0
    checkpoint = trained.parent / "run" / "train" / "checkpoint"
    place = {"store": world / "analysis.zarr", "checkpoint": world / "global" / "checkpoint"}
    memory = em.forecast(
        checkpoint, trained.parent / "run" / "analysis.zarr", found["init_time"].values, days=1, boundary=place
    )
    for name in ("temperature", "surface_pressure"):
        values = found[name].values
        np.testing.assert_array_equal(open_forecast(stored)[name].values, values)
        np.testing.assert_array_equal(memory[name].values, values)
        assert not np.array_equal(open_forecast(perfect)[name].values, values)


def other_emulator(world, folder):
    """A store and a checkpoint of surface pressure alone."""
    one = globe(12)[["surface_pressure"]]
    store, statistics = store_of(folder, one)
    em.train(
        store,
        statistics,
        folder / "one",
        network={"kind": "unet", "width": 4, "depth": 1},
        conservation={"kind": "none"},
        phases=[{"updates": 1, "batch_size": 2}],
    )
    return store, folder / "one" / "checkpoint"


@pytest.mark.parametrize("check", [["--check"], []])
def test_an_emulator_that_cannot_drive_is_refused_by_the_check_too(world, trained, tmp_path, capsys, check):
    store, checkpoint = other_emulator(world, tmp_path)
    area = trained.parent / "run"
    cases = (
        (store, checkpoint, "does not predict temperature"),
        (area / "analysis.zarr", area / "train" / "checkpoint", "is of a limited area itself"),
        (store, world / "global" / "checkpoint", "temperature"),
    )
    for analysis, driver, words in cases:
        output = tmp_path / "no.zarr"
        boundary = f"rollout.boundary={{store: {analysis}, checkpoint: {driver}}}"
        assert main(["rollout", str(trained), *check, boundary, f"rollout.output={output}"]) != 0
        text = " ".join(capsys.readouterr().err.split())
        assert words in text, text
        assert not output.exists() and not output.with_name("no-driving.zarr").exists()


def test_parts_of_a_rollout_with_an_emulator_beside_are_refused(world, trained, capsys):
    arguments, output = beside(world, trained, "parts")
    assert main([*arguments, "--part", "1/2"]) != 0
    text = " ".join(capsys.readouterr().err.split())
    assert "one process with a global emulator at the boundary, got 2" in text and "rollout.boundary.store" in text
    assert not output.exists()


def test_an_emulator_beside_from_another_analysis_makes_other_forecasts(world, trained, tmp_path):
    """A finished store is not taken for one that another analysis drives."""
    arguments, output = beside(world, trained, "again")
    assert main(arguments) == 0
    first = open_forecast(output)["temperature"].values
    changed = globe(40)
    changed["temperature"] = changed["temperature"] + 3
    path = write_store(tmp_path, changed)
    with_fingerprint(path, "warmer")
    given = [argument.replace(str(world / "analysis.zarr"), str(path)) for argument in arguments]
    assert main(given) == 0
    assert not np.array_equal(open_forecast(output)["temperature"].values, first)


def with_fingerprint(path, value):
    attributes = json.loads((path / "zarr.json").read_text())
    attributes["attributes"]["fingerprint"] = value
    (path / "zarr.json").write_text(json.dumps(attributes))


def test_a_delay_of_an_emulator_beside_is_refused(world, trained, capsys):
    arguments, output = beside(world, trained, "late")
    assert main([*arguments, "rollout.boundary.delay_hours=6"]) != 0
    assert "delay_hours with stored forecasts" in " ".join(capsys.readouterr().err.split())
    assert not output.with_name("late-driving.zarr").exists()


@pytest.mark.parametrize("change", ["rollout.parallel.space=2", "rollout.long_run_days=2"])
def test_the_check_refuses_processes_that_share_a_state_and_long_runs(world, trained, capsys, change):
    assert main(["rollout", str(trained), "--check", change]) != 0
    text = " ".join(capsys.readouterr().err.split())
    assert ("boundary" in text) and ("long run" in text or "process" in text), text


@pytest.mark.parametrize("length", [6000, 100])
def test_the_check_takes_nudging_and_refuses_a_length_that_the_domain_has_no_waves_of(world, trained, capsys, length):
    """With a global emulator beside too, whose forecasts do not exist yet."""
    arguments, output = beside(world, trained, "nudged")
    asked = f"rollout.boundary.nudging={{length_km: {length}, hours: 6}}"
    assert (main([*arguments, asked, "--check"]) == 0) == (length == 6000)
    text = " ".join(capsys.readouterr().err.split())
    assert ("Expected nudging.length_km above" in text) == (length == 100)
    assert not output.exists() and not output.with_name("nudged-driving.zarr").exists()


def test_the_check_of_nudging_reads_a_driving_state_inside_the_domain(world, trained, tmp_path, capsys):
    """Which the boundary alone would not need."""
    dataset = globe(40)
    dataset["temperature"][:, 0, 8, 14] = np.nan
    path = write_store(tmp_path, dataset)
    driving, nudging = f"store: {path}", "nudging: {length_km: 6000, hours: 6}"
    assert main(["rollout", str(trained), "--check", f"rollout.boundary={{{driving}}}"]) == 0
    assert main(["rollout", str(trained), "--check", f"rollout.boundary={{{driving}, {nudging}}}"]) != 0
    text = " ".join(capsys.readouterr().err.split())
    assert (
        "whole domain of 9 x 11 box" in text
        and "lacks some of temperature[0]" in text
        and "latitude 0, longitude 146.25" in text
    )


DRIVING = {
    "a variable": (lambda d: d.drop_vars("temperature"), "Expected temperature at the boundary"),
    "cells": (lambda d: d.isel(latitude=slice(2, 14), longitude=slice(7, 20)), "that cover the boundary"),
    "times": (lambda d: d.isel(time=slice(0, 32)), "reach as far as the forecast"),
}


@pytest.mark.parametrize("kind", DRIVING)
def test_the_check_refuses_driving_data_that_do_not_do(world, trained, tmp_path, capsys, kind):
    change, words = DRIVING[kind]
    path = write_store(tmp_path, change(globe(40)))
    assert main(["rollout", str(trained), "--check", f"rollout.boundary.store={path}"]) != 0
    assert words in " ".join(capsys.readouterr().err.split())


@slow
def test_a_map_with_driving_data_on_a_globe_goes_from_ingest_to_scores(world, tmp_path):
    """A Lambert domain whose rows lie askew to those of the store that drives it, without winds."""
    lambert().to_netcdf(tmp_path / "lambert.nc")
    path = experiment(world, tmp_path, "unet", 2)
    raw = yaml.safe_load(path.read_text())
    raw["ingest"] = {"sources": [{"path": str(tmp_path / "lambert.nc")}]}
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    run = tmp_path / "run"
    for stage in ("ingest", "stats", "train"):
        assert main([stage, str(path), "--check"]) == 0 and main([stage, str(path)]) == 0
    arguments, output = beside(world, path, "driven")
    assert main(arguments) == 0
    driving = output.with_name("driven-driving.zarr")
    scored = f"verify.forecasts={{driven: {output}}}", f"verify.driving={{global: {driving}}}"
    assert main(["verify", str(path), *scored]) == 0

    truth, found = open_analysis(run / "analysis.zarr"), open_forecast(output)
    grid = grid_of(truth)
    assert grid.kind == "projected" and grid_of(found).same_as(grid)
    rmse = open_scores(run / "scores.nc")["rmse"].sel(region="domain")
    assert {"driven", "global", "persistence"} <= set(rmse["forecast"].values.tolist())
    assert np.isfinite(rmse).all()
    # of the initial time the driving forecast is the analysis, which differs from the domain's by interpolation alone
    init = open_forecast(driving)["init_time"].values[0]
    analysis = open_analysis(world / "analysis.zarr").sel(time=init)
    np.testing.assert_array_equal(open_forecast(driving)["temperature"].values[0, 0], analysis["temperature"].values)
    border = Border(("temperature", "surface_pressure"), (2, 0), 2)
    boundary = Boundary(open_analysis(world / "analysis.zarr"), border, grid, "the globe")
    state = boundary.given([None], [init], [init + np.timedelta64(6, "h")])[0, :3].double()
    points = boundary.frame.points
    fields = wave(points.latitude, points.longitude)[1]
    at = list(truth["time"].values).index(init)
    expected = np.concatenate([fields["temperature"][at], fields["surface_pressure"][at][None]])
    # waves of 60 degrees on cells of 11: bilinear leaves a sixth of their amplitude, and places that were mixed up all of it
    amplitude = np.array([[4.0], [4.0], [800.0]])
    assert np.abs((state.numpy() - expected) / amplitude).max() < 0.2
