"""The compiled pass over the columns against the budgets' own formulas, values and gradients."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planets import GRIDS, LEVELS, VARIANCES, make_atmosphere, random_step

from emulator.conservation import Energy, SchemeOptions, build, fluxes, make_budgets, rounding
from emulator.conservation.amounts import shared as amounts_of
from emulator.kernels import library
from emulator.planet.grid import Grid

pytestmark = pytest.mark.skipif(library.LIBRARY is None, reason="the kernels were not made")

# 140 cells fill one block of the kernels and part of a second one.
GRIDS = GRIDS | {"two blocks": lambda: Grid.gaussian(10, 14)}
choices = st.fixed_dictionaries(
    {
        "grid": st.sampled_from(sorted(GRIDS)),
        "levels": st.sampled_from(sorted(LEVELS)),
        "energy": st.sampled_from([("hydrostatic", "constant"), ("hydrostatic", "moist"), ("total", "constant")]),
        "kinetic": st.booleans(),
        "surface_pressure": st.booleans(),
        "cloud": st.booleans(),
        "batch": st.integers(1, 3),
        "seed": st.integers(0, 999),
    }
)


def setting(choice, dtype=torch.float32):
    surface_pressure = choice["surface_pressure"] or choice["levels"] != "pressure" or choice["energy"][0] == "total"
    atmosphere = make_atmosphere(GRIDS[choice["grid"]](), LEVELS[choice["levels"]], surface_pressure, choice["seed"])
    state0, state1 = random_step(atmosphere, torch.float32, choice["batch"], choice["seed"])
    for number, state in enumerate((state0, state1)):
        if choice["cloud"]:
            random = torch.Generator().manual_seed(number)
            for name in fluxes.WATER_SPECIES[1:]:
                state[name] = 1e-4 * torch.rand(state["temperature"].shape, generator=random)
        for name in state:
            state[name] = state[name].to(dtype)
    form, capacity = choice["energy"]
    return atmosphere, SchemeOptions(energy=form, heat_capacity=capacity, kinetic=choice["kinetic"]), state0, state1


def shared(options, atmosphere, state0, state1):
    """The budgets, and the states in which one pass serves them all."""
    scheme = build(options, atmosphere, state1)
    states = scheme._prepared(state0, state1)
    assert amounts_of(scheme.budgets["water"], states[1]) is not None
    return scheme.budgets, *states


def exact(state):
    return {name: value.double() for name, value in state.items()}


@settings(max_examples=80, deadline=None)
@given(choices)
def test_amounts_are_the_budgets_own(choice):
    """Scales, residuals and derivatives by surface pressure, against the formulas of torch in float64."""
    atmosphere, options, state0, state1 = setting(choice)
    budgets, *found = shared(options, atmosphere, state0, state1)
    states = exact(state0), exact(state1)
    for name, budget in make_budgets(options, atmosphere, state1).items():
        if amounts_of(budgets[name], found[1]) is None:
            continue
        scale = budget.scale(states[0])
        torch.testing.assert_close(budgets[name].scale(found[0]), scale, rtol=1e-13, atol=0)
        # Fluxes are summed as float32 before their mean is taken.
        difference = (budgets[name].residual(*found) - budget.residual(*states)) / scale
        torch.testing.assert_close(difference, torch.zeros_like(difference), rtol=0, atol=2e-9)
        if atmosphere.has_surface_pressure:
            ours, theirs = (b.gradient(s[1])["surface_pressure"] for b, s in ((budgets[name], found), (budget, states)))
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-9 * float(theirs.abs().max()))


@settings(max_examples=40, deadline=None)
@given(choices)
def test_gradients_are_the_budgets_own(choice):
    """Of residuals and of derivatives by surface pressure, by every field of both states."""
    atmosphere, options, *given = setting(choice)
    weights = torch.randn(choice["batch"], *atmosphere.area.shape, generator=torch.Generator().manual_seed(1))

    def gradients(budgets, states, fields):
        total = 0
        for budget in budgets.values():
            if isinstance(budget, Energy) and budget.has_top:
                continue
            scale = budget.scale(states[0])
            total = total + (budget.residual(*states) / scale.detach()).sum()
            if atmosphere.has_surface_pressure:
                slope = budget.gradient(states[1])["surface_pressure"] / scale.detach().reshape(
                    -1, *[1] * atmosphere.space
                )
                total = total + (slope * weights).sum() * 1e3
        return torch.autograd.grad(total, fields, allow_unused=True)

    results = []
    for double in (False, True):
        states = [exact(state) if double else dict(state) for state in given]
        fields = [value.requires_grad_() for state in states for value in state.values()]
        if double:
            results.append(gradients(make_budgets(options, atmosphere, states[1]), states, fields))
        else:
            budgets, *begun = shared(options, atmosphere, *states)
            results.append(gradients(budgets, begun, fields))
    for ours, theirs in zip(*results, strict=True):
        assert (ours is None) == (theirs is None) or float((theirs if ours is None else ours).abs().max()) == 0
        if ours is not None and theirs is not None:
            torch.testing.assert_close(ours.double(), theirs, rtol=2e-5, atol=2e-6 * float(theirs.abs().max()))


@settings(max_examples=40, deadline=None)
@given(choices)
def test_means_by_layer_and_squares(choice):
    atmosphere, _, state0, state1 = setting(choice)
    field, where = state0["specific_humidity"], state1["specific_humidity"]
    for x, mask in ((field, where), (None, where), (field, None), (None, None)):
        ours = atmosphere.mean_by_layer(x, state1, mask, field)
        theirs = atmosphere.mean_by_layer(
            None if x is None else x.double(), exact(state1), None if mask is None else mask.double(), field.double()
        )
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        atmosphere.mean_by_level(field), atmosphere.mean_by_level(field.double()), rtol=1e-12, atol=0
    )
    for name in ("specific_humidity", "temperature"):
        ours = atmosphere.mean_square(state0[name], state1[name])
        torch.testing.assert_close(
            ours, atmosphere.mean_square(state0[name].double(), state1[name].double()), rtol=1e-12, atol=0
        )


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (2, 5, 7), (3, 11), (2, 4, 11)])
def test_dither_is_torchs(shape, monkeypatch):
    random = torch.Generator().manual_seed(len(shape))
    wide = 250 + 30 * torch.randn(shape[0], shape[1] + 4, *shape[2:], generator=random)
    field = wide[:, : shape[1]]  # a view of a channel tensor
    per_row = (*shape[:2], *[1] * (len(shape) - 2))
    for increment in (torch.tensor(6e-6), torch.randn(per_row, generator=random), torch.randn(shape, generator=random)):
        found = rounding.add(field, increment)
        with monkeypatch.context() as patched:
            patched.setattr(library, "LIBRARY", None)
            expected = rounding.add(field, increment)
        torch.testing.assert_close(found, expected, rtol=1.3e-7, atol=0)
        assert float((found != expected).float().mean()) < 0.01  # a product may be rounded before its sum, or not


def test_bits_do_not_depend_on_threads_nor_on_the_batch():
    atmosphere = make_atmosphere(Grid.gaussian(12, 30), LEVELS["hybrid"])
    state0, state1 = random_step(atmosphere, batch=3)
    scheme = build(SchemeOptions(kind="projection"), atmosphere, state1, VARIANCES)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append([amounts_of(scheme.budgets["energy"], state) for state in scheme._prepared(state0, state1)])
    finally:
        torch.set_num_threads(before)
    alone = scheme._prepared(*({name: value[1:2] for name, value in state.items()} for state in (state0, state1)))
    for number in range(2):
        single = amounts_of(scheme.budgets["energy"], alone[number])
        for index, value in enumerate(results[0][number]):
            assert torch.equal(value, results[1][number][index]) and torch.equal(value, results[2][number][index])
            assert torch.equal(value[1:2], single[index])


def test_what_is_kept_is_of_the_fields_that_were_asked_for():
    """A changed field is another state; the gradient of a state that had none before is not lost."""
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["sigma"])
    budgets, _, state1 = shared(SchemeOptions(), atmosphere, *random_step(atmosphere))
    water, energy = budgets["water"], budgets["energy"]
    first = amounts_of(water, state1)
    assert amounts_of(energy, state1) is first
    warmer = state1 | {"temperature": state1["temperature"] + 1}
    gained = energy.scale(warmer) - energy.scale(state1)
    np.testing.assert_allclose(gained, atmosphere.constants.heat_capacity_dry_air * first.air, rtol=1e-6)
    warmer["temperature"].requires_grad_()
    with torch.no_grad():
        assert not energy.scale(warmer).requires_grad
    assert energy.scale(warmer).requires_grad
    with torch.no_grad():
        assert amounts_of(energy, warmer).energy is not None


def test_other_types_and_energies_form_their_own_columns():
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["hybrid"])
    for dtype, options, expected in (
        (torch.float64, SchemeOptions(), (False, False)),
        (torch.float32, SchemeOptions(energy="total"), (True, False)),
        (torch.float32, SchemeOptions(), (True, True)),
    ):
        state0, state1 = random_step(atmosphere, dtype)
        scheme = build(options, atmosphere, state1)
        _, begun = scheme._prepared(state0, state1)
        assert tuple(amounts_of(scheme.budgets[name], begun) is not None for name in ("water", "energy")) == expected


@pytest.mark.parametrize("energy", [("hydrostatic", "moist"), ("total", "constant")])
def test_the_product_of_temperature_and_humidity_counts_where_surface_pressure_alone_moves(energy):
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["sigma"])
    state0, state1 = random_step(atmosphere)
    form, capacity = energy
    options = SchemeOptions("projection", ("energy",), form, capacity, controls=("surface_pressure",))
    with torch.no_grad():  # a further step with gradients would hide what the trials get wrong
        changed, record = build(options, atmosphere, state1, VARIANCES)(state0, state1)
    assert float(record["residual_before_energy"].abs().min()) > 1e-4
    assert float(record["residual_after_energy"].abs().max()) < 1e-7
    budget = make_budgets(options, atmosphere, state1)["energy"]
    states = exact(state0), exact(state1 | changed)
    assert float((budget.residual(*states) / budget.scale(states[0])).abs().max()) < 1e-7


def test_areas_in_another_order_of_memory_are_the_same():
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["hybrid"])
    states = random_step(atmosphere)
    turned = dataclasses.replace(atmosphere, area=atmosphere.area.T.contiguous().T)
    one, other = (build(SchemeOptions(), air, states[1])(*states)[1] for air in (atmosphere, turned))
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("kind", ["sequential", "projection"])
def test_no_samples_and_another_default_type(kind):
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["hybrid"])
    states = random_step(atmosphere)
    scheme = build(SchemeOptions(kind=kind), atmosphere, states[1], VARIANCES)
    expected, _ = scheme(*states)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        found, _ = scheme(*states)
    finally:
        torch.set_default_dtype(before)
    for name, value in expected.items():
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=0)
    nothing, _ = scheme(*({name: value[:0] for name, value in state.items()} for state in states))
    assert {name: value.shape for name, value in nothing.items()} == {n: v[:0].shape for n, v in expected.items()}


def test_means_over_many_cells_do_not_depend_on_threads_nor_on_the_batch():
    atmosphere = make_atmosphere(Grid.equiangular(181, 360, poles=True), LEVELS["sigma"])
    fields = torch.randn(3, *atmosphere.area.shape, generator=torch.Generator().manual_seed(0))
    expected, before = atmosphere.mean(fields), torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(atmosphere.mean(fields), expected)
            for number in range(3):
                assert torch.equal(atmosphere.mean(fields[number : number + 1]), expected[number : number + 1])
                assert torch.equal(atmosphere.mean(fields[number]), expected[number])
    finally:
        torch.set_num_threads(before)
