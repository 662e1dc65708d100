"""The embedded model against closed forms, its own snapshots and its own budgets. At T21, so that it is quick."""

import sys

import numpy as np
import pytest

from emulator.embedded import speedy as reference_model
from emulator.embedded import speedy_day
from emulator.planet.grid import Grid
from emulator.planet.variables import variable

SETTINGS = reference_model.Settings(truncation=21)
DAYS = 3


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("jcm", reason="JAX-GCM is not installed: the extra emulator[gcm]")
    return reference_model.build(SETTINGS)


@pytest.fixture(scope="module")
def run(model):
    """The state after each day and the fields of all days, joined along time."""
    state, states, days = model.initial_state(), [], []
    for _ in range(DAYS):
        state, fields = model.advance_day(state)
        states.append(state)
        days.append(fields)
    return states, {name: np.concatenate([day[name] for day in days]) for name in days[0]}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"truncation": 42}, "truncation of 21, 31 or 63"),
        ({"truncation": 63}, "time_step_minutes of T63 at most 20, got 30"),
        ({"step_hours": 5}, "step_hours to divide a day"),
        ({"step_hours": 0}, "step_hours to divide a day"),
        ({"time_step_minutes": 25}, "time_step_minutes to divide"),
        ({"time_step_minutes": 60}, "at most 30"),
    ],
)
def test_wrong_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        reference_model.Settings(**settings)


