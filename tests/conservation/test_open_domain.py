"""Corrections of a domain with open sides: what leaves is part of the budgets, in every scheme, kernel, batch and process."""

import dataclasses

import numpy as np
import pytest
import torch
from planets import GRIDS, LEVELS, STEP, VARIANCES, Auditor, make_atmosphere, random_step
from together import together

from emulator.conservation import SchemeOptions, build, fluxes
from emulator.conservation.scheme import Scheme
from emulator.parallel.space import ALONE
from emulator.planet.grid import Grid

KINDS = ("sequential", "projection")
OUTFLOW = torch.tensor([[1e-2, 3e-5, 120.0], [-2e-2, -1e-4, -300.0]], dtype=torch.float64)


def opened(levels="sigma", grid=None, **more):
    atmosphere = make_atmosphere(grid or Grid.equiangular(16, 32), LEVELS[levels])
    return dataclasses.replace(atmosphere, open_sides=True, **more)


def scheme_of(kind, atmosphere, state, **options) -> Scheme:
    return build(SchemeOptions(kind=kind, **options), atmosphere, state, VARIANCES)


def gained(auditor, state0, state1, seconds=STEP) -> np.ndarray:
    """What a step leaves of dry air, water and energy, `(batch, 3)`, as if nothing had left by the sides."""
    means = {name: auditor.mean(state1[name].double()) for name in state1 if name.startswith("mean_")}
    water = means[fluxes.PRECIPITATION] + means[fluxes.EVAPORATION]
    heat = sum(means[n] for n in fluxes.TOP_FLUXES) - sum(means[n] for n in fluxes.SURFACE_FLUXES)
    changes = [
        getattr(auditor, what)(state1) - getattr(auditor, what)(state0) for what in ("dry_mass", "water", "energy")
    ]
    return np.stack([changes[0], changes[1] + seconds * water, changes[2] - seconds * heat], 1)


