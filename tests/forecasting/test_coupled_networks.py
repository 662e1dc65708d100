"""Two networks of different steps in one forecast: what the atmosphere gives in an interval is what the ocean gets."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from small_planet import small_planet
from small_store import FREE, NETWORK, write_store

import emulator as em
from emulator.forecasting import forecaster as forecasting
from emulator.forecasting.forecaster import Forecaster
from emulator.forecasting.ocean_network import NetworkSea
from emulator.forecasting.options import OceanNetworkOptions
from emulator.model import checkpoint
from emulator.model.ocean_emulator import HEAT
from emulator.planet.grid import Grid
from emulator.planet.quantities import energy
from emulator.report.panels.exchange import exchange_rows, exchanged
from emulator.report.view import View
from emulator.verify.exchange import exchange

SEA, RAIN, EVAPORATION = "sea_surface_temperature", "mean_total_precipitation_rate", "mean_evaporation_rate"
pytestmark = pytest.mark.slow  # two trainings
DAYS, EVERY = 2.5, 4  # ten steps of the atmosphere, two of the ocean and half of one


def ocean_of(planet: xr.Dataset) -> xr.Dataset:
    """A daily ocean on the planet's grid: a moving surface temperature where there is sea, with fluxes as its forcing."""
    days = planet.isel(time=slice(None, None, EVERY))[[SEA, "land_sea_mask", RAIN, EVAPORATION]]
    wave = 0.3 * np.sin(np.arange(days.sizes["time"]) / 3)[:, None, None] * np.cos(np.radians(planet.longitude.values))
    days[SEA] = (days[SEA] + wave).where(days.land_sea_mask < 0.5).assign_attrs(planet[SEA].attrs)
    days[SEA].attrs |= {"role": "prognostic", "domain": "ocean", "cell_methods": "time: point"}
    heat = planet[energy.SURFACE_FLUXES[0]].isel(time=slice(None, None, EVERY)) - 130
    days[HEAT] = heat.drop_attrs().assign_attrs(units="W m-2", cell_methods="time: mean", role="forcing")
    for name in (RAIN, EVAPORATION):
        days[name].attrs["role"] = "forcing"
    return (
        days.astype(np.float32).drop_attrs(deep=False).assign_attrs(source="waves", constants=planet.attrs["constants"])
    )


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """By name the stores and checkpoints of an atmosphere and an ocean."""
    folder, planet = tmp_path_factory.mktemp("coupled"), small_planet(times=40, nlat=8)
    found = {}
    for name, dataset, more in (
        ("atmosphere", planet, {}),
        ("ocean", ocean_of(planet), {"conservation": FREE, "bounds": "none"}),
    ):
        store = write_store(folder, dataset, f"{name}.zarr")
        em.statistics(store, folder / f"{name}.nc")
        options = {"network": NETWORK, "phases": [{"updates": 2, "batch_size": 2}], **more}
        em.train(store, folder / f"{name}.nc", folder / name, **options)
        found[name] = store, folder / name / "checkpoint"
    return found


def coupling(stored, **changed) -> dict:
    store, checkpoint = stored["ocean"]
    return {"kind": "emulator", "store": store, "checkpoint": checkpoint} | changed


def run(stored, output, inits=(4, 12), **options):
    """The stores of both, loaded, of forecasts of 2.5 days."""
    store, checkpoint = stored["atmosphere"]
    times = em.open_analysis(store)["time"].values[list(inits)]
    em.forecast(checkpoint, store, times, DAYS, ocean=coupling(stored), output=output, **options)
    return [em.open_forecast(path).load() for path in (output, output.with_name(f"{output.stem}-ocean.zarr"))]


@pytest.fixture(scope="module")
def both(stored, tmp_path_factory):
    return run(stored, tmp_path_factory.mktemp("both") / "forecast.zarr")


