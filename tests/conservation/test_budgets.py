"""Budgets against closed forms, and their analytic derivatives against automatic ones."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planets import CONSTANTS, GRIDS, LEVELS, STEP, Auditor, make_atmosphere, random_step

from emulator.conservation import Atmosphere, ColumnWater, DryAir, Energy, SchemeOptions, Water, fluxes, make_budgets
from emulator.planet.vertical import Levels

FORMS = [("hydrostatic", "constant", True), ("hydrostatic", "moist", False), ("total", "constant", False)]


def flat(grid, levels, has_surface_pressure=True):
    return Atmosphere(torch.as_tensor(grid.area), levels, CONSTANTS, None, STEP, has_surface_pressure)


def uniform(atmosphere, **values):
    """A state that is the same everywhere, float64."""
    space, count = tuple(atmosphere.area.shape), len(atmosphere.levels)
    names = ("temperature", "specific_humidity", "u_component_of_wind", "v_component_of_wind")
    state = {name: torch.full((1, count, *space), float(values.get(name, 0)), dtype=torch.float64) for name in names}
    for name in (
        "surface_pressure",
        fluxes.PRECIPITATION,
        fluxes.SNOWFALL,
        fluxes.EVAPORATION,
        *fluxes.TOP_FLUXES,
        *fluxes.SURFACE_FLUXES,
    ):
        state[name] = torch.full((1, *space), float(values.get(name, 0)), dtype=torch.float64)
    return state


@pytest.mark.parametrize("grid", sorted(GRIDS))
@pytest.mark.parametrize("levels", sorted(LEVELS))
def test_mass_of_a_uniform_atmosphere(grid, levels):
    """`(1 - q) (ps - p_top) / g`, whatever the levels: columns are cut at the surface or reach down to it."""
    atmosphere = flat(GRIDS[grid](), LEVELS[levels])
    for pressure in (98_000.0, 90_000.0, 103_000.0):
        state = uniform(atmosphere, surface_pressure=pressure, specific_humidity=0.01)
        top = LEVELS[levels].half_a[0] + LEVELS[levels].half_b[0] * pressure
        expected = torch.tensor([0.99 * (pressure - top) / 9.81], dtype=torch.float64)
        torch.testing.assert_close(DryAir(atmosphere).mass(state), expected, rtol=1e-14, atol=0)
        torch.testing.assert_close(Water(atmosphere).scale(state), expected * 0.01 / 0.99, rtol=1e-12, atol=0)


def test_energy_of_a_uniform_atmosphere():
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["sigma"])
    state = uniform(atmosphere, surface_pressure=1e5, temperature=250, specific_humidity=0.004, u_component_of_wind=20)
    orography = float((atmosphere.area * atmosphere.geopotential_at_surface).sum())
    expected = (1004.64 * 250 + 2.501e6 * 0.004 + 200 + orography) * 1e5 / 9.81
    torch.testing.assert_close(float(Energy(atmosphere).scale(state)), expected, rtol=1e-13, atol=0)
    moist = Energy(atmosphere, heat_capacity="moist", kinetic=False)
    capacity = 0.996 * 1004.64 + 0.004 * CONSTANTS.heat_capacity_water_vapour
    expected = (capacity * 250 + 2.501e6 * 0.004 + orography) * 1e5 / 9.81
    torch.testing.assert_close(float(moist.scale(state)), expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("levels", sorted(LEVELS))
def test_total_form_integrates_heights(levels):
    """Integration by parts gives what layer-by-layer hypsometric heights give."""
    atmosphere = make_atmosphere(GRIDS["no poles"](), LEVELS[levels])
    state, _ = random_step(atmosphere, torch.float64)
    found = Energy(atmosphere, "total").scale(state)
    np.testing.assert_allclose(found, Auditor(atmosphere, "total").energy(state), rtol=1e-13)


def test_forms_agree_on_a_dry_resting_atmosphere_without_a_lid():
    """cv T + g z and cp T + Phi_s have the same integral where the column reaches to zero pressure (Haurwitz)."""
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["sigma"])
    state, _ = random_step(atmosphere, torch.float64)
    dry = state | {"specific_humidity": torch.zeros_like(state["specific_humidity"])}
    hydrostatic = Energy(atmosphere, kinetic=False).scale(dry)
    torch.testing.assert_close(Energy(atmosphere, "total").scale(dry), hydrostatic, rtol=1e-13, atol=0)
    lidded = make_atmosphere(GRIDS["gaussian"](), LEVELS["lid"])
    dry = {name: value[:, :4] if value.ndim == 4 else value for name, value in dry.items()}
    ratio = Energy(lidded, "total").scale(dry) / Energy(lidded, kinetic=False).scale(dry)
    assert float((ratio - 1).abs().min()) > 1e-3


def test_fluxes_enter_with_ecmwf_sign():
    """Rain and heat that leave the column show as what is missing; one day of 1 mm rain is 1 kg m-2."""
    atmosphere = flat(GRIDS["gaussian"](), LEVELS["sigma"])
    state = uniform(atmosphere, surface_pressure=1e5, temperature=250, specific_humidity=0.004)

    def residual(budget, **values):
        return float(
            budget.residual(state, state | {k: v for k, v in uniform(atmosphere, **values).items() if k in values})
        )

    per_day = 1 / 86400
    water, energy = Water(atmosphere), Energy(atmosphere)
    assert math.isclose(residual(water, **{fluxes.PRECIPITATION: per_day}), 0.25, rel_tol=1e-9)
    assert math.isclose(residual(water, **{fluxes.EVAPORATION: -per_day}), -0.25, rel_tol=1e-9)
    for name in fluxes.TOP_FLUXES:
        assert math.isclose(residual(energy, **{name: 10}), -10 * STEP, rel_tol=1e-9)
    for name in fluxes.SURFACE_FLUXES:
        assert math.isclose(residual(energy, **{name: -10}), -10 * STEP, rel_tol=1e-9)
    snowy = Energy(atmosphere, snow=True)
    fusion = CONSTANTS.latent_heat_fusion * 0.25
    assert math.isclose(residual(snowy, **{fluxes.SNOWFALL: per_day}), -fusion, rel_tol=1e-9)


def test_unaccounted_rates_shift_the_residual():
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["sigma"])
    states = random_step(atmosphere, torch.float64)
    pairs = (
        (Water(atmosphere), Water(atmosphere, moistening=1e-7), STEP * 1e-7),
        (Energy(atmosphere), Energy(atmosphere, heating=-3.2), -3.2 * STEP),
        (DryAir(atmosphere), DryAir(atmosphere, creep=5e-7), 5e-7 * STEP),
    )
    for plain, shifted, amount in pairs:
        difference = plain.residual(*states) - shifted.residual(*states)
        torch.testing.assert_close(difference, torch.full_like(difference, amount), rtol=1e-7, atol=0)


@settings(max_examples=25, deadline=None)
@given(grid=st.sampled_from(sorted(GRIDS)), levels=st.sampled_from(sorted(LEVELS)), seed=st.integers(0, 999))
def test_residuals_are_differences_of_amounts(grid, levels, seed):
    """Sums of differences agree with the auditor's differences of sums, for every form."""
    atmosphere = make_atmosphere(GRIDS[grid](), LEVELS[levels], seed=seed)
    state0, state1 = random_step(atmosphere, torch.float64, seed=seed, snow=True)
    for form, capacity, kinetic in FORMS:
        budgets = (DryAir(atmosphere), Water(atmosphere), Energy(atmosphere, form, capacity, kinetic, snow=True))
        expected = Auditor(atmosphere, form, capacity == "moist", kinetic).residuals(state0, state1)
        for budget in budgets:
            found = budget.residual(state0, state1) / budget.scale(state0)
            np.testing.assert_allclose(found, expected[budget.name], rtol=0, atol=5e-15)


