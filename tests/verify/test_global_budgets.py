import dataclasses

import numpy as np
import pytest

from emulator.planet.constants import ERA5
from emulator.planet.grid import Grid
from emulator.planet.vertical import Levels
from emulator.verify import budgets
from emulator.verify.budgets import EnergyForm

GRID = Grid.gaussian(6)
LEVELS = {
    "sigma": Levels.sigma([0, 0.3, 0.7, 1]),
    "hybrid": Levels.hybrid([0.0, 3000, 1000, 0], [0.0, 0.2, 0.7, 1]),
    "pressure": Levels.pressure([200, 500, 850]),
}


def uniform(levels, temperature=250.0, humidity=0.0, wind=0.0, pressure=1e5, height=0.0):
    shape = (len(levels), *GRID.shape)
    return {
        "surface_pressure": np.full(GRID.shape, pressure),
        "specific_humidity": np.full(shape, humidity),
        "temperature": np.full(shape, temperature),
        "u_component_of_wind": np.full(shape, wind),
        "v_component_of_wind": np.zeros(shape),
        "geopotential_at_surface": np.full(GRID.shape, height),
    }


@pytest.mark.parametrize("levels", LEVELS.values(), ids=LEVELS)
def test_totals_of_a_uniform_column(levels):
    fields = uniform(levels, 280.0, 0.01, 20.0, 9.7e4, 300.0)
    top = levels.half_a[0] + levels.half_b[0] * 9.7e4
    mass = (9.7e4 - top) / ERA5.gravity
    found = budgets.totals(fields, levels, GRID, ERA5)
    np.testing.assert_allclose(found["dry_air"], 0.99 * mass, rtol=1e-12)
    np.testing.assert_allclose(found["water"], 0.01 * mass, rtol=1e-12)
    per_kilogram = ERA5.latent_heat_vaporisation * 0.01 + 200.0 + 300.0
    dry, vapour = ERA5.heat_capacity_dry_air * 280, ERA5.heat_capacity_water_vapour * 280
    np.testing.assert_allclose(found["energy"], mass * (per_kilogram + dry), rtol=1e-12)
    moist = budgets.totals(fields, levels, GRID, ERA5, EnergyForm(heat_capacity="moist", kinetic=False))
    np.testing.assert_allclose(moist["energy"], mass * (per_kilogram - 200 + 0.99 * dry + 0.01 * vapour), rtol=1e-12)


def test_total_form_is_the_hydrostatic_one_for_dry_air_up_to_zero_pressure():
    levels = LEVELS["sigma"]
    fields = uniform(levels, 250.0, 0.0, 0.0, 1e5, 700.0)
    fields["temperature"] += np.linspace(-40, 30, 3)[:, None, None]
    found = [
        budgets.totals(fields, levels, GRID, ERA5, EnergyForm(form))["energy"] for form in ("hydrostatic", "total")
    ]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-12)


def test_total_form_integrates_the_height_of_an_isothermal_atmosphere():
    levels = Levels.hybrid([2e4, 1e4, 0], [0, 0.5, 1])
    fields = uniform(levels, 260.0, 0.0, 0.0, 1e5)
    scale = ERA5.gas_constant_dry_air * 260
    # Integral of R T ln(ps / p) dp from 200 hPa to 1000 hPa.
    height = scale * (8e4 - 2e4 * np.log(5)) / ERA5.gravity
    thermal = (ERA5.heat_capacity_dry_air - ERA5.gas_constant_dry_air) * 260 * 8e4 / ERA5.gravity
    found = budgets.totals(fields, levels, GRID, ERA5, EnergyForm("total"))["energy"]
    np.testing.assert_allclose(found, thermal + height, rtol=1e-12)


def test_pressure_levels_inside_mountains_hold_no_air():
    fields = uniform(LEVELS["pressure"], humidity=0.5, pressure=6e4)
    np.testing.assert_allclose(
        budgets.totals(fields, LEVELS["pressure"], GRID, ERA5)["water"], 0.5 * 4e4 / ERA5.gravity
    )