def test_what_leaves_the_atmosphere_in_an_interval_is_what_the_ocean_gets(both):
    """Heat and water, from the fields of both stores, over the sea."""
    air, sea = both
    np.testing.assert_array_equal(sea["lead_time"] / np.timedelta64(1, "D"), [0, 1, 2])
    wet, area = np.isfinite(sea[SEA].values[0, 0]), Grid.gaussian(8).area
    assert 0.5 < wet.mean() < 0.9
    left = {HEAT: sum(air[name] for name in energy.SURFACE_FLUXES), RAIN: air[RAIN], EVAPORATION: air[EVAPORATION]}
    for name, rates in left.items():
        assert sea[name].attrs["role"] == "forcing" and bool(np.isnan(sea[name][:, 0]).all())
        for step in (1, 2):
            hours = rates.values[:, EVERY * (step - 1) + 1 : EVERY * step + 1].astype(np.float64)
            given, got = hours.mean(1) * wet, sea[name].values[:, step] * wet
            np.testing.assert_allclose(got, given, rtol=1e-6, atol=1e-6 * np.abs(given).max())
            given, got = ((part * area).sum((-2, -1)) for part in (given, got))
            np.testing.assert_allclose(got, given, rtol=1e-6)


def test_the_audit_of_the_exchange_closes_and_finds_what_is_lost(stored, both):
    """By what was written: heat and water over the sea, and a flux that one side has otherwise."""
    air, sea = both
    truth = em.open_analysis(stored["atmosphere"][0])
    found = exchange(air, sea)
    assert found["exchange"].values.tolist() == [HEAT, EVAPORATION, RAIN, "water"]
    assert found.sizes["exchange_lead_time"] == 2 and found["exchange_units"].values.tolist()[0] == "W m-2"
    np.testing.assert_allclose(found["exchange_received"], found["exchange_given"], rtol=1e-6)
    assert bool((found["exchange_difference"] < 1e-6 * found["exchange_size"]).all())
    water = found["exchange_given"].sel(exchange=[RAIN, EVAPORATION]).sum("exchange")
    np.testing.assert_allclose(found["exchange_given"].sel(exchange="water"), water)
    wet = np.isfinite(sea[SEA].values[0, 0])
    heat = sum(air[name].values[0, 1 : EVERY + 1].mean(0, np.float64) for name in energy.SURFACE_FLUXES)
    expected = float((heat * Grid.gaussian(8).area)[wet].sum() / Grid.gaussian(8).area[wet].sum())
    np.testing.assert_allclose(found["exchange_given"].sel(exchange=HEAT).values[0, 0], expected, rtol=1e-9)
    lost = exchange(air, sea.assign({HEAT: sea[HEAT] * 0.9})).sel(exchange=HEAT)
    np.testing.assert_allclose(lost["exchange_received"] / lost["exchange_given"], 0.9, rtol=1e-5)
    np.testing.assert_allclose(lost["exchange_difference"] / lost["exchange_size"], 0.1, rtol=1e-5)
    moved = exchange(air, sea.assign({HEAT: sea[HEAT].roll(longitude=1)})).sel(exchange=HEAT)
    assert bool((moved["exchange_difference"] > 1e-3 * moved["exchange_size"]).all())  # the mean alone might not tell
    scores = em.score({"air": air}, truth, audit={"z": air}, oceans={"air": sea}, events=())
    assert scores["audit_source"].values.tolist() == ["air", "z", "truth"]
    page = View(scores)
    (first, *_), text = exchange_rows(page), " ".join(exchanged(page))
    assert first[:2] == ("air", HEAT) and first[2]["cells_relative"] < 1e-6
    assert "Given to the ocean" in text and text.count("<tr>") == 1 + 4
    with pytest.raises(ValueError, match="Expected oceans of forecasts .air., got one of 'other'"):
        em.score({"air": air}, truth, oceans={"other": sea}, events=())
    thinned = air.isel(lead_time=slice(None, None, 2))
    with pytest.raises(ValueError, match="every step of the forecast in the 24 hours .* leads that are thinned"):
        exchange(thinned, sea)
    with pytest.raises(ValueError, match="coupled with the network whose forecasts are its ocean"):
        exchange(air.assign_attrs(ocean="{}"), sea)
    with pytest.raises(ValueError, match=f"what the forecast gave to its ocean in its store, got no {RAIN}"):
        exchange(air.drop_vars(RAIN), sea)