@settings(max_examples=30, deadline=None)
@given(
    form=st.sampled_from(FORMS),
    levels=st.sampled_from(sorted(LEVELS)),
    has_pressure=st.booleans(),
    seed=st.integers(0, 99),
)
def test_gradients_are_derivatives(form, levels, has_pressure, seed):
    """The analytic gradient times the layer's mass is the derivative of the columns, field by field."""
    has_pressure = has_pressure or levels != "pressure" or form[0] == "total"
    atmosphere = make_atmosphere(GRIDS["no poles"](), LEVELS[levels], has_pressure)
    state0, state1 = random_step(atmosphere, torch.float64, batch=1, seed=seed, snow=True)
    state1 = {name: value.requires_grad_() for name, value in state1.items()}
    species = (fluxes.HUMIDITY,)
    for budget in (DryAir(atmosphere, species), Water(atmosphere, species), Energy(atmosphere, *form, snow=True)):
        names = [name for name in budget.required if name in state1]
        names = [name for name in names if name not in (fluxes.SNOWFALL,)]
        derivatives = torch.autograd.grad(budget.columns(state0, state1).sum(), [state1[name] for name in names])
        gradient = budget.gradient(state1)
        layers = atmosphere.thickness(atmosphere.surface_pressure(state1), state1["temperature"]) / CONSTANTS.gravity
        for name, expected in zip(names, derivatives, strict=True):
            found = gradient[name] * (layers if expected.ndim == 4 else 1.0) * torch.ones_like(expected)
            if name == fluxes.EVAPORATION and budget.name == "energy":
                continue
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()), msg=name)


