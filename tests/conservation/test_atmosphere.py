"""Columns: layer masses as the vertical coordinate defines them, and changes formed without cancellation."""

import numpy as np
import pytest
import torch
from planets import CONSTANTS, GRIDS, LEVELS, STEP, VARIANCES, make_atmosphere, random_step

from emulator.conservation import Atmosphere, SchemeOptions, build


@pytest.mark.parametrize("levels", sorted(LEVELS))
def test_thickness_is_the_vertical_coordinates(levels):
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS[levels])
    state, _ = random_step(atmosphere, torch.float64)
    pressure = state["surface_pressure"]
    expected = torch.stack(LEVELS[levels].thickness(pressure), dim=1)
    found = atmosphere.thickness(pressure, state["temperature"])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    half = torch.stack(LEVELS[levels].interfaces(pressure), dim=1)
    torch.testing.assert_close(atmosphere.interfaces(pressure, pressure), half, rtol=0, atol=1e-10)
    total = atmosphere.column_pressure(pressure, pressure)
    torch.testing.assert_close(total, found.sum(1), rtol=1e-14, atol=0)


@pytest.mark.parametrize("levels", sorted(LEVELS))
def test_growth_is_the_derivative_of_thickness(levels):
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS[levels])
    pressure = random_step(atmosphere, torch.float64)[0]["surface_pressure"]
    step = 1e-3
    up, down = (atmosphere.thickness(pressure + sign * step, pressure) for sign in (1, -1))
    growth = atmosphere.growth(pressure, pressure).expand_as(up)
    torch.testing.assert_close(growth, (up - down) / (2 * step), rtol=0, atol=1e-6)


@pytest.mark.parametrize("levels", sorted(LEVELS))
def test_change_of_an_integral(levels):
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS[levels])
    state0, state1 = random_step(atmosphere, torch.float64)
    before, after = (state["temperature"] for state in (state0, state1))
    pressures = state0["surface_pressure"], state1["surface_pressure"]
    found = atmosphere.integral_change(after - before, (after + before) / 2, *pressures)
    expected = atmosphere.integral(after, pressures[1]) - atmosphere.integral(before, pressures[0])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-6)


def test_change_in_float32_has_the_rounding_of_the_change():
    """A column holds 3e6 K kg m-2 and changes by 1e3: differences of float32 sums lose four digits, these none."""
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["sigma"])
    states = random_step(atmosphere, torch.float32, noise=0.01)
    before, after = (state["temperature"] for state in states)
    pressures = [state["surface_pressure"] for state in states]
    exact = atmosphere.integral(after.double(), pressures[1].double()) - atmosphere.integral(
        before.double(), pressures[0].double()
    )
    found = atmosphere.integral_change(after - before, (after + before) / 2, *pressures)
    naive = atmosphere.integral(after, pressures[1]) - atmosphere.integral(before, pressures[0])
    error, naive_error = ((value - exact).abs().max() / exact.abs().max() for value in (found, naive))
    assert float(error) < 1e-6
    assert float(naive_error) > 20 * float(error)


def test_mean_is_the_grids():
    for make in GRIDS.values():
        grid = make()
        atmosphere = make_atmosphere(grid, LEVELS["sigma"])
        field = np.random.default_rng(0).standard_normal((3, *grid.shape))
        np.testing.assert_allclose(atmosphere.mean(torch.as_tensor(field)), grid.mean(field), rtol=1e-12, atol=1e-15)


AREA = torch.full((4, 6), 1 / 24, dtype=torch.float64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((AREA.float(), LEVELS["sigma"], CONSTANTS, None, STEP), "areas in float64"),
        ((2 * AREA, LEVELS["sigma"], CONSTANTS, None, STEP), "summing to 1"),
        ((AREA, LEVELS["sigma"], CONSTANTS, None, 0.0), "positive step"),
        ((AREA, LEVELS["sigma"], CONSTANTS, torch.zeros(4, 5), STEP), "grid's shape"),
    ],
)
def test_wrong_geometry_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Atmosphere(*arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {n: v for n, v in s.items() if n != "temperature"}, "the field temperature"),
        (lambda s: s | {"temperature": s["temperature"][:, :-1]}, "built for 8 sigma levels"),
        (lambda s: s | {"temperature": s["temperature"][..., :-1]}, "of shape"),
        (lambda s: s | {"temperature": s["temperature"].bfloat16()}, "leave autocast"),
        (lambda s: s | {"temperature": s["temperature"][:1]}, "one batch size"),
    ],
)
def test_wrong_states_are_refused(change, message):
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["sigma"])
    state0, state1 = random_step(atmosphere)
    scheme = build(SchemeOptions(), atmosphere, state1)
    with pytest.raises(ValueError, match=message):
        scheme(state0, change(state1))
    with pytest.raises(ValueError, match=message):
        scheme(change(state0), state1)


@pytest.mark.parametrize("kind", ["none", "sequential", "projection"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batches_that_differ_are_refused(kind, dtype):
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["sigma"])
    state0, state1 = random_step(atmosphere, dtype, batch=3)
    scheme = build(SchemeOptions(kind), atmosphere, state1, VARIANCES)
    with pytest.raises(ValueError, match="got 1 at its start and 3 at its end"):
        scheme({name: value[:1] for name, value in state0.items()}, state1)
    with pytest.raises(ValueError, match="an anchor of 3 dry masses"):
        scheme(state0, state1, scheme.anchor({name: value[:1] for name, value in state0.items()}))