def test_an_ocean_without_bounds_leaves_its_envelope(stored, tmp_path):
    """Of an ocean whose envelope holds it, and what lies beyond the atmosphere's training is said of what was written."""
    tensors, saved = checkpoint.load(stored["ocean"][1])
    bounds = {"upper": torch.full_like(tensors["upper"], 260.0), "lower": torch.full_like(tensors["lower"], 250.0)}
    checkpoint.save(tmp_path / "held", tensors | bounds, saved)
    sea = {}
    for bounds in ("trained", "none"):
        out = tmp_path / f"{bounds}.zarr"
        air = em.forecast(
            stored["atmosphere"][1],
            stored["atmosphere"][0],
            "2001-01-02",
            DAYS,
            ocean=coupling(stored, checkpoint=tmp_path / "held", bounds=bounds),
            output=out,
        )
        sea[bounds] = em.open_forecast(tmp_path / f"{bounds}-ocean.zarr")[SEA].load()
        beyond = json.loads(air.attrs.get("forcing_beyond_training", "{}"))
        assert (SEA in beyond) == (bounds == "trained")
        assert json.loads(air.attrs["ocean"]).get("bounds", "trained") == bounds
    assert float(sea["trained"][:, 1:].max()) <= 260 < 280 < float(sea["none"][:, 1:].max())