def test_linked_fluxes_are_in_the_gradient():
    """Evaporation brings its latent heat along, precipitation its share of snow: the energy's derivative counts both."""
    atmosphere = make_atmosphere(GRIDS["no poles"](), LEVELS["sigma"])
    state0, state1 = random_step(atmosphere, torch.float64, batch=1, snow=True)
    energy = Energy(atmosphere, snow=True)
    for name in (fluxes.EVAPORATION, fluxes.PRECIPITATION):
        field = state1[name].clone().requires_grad_()
        linked = {name: field} | fluxes.linked(state1, {name: field}, CONSTANTS.latent_heat_vaporisation)
        (expected,) = torch.autograd.grad(energy.columns(state0, state1 | linked).sum(), field)
        found = energy.gradient(state1)[name] * torch.ones_like(expected)
        rains = state1[fluxes.PRECIPITATION] > 0
        torch.testing.assert_close(found[rains], expected[rains], rtol=1e-9, atol=0)


def test_condensate_counts_as_water_where_it_is_known():
    atmosphere = flat(GRIDS["gaussian"](), LEVELS["sigma"])
    cloud = "specific_cloud_liquid_water_content"
    state = uniform(atmosphere, surface_pressure=1e5, specific_humidity=0.004)
    state[cloud] = torch.full_like(state["specific_humidity"], 0.001)
    budgets = make_budgets(SchemeOptions(budgets=("dry_air", "water")), atmosphere, state)
    assert budgets["water"].species == (fluxes.HUMIDITY, cloud)
    torch.testing.assert_close(float(budgets["water"].scale(state)), 0.005 * 1e5 / 9.81, rtol=1e-13, atol=0)
    torch.testing.assert_close(float(budgets["dry_air"].mass(state)), 0.995 * 1e5 / 9.81, rtol=1e-13, atol=0)


def test_column_water_counts_every_column():
    """Errors that cancel over the globe do not cancel in the residual of the columns."""
    atmosphere = flat(GRIDS["no poles"](), LEVELS["sigma"])
    state = uniform(atmosphere, surface_pressure=1e5, specific_humidity=0.004)
    stripes = torch.ones(12, dtype=torch.float64)
    stripes[::2] = -1
    state[fluxes.DIVERGENCE] = 1e-5 * stripes.expand(1, 6, 12)
    budget = ColumnWater(Water(atmosphere))
    torch.testing.assert_close(float(budget.residual(state, state)), 1e-5 * STEP, rtol=1e-12, atol=0)
    torch.testing.assert_close(float(Water(atmosphere).residual(state, state)), 0.0, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda a: Energy(a, "potential"), "form of energy among"),
        (lambda a: Energy(a, heat_capacity="variable"), "heat capacity among"),
        (lambda a: Energy(a, "total", "moist"), "constant heat capacity with the total form"),
        (lambda a: Energy(flat(GRIDS["gaussian"](), LEVELS["pressure"], False), "total"), "integrates heights"),
        (lambda a: SchemeOptions(kind="soft"), "kind among none"),
        (lambda a: SchemeOptions(anchor="final"), "anchor among initial"),
        (lambda a: SchemeOptions(anchor="given"), "dry_mass exactly with"),
        (lambda a: SchemeOptions(budgets=("momentum",)), "budgets among"),
        (lambda a: make_budgets(SchemeOptions(), a, ["temperature"]), "which the budget dry_air needs"),
        (
            lambda a: make_budgets(
                SchemeOptions(budgets=("energy",)), a, set(Energy(a).required) - {fluxes.TOP_FLUXES[1]}
            ),
            "mean_top_net_long_wave_radiation_flux among the variables, which the budget energy needs",
        ),
    ],
)
def test_wrong_choices_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(flat(GRIDS["gaussian"](), LEVELS["sigma"]))


def test_levels_without_pressure_are_refused():
    with pytest.raises(ValueError, match="surface_pressure among the variables"):
        flat(GRIDS["gaussian"](), Levels.sigma([0, 0.5, 1]), False)