def test_a_missing_extra_is_named(monkeypatch):
    for name in [name for name in sys.modules if name == "jcm" or name.startswith("jcm.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jcm", None)
    with pytest.raises(ImportError, match=r"emulator\[gcm\]"):
        reference_model.ReferenceModel(SETTINGS)


def test_grid_levels_and_constants(model):
    assert model.grid.same_as(Grid.gaussian(32), tolerance=1e-4)
    np.testing.assert_allclose(model.levels.half_b, [0, 0.05, 0.14, 0.26, 0.42, 0.6, 0.77, 0.9, 1], atol=1e-7)
    np.testing.assert_array_equal(model.levels.half_a, 0)
    constants = model.constants
    assert constants.gas_constant_dry_air / constants.heat_capacity_dry_air == pytest.approx(2 / 7)
    assert constants.gravity == 9.81
    assert constants.latent_heat_vaporisation == 2.501e6


def test_shapes_and_bounds(model, run):
    _, fields = run
    times, (nlat, nlon) = 4 * DAYS, model.grid.shape
    boundary, fluxes, levels = speedy_day.BOUNDARY_FIELDS, speedy_day.FLUXES, speedy_day.LEVEL_FIELDS
    assert set(fields) == {"surface_pressure", *boundary, *fluxes, *levels}
    for name, values in {**fields, **model.static}.items():
        entry = variable(name)
        if entry.cell == "fixed":
            assert values.shape == (nlat, nlon)
        else:
            assert values.shape == ((times, 8, nlat, nlon) if entry.levels else (times, nlat, nlon))
        assert values.dtype == np.float32
        assert np.all(np.isfinite(values))
        assert entry.minimum is None or values.min() >= entry.minimum, name
        assert entry.maximum is None or values.max() <= entry.maximum, name


def test_orientation(model, run):
    """January: sun and warmth in the south, the Himalaya in the north and east, Antarctica land, the Pacific sea."""
    _, fields = run
    latitude, longitude = model.grid.latitude, model.grid.longitude

    def at(field, lat, lon):
        return field[..., np.abs(latitude - lat).argmin(), np.abs(longitude - lon).argmin()]

    sun = fields["mean_top_downward_short_wave_radiation_flux"]
    assert at(sun, 85, 0).max() == 0
    assert at(sun, -85, 0).min() > 450
    height = model.static["geopotential_at_surface"] / model.constants.gravity
    top = np.unravel_index(height.argmax(), height.shape)
    assert 25 < latitude[top[0]] < 40
    assert 75 < longitude[top[1]] < 105
    land = model.static["land_sea_mask"]
    assert at(land, -80, 90) > 0.9
    assert at(land, 0, 200) < 0.1
    # From the top down: the lowest level is the warmest and moistest on average.
    assert model.grid.mean(fields["specific_humidity"][-1]).argmax() == 7
    assert np.all(np.diff(model.grid.mean(fields["geopotential"][-1])) < 0)


def test_insolation_is_the_daily_mean_of_astronomy(model, run):
    """Q = S0 / pi (a_0 / r)^2 (h sin(lat) sin(dec) + cos(lat) cos(dec) sin(h)), cos(h) = -tan(lat) tan(dec); S0 = 4 x 342."""
    _, fields = run
    declination = np.radians(-22.9)  # 2 January
    distance = 1 + 2 * 0.0167
    lat = np.radians(model.grid.latitude)
    hour = np.arccos(np.clip(-np.tan(lat) * np.tan(declination), -1, 1))
    geometry = hour * np.sin(lat) * np.sin(declination) + np.cos(lat) * np.cos(declination) * np.sin(hour)
    expected = 4 * 342 / np.pi * distance * geometry
    got = fields["mean_top_downward_short_wave_radiation_flux"][5]
    np.testing.assert_allclose(got, np.repeat(expected[:, None], got.shape[1], 1), atol=6)  # 1 % of the maximum


def test_radiation_and_latent_heat_are_consistent(model, run):
    _, fields = run
    incoming = fields["mean_top_downward_short_wave_radiation_flux"]
    top, surface = (fields[f"mean_{where}_net_short_wave_radiation_flux"] for where in ("top", "surface"))
    assert np.all(top <= incoming * (1 + 1e-6))
    assert np.all(surface <= top + 1e-3)
    assert np.all(fields["mean_top_net_long_wave_radiation_flux"] < -50)
    latent, evaporation = fields["mean_surface_latent_heat_flux"], fields["mean_evaporation_rate"]
    np.testing.assert_allclose(latent, model.constants.latent_heat_vaporisation * evaporation, rtol=1e-5, atol=1e-4)
    assert model.grid.mean(evaporation[-1]) < 0


def test_lowest_geopotential_follows_from_the_surface(model, run):
    """Hydrostatic balance below the lowest full level: phi = phi_s - R T (1 + (R_v / R - 1) q) ln(sigma)."""
    _, fields = run
    constants, sigma = model.constants, model.levels.values[-1]
    humidity, temperature = fields["specific_humidity"][:, -1], fields["temperature"][:, -1]
    virtual = temperature * (1 + (constants.gas_constant_water_vapour / constants.gas_constant_dry_air - 1) * humidity)
    expected = model.static["geopotential_at_surface"] - constants.gas_constant_dry_air * virtual * np.log(sigma)
    whole = humidity > 0  # elsewhere a negative humidity was set to zero after the geopotential had been computed
    assert whole.mean() > 0.9
    np.testing.assert_allclose(fields["geopotential"][:, -1][whole], expected[whole], atol=0.1)


def test_water_budget_closes(model, run):
    """d<W>/dt = <E - P> over every step after the first day: units, signs and intervals of the fluxes are right."""
    _, fields = run
    mass = np.diff(model.levels.half_b)[:, None, None] * fields["surface_pressure"][:, None] / model.constants.gravity
    water = model.grid.mean((fields["specific_humidity"].astype(np.float64) * mass).sum(axis=1))
    source = -model.grid.mean(fields["mean_evaporation_rate"] + fields["mean_total_precipitation_rate"])
    seconds = SETTINGS.step_hours * 3600
    residual = np.diff(water)[3:] - seconds * source[4:]
    evaporated = -seconds * model.grid.mean(fields["mean_evaporation_rate"])[4:]
    assert np.abs(residual).max() < 0.02 * evaporated.mean()


def test_saved_state_continues_bit_for_bit(model, run, tmp_path):
    states, fields = run
    model.save_state(states[0], tmp_path / "state.npz")
    _, again = model.advance_day(model.load_state(tmp_path / "state.npz"))
    for name, values in again.items():
        np.testing.assert_array_equal(values, fields[name][4:8], err_msg=name)


def test_foreign_states_are_refused(model, run, tmp_path):
    path = tmp_path / "state.npz"
    model.save_state(run[0][0], path)
    with np.load(path) as arrays:
        held = dict(arrays)
    first = next(iter(held))
    np.savez(path, **(held | {first: held[first][..., :-1]}))
    with pytest.raises(ValueError, match="of shape"):
        model.load_state(path)
    np.savez(path, other=np.zeros(3))
    with pytest.raises(ValueError, match="arrays of this model's state"):
        model.load_state(path)


def test_instability_is_reported(model, run):
    import jax

    broken = jax.tree_util.tree_map(lambda a: a * np.float32("nan") if a.dtype == np.float32 else a, run[0][0])
    with pytest.raises(FloatingPointError, match="unstable"):
        model.advance_day(broken)


def simulated(model, days, **scenario):
    """The fields of some days under a scenario, joined along time; with the program that is compiled already."""
    model = model.under(reference_model.Settings(truncation=21, **scenario))
    state, fields = model.initial_state(), []
    for _ in range(days):
        state, day = model.advance_day(state)
        fields.append(day)
    return {name: np.concatenate([day[name] for day in fields]) for name in fields[0]}


def test_four_times_the_carbon_dioxide_cools_the_top_and_warms_the_troposphere(model, run):
    """SPEEDY's absorptivity is linear in CO2. The same dial at the model's own value changes nothing but what is written."""
    own, (_, plain) = simulated(model, 1, co2=420.0), run
    assert own.keys() - plain.keys() == {"carbon_dioxide_mole_fraction"}
    for name in plain:
        np.testing.assert_array_equal(own[name], plain[name][:4], err_msg=name)
    more = simulated(model, DAYS, co2=1680.0)
    np.testing.assert_array_equal(more["carbon_dioxide_mole_fraction"], np.full(4 * DAYS, 1.68e-3, np.float32))
    change = model.grid.mean(more["temperature"].astype(np.float64) - plain["temperature"])
    assert change[-1, 0] < -8  # the top, and the colder the longer
    assert change[-1, 0] < change[3, 0] < -3
    assert change[-1, 3] > 0.3
    outgoing = "mean_top_net_long_wave_radiation_flux"  # negative upwards
    assert model.grid.mean(more[outgoing][-1] - plain[outgoing][-1]) > 2


def test_warmer_seas_are_warmer_by_the_offset_and_warm_the_air(model, run):
    warmer, (_, plain) = simulated(model, 2, sst_offset=2.0), run
    change = warmer["sea_surface_temperature"] - plain["sea_surface_temperature"][:8]
    np.testing.assert_allclose(change, 2, rtol=0, atol=2e-5)  # float32 of 300 K
    for name in ("sea_ice_cover", "soil_temperature_level_1"):
        np.testing.assert_array_equal(warmer[name], plain[name][:8])
    assert 0.5 < model.grid.mean(warmer["temperature"][-1, -1] - plain["temperature"][7, -1]) < 2
    assert model.grid.mean(warmer["mean_evaporation_rate"][-1] - plain["mean_evaporation_rate"][7]) < 0


def test_a_sea_that_swings_is_the_plain_one_and_its_offset(model, run):
    """From 0 K along a line to 4 at the first midnight, and back to the next; the ice is as it was."""
    found, (_, plain) = simulated(model, 2, sst_offset={"values": [0, 4], "days": 1}), run
    change = found["sea_surface_temperature"] - plain["sea_surface_temperature"][:8]
    expected = np.array([1, 2, 3, 4, 3, 2, 1, 0])[:, None, None]  # at 6, 12, ... h
    np.testing.assert_allclose(change, np.broadcast_to(expected, change.shape), rtol=0, atol=0.1)
    np.testing.assert_allclose(change[3::4], np.broadcast_to(expected[3::4], change[3::4].shape), rtol=0, atol=1e-4)
    np.testing.assert_array_equal(found["sea_ice_cover"], plain["sea_ice_cover"][:8])


def test_a_member_is_another_realisation_and_the_same_one_every_time(model, run):
    one, again, other = (simulated(model, 1, member=member) for member in (1, 1, 2))
    for name, values in one.items():
        np.testing.assert_array_equal(values, again[name], err_msg=name)
    pressures = [fields["surface_pressure"] for fields in (run[1], one, other)]
    for first, second in ((0, 1), (1, 2)):
        apart = np.abs(pressures[first][:4] - pressures[second]).max()
        assert 0.1 < apart < 500  # Pa, of 1e5


def test_a_scenario_of_another_model_is_refused(model):
    for other in ({"truncation": 31}, {"truncation": 21, "physics": {"cloud_albedo": 0.4}}):
        with pytest.raises(ValueError, match="Expected a scenario of"):
            model.under(reference_model.Settings(**other))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("parameter", "low", "high", "field", "sign"),
    [
        ("cloud_albedo", 0.3, 0.6, "mean_top_net_short_wave_radiation_flux", -1),
        ("sea_exchange", 5e-4, 1.5e-3, "mean_evaporation_rate", -1),
        ("convection_hours", 3, 20, "mean_total_precipitation_rate", -1),
    ],
)
def test_parameters_of_the_physics_do_what_their_names_say(parameter, low, high, field, sign):
    """Brighter clouds reflect more, stronger exchange evaporates more (upwards), slower convection rains less at first."""
    means = []
    for value in (low, high):
        model = reference_model.ReferenceModel(reference_model.Settings(truncation=21, physics={parameter: value}))
        state = model.initial_state()
        for _ in range(5):
            state, fields = model.advance_day(state)
        means.append(float(model.grid.mean(fields[field].mean(axis=0))))
    assert sign * (means[1] - means[0]) > 0.02 * abs(means[0])