def test_the_atmosphere_has_the_oceans_temperature_over_the_interval(stored, both):
    air, sea = both
    wet = np.isfinite(sea[SEA].values[0, 0])
    prescribed = em.open_analysis(stored["atmosphere"][0])[SEA].load()
    for lead in range(air.sizes["lead_time"]):
        for init in range(2):
            there = prescribed.sel(time=air.init_time.values[init] + air.lead_time.values[lead]).values
            expected = np.where(wet, sea[SEA].values[init, lead // EVERY], there)
            np.testing.assert_array_equal(air[SEA].values[init, lead], expected)
    assert SEA not in air.attrs["prescribed"] and float(np.nanmax(np.abs(sea[SEA][:, 2] - sea[SEA][:, 0]))) > 1e-3


def test_the_oceans_step_is_its_networks_with_the_fluxes_that_it_got(stored, both):
    _, sea = both
    store, step = em.open_analysis(stored["ocean"][0]), em.load_model(stored["ocean"][1], "cpu")
    forcing, layout = em.Forcing(store, step.layout), step.layout
    wet = torch.from_numpy(np.isfinite(sea[SEA].values[0, 0]))
    for lead in (1, 2):
        times = sea.init_time.values + sea.lead_time.values[lead - 1]
        given = forcing.inputs(times)
        state = torch.from_numpy(np.nan_to_num(sea[SEA].values[:, lead - 1]))[:, None]
        for name in (HEAT, RAIN, EVAPORATION):
            at = layout.given.slices[name].start
            given.forcing[:, at] = torch.where(wet, torch.from_numpy(sea[name].values[:, lead]), given.forcing[:, at])
        with torch.no_grad():
            found = step(state, given.forcing, given.clock).state[:, 0]
        np.testing.assert_allclose(found[:, wet], sea[SEA].values[:, lead][:, wet], rtol=1e-6)


def test_in_memory_is_the_written_one_and_thinning_does_not_reach_the_ocean(stored, both, tmp_path):
    store, checkpoint = stored["atmosphere"]
    times = both[0].init_time.values
    memory = em.forecast(checkpoint, store, times, DAYS, ocean=coupling(stored))
    for name in memory.data_vars:
        np.testing.assert_array_equal(memory[name].values, both[0][name].values, err_msg=name)
    scores = em.score({"ocean": both[1]}, stored["ocean"][0])
    assert list(scores["channel"].values) == [SEA] and bool(np.isfinite(scores["rmse"].values[..., 1:, :]).any())
    assert both[1].attrs["prescribed"] == "" and both[0].attrs["ocean"] == both[1].attrs["ocean"]
    _, sea = run(stored, tmp_path / "thin.zarr", thin={"every_hours": 30.0, "variables": ["temperature"]})
    for name in sea.data_vars:
        np.testing.assert_array_equal(sea[name].values, both[1][name].values, err_msg=name)


def test_both_stores_of_a_stopped_run_are_bit_for_bit_the_same(stored, tmp_path, monkeypatch):
    """Stopped inside an interval, with fluxes half added up, and between the two stores' last marks."""
    options = {"ensemble": {"members": 2}, "batch_size": 3}
    whole = run(stored, tmp_path / "whole.zarr", **options)
    monkeypatch.setattr(forecasting, "BLOCK_BYTES", 1)
    blocks, stops = Forecaster.blocks, []

    def stopping(self, times, schedule, position=None):
        for number, pair in enumerate(blocks(self, times, schedule, position)):
            yield pair
            if len(schedule.ends) > 2 and len(stops) < 4 and number == 2:
                stops.append(position.number if position else 0)
                raise KeyboardInterrupt

    monkeypatch.setattr(Forecaster, "blocks", stopping)
    for _ in range(8):
        try:
            run(stored, tmp_path / "stopped.zarr", **options)
            break
        except KeyboardInterrupt:
            assert not (tmp_path / "stopped.zarr").exists()
    assert max(stops) % EVERY  # went on inside an interval
    found = run(stored, tmp_path / "stopped.zarr", **options)  # and is left alone
    for one, other in zip(found, whole, strict=True):
        assert set(one.variables) == set(other.variables)
        for name in one.variables:
            np.testing.assert_array_equal(one[name].values, other[name].values, err_msg=name)


def test_stores_that_do_not_fit_are_refused(stored, tmp_path):
    """Masks that differ, another grid, and a step that is no multiple of the atmosphere's."""
    ocean = em.open_analysis(stored["ocean"][0]).load().drop_vars("cell_area")
    turned = write_store(tmp_path, ocean.assign(land_sea_mask=ocean.land_sea_mask.roll(longitude=1)), "turned.zarr")
    with pytest.raises(ValueError, match="more and [0-9]+ fewer in .*turned.zarr"):
        em.forecast(*stored["atmosphere"][::-1], "2001-01-02", 1, ocean=coupling(stored, store=turned))
    step, air = em.load_model(stored["atmosphere"][1]), em.open_analysis(stored["atmosphere"][0])
    step.metadata = {}
    slow = air.isel(time=slice(None, None, 5)).assign_attrs(time_step_seconds=5 * 21600.0)
    with pytest.raises(ValueError, match="multiple of the atmosphere's 30 h"):
        em.forecast(step, slow, slow.time.values[0], 2.5, ocean=coupling(stored))
    fewer = air.isel(longitude=slice(None, None, 2)).drop_vars("cell_area")
    with pytest.raises(ValueError, match="on the grid of the atmosphere's"):
        NetworkSea(OceanNetworkOptions(stored["ocean"][1], stored["ocean"][0]), step, fewer)


def test_networks_that_do_not_fit_are_refused(stored):
    """The atmosphere as the ocean of an ocean, and an ocean that is given no flux."""
    air, sea = stored["atmosphere"], stored["ocean"]
    with pytest.raises(ValueError, match="sea_surface_temperature as forcing"):
        em.forecast(sea[1], sea[0], "2001-01-02", 1, ocean=coupling(stored, store=air[0], checkpoint=air[1]))
    with pytest.raises(ValueError, match="with forcing that the atmosphere's predicts"):
        em.forecast(air[1], air[0], "2001-01-02", 1, ocean=coupling(stored, store=air[0], checkpoint=air[1]))
