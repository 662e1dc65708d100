"""Whole corrections from the compiled kernels against the budgets' own formulas: fields, records and gradients."""

import copy
import dataclasses
import pickle

import pytest
import torch
from hypothesis import assume, example, given, reject, settings
from hypothesis import strategies as st
from planets import GRIDS, LEVELS, VARIANCES, make_atmosphere, random_step

from emulator.conservation import SchemeOptions, Unaccounted, build, compiled_step, fluxes
from emulator.kernels import library
from emulator.planet.grid import Grid

pytestmark = pytest.mark.skipif(library.LIBRARY is None, reason="the kernels were not made")

# 140 cells fill one block of the kernels and part of a second one.
GRIDS = GRIDS | {"two blocks": lambda: Grid.gaussian(10, 14)}
choices = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["sequential", "projection"]),
        "budgets": st.sampled_from(
            [
                ("dry_air", "water", "energy"),
                ("water", "energy"),
                ("dry_air", "energy"),
                ("dry_air",),
                ("water",),
                ("energy",),
            ]
        ),
        "water": st.sampled_from(["precipitation", "evaporation"]),
        "kinetic": st.booleans(),
        "anchor": st.sampled_from(["initial", "previous"]),
        "unaccounted": st.sampled_from([Unaccounted(), Unaccounted(2.0, 1e-7, 1e-7)]),
        "relative": st.sets(st.sampled_from(compiled_step.CONTROLS)).map(tuple),
        "controls": st.none() | st.sets(st.sampled_from(compiled_step.CONTROLS), min_size=1).map(tuple),
    }
)
planets = st.tuples(st.sampled_from(sorted(GRIDS)), st.sampled_from(sorted(LEVELS)), st.integers(0, 999))


def setting(choice, planet, batch=2, dry=False, noise=1.0):
    """A scheme that the kernels serve, and a step; `dry` without rain."""
    grid, levels, seed = planet
    atmosphere = make_atmosphere(GRIDS[grid](), LEVELS[levels], seed=seed)
    state0, state1 = random_step(atmosphere, batch=batch, seed=seed, noise=noise)
    if dry:
        state1[fluxes.PRECIPITATION] = torch.zeros_like(state1[fluxes.PRECIPITATION])
    if choice["controls"] is not None:
        needed = {
            name
            for budget in build(SchemeOptions(budgets=choice["budgets"]), atmosphere, state1).budgets.values()
            for name in budget.required
        }
        choice = choice | {
            "controls": tuple(name for name in compiled_step.CONTROLS if name in {*choice["controls"]} & needed)
        }
        if not choice["controls"]:
            reject()
    scheme = build(SchemeOptions(**choice), atmosphere, state1, VARIANCES)
    if scheme.compiled is None:
        reject()
    return scheme, state0, state1


def outcome(scheme, state0, state1, anchored=True):
    """Changed fields, record, and the gradients of a function of the fields by those of both states."""
    state0, state1 = ({n: v.clone().requires_grad_() for n, v in state.items()} for state in (state0, state1))
    changed, record = scheme(state0, state1, scheme.anchor(state0) if anchored else None)
    loss = 0
    for number, (name, value) in enumerate(sorted(changed.items())):
        start = state1[name].detach()
        weights = torch.randn(value.shape, generator=torch.Generator().manual_seed(number))
        units = (value - start) / (start.std() + 1e-9)
        loss = loss + (weights * units + units**2).sum()
    gradients = torch.autograd.grad(
        loss, [*state0.values(), *state1.values()], allow_unused=True, materialize_grads=True
    )
    return changed, record, dict(zip([*(f"{n} before" for n in state0), *state1], gradients, strict=True))


def close(found, expected, share):
    """Equal within a share of the largest value."""
    torch.testing.assert_close(found, expected, rtol=0, atol=share * float(expected.detach().abs().max()) + 1e-30)


RAIN_FROM_NONE = dict(
    kind="projection",
    budgets=("water", "energy"),
    water="precipitation",
    kinetic=False,
    anchor="initial",
    unaccounted=Unaccounted(2.0, 1e-7, 1e-7),
    relative=("specific_humidity",),
    controls=("specific_humidity", "mean_total_precipitation_rate", "surface_pressure"),
)


