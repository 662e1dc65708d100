"""Forecasts with a slab ocean: hand-computed temperatures, both energies closed in the store, and restarts bit for bit."""

import json
import logging
import shutil

import numpy as np
import pytest
import torch
import xarray as xr
from small_planet import small_planet
from small_store import NETWORK, store_of, write_store

import emulator as em
from emulator.data.channels import Channels, Layout
from emulator.data.forcing import StepInputs
from emulator.forecasting import forecaster as forecasting
from emulator.forecasting.forecaster import Forecaster
from emulator.model.checkpoint import describe
from emulator.model.coupled import Coupled, HeatFlux
from emulator.model.slab import Slab
from emulator.model.stepper import StepResult
from emulator.planet import slab
from emulator.planet.constants import ERA5
from emulator.planet.quantities import energy

SEA = "sea_surface_temperature"
FLAT = {"kind": "slab", "depth": 30.0, "convergence": 0.0}
DAYS, STEP = 1.5, 21600.0


def icy_planet(times=24) -> xr.Dataset:
    """The small planet with snow, ice that comes and goes, seas that get warmer, and a slab's depth and convergence."""
    planet = small_planet(times=times, nlat=8)
    random, like = np.random.default_rng(3), planet[SEA]
    shape = like.shape
    rain = planet["mean_total_precipitation_rate"]
    polar = (np.abs(planet.latitude.values) > 50)[:, None]
    ice = like * 0 + polar * (0.5 + 0.5 * np.cos(np.arange(times) / 2))[:, None, None]
    fields = {
        "mean_snowfall_rate": (0.2 * rain, rain.attrs),
        "sea_ice_cover": (ice, {"units": "1", "cell_methods": "time: point"}),
        slab.DEPTH: (like * 0 + 40 + 20 * random.random(shape), {"units": "m", "cell_methods": "time: point"}),
        slab.CONVERGENCE: (like * 0 + 30 * random.normal(size=shape), {"units": "W m-2", "cell_methods": "time: mean"}),
        SEA: (like + np.arange(times)[:, None, None] * 0.01, like.attrs),
    }
    planet = planet.assign({n: f.drop_attrs().assign_attrs(a).astype(np.float32) for n, (f, a) in fields.items()})
    for name in ("sea_ice_cover", slab.DEPTH, slab.CONVERGENCE):
        planet[name].attrs["role"] = "forcing"
    planet["land_sea_mask"] = (planet.land_sea_mask * 0 + random.random((8, 16))).astype(np.float32)
    return planet


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Store, trained step that closes its budgets, and its checkpoint."""
    folder = tmp_path_factory.mktemp("slab")
    paths = store_of(folder, icy_planet())
    forcing = [SEA, "sea_ice_cover"]
    options = {"network": NETWORK, "phases": [{"updates": 2, "batch_size": 2}], "forcing": forcing}
    em.train(*paths, folder / "out", **options)
    return paths[0], folder / "out" / "checkpoint"


def times_of(store, *numbers):
    return [em.open_analysis(store)["time"].values[n] for n in numbers]


def hand_stepped(store, forecast, constant, under_ice=False) -> np.ndarray:
    """Sea temperature of a forecast, `(lead, *space)`, from its own written fluxes and the analysis, step by step."""
    analysis, first = em.open_analysis(store).load(), forecast.init_time.values
    at = int(np.flatnonzero(analysis.time.values == first)[0])
    given = analysis.isel(time=slice(at, at + forecast.sizes["lead_time"])).astype(np.float64)
    latent = json.loads(analysis.attrs["constants"]).get("latent_heat_fusion", ERA5.latent_heat_fusion)
    flux = sum(forecast[name].values.astype(np.float64) for name in energy.SURFACE_FLUXES)
    flux = flux - latent * forecast["mean_snowfall_rate"].values.astype(np.float64)
    found = [given[SEA].values[0]]
    for n in range(1, forecast.sizes["lead_time"]):
        depth = constant.get("depth", given[slab.DEPTH].values[n - 1])
        convergence = constant.get("convergence", given[slab.CONVERGENCE].values[n])
        stepped = given["land_sea_mask"].values < 0.5
        if not under_ice:
            stepped = stepped & (given["sea_ice_cover"].values[n - 1] < 0.5)
        warmed = found[-1] + STEP * (flux[n] + convergence) / (1025.0 * 3991.86795711963 * depth)
        found.append(np.where(stepped, warmed, given[SEA].values[n]))
    return np.stack(found)


@pytest.mark.parametrize(
    "constant",
    [
        {},
        pytest.param({"depth": 30.0}, marks=pytest.mark.slow),
        pytest.param({"depth": 30.0, "convergence": 0.0, "under_ice": True}, marks=pytest.mark.slow),
    ],
)
def test_the_written_temperature_is_the_hand_computed_one_and_both_energies_close(stored, tmp_path, constant):
    store, checkpoint = stored
    ocean = {"kind": "slab", **constant}
    found = em.forecast(checkpoint, store, times_of(store, 2, 9), DAYS, ocean=ocean, output=tmp_path / "f.zarr").load()
    assert found[SEA].dtype == np.float64 and found[SEA].attrs["role"] == "prognostic"
    for init in range(2):
        expected = hand_stepped(store, found.isel(init_time=init), constant, constant.get("under_ice", False))
        np.testing.assert_allclose(found[SEA].values[init], expected, rtol=1e-14)
        assert np.abs(expected[-1] - expected[0]).max() > 0.05
    audit = em.budgets(em.open_forecast(tmp_path / "f.zarr"), em.open_analysis(store))
    steps = audit["budget_residual"].isel(lead_time=slice(1, None))
    slabs_own = steps.sel(budget="coupled_energy") - steps.sel(budget="energy")  # what the slab's stepping adds, W m-2
    np.testing.assert_allclose(slabs_own, 0, atol=1e-6)
    assert float(np.abs(audit["budget_relative"].sel(budget="coupled_energy")).max()) < 1e-8
    exchanged = found["slab_share"] * sum(found[name] for name in energy.SURFACE_FLUXES)
    assert float(np.abs(exchanged).max()) > 10


def test_a_slab_that_lacks_the_heat_of_snow_does_not_close(stored, tmp_path, monkeypatch):
    """The term that ACE2-SOM leaves out is seen by the audit."""
    store, checkpoint = stored
    net = HeatFlux.__call__
    monkeypatch.setattr(
        HeatFlux, "__call__", lambda self, fields: net(self, fields) + 3.3e5 * fields["mean_snowfall_rate"]
    )
    found = em.forecast(checkpoint, store, times_of(store, 2), DAYS, ocean=FLAT)
    audit = em.budgets(found, em.open_analysis(store))
    left = audit["budget_residual"].sel(budget="coupled_energy") - audit["budget_residual"].sel(budget="energy")
    assert float(np.abs(left).max()) > 0.1


@pytest.mark.slow
def test_the_atmosphere_feels_it_a_step_later_and_what_is_written_is_what_is_in_memory(stored, tmp_path):
    store, checkpoint = stored
    init = times_of(store, 2, 5, 9)
    given = {"ocean": FLAT, "batch_size": 2}
    memory = em.forecast(checkpoint, store, init, DAYS, **given)
    written = em.forecast(checkpoint, store, init, DAYS, output=tmp_path / "f.zarr", **given).load()
    prescribed = em.forecast(checkpoint, store, init, DAYS, batch_size=2)
    for name in memory.data_vars:
        np.testing.assert_array_equal(memory[name].values, written[name].values, err_msg=name)
        assert memory[name].dtype == written[name].dtype
    assert memory.attrs["ocean"] == written.attrs["ocean"]
    assert SEA not in written.attrs["prescribed"].split(", ") and SEA not in prescribed
    np.testing.assert_array_equal(written["temperature"][:, :2], prescribed["temperature"][:, :2])
    assert not np.array_equal(written["temperature"][:, 2], prescribed["temperature"][:, 2])


@pytest.mark.slow
def test_members_are_single_forecasts(stored, tmp_path):
    """Row by row the same bits, each with a sea of its own."""
    store, checkpoint = stored
    init, ensemble = (
        times_of(store, 4, 8),
        {"members": 3, "kind": "noise", "control": True, "seed": 2, "amplitude": 3.0},
    )
    together = em.forecast(checkpoint, store, init, DAYS, ocean=FLAT, ensemble=ensemble, batch_size=1)
    alone = em.forecast(checkpoint, store, init, DAYS, ocean=FLAT, batch_size=1)
    for name in (SEA, "temperature", "slab_share"):
        np.testing.assert_array_equal(together[name].isel(member=0).values, alone[name].values, err_msg=name)
    assert float(together[SEA].isel(lead_time=-1).std("member").max()) > 1e-6
    fewer = em.forecast(checkpoint, store, init[1:], DAYS, ocean=FLAT, ensemble=ensemble, batch_size=1)
    np.testing.assert_array_equal(fewer[SEA].values, together[SEA].isel(init_time=[1]).values)
    batched = em.forecast(checkpoint, store, init, DAYS, ocean=FLAT, ensemble=ensemble, batch_size=4)
    np.testing.assert_allclose(batched[SEA], together[SEA], rtol=1e-7)
    mean = em.forecast(checkpoint, store, init, 1, ocean=FLAT, batch_size=1, thin={"every_hours": 24, "mean": "every"})
    np.testing.assert_allclose(mean[SEA][:, 0], alone[SEA][:, 1:5].mean("lead_time"), rtol=1e-14)


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_bit_for_bit_the_same(stored, tmp_path, monkeypatch):
    store, checkpoint = stored
    init, given = times_of(store, 4, 8), {"ocean": FLAT, "ensemble": {"members": 3}, "batch_size": 4}
    whole = em.forecast(checkpoint, store, init, DAYS, output=tmp_path / "whole.zarr", **given).load()
    monkeypatch.setattr(forecasting, "BLOCK_BYTES", 1)
    blocks, stops = Forecaster.blocks, []

    def stopping(self, times, schedule, position=None):
        for number, pair in enumerate(blocks(self, times, schedule, position)):
            yield pair
            if len(schedule.ends) > 1 and len(stops) < 3 and number == 2:
                stops.append(position.number if position else 0)
                raise KeyboardInterrupt

    monkeypatch.setattr(Forecaster, "blocks", stopping)
    for _ in range(6):
        try:
            em.forecast(checkpoint, store, init, DAYS, output=tmp_path / "stopped.zarr", **given)
            break
        except KeyboardInterrupt:
            assert not (tmp_path / "stopped.zarr").exists()
    assert max(stops) > 0  # went on inside a forecast
    found = em.open_forecast(tmp_path / "stopped.zarr").load()
    for name in whole.variables:
        np.testing.assert_array_equal(found[name].values, whole[name].values, err_msg=name)


class Steady:
    """An atmosphere whose fluxes never change, 10 W m-2 in all; it keeps the sea temperature that it was given."""

    noise, device = None, torch.device("cpu")

    def __init__(self):
        empty = Channels((), ())
        self.layout = Layout(empty, Channels(energy.SURFACE_FLUXES, (0,) * 4), Channels((SEA,), (0,)), empty)

    def at(self, number):
        return self

    def anchor(self, state):
        return None

    def __call__(self, state, forcing, clock, anchor=None, noise=None):
        self.given = forcing[:, 0]
        return StepResult(state, torch.full((len(state), 4, *state.shape[2:]), 2.5), {})


def test_under_a_steady_flux_the_layer_warms_in_proportion_to_time():
    """A hundred years of six-hourly steps: `T0 + n dt (F + Q) / (rho c h)`, to the rounding of as many additions."""
    atmosphere, space, steps = Steady(), (2, 3), 1000
    constant = {slab.DEPTH: torch.full(space, 50.0).double(), slab.CONVERGENCE: torch.full(space, -4.0).double()}
    given = Channels((SEA, f"{SEA}@end"), (0, 0))
    land = torch.tensor([[0.0, 0.2, 0.49], [0.5, 0.7, 1.0]], dtype=torch.float64)
    ocean = Slab(HeatFlux(atmosphere, ERA5), given, land, STEP, constant)
    sst = torch.full((1, 1, *space), 290.0)
    inputs = StepInputs(sst, sst[:, :0], ocean=StepInputs(torch.cat([sst, sst + 1], 1), sst[:, :0]))
    for number, result in enumerate(em.rollout(Coupled(atmosphere, ocean), sst[:, :0], [inputs] * steps), 1):
        pass
    warmed = 290 + number * STEP * (10 - 4) / (1025.0 * 3991.86795711963 * 50)
    expected = torch.tensor([[warmed] * 3, [291.0] * 3], dtype=torch.float64)
    torch.testing.assert_close(result.beside[SEA][0], expected, rtol=1e-13, atol=0)
    torch.testing.assert_close(
        result.beside["slab_share"][0], torch.where(land < 0.5, 1 - land, 0.0).float(), rtol=0, atol=0
    )
    before = expected[0, 0] - (warmed - 290) / number
    torch.testing.assert_close(atmosphere.given[0, 0], before.float().expand(3), rtol=0, atol=0)  # of the step's start


def test_a_slab_that_leaves_what_training_has_seen_is_told(stored, tmp_path, caplog):
    """In the log, and in what the forecast says of itself, in memory and in a store, with the range of what was written."""
    store, checkpoint = stored
    limits = describe(checkpoint)["forcing_range"][SEA]
    for output in (None, tmp_path / "thin.zarr"):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "emulator"):
            found = em.forecast(checkpoint, store, times_of(store, 2), 1, ocean=FLAT | {"depth": 0.1}, output=output)
        told = json.loads(found.attrs["forcing_beyond_training"])[SEA]
        assert told["trained"] == pytest.approx([limits[0][0], limits[1][0]])
        beyond = (
            found[SEA].where((found[SEA] < limits[0][0]) | (found[SEA] > limits[1][0])).max(("latitude", "longitude"))
        )
        assert bool(beyond.notnull().any()) and told["given"][1] == pytest.approx(float(found[SEA].max()))
        assert f"{SEA} goes beyond what the network was trained on" in caplog.text and "at lead" in caplog.text
    deep = em.forecast(checkpoint, store, times_of(store, 2), 0.5, ocean=FLAT | {"depth": 1e4})
    assert "forcing_beyond_training" not in deep.attrs


@pytest.mark.parametrize(
    ("change", "ocean", "message"),
    [
        (lambda d: d.drop_vars(slab.DEPTH), {"kind": "slab"}, "no slab_ocean_depth"),
        (lambda d: d.drop_vars(slab.CONVERGENCE), {"kind": "slab"}, "no ocean_heat_flux_convergence, got none; 0 goes"),
        (lambda d: d, FLAT | {"depth": 0.0}, "above 0 m in every cell of the sea"),
        (lambda d: d.assign({slab.DEPTH: d[slab.DEPTH] * 0}), {"kind": "slab"}, "slab_ocean_depth at 2001"),
        (
            lambda d: d.assign({slab.CONVERGENCE: d[slab.CONVERGENCE] * np.nan}),
            {"kind": "slab"},
            "a convergence of heat in every cell of the sea, got none .* ocean_heat_flux_convergence at 2001",
        ),
        (lambda d: d, FLAT | {"depth": "nowhere.nc"}, "nowhere.nc"),
        (lambda d: d, {"kind": "puddle"}, "slab, emulator, got 'puddle'"),
        (lambda d: d.drop_vars("land_sea_mask"), FLAT, "Expected land_sea_mask"),
        (
            lambda d: d.assign({SEA: d[SEA].assign_attrs(domain="wet"), "wet": d.land_sea_mask * 0}),
            FLAT,
            "masks to agree",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_coupled_is_named(stored, tmp_path, change, ocean, message):
    store, checkpoint = stored
    other = write_store(tmp_path, change(em.open_analysis(store).load().drop_vars("cell_area")), "other.zarr")
    step = em.load_model(checkpoint)
    step.metadata = {}  # what it was trained on is not asked for here
    with pytest.raises(ValueError, match=message):
        em.forecast(step, em.open_analysis(other), times_of(store, 2), 1, ocean=ocean)


@pytest.mark.parametrize(
    ("forcing", "moments", "left_out", "message"),
    [
        (["sea_ice_cover"], {}, None, "with sea_surface_temperature as forcing"),
        ([SEA], {SEA: "both"}, None, "at the start of a step"),
        ([SEA], {}, "mean_surface_sensible_heat_flux", "does not predict mean_surface_sensible_heat_flux"),
    ],
)
def test_networks_that_cannot_be_coupled_are_named(stored, forcing, moments, left_out, message):
    store = em.open_analysis(stored[0])
    step = em.load_model(stored[1])
    diagnostic = Channels.of(store, [n for n in step.layout.diagnostic.names if n != left_out])
    moment = tuple(moments.get(name, "start") for name in forcing)
    other = Steady()
    other.layout = Layout(step.layout.prognostic, diagnostic, Channels.of(store, forcing), step.layout.static, moment)
    with pytest.raises(ValueError, match=message):
        em.forecast(other, store, times_of(stored[0], 2), 1, ocean=FLAT)


@pytest.mark.slow
def test_a_field_in_a_file_is_the_field_of_the_store(stored, tmp_path):
    store, checkpoint = stored
    analysis, init = em.open_analysis(store).load(), times_of(store, 2)
    field = analysis[slab.DEPTH].isel(time=3, drop=True)
    field.to_netcdf(tmp_path / "depth.nc")
    found = em.forecast(checkpoint, store, init, DAYS, ocean=FLAT | {"depth": str(tmp_path / "depth.nc")})
    np.testing.assert_array_equal(found[slab.DEPTH].values[0, -1], field.values.astype(np.float64))
    static = analysis.drop_vars("cell_area").assign({slab.DEPTH: field})
    static[slab.DEPTH].attrs["role"] = "static"
    shutil.rmtree(tmp_path / "static.zarr", ignore_errors=True)
    other = write_store(tmp_path, static, "static.zarr")
    step = em.load_model(checkpoint)
    step.metadata = {}
    again = em.forecast(step, em.open_analysis(other), init, DAYS, ocean={"kind": "slab", "convergence": 0.0})
    np.testing.assert_array_equal(again[SEA].values, found[SEA].values)
    field.isel(longitude=slice(1, None)).to_netcdf(tmp_path / "other.nc")
    with pytest.raises(ValueError, match="Expected slab_ocean_depth on"):
        em.forecast(checkpoint, store, init, 1, ocean=FLAT | {"depth": str(tmp_path / "other.nc")})


def test_without_bounds_states_leave_the_envelope(stored):
    """The network's own warming is kept where the envelope of the training data would hold it."""
    store, checkpoint = stored
    step = em.load_model(checkpoint)
    highest = step.upper.clone()
    with torch.no_grad():
        step.upper.copy_(highest - 5)
    held = em.forecast(step, store, times_of(store, 2), 1)
    free = em.forecast(step, store, times_of(store, 2), 1, bounds="none")
    assert float((free["temperature"] - held["temperature"]).max()) > 1
    again = em.forecast(step, store, times_of(store, 2), 1)
    np.testing.assert_array_equal(again["temperature"], held["temperature"])  # the model that was given keeps its own
    with pytest.raises(ValueError, match="bounds among trained, inputs, none, got .wide."):
        em.forecast(step, store, times_of(store, 2), 1, bounds="wide")