@pytest.mark.parametrize("levels", ["sigma", "hybrid", "pressure"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_budgets_close_with_what_leaves(kind, dtype, levels):
    atmosphere = opened(levels)
    state0, state1 = random_step(atmosphere, dtype)
    scheme, auditor = scheme_of(kind, atmosphere, state1), Auditor(atmosphere)
    changed, record = scheme(state0, state1, scheme.anchor(state0), outflow=OUTFLOW)
    left = -STEP * OUTFLOW.numpy()
    size = np.stack([auditor.dry_mass(state0), auditor.water(state0), auditor.energy(state0)], 1)
    found, before = (gained(auditor, state0, state) for state in (state1 | changed, state1))
    near = 1e-8 if dtype is torch.float32 else 1e-14
    np.testing.assert_allclose(found / size, left / size, rtol=0, atol=near)
    assert (abs(before - left) / size > 1e-6).all()
    for number, name in enumerate(scheme.budgets):
        expected = (before - left)[:, number] / size[:, number]
        np.testing.assert_allclose(record[f"residual_before_{name}"], expected, rtol=1e-3, atol=near)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_leaves_is_a_closed_domain_bit_for_bit(kind):
    atmosphere = opened()
    state0, state1 = random_step(atmosphere)
    scheme = scheme_of(kind, atmosphere, state1)
    closed = scheme_of(kind, dataclasses.replace(atmosphere, open_sides=False), state1)
    for anchor in (scheme.anchor(state0), None):
        ours, theirs = scheme(state0, state1, anchor, outflow=0 * OUTFLOW), closed(state0, state1, anchor)
        for found, expected in zip(ours, theirs, strict=True):
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("kind", KINDS)
def test_dry_air_is_held_to_what_is_left_of_the_initial_states(kind):
    """Over many steps errors do not add up: the last state has the first one's mass less all that left."""
    atmosphere = opened()
    auditor, first = Auditor(atmosphere), random_step(atmosphere)[0]
    scheme, anchor, state, left = None, None, first, np.zeros(2)
    for number in range(8):
        after = random_step(atmosphere, seed=number)[1]
        scheme = scheme or scheme_of(kind, atmosphere, after)
        anchor = anchor or scheme.anchor(first)
        outflow = OUTFLOW * np.cos(number)
        state = after | scheme(state, after, anchor, outflow=outflow)[0]
        anchor, left = scheme.advance(anchor, outflow), left + STEP * outflow[:, 0].numpy()
    np.testing.assert_allclose(auditor.dry_mass(state), auditor.dry_mass(first) - left, rtol=1e-8)
    np.testing.assert_allclose(anchor.dry_mass, auditor.dry_mass(first) - left, rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_its_parts_bit_for_bit(kind):
    atmosphere = opened()
    state0, state1 = random_step(atmosphere)
    scheme = scheme_of(kind, atmosphere, state1)
    whole, record = scheme(state0, state1, outflow=OUTFLOW)
    for row in range(2):
        one = [{n: x[row : row + 1] for n, x in state.items()} for state in (state0, state1)]
        changed, told = scheme(*one, outflow=OUTFLOW[row : row + 1])
        assert all(torch.equal(x[0], whole[n][row]) for n, x in changed.items())
        assert all(torch.equal(x[0], record[n][row]) for n, x in told.items())


@pytest.mark.parametrize("kind", KINDS)
def test_true_lengths_of_steps_count(kind):
    """Of a step half as long again that much more leaves, enters and falls."""
    atmosphere = opened()
    auditor, (state0, state1) = Auditor(atmosphere), random_step(atmosphere, torch.float64)
    scheme, length = scheme_of(kind, atmosphere, state1), 1.5 * STEP
    seconds, anchor = torch.full((2,), length, dtype=torch.float64), scheme.anchor(state0)
    after = state1 | scheme(state0, state1, anchor, seconds, OUTFLOW)[0]
    left = gained(auditor, state0, after, length) / -length
    np.testing.assert_allclose(left, OUTFLOW, rtol=1e-9)
    mass = scheme.advance(anchor, OUTFLOW, seconds).dry_mass
    torch.testing.assert_close(mass, anchor.dry_mass - length * OUTFLOW[:, 0], rtol=1e-14, atol=0)


def gradients(kind, dtype, space=ALONE):
    """Gradients of a loss of the corrected fields by what leaves and by fields, from an open domain's correction."""
    whole = opened(grid=GRIDS["poles"]())
    state0, state1 = ({n: space.cut(x) for n, x in state.items()} for state in random_step(whole, dtype))
    scheme = scheme_of(kind, whole.cut(space), state1)
    given = {"temperature": state1["temperature"].clone().requires_grad_()}
    outflow = OUTFLOW.clone().requires_grad_()
    changed, _ = scheme(state0, state1 | given, scheme.anchor(state0), outflow=outflow)
    weights = space.cut(torch.linspace(-1, 2, 7, dtype=dtype)[:, None].expand(7, 12))
    scales = {n: float(x.abs().mean()) for n, x in random_step(whole, dtype)[1].items()}
    loss = sum(((x / scales[n]) * weights).sum() for n, x in changed.items())
    found = torch.autograd.grad(loss, [outflow, given["temperature"]])
    return {"outflow": found[0], "temperature": found[1], "fields": {n: x.detach() for n, x in changed.items()}}


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_differences_and_the_same_in_compiled_kernels(kind):
    exact, compiled = gradients(kind, torch.float64), gradients(kind, torch.float32)
    size = abs(exact["outflow"]).amax(0)
    assert (size > 0).all()
    torch.testing.assert_close(compiled["outflow"] / size, exact["outflow"] / size, rtol=0, atol=2e-4)

    atmosphere = opened(grid=GRIDS["poles"]())
    state0, state1 = random_step(atmosphere, torch.float64)
    scheme = scheme_of(kind, atmosphere, state1)
    scales = {n: float(x.abs().mean()) for n, x in state1.items()}
    weights = torch.linspace(-1, 2, 7, dtype=torch.float64)[:, None]

    def loss(outflow):
        changed = scheme(state0, state1, scheme.anchor(state0), outflow=outflow)[0]
        return float(sum(((x / scales[n]) * weights).sum() for n, x in changed.items()))

    for number, step in enumerate((1e-5, 1e-8, 1e-1)):
        moved = torch.zeros_like(OUTFLOW)
        moved[0, number] = step
        slope = (loss(OUTFLOW + moved) - loss(OUTFLOW - moved)) / (2 * step)
        assert slope == pytest.approx(float(exact["outflow"][0, number]), rel=1e-4, abs=1e-6 * float(size[number]))


def of_processes(space):
    return [gradients(kind, torch.float64, space) for kind in KINDS]


def test_corrections_over_processes_are_those_of_one():
    expected, parts = of_processes(ALONE), together(2, of_processes)
    for number, theirs in enumerate(expected):
        for name, field in theirs["fields"].items():
            found = torch.cat([part[number]["fields"][name] for part in parts], -2)
            torch.testing.assert_close(found, field, rtol=0, atol=1e-12 * float(abs(field).max()))
        found = torch.cat([part[number]["temperature"] for part in parts], -2)
        torch.testing.assert_close(found, theirs["temperature"], rtol=1e-9, atol=1e-12 * float(abs(found).max()))
        total = sum(part[number]["outflow"] for part in parts)
        torch.testing.assert_close(total, theirs["outflow"], rtol=1e-9, atol=0)


def test_what_leaves_has_to_be_there_where_sides_are_open_and_nowhere_else():
    atmosphere = opened()
    state0, state1 = random_step(atmosphere)
    scheme = scheme_of("sequential", atmosphere, state1)
    with pytest.raises(ValueError, match="open sides of a domain, dry_air, water, energy, got none"):
        scheme(state0, state1)
    with pytest.raises(ValueError, match=r"of shape \(2, 3\), of dry_air, water, energy, got \(2, 2\)"):
        scheme(state0, state1, outflow=OUTFLOW[:, :2])
    closed = scheme_of("sequential", dataclasses.replace(atmosphere, open_sides=False), state1)
    with pytest.raises(ValueError, match="no outflow of what has no open sides"):
        closed(state0, state1, outflow=OUTFLOW)
