"""Trainings and forecasts from files by the public functions: histories, masks, series, maps without a state, lengths."""

import contextlib
import json

import numpy as np
import pytest
import torch
import xarray as xr
from small_planet import small_planet
from small_store import FREE, NETWORK, store_of

import emulator as em
from emulator.files.interruption import Interrupted
from emulator.model import checkpoint
from emulator.store.climatology import SCHEMA
from emulator.training.options import TrainOptions
from emulator.training.run import StageHooks, Training

FEW = {
    "network": NETWORK,
    "conservation": FREE,
    "prognostic": ["temperature", "surface_pressure"],
    "diagnostic": ["mean_evaporation_rate"],
    "phases": [{"updates": 4, "batch_size": 2}],
}


@pytest.fixture(scope="module")
def planet():
    """With a CO2 series, and two times missing."""
    data = small_planet(times=40)
    missing = np.isin(np.arange(40), [17, 18])
    moving = [name for name in data if "time" in data[name].dims]
    data = data.assign({name: data[name].where(~xr.DataArray(missing, dims="time")) for name in moving})
    co2 = ("time", 400 + 0.1 * np.arange(40), {"units": "ppm", "role": "forcing", "cell_methods": "time: point"})
    return data.assign(missing=("time", missing), co2=co2).assign_attrs(time_step_seconds=21600.0)


@pytest.fixture(scope="module")
def paths(planet, tmp_path_factory):
    return store_of(tmp_path_factory.mktemp("planet"), planet)


def weights(folder):
    return checkpoint.load(folder / "checkpoint")[0]


def same(one, other):
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=0, atol=0, msg=name)
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()


def stopped(options, after):
    """A training that is stopped after some updates."""
    calls = iter(range(100))
    hooks = StageHooks(stopping=lambda: contextlib.nullcontext(lambda: next(calls) + 1 >= after))
    with pytest.raises(Interrupted):
        Training(TrainOptions.of(options), hooks).run()


@pytest.mark.parametrize(
    "more",
    [{"history": 2, "network": NETWORK}, {"steps": [6, 12, 24], "conservation": FREE}],
    ids=["two input times", "three lengths"],
)
def test_a_training_that_was_stopped_ends_with_the_same_bits(paths, tmp_path, more):
    """With samples that go on from the network's own states, several steps long, across saves."""
    phases = [{"updates": 5, "batch_size": 3, "rollout_steps": 2, "random_steps": True, "replay": 0.7}]
    options = FEW | more | {"phases": phases, "ema": 0.9, "log_every": 1}
    em.train(*paths, tmp_path / "whole", **options)
    parts = options | {"store": paths[0], "statistics": paths[1], "output": tmp_path / "parts"}
    stopped(parts, 2)
    em.train(*paths, tmp_path / "parts", **options)
    same(tmp_path / "whole", tmp_path / "parts")
    loss = [row["loss"] for row in map(json.loads, open(tmp_path / "whole" / "metrics.jsonl"))]
    assert np.isfinite(loss).all()


def test_two_input_times_from_the_training_to_a_forecast_store_that_goes_on(paths, tmp_path, planet):
    valid = {"period": {"start": "2001-01-08"}, "steps": 3, "windows": 4, "every": 2}
    step = em.train(*paths, tmp_path, **FEW, history=2, validation=valid)
    assert step.layout.history == 2 and "skill" in (tmp_path / "validation.jsonl").read_text()
    init = planet["time"].values[[5, 25]]
    forecast = em.forecast(step, paths[0], init, days=1)
    written = em.forecast(tmp_path / "checkpoint", paths[0], init, days=1, output=tmp_path / "f.zarr")
    xr.testing.assert_equal(forecast["temperature"].load(), written["temperature"].load())
    truth = em.open_analysis(paths[0])
    start = truth["temperature"].sel(time=init).values
    np.testing.assert_array_equal(forecast["temperature"].isel(lead_time=0).values, start)
    for late in (19, 0):  # the time before is missing, or before the store
        with pytest.raises(ValueError, match="for a history, the store has none at"):
            em.forecast(step, paths[0], planet["time"].values[late], days=1)
    scores = em.score(forecast, truth)
    assert np.isfinite(scores["rmse"].sel(forecast=scores["forecast"][0])).any()