@pytest.mark.slow
def test_means_and_states_are_those_of_the_models_own_snapshots(model, run):
    """jcm's own run with a snapshot every half hour, from the same state: means of 12 and every twelfth state."""
    states, fields = run
    dynamics, physics, time, count = states[0]
    _, predictions = model._model.run_from_state_with_carry(
        initial_state=dynamics,
        forcing=model._forcing,
        initial_physics_state=physics,
        initial_time=time,
        initial_step=count,
        save_interval="30 minutes",
        total_time="6 hours",
    )
    raw = predictions.raw if hasattr(predictions, "raw") else predictions
    snapshots, last = raw.physics, raw.dynamics
    means = {
        "mean_total_precipitation_rate": snapshots["surface_exchange"].precipitation,
        "mean_evaporation_rate": -snapshots["surface_exchange"].evaporation,
        "mean_surface_latent_heat_flux": -snapshots["surface_exchange"].latent_heat_flux,
        "mean_surface_sensible_heat_flux": -snapshots["surface_exchange"].sensible_heat_flux,
        "mean_surface_net_short_wave_radiation_flux": snapshots["_shortwave_rad"].rsns,
        "mean_surface_net_long_wave_radiation_flux": -snapshots["_longwave_rad"].ftop
        - snapshots["_longwave_rad"].dfabs.sum(axis=1),
        "mean_top_net_short_wave_radiation_flux": snapshots["_shortwave_rad"].ftop,
        "mean_top_net_long_wave_radiation_flux": -snapshots["_longwave_rad"].ftop,
        "mean_top_downward_short_wave_radiation_flux": snapshots["_shortwave_rad"].fsol,
    }
    assert set(means) == set(speedy_day.FLUXES)
    for name, values in means.items():
        expected = np.swapaxes(np.asarray(values, np.float64).mean(0), -1, -2)[::-1]
        scale = np.abs(expected).max()
        np.testing.assert_allclose(fields[name][4], expected, rtol=0, atol=2e-4 * scale, err_msg=name)
    temperature = np.swapaxes(np.asarray(last.temperature)[-1], -1, -2)[..., ::-1, :]
    np.testing.assert_allclose(fields["temperature"][4], temperature, atol=0.01)


