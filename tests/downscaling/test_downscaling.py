"""Downscaling from stores to stores: better than interpolation, coarse means kept, the same bits where it was stopped."""

import contextlib
import json

import numpy as np
import pytest
import torch
import zarr
from pair_of_stores import COARSE, FINE, SMALL, coarsened, fine_planet, two_stores
from small_store import write_store

import emulator as em
from emulator.downscaling import apply
from emulator.downscaling.apply import downscale
from emulator.downscaling.options import DownscalingOptions
from emulator.downscaling.saved import load_downscaler
from emulator.downscaling.training import DownscalingTraining, train_downscaling
from emulator.files.interruption import Interrupted
from emulator.model import checkpoint
from emulator.planet.grid import Grid
from emulator.sphere.cell_means import CellMeans
from emulator.store.forecast import create_forecast, finish_forecast, write_forecast_init
from emulator.training.run import StageHooks

OPTIONS = {"network": SMALL, "updates": 30, "batch_size": 4, "scale_samples": 8, "optimizer": {"warmup_steps": 5}}
RAIN, PRESSURE = "mean_total_precipitation_rate", "surface_pressure"
FLOAT32 = 2.0**-23  # of a value: what is stored of it


@pytest.fixture(scope="module", params=[1, 4], ids=["space", "space and time"])
def trained(request, tmp_path_factory):
    """Steps in an interval, paths of the fine and the coarse store, and the trained network."""
    folder = tmp_path_factory.mktemp("downscaling")
    fine, coarse = two_stores(folder, request.param)
    return request.param, fine, coarse, train_downscaling(fine, coarse, folder / "run", **OPTIONS)


def error(store, truth, name):
    known = truth[name].sel(time=store["time"])
    return float(np.sqrt(FINE.mean((store[name] - known).values ** 2).mean()))


