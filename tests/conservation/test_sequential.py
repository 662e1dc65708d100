"""The sequential corrections against the published formulas, written out here."""

import numpy as np
import pytest
import torch
from planets import CONSTANTS, GRIDS, LEVELS, STEP, Auditor, make_atmosphere, random_step

from emulator.conservation import SchemeOptions, build, fluxes
from emulator.conservation.steps import WaterStep

GRAVITY = CONSTANTS.gravity


def setting(levels="hybrid", **options):
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS[levels])
    state0, state1 = random_step(atmosphere, torch.float64)
    for name in fluxes.NON_NEGATIVE:
        if name in state1:
            state1[name] = state1[name].clamp(min=0)
    scheme = build(SchemeOptions(**options), atmosphere, state1)
    changed, record = scheme(state0, state1)
    return atmosphere, state0, state1, changed, record


@pytest.mark.parametrize("levels", ["sigma", "hybrid", "lid"])
def test_dry_air_ratio(levels):
    """CREDIT on model levels: `ps* = r ps`, `r = (M_ref - D_a) / D_b`."""
    air, state0, state1, changed, _ = setting(levels, budgets=("dry_air",))
    reference = torch.as_tensor(Auditor(air).dry_mass(state0))
    dry, pressure = 1 - state1["specific_humidity"], state1["surface_pressure"]
    steps = [torch.as_tensor(np.diff(c)).reshape(1, -1, 1, 1) for c in (LEVELS[levels].half_a, LEVELS[levels].half_b)]
    part_a = air.mean((dry * steps[0]).sum(1) / GRAVITY)
    part_b = air.mean((dry * steps[1]).sum(1) * pressure / GRAVITY)
    ratio = (reference - part_a) / part_b
    torch.testing.assert_close(changed["surface_pressure"], ratio.reshape(-1, 1, 1) * pressure, rtol=1e-13, atol=0)


@pytest.mark.parametrize("levels", ["sigma", "hybrid"])
def test_dry_air_offset(levels):
    """ACE2: dry pressure moves by one amount; `ps* = (ps_dry* + sum da q) / (1 - sum db q)`."""
    air, state0, state1, changed, _ = setting(levels, budgets=("dry_air",), dry_air="offset")
    humidity, pressure = state1["specific_humidity"], state1["surface_pressure"]
    step_a, step_b = (
        torch.as_tensor(np.diff(c)).reshape(1, -1, 1, 1) for c in (LEVELS[levels].half_a, LEVELS[levels].half_b)
    )
    dry_pressure = pressure - (humidity * (step_a + step_b * pressure.unsqueeze(1))).sum(1)
    top = LEVELS[levels].half_a[0]
    reference = torch.as_tensor(Auditor(air).dry_mass(state0)) * GRAVITY + top
    dry_pressure = dry_pressure + (reference - air.mean(dry_pressure)).reshape(-1, 1, 1)
    expected = (dry_pressure + (step_a * humidity).sum(1)) / (1 - (step_b * humidity).sum(1))
    torch.testing.assert_close(changed["surface_pressure"], expected, rtol=1e-13, atol=0)


def test_dry_air_by_humidity():
    """CREDIT on pressure levels: `q* = 1 - (1 - q) r` below a level, where no bound is met."""
    air = make_atmosphere(GRIDS["gaussian"](), LEVELS["pressure"], surface_pressure=False)
    state0, state1 = random_step(air, torch.float64)
    state0["specific_humidity"] += 0.002
    state1["specific_humidity"] = state0["specific_humidity"].clone()
    state1["specific_humidity"][:, 3:] += 0.01
    options = SchemeOptions(budgets=("dry_air",), dry_air="humidity", humidity_from_level=3)
    changed, record = build(options, air, state1)(state0, state1)
    ratio = (1 - changed["specific_humidity"]) / (1 - state1["specific_humidity"])
    torch.testing.assert_close(ratio[:, :3], torch.ones_like(ratio[:, :3]), rtol=0, atol=0)
    torch.testing.assert_close(ratio[:, 3:], ratio[:, 3:4, :1, :1].expand_as(ratio[:, 3:]), rtol=1e-14, atol=0)
    assert float(record["saturation_dry_air"].max()) == 0


def test_dry_air_that_cannot_be_reached_by_drying():
    """More dry mass than the columns hold: everything dries out, and the record says so."""
    air = make_atmosphere(GRIDS["gaussian"](), LEVELS["pressure"], surface_pressure=False)
    state0, state1 = random_step(air, torch.float64)
    state1["specific_humidity"] = state1["specific_humidity"].clamp(min=1e-6)
    scheme = build(SchemeOptions(budgets=("dry_air",), anchor="given", dry_mass=9.9e3), air, state1)
    changed, record = scheme(state0, state1)
    assert float(changed["specific_humidity"].max()) == 0
    torch.testing.assert_close(record["saturation_dry_air"], torch.ones(2, dtype=torch.float64))
    assert float(record["residual_after_dry_air"].abs().min()) > 1e-3


