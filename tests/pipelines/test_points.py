"""Grids of points from the source to the report: the same cells in rows and columns or in a list give the same emulator."""

import json

import numpy as np
import pytest
import xarray as xr
import yaml
from small_planet import small_planet
from tiny_experiment import tiny_experiment

from emulator.model.saved_model import grid_from_json, grid_to_json, load_model
from emulator.planet.grid import Grid
from emulator.store.analysis import open_analysis
from emulator.store.forecast import open_forecast
from emulator.store.schema import grid_of
from pipelines.cli import main

ROWS = {"temperature", "surface_pressure"}
slow = pytest.mark.slow


def as_points(planet: xr.Dataset) -> xr.Dataset:
    """The same fields with a dimension `cell` and the cells' areas, in an order that no grid has."""
    area = xr.DataArray(grid_of(planet).area, dims=("latitude", "longitude"), attrs={"units": "1"})
    flat = planet.drop_vars("cell_area", errors="ignore").assign(cell_area=area).stack(cell=("latitude", "longitude"))
    order = np.random.default_rng(0).permutation(flat.sizes["cell"])
    return flat.reset_index("cell").isel(cell=order).transpose(..., "cell")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The run directories of one experiment on rows and columns, and on points."""
    folder = tmp_path_factory.mktemp("points")
    planet = small_planet(times=48)
    found = {}
    for name, data in (("rows", planet), ("points", as_points(planet))):
        path = tiny_experiment(folder / name)
        for file in (folder / name / "source").glob("*.nc"):
            file.unlink()
        data.to_netcdf(folder / name / "source" / "a.nc")
        raw = yaml.safe_load(path.read_text())
        raw["stats"]["period"]["end"] = raw["train"]["period"]["end"] = "2001-01-08"
        raw["train"] |= {
            "network": {"kind": "graph", "refinement": 1, "width": 8, "rounds": 2},
            "phases": [{"updates": 6}],
            "log_every": 1,
        }
        raw["rollout"] |= {"period": {"start": "2001-01-09"}, "lead_days": 1, "uncorrected_inits": 2}
        raw["rollout"].pop("long_run_days")
        raw["verify"] = {}
        path.write_text(yaml.safe_dump(raw))
        assert main(["run", str(path)]) == 0
        found[name] = folder / name / "run"
    return found


def test_a_checkpoint_keeps_areas():
    """Through JSON and back, bit for bit; areas of rows and columns follow from their coordinates."""
    chance = np.random.default_rng(1)
    points = Grid.points(chance.uniform(-90, 90, 9), chance.uniform(0, 360, 9), chance.uniform(1, 2, 9))
    for grid in (points, Grid.gaussian(8)):
        again = grid_from_json(json.loads(json.dumps(grid_to_json(grid))))
        assert again.kind == grid.kind and again.same_as(grid)
        np.testing.assert_allclose(again.area, grid.area, rtol=1e-15)


@slow
def test_the_store_has_cells(runs):
    rows, points = (open_analysis(runs[name] / "analysis.zarr") for name in ("rows", "points"))
    assert points.temperature.dims == ("time", "level", "cell") and grid_of(points).kind == "points"
    np.testing.assert_allclose(points.cell_area.sum(), 1)
    for name in ROWS:
        mean = grid_of(rows).mean(rows[name].values)
        np.testing.assert_allclose(grid_of(points).mean(points[name].values), mean, rtol=1e-12)


@slow
def test_the_training_is_the_same(runs):
    """To the rounding of float32 sums in another order, which six updates of Adam let grow."""
    rows, points = (
        [json.loads(line)["loss"] for line in (runs[name] / "train" / "metrics.jsonl").read_text().splitlines()]
        for name in ("rows", "points")
    )
    assert len(rows) == 6 and rows[0] != rows[-1]
    np.testing.assert_allclose(points[0], rows[0], rtol=1e-5)
    np.testing.assert_allclose(points, rows, rtol=1e-3)


@slow
def test_the_checkpoint_carries_the_cells(runs):
    step = load_model(runs["points"] / "train" / "checkpoint")
    saved = step.metadata
    grid = grid_of(open_analysis(runs["points"] / "analysis.zarr"))
    np.testing.assert_allclose(saved["grid"]["area"], grid.area)
    assert not step.training


@slow
def test_the_forecasts_are_the_same_and_close_the_budgets(runs):
    rows, points = (open_forecast(runs[name] / "forecast.zarr") for name in ("rows", "points"))
    assert points.temperature.dims == ("init_time", "lead_time", "level", "cell")
    mine, theirs = (grid_of(f).mean(f["temperature"].values) for f in (points, rows))
    np.testing.assert_allclose(mine, theirs, rtol=1e-4)
    for budget in ("dry_air", "water", "energy"):
        assert float(np.abs(points[f"residual_after_{budget}"][:, 1:]).max()) < 1e-6
        assert float(np.abs(points[f"residual_before_{budget}"][:, 1:]).max()) > 1e-9


@slow
def test_the_scores_are_the_same(runs):
    rows, points = (xr.open_dataset(runs[name] / "scores.nc") for name in ("rows", "points"))
    one, other = (scores["rmse"].sel(forecast="persistence", region="global").values for scores in (rows, points))
    np.testing.assert_allclose(other, one, rtol=1e-6)
    assert (runs["points"] / "report" / "report.html").stat().st_size > 50_000