def test_a_history_longer_than_every_gapless_stretch_is_refused(paths, tmp_path):
    with pytest.raises(ValueError, match="windows of 1 steps"):
        em.train(*paths, tmp_path / "out", **FEW, history=22)
    assert not (tmp_path / "out" / "checkpoint").exists()


def test_a_series_reaches_the_network_as_a_channel_and_as_a_condition(paths, tmp_path, planet):
    network = {"kind": "sfno", "embed_dim": 4, "blocks": 1, "condition": ["co2", "time_of_year"], "norm": "layer"}
    asked = FEW | {"network": network, "forcing": ["co2"], "forcing_moments": {"co2": "mean"}}
    step = em.train(*paths, tmp_path, **asked)
    assert step.layout.moments == ("mean",) and step.scalars.count == 3
    with torch.no_grad():  # both ways of giving it matter
        for parameter in step.network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    init = planet["time"].values[3]
    plain = em.forecast(step, paths[0], init, days=0.5)
    richer = em.open_analysis(paths[0]).load()
    richer["co2"] = richer["co2"] + 100
    assert not np.array_equal(
        plain["temperature"][:, 1], em.forecast(step, richer, init, days=0.5)["temperature"][:, 1]
    )


def test_a_map_without_a_state_is_trained_rolled_out_and_scored(paths, tmp_path, planet):
    """Fluxes from the columns of their step: every step of a forecast is by itself."""
    asked = FEW | {"prognostic": [], "forcing": ["temperature", "specific_humidity", "sea_surface_temperature"]}
    asked |= {"forcing_moments": {"temperature": "both"}, "phases": [{"updates": 60, "batch_size": 8}]}
    asked |= {"validation": {"period": {"start": "2001-01-08"}, "steps": 2, "windows": 4, "every": 20}}
    step = em.train(*paths, tmp_path, **asked, optimizer={"lr": 1e-2, "warmup_steps": 5})
    rows = [json.loads(line) for line in open(tmp_path / "validation.jsonl")]
    assert rows[-1]["skill"] > rows[0]["skill"] and rows[-1]["skill"] > 0.3  # against the mean of the period
    times = planet["time"].values
    early, late = em.forecast(step, paths[0], times[20], days=1), em.forecast(step, paths[0], times[22], days=0.5)
    ours = early["mean_evaporation_rate"].isel(init_time=0)
    np.testing.assert_array_equal(ours[3:].values, late["mean_evaporation_rate"].isel(init_time=0)[1:].values)
    truth = em.open_analysis(paths[0])
    scores = em.score(em.forecast(step, paths[0], times[[20, 24, 28]], days=1), truth)
    assert list(scores["channel"].values) and np.isfinite(scores["rmse"]).any()


def test_one_network_makes_steps_of_several_lengths(paths, tmp_path, planet):
    network = {"kind": "sfno", "embed_dim": 4, "blocks": 1, "condition": ["time_step"], "norm": "layer"}
    step = em.train(*paths, tmp_path, **FEW | {"network": network, "steps": [6, 12, 24]})
    init = planet["time"].values[22]
    for hours in (None, 6, 12, 24):
        forecast = em.forecast(step, paths[0], init, days=1, step_hours=hours)
        leads = forecast["lead_time"].values / np.timedelta64(1, "h")
        np.testing.assert_array_equal(leads, np.arange(0, 25, hours or 6))
        assert forecast.attrs["time_step_seconds"] == 3600 * (hours or 6) and np.isfinite(forecast["temperature"]).all()
    with pytest.raises(ValueError, match="step_hours among those of the network, 6, 12, 24, got 18"):
        em.forecast(step, paths[0], init, days=1, step_hours=18)
    with pytest.raises(ValueError, match="conditions among time_of_year"):
        em.train(*paths, tmp_path / "one", **FEW | {"network": network})


