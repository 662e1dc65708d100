"""What analyses do to budgets: dry mass kept, no negative humidity, and the water and energy that they add."""

import pytest
import torch
from small_planet import small_planet

from emulator.assimilation.differences import stored_states
from emulator.assimilation.increments import Increments
from emulator.data.channels import Channels

NAMES = ("temperature", "surface_pressure", "specific_humidity", "u_component_of_wind", "v_component_of_wind")


@pytest.fixture(scope="module")
def parts():
    planet = small_planet(times=3).assign_attrs(time_step_seconds=21600.0)
    channels = Channels.of(planet, NAMES)
    state = stored_states(planet, channels, [planet["time"].values[0]])
    return Increments.of(planet, channels), channels, state


def moved(channels, state, by: dict[str, float]):
    fields = channels.unpack(state)
    return channels.replace(state, {name: fields[name] + value for name, value in by.items()})


def test_dry_mass_is_kept_and_what_is_added_is_told(parts):
    increments, channels, state = parts
    mass = increments.dry_mass(state)
    analysis = moved(channels, state, {"surface_pressure": 200.0, "temperature": 1.0, "specific_humidity": 1e-4})
    kept, told = increments.kept(analysis, state, float(mass))
    torch.testing.assert_close(increments.dry_mass(kept), mass, rtol=1e-7, atol=0)
    assert float((increments.dry_mass(analysis) / mass - 1).abs()) > 1e-4
    air = increments.air
    fields = increments._named(kept)
    columns = air.mean(air.integral(torch.ones_like(fields["temperature"]), fields["surface_pressure"]))
    assert told["added_water"] == pytest.approx(1e-4 * float(columns), rel=0.05)
    heat = air.constants.heat_capacity_dry_air + air.constants.latent_heat_vaporisation * 1e-4
    assert told["added_energy"] == pytest.approx(heat * float(columns), rel=0.1)
    assert told["added_pressure"] == pytest.approx(-200, rel=0.05) and told["clipped_water"] == pytest.approx(
        0, abs=1e-6
    )


def test_negative_humidity_goes_without_adding_water(parts):
    increments, channels, state = parts
    analysis = state.clone()
    where = channels.slices["specific_humidity"].start
    analysis[:, where, :2] = -1e-3
    kept, told = increments.kept(analysis, state, float(increments.dry_mass(state)))
    assert float(channels.unpack(kept)["specific_humidity"].min()) >= 0
    wanted = increments._water(increments._named(analysis)) - increments._water(increments._named(state))
    assert told["clipped_water"] > 0 and told["added_water"] == pytest.approx(float(wanted), rel=0.02)


def test_a_background_that_comes_back_is_left_as_it_is(parts):
    increments, _, state = parts
    kept, told = increments.kept(state.clone(), state, 1.0)
    assert torch.equal(kept, state) and told == {}


def test_states_that_make_up_no_columns_are_left_alone(parts):
    _, _, state = parts
    planet = small_planet(times=3).assign_attrs(time_step_seconds=21600.0)
    plain = Increments.of(planet, Channels.of(planet, ["temperature"]))
    assert plain.dry_mass(state) is None
    assert plain.kept(state + 1, state, None)[1] == {}