@settings(max_examples=80, deadline=None)
@given(choices, planets, st.integers(1, 3), st.booleans(), st.booleans(), st.sampled_from([0.1, 1.0]))
@example(RAIN_FROM_NONE, ("gaussian", "hybrid", 3), 1, True, False, 0.1)
def test_corrections_are_those_of_the_formulas(choice, planet, batch, dry, anchored, noise):
    scheme, *states = setting(choice, planet, batch, dry, noise)
    found = outcome(scheme, *states, anchored)
    # In float64, which the kernels leave to the formulas: what closes a budget after a limit is a small difference of
    # large amounts, of which float32 formulas keep four digits and the kernels' float64 sums all.
    double = [{name: value.double() for name, value in state.items()} for state in states]
    expected = outcome(scheme, *double, anchored)
    for ours, theirs in zip(found, expected, strict=True):
        assert set(ours) == set(theirs)
    # Controls that cannot close the budgets together leave a singular system, of which rounding chooses the solution; what
    # counts as closed goes by the type.
    with torch.no_grad(), library.set_aside():
        single = scheme(*states, scheme.anchor(states[0]) if anchored else None)[1]
    solved = torch.zeros(1)
    flags = [record.get("saturation_projection", solved) for record in (found[1], single, expected[1])]
    assert torch.equal(*flags[:2])
    assume(not any(bool(flag.any()) for flag in flags))
    # From one anchor: float32 rounds its own by 3e-10, which is more than what a limit may leave to the other flux.
    anchor = scheme.anchor(double[0]) if anchored else None
    with torch.no_grad():
        changed, exact = scheme(*states, anchor)[0], scheme(*double, anchor)[0]
        with library.set_aside():
            formulas = scheme(*states, anchor)[0]
    for name, value in exact.items():
        # A change that takes nearly all of a field is rounded in units of what was there. Rain where there was none is what
        # the rounding of humidity leaves it (4.2e-6 of it in the example), in the formulas' float32 as in the kernels'.
        largest = max(float(value.abs().max()), float(states[1][name].abs().max()))
        room = max(4e-6 * largest, 2 * float((formulas[name] - value).abs().max()))
        torch.testing.assert_close(changed[name], value.float(), rtol=0, atol=room + 1e-30)
    for name, value in expected[1].items():
        assert found[1][name].shape == value.shape
        if "residual_after" in name and float(value.abs().max()) < 1e-7:  # both are rounding
            assert float(found[1][name].abs().max()) < 1e-7
        else:
            # The change that arrived, which the field's own units have rounded.
            measure, _, variable = name.removeprefix("correction_").partition("_")
            unit = scheme.errors[variable] if measure == "share" else 1.0
            largest = float(states[1].get(variable, torch.ones(())).abs().max())
            torch.testing.assert_close(found[1][name], value, rtol=1e-4, atol=2e-7 * largest / unit)
    spread = {f"{name} before": value.std() + 1e-9 for name, value in states[0].items()}
    spread |= {name: value.std() + 1e-9 for name, value in states[1].items()}
    largest = max(float((value * spread[name]).abs().max()) for name, value in expected[2].items())
    for name, value in expected[2].items():
        room = 5e-4 * float(value.abs().max()) + 1e-6 * largest / float(spread[name])
        torch.testing.assert_close(found[2][name], value.float(), rtol=0, atol=room)


@pytest.mark.parametrize("kind", ["sequential", "projection"])
def test_usual_schemes_are_compiled(kind):
    """What the other tests compare is what runs: no field is formed by torch."""
    scheme, state0, state1 = setting({"kind": kind, "controls": None}, ("gaussian", "sigma", 0))
    changed, _ = scheme(state0, state1)
    double = [{name: value.double() for name, value in state.items()} for state in (state0, state1)]
    assert scheme.compiled.serves(state0, state1) and not scheme.compiled.serves(*double)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        scheme(state0, state1)
    assert not {"aten::mul", "aten::sub", "aten::clamp"} & {event.key for event in profile.key_averages()}
    with library.set_aside():
        expected, _ = scheme(state0, state1)
    for name, value in expected.items():
        close(changed[name], value, 4e-6)


def test_kernels_round_as_every_addition_does():
    """The same offsets in the same places: a warming arrives in the same cells."""
    choice = {"kind": "sequential", "budgets": ("energy",), "controls": None}
    scheme, state0, state1 = setting(choice, ("two blocks", "hybrid", 6))
    found, _ = scheme(state0, state1)
    with library.set_aside():
        expected, _ = scheme(state0, state1)
    assert float((found["temperature"] != expected["temperature"]).float().mean()) < 0.01
    assert float((found["temperature"] != state1["temperature"]).float().mean()) > 0.5


@pytest.mark.parametrize(
    "options",
    [
        {"energy": "total"},
        {"heat_capacity": "moist"},
        {"dry_air": "offset"},
        {"temperature": "ratio"},
        {"kind": "projection", "heat_capacity": "moist"},
        {"kind": "projection", "controls": ("temperature", "u_component_of_wind")},
    ],
)
def test_other_forms_take_the_formulas(options):
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["lid"])
    _, state1 = random_step(atmosphere)
    variances = VARIANCES | {"u_component_of_wind": 1.0}
    assert build(SchemeOptions(**options), atmosphere, state1, variances).compiled is None