@pytest.mark.parametrize("kind", ["state", "anomaly"])
def test_what_a_network_predicts_is_chosen_by_name(paths, tmp_path, planet, kind):
    climatology = {}
    if kind == "anomaly":
        grid = planet.isel(time=0, drop=True)
        fields = {n: grid[n].expand_dims(hour=[0, 6, 12, 18], dayofyear=np.arange(1, 367)) for n in FEW["prognostic"]}
        made = xr.Dataset(fields, attrs={"emulator_schema": SCHEMA, "complete": True})
        for window in (61, 181):
            made.assign_attrs(window_days=window).to_zarr(
                tmp_path / f"{window}.zarr", zarr_format=3, consolidated=False
            )
        climatology = {"climatology": tmp_path / "61.zarr"}
        with pytest.raises(ValueError, match="train.climatology"):
            em.train(*paths, tmp_path / "none", **FEW, predict=kind)
    step = em.train(*paths, tmp_path / "run", **FEW, predict=kind, **climatology)
    forecast = em.forecast(step, paths[0], planet["time"].values[5], days=0.5)
    assert np.isfinite(forecast["temperature"]).all()
    if kind == "anomaly":
        (tmp_path / "61.zarr").rename(tmp_path / "moved.zarr")  # where it lies is nothing to a forecast
        moved = em.forecast(step, paths[0], planet["time"].values[5], days=0.5, climatology=tmp_path / "moved.zarr")
        np.testing.assert_array_equal(moved["temperature"], forecast["temperature"])
        with pytest.raises(
            ValueError, match="trained with, of window_days 61, got one of window_days 181 in .*181.zarr"
        ):
            em.forecast(step, paths[0], planet["time"].values[5], days=0.5, climatology=tmp_path / "181.zarr")
    mean = planet["temperature"].mean().item()  # an untrained network is near what it counts from
    assert abs(forecast["temperature"].isel(lead_time=1).mean().item() - mean) < 30
    with pytest.raises(ValueError, match="kind of prediction among anomaly, change, state, got 'tendency'"):
        em.train(*paths, tmp_path / "other", **FEW, predict="tendency")


def test_nothing_under_a_mask_reaches_weights_or_forecasts(planet, tmp_path):
    """Sea surface temperature as a state on the ocean; the same training over stores that differ on land alone."""
    land = planet["land_sea_mask"].values > 0.5
    found = []
    for name, under in (("a", np.nan), ("b", 1e20)):
        about = planet["sea_surface_temperature"].attrs | {"role": "prognostic", "domain": "ocean"}
        warm = planet["sea_surface_temperature"] + np.sin(np.arange(40.0))[:, None, None]
        data = planet.assign(sea_surface_temperature=warm.where(~land, under).assign_attrs(about))
        (tmp_path / f"store-{name}").mkdir()
        store, statistics = store_of(tmp_path / f"store-{name}", data)
        asked = FEW | {"prognostic": ["sea_surface_temperature", "surface_pressure"], "mask_channels": True}
        step = em.train(store, statistics, tmp_path / name, **asked)
        found.append(em.forecast(step, store, data["time"].values[3], days=1))
    same(tmp_path / "a", tmp_path / "b")
    for name in ("sea_surface_temperature", "surface_pressure", "mean_evaporation_rate"):
        np.testing.assert_array_equal(found[0][name].values, found[1][name].values)
    sea = found[0]["sea_surface_temperature"].values
    np.testing.assert_array_equal(np.isnan(sea), np.broadcast_to(land, sea.shape))
    assert "land_sea_mask" in found[0]


def test_a_checkpoint_of_an_older_version_gives_the_same_forecast(paths, tmp_path, planet):
    """Without what its record did not hold then."""
    step = em.train(*paths, tmp_path, **FEW)
    tensors, metadata = checkpoint.load(tmp_path / "checkpoint")
    groups = ("prognostic", "diagnostic", "forcing", "static")
    metadata["layout"] = {name: metadata["layout"][name] for name in groups}
    for name in ("history", "steps", "predict", "forcing_moments", "mask_channels", "climatology"):
        del metadata["config"][name]
    checkpoint.save(tmp_path / "old", tensors, metadata)
    init = planet["time"].values[5]
    ours, theirs = (em.forecast(model, paths[0], init, days=1) for model in (step, tmp_path / "old"))
    xr.testing.assert_equal(ours, theirs)