def test_condensate_is_water():
    fields = uniform(LEVELS["sigma"], humidity=0.01)
    fields["specific_cloud_ice_water_content"] = np.full_like(fields["specific_humidity"], 0.02)
    found = budgets.totals(fields, LEVELS["sigma"], GRID, ERA5)
    np.testing.assert_allclose(found["water"] / found["dry_air"], 0.03 / 0.97)


def test_sources_have_the_sign_of_a_gain():
    ones = {name: np.ones(GRID.shape) for q in budgets.audited().values() for name in q.needed if "mean_" in name}
    fields = ones | {"mean_evaporation_rate": np.full(GRID.shape, -3.0)}
    found = budgets.sources(fields, GRID, ERA5)
    np.testing.assert_allclose(found["water"], 3 - 1)
    np.testing.assert_allclose(found["energy"], 2 - 4)
    snow = budgets.sources(fields | {"mean_snowfall_rate": np.full(GRID.shape, 1e-5)}, GRID, ERA5)
    np.testing.assert_allclose(snow["energy"], 2 - 4 + 1e-5 * ERA5.latent_heat_fusion)


def test_a_step_that_follows_its_fluxes_leaves_nothing():
    levels, seconds = LEVELS["hybrid"], np.array([3600.0, 21600.0])
    rates = np.array([0.0, 2.0, -5.0])  # W m-2, over the step that ends at each time
    warming = np.concatenate([[0], np.cumsum(seconds * rates[1:])]) / (ERA5.heat_capacity_dry_air * 1e5 / ERA5.gravity)
    states = [budgets.totals(uniform(levels, 250 + change), levels, GRID, ERA5) for change in warming]
    total = {name: np.array([state[name] for state in states]) for name in states[0]}
    found = budgets.residuals(total, {"energy": rates, "water": np.zeros(3)}, seconds)
    np.testing.assert_allclose(found["energy"], 0, atol=1e-9)
    np.testing.assert_array_equal(found["dry_air"], 0)
    found = budgets.residuals(total, {"energy": rates + 1.5}, seconds)
    np.testing.assert_allclose(found["energy"], -1.5, rtol=1e-8)
    assert "water" not in found  # no fluxes, no residual


def test_budgets_agree_with_the_schemes_that_they_audit():
    """Two implementations of one specification: this one in NumPy, that of the schemes in torch."""
    torch = pytest.importorskip("torch")
    from emulator.conservation.atmosphere import Atmosphere
    from emulator.conservation.budgets import DryAir, Water
    from emulator.conservation.energy import Energy

    rng = np.random.default_rng(0)
    levels = LEVELS["hybrid"]
    fields = uniform(levels, 260.0, 0.004, 8.0, 9.9e4)
    fields = {name: value * (1 + 0.05 * rng.random(value.shape)) for name, value in fields.items()}
    fields["geopotential_at_surface"] = 3000 * rng.random(GRID.shape)
    air = Atmosphere(
        area=torch.as_tensor(GRID.area),
        levels=levels,
        constants=ERA5,
        geopotential_at_surface=torch.as_tensor(fields["geopotential_at_surface"]),
        step_seconds=21600.0,
    )
    state = {name: torch.as_tensor(value)[None] for name, value in fields.items()}
    ours = budgets.totals(fields, levels, GRID, ERA5)
    np.testing.assert_allclose(ours["dry_air"], DryAir(air).mass(state)[0], rtol=1e-12)
    np.testing.assert_allclose(ours["water"], Water(air).scale(state)[0], rtol=1e-12)
    for form in (EnergyForm(), EnergyForm(heat_capacity="moist"), EnergyForm("total"), EnergyForm(kinetic=False)):
        theirs = Energy(air, *dataclasses.astuple(form)).scale(state)[0]
        np.testing.assert_allclose(budgets.totals(fields, levels, GRID, ERA5, form)["energy"], theirs, rtol=1e-11)