def test_fields_are_nearer_to_the_truth_than_interpolated_ones_and_keep_coarse_means(trained, tmp_path):
    steps, fine, coarse, model = trained
    for method in ("network", "bilinear"):
        downscale(model, coarse, tmp_path / f"{method}.zarr", method=method)
    made, plain = (em.open_analysis(tmp_path / f"{method}.zarr") for method in ("network", "bilinear"))
    truth, given, means = em.open_analysis(fine), em.open_analysis(coarse), CellMeans.of(FINE, COARSE)
    assert made.sizes["time"] == (25 if steps == 1 else 20)  # an interval without its start cannot be made
    assert json.loads(made.attrs["downscaling"])["method"] == "deterministic"
    assert error(made, truth, "temperature") < 0.9 * error(plain, truth, "temperature")
    assert float(made[RAIN].min()) >= 0
    ends = given["time"].values[-made.sizes["time"] // steps :]
    for name in ("temperature", PRESSURE, RAIN):
        own = means(made[name].values).reshape(len(ends), steps, *given[name].shape[1:])
        own = own.mean(1) if name == RAIN else own[:, -1]
        asked = given[name].sel(time=ends).values
        np.testing.assert_allclose(own, asked, rtol=0, atol=2 * FLOAT32 * np.abs(asked).max())


def test_a_stopped_training_ends_with_the_bits_of_one_that_ran_through(trained, tmp_path):
    _, fine, coarse, model = trained
    options = DownscalingOptions.of({"fine": fine, "coarse": coarse, "output": tmp_path, "save_every": 7} | OPTIONS)
    asked = iter([False] * 9 + [True])
    hooks = StageHooks(stopping=lambda: contextlib.nullcontext(lambda: next(asked)))
    with pytest.raises(Interrupted):
        DownscalingTraining(options, hooks).run()
    DownscalingTraining(options).run()
    for name, tensor in checkpoint.load(tmp_path / "checkpoint")[0].items():
        if not name.startswith("place/"):
            torch.testing.assert_close(tensor, model.state_dict()[name], rtol=0, atol=0, msg=name)


@pytest.mark.slow
def test_a_store_that_was_stopped_goes_on_with_the_same_bits(trained, tmp_path, monkeypatch):
    _, _, coarse, model = trained
    downscale(model, coarse, tmp_path / "whole.zarr", batch_size=2)
    blocks, mark = [], apply.mark

    def stopped(path, key):
        blocks.append(key)
        if len(blocks) == 2:
            raise KeyboardInterrupt
        mark(path, key)

    monkeypatch.setattr(apply, "mark", stopped)
    with pytest.raises(KeyboardInterrupt):
        downscale(model, coarse, tmp_path / "parts.zarr", batch_size=2)
    downscale(model, coarse, tmp_path / "parts.zarr", batch_size=2)
    assert blocks.count(blocks[0]) == 1  # what was marked is not made again
    for name in ("temperature", RAIN):
        whole, parts = (em.open_analysis(tmp_path / f"{n}.zarr")[name].values for n in ("whole", "parts"))
        np.testing.assert_array_equal(whole, parts)


@pytest.mark.slow
def test_forecasts_become_forecasts_with_the_fields_of_analyses(trained, tmp_path):
    steps, _, coarse, model = trained
    given = em.open_analysis(coarse).isel(time=slice(0, 3))
    leads = given["time"].values - given["time"].values[0]
    moving = (
        given[["temperature", PRESSURE, RAIN, "half_level_a", "half_level_b"]]
        .rename(time="lead_time")
        .assign_coords(lead_time=leads)
    )
    create_forecast(tmp_path / "f.zarr", moving, given["time"].values[:1], leads, {"fingerprint": "f"})
    write_forecast_init(tmp_path / "f.zarr", moving, 0)
    finish_forecast(tmp_path / "f.zarr")
    downscale(model, tmp_path / "f.zarr", tmp_path / "fine.zarr")
    downscale(model, coarse, tmp_path / "analysis.zarr")
    forecast = em.open_forecast(tmp_path / "fine.zarr").isel(init_time=0)
    valid = forecast["init_time"].values + forecast["lead_time"].values
    assert len(valid) == (3 if steps == 1 else 2 * steps)
    same = em.open_analysis(tmp_path / "analysis.zarr")["temperature"].sel(time=valid).values
    np.testing.assert_allclose(forecast["temperature"].values, same, rtol=1e-6)


@pytest.mark.slow
def test_members_differ_and_keep_the_same_means(tmp_path):
    fine, coarse = two_stores(tmp_path)
    train_downscaling(fine, coarse, tmp_path / "run", **OPTIONS | {"updates": 4}, kind="generative")
    model = load_downscaler(tmp_path / "run" / "checkpoint")
    for name in ("one", "other"):
        downscale(model, coarse, tmp_path / f"{name}.zarr", members=3, sampling_steps=2)
    one, other = (em.open_analysis(tmp_path / f"{n}.zarr")[PRESSURE].values for n in ("one", "other"))
    np.testing.assert_array_equal(one, other)
    asked = em.open_analysis(coarse)[PRESSURE].values[:, None]
    own = CellMeans.of(FINE, COARSE)(one)
    np.testing.assert_allclose(own, np.broadcast_to(asked, own.shape), rtol=0, atol=2 * FLOAT32 * asked.max())
    assert float(one.std(axis=1).mean()) > 1
    with pytest.raises(ValueError, match="the mean"):
        downscale(
            train_downscaling(fine, coarse, tmp_path / "d", **OPTIONS | {"updates": 1}),
            coarse,
            tmp_path / "x",
            members=2,
        )


def test_samples_stay_at_zero_or_above_where_they_are_asked_to_and_keep_their_means(tmp_path):
    whole = fine_planet(9)
    low = whole[PRESSURE].quantile(0.4)
    whole[PRESSURE] = (whole[PRESSURE] - low).clip(min=0).astype(np.float32).assign_attrs(whole[PRESSURE].attrs)
    fine, coarse = write_store(tmp_path, whole, "fine.zarr"), write_store(tmp_path, coarsened(whole), "coarse.zarr")
    model = train_downscaling(fine, coarse, tmp_path / "run", **OPTIONS | {"updates": 1}, kind="generative")
    asked, made = em.open_analysis(coarse)[PRESSURE].values[:, None], {}
    for names in ((), (PRESSURE,)):
        path = tmp_path / f"{len(names)}.zarr"
        downscale(model, coarse, path, members=2, sampling_steps=2, at_least_zero=names)
        made[names] = em.open_analysis(path)[PRESSURE].values
        own = CellMeans.of(FINE, COARSE)(made[names])
        np.testing.assert_allclose(own, np.broadcast_to(asked, own.shape), rtol=0, atol=2 * FLOAT32 * asked.max())
    assert made[()].min() < 0 <= made[(PRESSURE,)].min()
    with pytest.raises(ValueError, match="at_least_zero among the targets .*, got rain"):
        downscale(model, coarse, tmp_path / "x.zarr", at_least_zero=["rain"])


def test_stores_that_do_not_go_together_are_refused_in_a_sentence(tmp_path):
    fine, coarse = two_stores(tmp_path)

    def describe(**given):
        return DownscalingTraining(
            DownscalingOptions.of({"fine": fine, "coarse": coarse, "output": tmp_path / "r"} | OPTIONS | given)
        ).describe()

    assert "from 8 x 16 gaussian" in describe()
    whole = fine_planet(25)
    thirds = write_store(tmp_path, coarsened(whole, 3), "thirds.zarr")
    hours = write_store(tmp_path, coarsened(whole.isel(time=slice(None, None, 2))), "twelve.zarr")
    box = write_store(tmp_path, whole.isel(latitude=slice(3, 8), longitude=slice(2, 9)), "box.zarr")
    with pytest.raises(ValueError, match="the fine one's 12 h divides, got 18 h"):
        describe(fine=write_store(tmp_path, whole.isel(time=slice(None, None, 2)), "two.zarr"), coarse=thirds)
    with pytest.raises(ValueError, match="the fine one's 12 h divides, got 6 h"):
        describe(fine=hours, coarse=coarse)
    with pytest.raises(ValueError, match="fine grid of cells below those of"):
        describe(fine=coarse, coarse=fine)
    with pytest.raises(ValueError, match="source that covers"):
        describe(coarse=box)
    with pytest.raises(ValueError, match="the fine one has none named geopotential"):
        describe(targets=["geopotential"])
    with pytest.raises(ValueError, match="inputs of the coarse store, it has none named geopotential"):
        describe(inputs=["geopotential"])
    other = write_store(tmp_path, coarsened(fine_planet(25), grid=Grid.gaussian(12)), "other.zarr")
    model = train_downscaling(fine, coarse, tmp_path / "run", **OPTIONS | {"updates": 1})
    with pytest.raises(ValueError, match="Expected the grid 8 x 16 gaussian.*has 12 x 24"):
        downscale(model, other, tmp_path / "x.zarr")


@pytest.mark.slow
def test_interpolation_alone_is_made_anew_for_other_targets_and_another_fine_store_only(tmp_path):
    """One output for several networks: it is left alone where its values cannot differ."""
    fine, coarse = two_stores(tmp_path, times=9)
    whole = fine_planet(9)
    whole["land_sea_mask"] = 1 - whole["land_sea_mask"]
    other = write_store(tmp_path, whole, "other.zarr")
    zarr.open_group(other, mode="r+").attrs["fingerprint"] = "other"
    short = OPTIONS | {"updates": 1, "scale_samples": 2}

    def network(number, store, **more):
        return train_downscaling(store, coarse, tmp_path / f"run{number}", **short | more)

    def made(model, **more):
        downscale(model, coarse, tmp_path / "bilinear.zarr", method="bilinear", **more)
        dataset = em.open_analysis(tmp_path / "bilinear.zarr")
        names = [name for name in dataset.data_vars if "time" in dataset[name].dims]
        return names, dataset.attrs["fingerprint"], dataset["land_sea_mask"].values

    names, first, mask = made(model := network(0, fine, targets=["temperature"]))
    assert names == ["temperature"]
    assert made(model, seed=3, members=2, sampling_steps=4)[1] == first
    names, second, _ = made(network(1, fine, targets=[PRESSURE]))
    assert names == [PRESSURE] and second != first
    np.testing.assert_array_equal(made(network(2, other, targets=[PRESSURE]))[2], 1 - mask)