@pytest.mark.slow
def test_heating_by_the_physics_is_the_difference_of_the_fluxes(model, run):
    """cp dT + Lc dq, integrated over the atmosphere, is top minus surface flux, on steps with and without short wave."""
    import jax
    from jcm.date import DateData
    from jcm.physics_interface import compute_physics_step_gridpoint

    dynamics, physics, clock, count = run[0][-1]
    thickness, constants = np.diff(model.levels.half_b)[:, None, None], model.constants

    @jax.jit
    def step(physics):
        grid_state = model._model.dycore.to_physics_state(dynamics)
        forcing = model._forcing.select(DateData(clock, count, 1800))
        tendency, physics = compute_physics_step_gridpoint(
            grid_state, forcing, model._model.terrain, physics, physics=model._model.physics, time_step=1800.0
        )
        return grid_state.normalized_surface_pressure, tendency, physics

    for _ in range(3):
        pressure, tendency, physics = step(physics)
        heating = constants.heat_capacity_dry_air * np.asarray(tendency.temperature, np.float64)
        heating = heating + constants.latent_heat_vaporisation * np.asarray(tendency.specific_humidity, np.float64)
        column = (heating * thickness * np.asarray(pressure) * 1e5 / constants.gravity).sum(axis=0)
        flux = {name: np.asarray(value, np.float64) for name, value in speedy_day.fluxes_of(physics).items()}
        top = sum(value for name, value in flux.items() if name.startswith("mean_top_net"))
        surface = sum(value for name, value in flux.items() if name.startswith("mean_surface"))
        mean = model.grid.mean([np.swapaxes(field, -1, -2)[::-1] for field in (column, top - surface)])
        correction = np.asarray(physics["water_positivity_correction"]["specific_humidity_tendency"], np.float64)
        water = (correction * thickness * np.asarray(pressure) * 1e5 / constants.gravity).sum(axis=0)
        made = constants.latent_heat_vaporisation * model.grid.mean(np.swapaxes(water, -1, -2)[::-1])
        assert mean[0] == pytest.approx(mean[1] + made, abs=0.02)


@pytest.mark.slow
def test_boundary_data_are_those_of_the_models_own_recipe(model):
    import jax
    from jcm.forcing import ForcingData

    path = reference_model.boundary_data() / "forcing.nc"
    own = ForcingData.from_file(str(path), coords=model._model.coords, align_mode="wrap_year")
    for ours, theirs in zip(*map(jax.tree_util.tree_leaves, (model._forcing, own)), strict=True):
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_the_default_resolution_runs():
    model = reference_model.ReferenceModel(reference_model.Settings())
    _, fields = model.advance_day(model.initial_state())
    assert fields["temperature"].shape == (4, 8, 48, 96)
    assert abs(model.grid.mean(fields["surface_pressure"][-1]) - 1e5) < 2e3
