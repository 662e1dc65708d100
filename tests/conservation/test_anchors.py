"""What dry mass is held to, and what the data's own leaks are taken for."""

import numpy as np
import pytest
import torch
from planets import GRIDS, LEVELS, STEP, Auditor, make_atmosphere, random_step

from emulator.conservation import SchemeOptions, Unaccounted, build, make_budgets, truth_residuals


def setting(**options):
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["sigma"])
    state0, state1 = random_step(atmosphere, torch.float64)
    return atmosphere, state0, state1, build(SchemeOptions(**options), atmosphere, state1)


def mass_after(scheme, state0, state1, anchor):
    changed, _ = scheme(state0, state1, anchor)
    return Auditor(scheme.atmosphere).dry_mass(state1 | changed)


def test_initial_condition_pins_every_step():
    atmosphere, state0, state1, scheme = setting()
    auditor = Auditor(atmosphere)
    anchor = scheme.anchor(state0)
    later, further = random_step(atmosphere, torch.float64, seed=5)
    np.testing.assert_allclose(mass_after(scheme, state0, state1, anchor), auditor.dry_mass(state0), rtol=1e-14)
    np.testing.assert_allclose(
        mass_after(scheme, later, further, scheme.advance(anchor)), auditor.dry_mass(state0), rtol=1e-14
    )
    # Without an anchor the step's own start is the reference.
    np.testing.assert_allclose(mass_after(scheme, later, further, None), auditor.dry_mass(later), rtol=1e-14)


def test_previous_step_follows():
    atmosphere, state0, _, scheme = setting(anchor="previous")
    later, further = random_step(atmosphere, torch.float64, seed=5)
    found = mass_after(scheme, later, further, scheme.anchor(state0))
    np.testing.assert_allclose(found, Auditor(atmosphere).dry_mass(later), rtol=1e-14)


def test_given_mass():
    atmosphere, state0, state1, _ = setting()
    mass = float(Auditor(atmosphere).dry_mass(state0)[0]) * 1.001
    scheme = build(SchemeOptions(anchor="given", dry_mass=mass), atmosphere, state1)
    for anchor in (scheme.anchor(state0), None):
        np.testing.assert_allclose(mass_after(scheme, state0, state1, anchor), mass, rtol=1e-14)


@pytest.mark.parametrize("mass", [10_050.0 * 9.81, 217.0, 1.05e6, 5.1e18])
def test_another_planets_mass_is_refused(mass):
    """Pressure instead of mass, Mars, Venus, and kg instead of kg m-2."""
    _, state0, _, scheme = setting(anchor="given", dry_mass=mass)
    with pytest.raises(ValueError, match=r"near the states' own .* another planet's, or one in another unit"):
        scheme.anchor(state0)


def test_creep_advances_the_anchor():
    """A reference that grows with the data's own creep: after n steps the mass is n creeps higher."""
    creep = 5e-7
    atmosphere, state0, state1, scheme = setting(unaccounted=Unaccounted(dry_mass=creep))
    anchor, state = scheme.anchor(state0), state0
    for number in range(1, 4):
        _, following = random_step(atmosphere, torch.float64, seed=number)
        state = following | scheme(state, following, anchor)[0]
        anchor = scheme.advance(anchor)
        expected = Auditor(atmosphere).dry_mass(state0) + number * creep * STEP
        np.testing.assert_allclose(Auditor(atmosphere).dry_mass(state), expected, rtol=1e-14)
    del state1


def test_schemes_without_dry_air_have_no_anchor():
    _, state0, state1, scheme = setting(budgets=("water",))
    assert scheme.anchor(state0) is None
    assert scheme.advance(None) is None
    scheme(state0, state1, None)


def test_unaccounted_rates_make_the_truth_close_on_average():
    """Rates from the mean residuals, in W m-2 and kg m-2 s-1; with them the truth needs no correction in the mean."""
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["hybrid"])
    pairs = [random_step(atmosphere, seed=seed, noise=0.05) for seed in range(6)]
    budgets = make_budgets(SchemeOptions(), atmosphere, pairs[0][1])
    truth = truth_residuals(budgets.values(), iter(pairs), STEP)
    auditor = Auditor(atmosphere)
    energy = np.concatenate([auditor.residuals(*pair)["energy"] * auditor.energy(pair[0]) for pair in pairs])
    np.testing.assert_allclose(truth.mean["energy"], energy.mean(), rtol=1e-4)
    np.testing.assert_allclose(truth.deviation["energy"], energy.std(), rtol=1e-4)
    assert truth.samples == 12
    rates = truth.unaccounted()
    np.testing.assert_allclose(rates.heating, energy.mean() / STEP, rtol=1e-4)
    assert abs(rates.heating) > 0.1
    known = make_budgets(SchemeOptions(unaccounted=rates), atmosphere, pairs[0][1])
    again = truth_residuals(known.values(), iter(pairs), STEP)
    for name in ("dry_air", "water", "energy"):
        assert abs(again.mean[name]) < 1e-6 * truth.deviation[name]
        np.testing.assert_allclose(again.deviation[name], truth.deviation[name], rtol=1e-6)


def test_wrong_truth_is_refused():
    atmosphere, state0, state1, _ = setting()
    budgets = make_budgets(SchemeOptions(), atmosphere, state1).values()
    with pytest.raises(ValueError, match="at least one pair"):
        truth_residuals(budgets, [], STEP)
    state1["temperature"][0] = torch.nan
    with pytest.raises(ValueError, match="finite residuals of the truth's energy"):
        truth_residuals(budgets, [(state0, state1)], STEP)