def test_snow_clouds_bands_and_new_quantities_take_the_formulas():
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["sigma"])
    _, state1 = random_step(atmosphere, snow=True)
    assert build(SchemeOptions(), atmosphere, state1).compiled is None
    _, state1 = random_step(atmosphere)
    cloudy = state1 | {fluxes.WATER_SPECIES[1]: state1[fluxes.HUMIDITY]}
    assert build(SchemeOptions(), atmosphere, cloudy).compiled is None
    moving = state1 | {fluxes.DIVERGENCE: state1[fluxes.PRECIPITATION]}
    placed = dataclasses.replace(atmosphere, latitude=torch.as_tensor(GRIDS["gaussian"]().mesh()[0].copy()))
    banded = build(SchemeOptions("projection", bands=(0.0,)), placed, moving, VARIANCES)
    assert banded.compiled is None
    columns = SchemeOptions(budgets=("dry_air", "water", "energy", "column_water"))
    assert build(columns, atmosphere, moving).compiled is None


@pytest.mark.parametrize("kind", ["sequential", "projection"])
def test_bits_depend_neither_on_threads_nor_on_the_batch(kind):
    scheme, state0, state1 = setting({"kind": kind, "controls": None}, ("two blocks", "hybrid", 1), batch=3)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(outcome(scheme, state0, state1))
    finally:
        torch.set_num_threads(before)
    member = [{name: value[1:2] for name, value in state.items()} for state in (state0, state1)]
    with torch.no_grad():
        alone = scheme(*member, scheme.anchor(member[0]))
    for number in range(3):
        for name, value in results[0][number].items():
            assert torch.equal(value, results[1][number][name]) and torch.equal(value, results[2][number][name]), name
            if number < 2:
                assert torch.equal(value[1:2], alone[number][name]), name


@pytest.mark.parametrize("kind", ["sequential", "projection"])
def test_a_second_backward_pass_gives_the_same(kind):
    scheme, state0, state1 = setting({"kind": kind, "controls": None}, ("two blocks", "sigma", 2))
    field = state1["temperature"].requires_grad_()
    changed, _ = scheme(state0, state1)
    loss = (changed["temperature"] ** 2).sum() + changed[fluxes.LATENT_HEAT].sum()
    first, second = (torch.autograd.grad(loss, field, retain_graph=again)[0] for again in (True, False))
    assert torch.equal(first, second)


@pytest.mark.parametrize("kind", ["sequential", "projection"])
def test_fields_that_were_changed_before_the_backward_pass_are_refused(kind):
    scheme, state0, state1 = setting({"kind": kind, "controls": None}, ("gaussian", "sigma", 3))
    start = state1["temperature"].clone().requires_grad_()
    state1["temperature"] = start * 1
    changed, _ = scheme(state0, state1)
    state1["temperature"].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        changed["temperature"].sum().backward()


@pytest.mark.parametrize("kind", ["sequential", "projection"])
def test_the_gradient_of_a_given_reference(kind):
    """The dry mass that is asked for may itself depend on something."""
    scheme, state0, state1 = setting({"kind": kind, "controls": None}, ("gaussian", "sigma", 4))
    results = []
    for kernels in (True, False):
        anchor = scheme.anchor(state0)
        anchor = type(anchor)(anchor.dry_mass.clone().requires_grad_())
        if kernels:
            changed, _ = scheme(state0, state1, anchor)
        else:
            with library.set_aside():
                changed, _ = scheme(state0, state1, anchor)
        loss = changed["surface_pressure"].mean() + changed["temperature"].mean()
        results += torch.autograd.grad(loss, anchor.dry_mass)
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=0)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda scheme: pickle.loads(pickle.dumps(scheme))])
def test_a_copied_scheme_does_the_same(copied):
    """Its kernels do not point to what the original holds."""
    scheme, state0, state1 = setting({"kind": "projection", "controls": None}, ("gaussian", "sigma", 5))
    expected, _ = scheme(state0, state1)
    other = copied(scheme)
    assert other.compiled.scheme is other
    held = {id(array) for array in scheme.compiled.integrals._arrays}
    assert not held & {id(array) for array in other.compiled.integrals._arrays}
    assert other.compiled.integrals._shared["area"] == other.compiled.integrals._arrays[2].ctypes.data
    found, _ = other(state0, state1)
    for name, value in expected.items():
        assert torch.equal(found[name], value)