def test_water_ratio():
    """`P* = P (E - dW/dt) / <P>`; and on evaporation `E* = E (P + dW/dt) / <E>`."""
    for form, name, other in (
        ("precipitation", fluxes.PRECIPITATION, fluxes.EVAPORATION),
        ("evaporation", fluxes.EVAPORATION, fluxes.PRECIPITATION),
    ):
        air, state0, state1, changed, record = setting(budgets=("water",), water=form)
        auditor = Auditor(air)
        storage = torch.as_tensor(auditor.water(state1) - auditor.water(state0)) / STEP
        wanted = -storage - air.mean(state1[other])
        ratio = (wanted / air.mean(state1[name])).reshape(-1, 1, 1)
        torch.testing.assert_close(changed[name], ratio * state1[name], rtol=1e-11, atol=0)
        torch.testing.assert_close(changed[other], state1[other], rtol=0, atol=0)
        assert float(record["saturation_water"].max()) == 0


def test_latent_heat_follows_evaporation():
    _, _, state1, changed, _ = setting(budgets=("water", "energy"), water="evaporation")
    added = changed[fluxes.EVAPORATION] - state1[fluxes.EVAPORATION]
    expected = CONSTANTS.latent_heat_vaporisation * added
    torch.testing.assert_close(
        changed[fluxes.LATENT_HEAT] - state1[fluxes.LATENT_HEAT], expected, rtol=1e-9, atol=1e-11
    )
    assert float(expected.abs().mean()) > 0.1


def test_snow_keeps_its_share_of_precipitation():
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["sigma"])
    state0, state1 = random_step(atmosphere, torch.float64, snow=True)
    changed, _ = build(SchemeOptions(), atmosphere, state1)(state0, state1)
    rains = state1[fluxes.PRECIPITATION] > 0
    shares = [(s[fluxes.SNOWFALL] / s[fluxes.PRECIPITATION])[rains] for s in (state1, changed)]
    torch.testing.assert_close(shares[1], shares[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("energy", ["hydrostatic", "total"])
@pytest.mark.parametrize("levels", ["sigma", "lid", "pressure"])
def test_uniform_warming_is_exact_in_one_pass(energy, levels):
    air, state0, state1, changed, _ = setting(levels, budgets=("energy",), energy=energy)
    warming = changed["temperature"] - state1["temperature"]
    torch.testing.assert_close(warming, warming[:, :1, :1, :1].expand_as(warming), rtol=1e-9, atol=0)
    after = Auditor(air, energy).residuals(state0, state1 | changed)["energy"]
    np.testing.assert_array_less(np.abs(after), 1e-14)


@pytest.mark.parametrize("capacity", ["constant", "moist"])
def test_energy_ratio(capacity):
    """CREDIT: all energy times gamma, put into temperature: `T* = (gamma h - L q - Phi_s - K) / cp`."""
    air, state0, state1, changed, _ = setting(budgets=("energy",), temperature="ratio", heat_capacity=capacity)
    auditor = Auditor(air, moist=capacity == "moist")
    relative = auditor.residuals(state0, state1)["energy"] * auditor.energy(state0)
    gamma = torch.as_tensor(1 - relative / auditor.energy(state1)).reshape(-1, 1, 1, 1)
    humidity, dry = state1["specific_humidity"], CONSTANTS.heat_capacity_dry_air
    cp = dry + (CONSTANTS.heat_capacity_water_vapour - dry) * humidity * (capacity == "moist")
    kinetic = (state1["u_component_of_wind"] ** 2 + state1["v_component_of_wind"] ** 2) / 2
    rest = CONSTANTS.latent_heat_vaporisation * humidity + kinetic + air.geopotential_at_surface
    expected = (gamma * (cp * state1["temperature"] + rest) - rest) / cp
    torch.testing.assert_close(changed["temperature"], expected, rtol=1e-12, atol=0)


def test_corrections_do_not_undo_each_other():
    """In this order all three close at once; with energy before dry air the energy opens again."""
    air, state0, state1, changed, _ = setting()
    scheme = build(SchemeOptions(), air, state1)
    anchor = scheme.anchor(state0)
    late = state1
    for step in (scheme.steps[2], scheme.steps[1], scheme.steps[0]):
        late = late | step(state0, late, anchor)[0]
    auditor = Auditor(air)
    assert np.all(np.abs(auditor.residuals(state0, late)["energy"]) > 1e-5)
    assert np.all(np.abs(auditor.residuals(state0, state1 | changed)["energy"]) < 1e-14)


def test_wrong_forms_are_refused():
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["sigma"])
    _, state1 = random_step(atmosphere)
    for options, message in (
        ({"dry_air": "wind"}, "dry_air among"),
        ({"water": "runoff"}, "water among"),
        ({"temperature": "top"}, "temperature among"),
    ):
        with pytest.raises(ValueError, match=message):
            build(SchemeOptions(**options), atmosphere, state1)
    blind = make_atmosphere(GRIDS["gaussian"](), LEVELS["pressure"], surface_pressure=False)
    with pytest.raises(ValueError, match="surface_pressure among the variables for the dry-air"):
        build(SchemeOptions(dry_air="ratio"), blind, set(state1) - {"surface_pressure"})
    scheme = build(SchemeOptions(), atmosphere, state1)
    with pytest.raises(ValueError, match="ratio above 1"):
        WaterStep(scheme.budgets["water"], limit=0.5)
