"""A checkpoint on a store that it does not fit: every difference is refused with both sides, before anything is written."""

import json

import numpy as np
import pytest
import xarray as xr

from emulator.model.checkpoint import describe
from emulator.model.saved_model import check_match
from emulator.planet.grid import Grid
from emulator.planet.vertical import Levels
from pipelines.cli import main


@pytest.fixture(scope="module")
def store(finished) -> xr.Dataset:
    return xr.open_zarr(finished.parent / "run" / "analysis.zarr").load()


@pytest.fixture(scope="module")
def saved(finished) -> dict:
    return describe(finished.parent / "run" / "train" / "checkpoint")


def finer(store):
    grid = Grid.gaussian(16)
    return store.interp(latitude=grid.latitude, longitude=grid.longitude, kwargs={"fill_value": None})


def moved(store):
    return store.assign_coords(longitude=store["longitude"] + 1.0)


def daily(store):
    return store.isel(time=slice(None, None, 4)).assign_attrs(time_step_seconds=86400.0)


def with_levels(store, levels: Levels) -> xr.Dataset:
    store = store.assign_coords(level=levels.values).assign_attrs(vertical_coordinate=levels.kind)
    return store.assign(half_level_a=("half_level", levels.half_a), half_level_b=("half_level", levels.half_b))


SIGMA = Levels.sigma(np.linspace(0, 1, 5))
UPPER = Levels("sigma", SIGMA.values, SIGMA.half_a, np.array([0.05, 0.25, 0.5, 0.75, 1]))
HYBRID = Levels.hybrid([0, 2e4, 1e4, 0, 0], [0, 0, 0.4, 0.75, 1])


@pytest.mark.parametrize(
    "change, expected, got",
    [
        (finer, "the grid 12 x 24 gaussian", "16 x 32"),
        (moved, "longitude 0 to 345", "longitude 1 to 346"),
        (daily, "a time step of 6 h", "has 24 h"),
        (lambda s: s.drop_vars("temperature"), "variable temperature", "only cell_area, geopotential_at_surface"),
        (lambda s: s.drop_vars("mean_evaporation_rate"), "variable mean_evaporation_rate", "only cell_area"),
        (lambda s: s.drop_vars("sea_surface_temperature"), "variable sea_surface_temperature", "only cell_area"),
        (lambda s: s.isel(level=[1, 2, 3]), "temperature on 4 levels|specific_humidity on 4 levels", "has 3"),
        (lambda s: s.assign(temperature=s["temperature"][:, 0]), "temperature on 4 levels", "has 0"),
        (
            lambda s: with_levels(s, Levels.sigma([0, 0.2, 0.5, 0.8, 1])),
            "4 sigma between 0, 250, 500",
            "sigma between 0, 200, 500",
        ),
        (
            lambda s: with_levels(s, HYBRID),
            "levels 4 sigma between 0, 250",
            "4 hybrid between 0, 200, 500, 750, 1000 hPa",
        ),
        (lambda s: with_levels(s, UPPER), "levels 4 sigma between 0, 250", "sigma between 50, 250"),
        (lambda s: s.assign_attrs(levels_selected=1), "levels 4 sigma", "none that make up columns"),
    ],
)
def test_every_difference_is_named_with_both_sides(store, saved, change, expected, got):
    with pytest.raises(ValueError) as refused:
        check_match(saved, change(store), "the/checkpoint", "the/store.zarr")
    said = str(refused.value)
    wanted, _, has = said.partition(" as checkpoint the/checkpoint has, store the/store.zarr ")
    assert any(words in wanted for words in expected.split("|")) and got in has, said


def test_a_store_of_other_times_and_more_variables_fits(store, saved):
    more = store.isel(time=slice(5, 9)).assign(land_use=store["land_sea_mask"])
    check_match(saved, more, "the/checkpoint", "the/store.zarr")


def test_interfaces_of_hybrid_levels_count_though_their_numbers_are_the_same(store, saved):
    own = saved | {"levels": json.loads(json.dumps(HYBRID.to_json()))}
    check_match(own, with_levels(store, HYBRID), "c", "s")
    other = Levels.hybrid(HYBRID.half_a, [0, 0, 0.38, 0.75, 1])
    with pytest.raises(ValueError, match=r"0, 200, 500, 750, 1000 hPa .* 0, 200, 480, 750, 1000 hPa"):
        check_match(own, with_levels(store, other), "c", "s")


@pytest.mark.parametrize("more", [[], ["--check"]])
def test_the_command_refuses_before_it_writes(finished, store, tmp_path, capsys, more):
    other = with_levels(store, HYBRID)
    for variable in other.variables.values():
        variable.encoding = {}
    other.to_zarr(tmp_path / "other.zarr", zarr_format=3)
    command = ["rollout", str(finished), f"store={tmp_path / 'other.zarr'}", f"output={tmp_path / 'f.zarr'}", *more]
    assert main(command) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert "4 sigma between" in said[-1] and "4 hybrid between" in said[-1] and "Traceback" not in "".join(said)
    assert [path.name for path in tmp_path.iterdir()] == ["other.zarr"]
