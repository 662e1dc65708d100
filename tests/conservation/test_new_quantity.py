"""A quantity that nothing in the package knows, registered here: schemes close it, audit and report know it."""

import numpy as np
import pytest
import torch
from planets import CONSTANTS, GRIDS, LEVELS, STEP, VARIANCES, Auditor, make_atmosphere, random_step

from emulator.conservation import SchemeOptions, build, make_budgets, truth_residuals
from emulator.conservation.budgets import Declared
from emulator.conservation.penalties import Penalty
from emulator.planet.quantities import registry
from emulator.verify import budgets

# Neither is in the variable table.
TRACER, SOURCE = "methane_mass_mixing_ratio", "mean_methane_emission_rate"
METHANE = registry.Quantity(
    name="methane",
    label="Methane",
    units="kg m-2",
    state=(TRACER,),
    content=lambda fields, constants: fields[TRACER],
    fluxes={SOURCE: 1.0},
)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(registry.QUANTITIES, "_entries", registry.quantities())
    return registry.register(METHANE)


def step(grid="points", levels="hybrid", dtype=torch.float64):
    atmosphere = make_atmosphere(GRIDS[grid](), LEVELS[levels])
    states = random_step(atmosphere, dtype)
    shape = states[0]["temperature"].shape
    for number, state in enumerate(states):
        noise = torch.rand(shape, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
        state[TRACER] = (1e-6 * (1 + noise)).to(dtype)
    states[1][SOURCE] = torch.full_like(states[1]["surface_pressure"], 1e-10)
    return atmosphere, *states


def mass(auditor, state):
    numbers = {name: value.double().numpy() for name, value in state.items()}
    return auditor.mean(auditor.column(numbers[TRACER], auditor.layers(numbers)[1]))


@pytest.mark.parametrize("levels", ["hybrid", "pressure"])
@pytest.mark.parametrize("kind", ["sequential", "projection"])
def test_schemes_close_it_with_the_others(kind, levels):
    """Mass at the end is mass at the start and what was emitted; air, water and energy close too."""
    atmosphere, state0, state1 = step(levels=levels)
    options = SchemeOptions(kind=kind, budgets=("dry_air", "water", "energy", "methane"))
    scheme = build(options, atmosphere, state1, VARIANCES | {TRACER: 1e-14})
    changed, record = scheme(state0, state1)
    auditor, final = Auditor(atmosphere), state1 | changed
    np.testing.assert_allclose(mass(auditor, final), mass(auditor, state0) + STEP * 1e-10, rtol=1e-13)
    assert float(record["residual_before_methane"].abs().min()) > 1e-5
    for name, value in auditor.residuals(state0, final).items():
        np.testing.assert_array_less(np.abs(value), 1e-12, err_msg=name)
    measured = build(SchemeOptions(kind="none", budgets=("methane",)), atmosphere, state1)(state0, state1)[1]
    torch.testing.assert_close(measured["residual_after_methane"], record["residual_before_methane"])


@pytest.mark.parametrize("kind", ["sequential", "projection"])
def test_it_closes_in_single_precision(kind):
    atmosphere, state0, state1 = step("gaussian", "sigma", torch.float32)
    options = SchemeOptions(kind=kind, budgets=("dry_air", "water", "energy", "methane"))
    changed, record = build(options, atmosphere, state1, VARIANCES | {TRACER: 1e-14})(state0, state1)
    assert changed[TRACER].dtype == torch.float32
    assert float(record["residual_after_methane"].abs().max()) < 1e-8


def test_an_empty_field_is_left_and_reported():
    atmosphere, state0, state1 = step()
    state1[TRACER] = torch.zeros_like(state1[TRACER])
    changed, record = build(SchemeOptions(budgets=("methane",)), atmosphere, state1)(state0, state1)
    assert torch.equal(changed[TRACER], state1[TRACER])
    assert float(record["saturation_methane"].min()) == 1


@pytest.mark.parametrize("levels", sorted(LEVELS))
def test_its_gradient_is_the_derivative_of_its_columns(levels):
    atmosphere, state0, state1 = step("no poles", levels)
    budget = Declared(atmosphere, METHANE)
    state1 = {name: value.requires_grad_() for name, value in state1.items()}
    names = (TRACER, "surface_pressure", SOURCE)
    derivatives = torch.autograd.grad(budget.columns(state0, state1).sum(), [state1[name] for name in names])
    layers = atmosphere.thickness(state1["surface_pressure"], state1[TRACER]) / CONSTANTS.gravity
    gradient = budget.gradient(state1)
    for name, expected in zip(names, derivatives, strict=True):
        found = gradient[name] * (layers if name == TRACER else 1.0) * torch.ones_like(expected)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


def test_gradients_of_a_corrected_field_are_those_of_finite_differences():
    atmosphere, state0, state1 = step("gaussian", "sigma")
    for kind in ("sequential", "projection"):
        scheme = build(SchemeOptions(kind=kind, budgets=("methane",)), atmosphere, state1, VARIANCES | {TRACER: 1e-14})
        weights = torch.randn(state1[TRACER].shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        direction = 1e-9 * torch.rand(weights.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)

        def loss(field, scheme=scheme, weights=weights):
            return (scheme(state0, state1 | {TRACER: field})[0][TRACER] * weights).sum()

        field = state1[TRACER].clone().requires_grad_()
        (slope,) = torch.autograd.grad(loss(field), field)
        with torch.no_grad():
            expected = (loss(field + direction) - loss(field - direction)) / 2
        torch.testing.assert_close((slope * direction).sum(), expected, rtol=1e-5, atol=0)


def test_the_audit_and_the_scheme_agree():
    """The same totals and residuals from NumPy's sums of whole states as from the budget's differences."""
    atmosphere, state0, state1 = step("gaussian", "hybrid")
    grid, levels = GRIDS["gaussian"](), LEVELS["hybrid"]
    budget = make_budgets(SchemeOptions(budgets=("methane",)), atmosphere, state1)["methane"]
    fields = {name: torch.stack([state0[name], state1[name]], 1).numpy() for name in state0}
    total = budgets.totals(fields, levels, grid, CONSTANTS)
    np.testing.assert_allclose(total["methane"][:, 0], budget.scale(state0), rtol=1e-12)
    rates = budgets.sources({SOURCE: np.full((2, 2, *grid.shape), 1e-10)}, grid, CONSTANTS)
    left = budgets.residuals(total, rates, np.array([STEP]))["methane"][:, 0]
    np.testing.assert_allclose(left, budget.residual(state0, state1), rtol=1e-9)


def test_the_report_can_show_it():
    """In the audit's units, whose residual is an amount per step."""
    assert budgets.units_of(METHANE) == "kg m-2" and METHANE.rate_units == "kg m-2 s-1"
    assert METHANE.label == "Methane" and METHANE.total == "methane" and METHANE.drift == ("kg m-2", 1.0)
    assert list(budgets.audited("air")) == ["dry_air", "water", "energy", "methane"]


def test_truth_and_penalty_know_it():
    atmosphere, *first = step()
    built = make_budgets(SchemeOptions(budgets=("water", "methane")), atmosphere, first[1])
    truth = truth_residuals(built.values(), [tuple(first)], STEP)
    assert set(truth.mean) == {"water", "methane"} and truth.unaccounted().moistening != 0
    # No constant rate is let stand, so that the truth's residual is all of what it costs.
    cost = Penalty.from_truth({"methane": built["methane"]}, truth)(*first)
    torch.testing.assert_close(float(cost.mean()), 1.0, rtol=1e-9, atol=0)


def test_a_name_is_given_once_and_unknown_ones_are_refused():
    with pytest.raises(ValueError, match="one conserved quantity of the name 'methane'"):
        registry.register(METHANE)
    with pytest.raises(ValueError, match="among dry_air, water, energy, .*, methane, got 'momentum'"):
        registry.quantity("momentum")
    atmosphere, _, state1 = step()
    del state1[SOURCE]
    with pytest.raises(ValueError, match=f"{SOURCE} among the variables, which the budget methane needs"):
        build(SchemeOptions(budgets=("methane",)), atmosphere, state1)
