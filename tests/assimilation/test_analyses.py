"""Analyses against closed forms: the Kalman gain, each other, and no observations."""

import dataclasses

import numpy as np
import pytest
import torch
from lorenz96 import COUNT, Dense, Ring, everywhere, forecast, nature

from emulator.assimilation.kinds.registry import KINDS, build
from emulator.assimilation.kinds.variational import Cost
from emulator.assimilation.linear import conjugate_gradients, linearised
from emulator.assimilation.window import Observed, Window

EXACT = {"tolerance": 1e-12, "iterations": 200}


def ring_covariance() -> Dense:
    """Correlations that decay over two cells."""
    apart = Ring().distance(None, np.arange(COUNT)).numpy()
    values, vectors = np.linalg.eigh(np.exp(-((apart / 2) ** 2) / 2))
    return Dense(torch.from_numpy(vectors * np.sqrt(values.clip(0))))


def some(places, generator, error=0.5) -> tuple[Observed, torch.Tensor]:
    """Linear observations, pairs of neighbours averaged, and their matrix H."""
    matrix = torch.zeros(len(places), COUNT, dtype=torch.float64)
    for row, place in enumerate(places):
        matrix[row, [place, (place + 1) % COUNT]] = 0.5
    value = torch.from_numpy(generator.standard_normal(len(places)))
    sigma, where = torch.full((len(places),), error, dtype=torch.float64), np.asarray(places, float)
    operator = lambda state: state.flatten(1) @ matrix.to(state.dtype).mT  # noqa: E731
    return Observed(operator, value, sigma, 0 * where, where, np.full(len(places), np.nan)), matrix


def gain(whole, matrix, error) -> torch.Tensor:
    """`B H^T (H B H^T + R)^-1`."""
    return whole @ matrix.mT @ torch.linalg.inv(matrix @ whole @ matrix.mT + torch.diag(error**2))


@pytest.fixture
def window():
    generator = np.random.default_rng(0)
    observed, matrix = some([3, 4, 11, 30, 39], generator)
    background = torch.from_numpy(generator.standard_normal((1, 1, 1, COUNT)))
    return Window(background, [observed], covariance=ring_covariance(), places=Ring()), matrix


@pytest.mark.parametrize(
    "config",
    [
        {"kind": "optimal_interpolation", **EXACT},
        {"kind": "3dvar", "outer": 1, **EXACT},
        {"kind": "3dvar", "outer": 2, **EXACT},
        {"kind": "4dvar", **EXACT, "tolerance": 1e-10},
        {"kind": "4dvar", "method": "gauss_newton", **EXACT},
    ],
    ids=lambda config: "-".join(str(value) for value in list(config.values())[:2]),
)
def test_analyses_of_one_time_are_the_closed_form(window, config):
    window, matrix = window
    departure = window.value - matrix @ window.background.flatten()
    expected = window.background.flatten() + gain(window.covariance.whole, matrix, window.error) @ departure
    found = build(config).analyse(window).state
    torch.testing.assert_close(found.flatten(), expected, rtol=0, atol=1e-7)


def test_one_observation_moves_what_is_near_along_the_covariance():
    observed, matrix = some([20], np.random.default_rng(1))
    background = torch.zeros(1, 1, 1, COUNT, dtype=torch.float64)
    window = Window(background, [observed], covariance=ring_covariance())
    moved = build({"kind": "3dvar", **EXACT}).analyse(window).state.flatten()
    column = (window.covariance.whole @ matrix.mT)[:, 0]
    torch.testing.assert_close(moved / moved[20], column / column[20])
    assert bool((moved[21:30].diff() / moved[20] < 0).all()) and abs(float(moved[0] / moved[20])) < 1e-8


@pytest.mark.parametrize("kind", KINDS.names())
def test_without_observations_nothing_changes_at_all(kind):
    members = torch.from_numpy(np.random.default_rng(2).standard_normal((3, 1, 1, COUNT))).float()
    window = Window(members, [Observed.none()], covariance=ring_covariance(), places=Ring())
    assert torch.equal(build({"kind": kind}).analyse(window).state, members)


def test_letkf_of_many_members_is_the_kalman_filter():
    """A linear operator: mean and covariance of the members become those of the filter with the ensemble's covariance."""
    generator = np.random.default_rng(3)
    observed, matrix = some([3, 4, 11, 30, 39], generator)
    root = ring_covariance().root.numpy()
    members = torch.from_numpy(generator.standard_normal((80, COUNT)) @ root.T).view(-1, 1, 1, COUNT)
    window = Window(members, [observed], places=Ring())
    found = build({"kind": "letkf", "radius_km": 1e9}).analyse(window).state.flatten(1)
    before = members.flatten(1)
    whole, mean = torch.cov(before.mT), before.mean(0)
    weight = gain(whole, matrix, window.error)
    torch.testing.assert_close(found.mean(0), mean + weight @ (window.value - matrix @ mean), rtol=0, atol=1e-9)
    torch.testing.assert_close(torch.cov(found.mT), whole - weight @ matrix @ whole, rtol=0, atol=1e-9)


def test_letkf_leaves_what_is_out_of_reach_as_it_was(window):
    window, _ = window
    members = torch.from_numpy(np.random.default_rng(4).standard_normal((6, 1, 1, COUNT)))
    some_of_it = Window(members, window.observed, places=Ring())
    moved = build({"kind": "letkf", "radius_km": 4.0}).analyse(some_of_it).state - members
    reach = Ring().distance(None, window.observed[0].longitude).amin(1) < 4
    assert bool((moved[..., ~reach].abs() < 1e-12).all()) and bool((moved[..., reach].abs() > 0).all())


def test_letkf_of_states_without_levels_needs_no_vertical(window):
    window, _ = window
    members = torch.from_numpy(np.random.default_rng(4).standard_normal((6, 1, 1, COUNT)))
    window = Window(members, window.observed, places=Ring())
    found = [build({"kind": "letkf", "radius_km": 4.0, "radius_scale_heights": r}).analyse(window) for r in (None, 1.0)]
    assert torch.equal(found[0].state, found[1].state)


def test_observations_of_the_surface_lie_at_the_lowest_level(window):
    """They move surface fields and the lowest level, not one out of reach."""
    window, _ = window
    members = torch.from_numpy(np.random.default_rng(4).standard_normal((6, 3, 1, COUNT)))
    whole = window.observed[0]
    observed = dataclasses.replace(whole, operator=lambda state: whole.operator(state[:, 2:]))
    places = Ring(level=np.array([0.1, 1.0, np.nan]))
    options = {"kind": "letkf", "radius_km": 4.0, "radius_scale_heights": 2.0}
    moved = build(options).analyse(Window(members, [observed], places=places)).state - members
    largest = moved.abs().amax((0, 2, 3))
    assert largest[0] < 1e-12 and (largest[1:] > 1e-3).all()


def test_inflation_and_relaxation_keep_the_spread_up(window):
    window, _ = window
    members = torch.from_numpy(np.random.default_rng(5).standard_normal((6, 1, 1, COUNT)))
    window = Window(members, window.observed, places=Ring())
    spread = {}
    for name, more in {"plain": {}, "inflated": {"inflation": 1.5}, "relaxed": {"relaxation": 1.0}}.items():
        spread[name] = build({"kind": "letkf", "radius_km": 8.0, **more}).analyse(window).state.std(0)
    assert bool((spread["inflated"] > spread["plain"]).all())
    torch.testing.assert_close(spread["relaxed"], members.std(0))  # all of it


def four_times(method: str, window_of: int = 4):
    truth, generator = nature(window_of), np.random.default_rng(6)
    background = truth[:1] + 0.5 * torch.from_numpy(generator.standard_normal((1, 1, 1, COUNT)))
    observed = [everywhere(each, generator) for each in truth]
    window = Window(background, observed, lambda x: forecast(x, window_of), Dense(0.5 * torch.eye(COUNT).double()))
    return window, build({"kind": "4dvar", "method": method, "outer": 4, "tolerance": 1e-7, "iterations": 60}), truth


def test_both_ways_to_minimise_find_the_least_cost():
    found = {}
    for method in ("lbfgs", "gauss_newton"):
        window, analysis, truth = four_times(method)
        found[method] = analysis.analyse(window)
    torch.testing.assert_close(found["lbfgs"].state, found["gauss_newton"].state, rtol=0, atol=1e-4)
    before, after = ((x - truth[0]).square().mean() for x in (window.background, found["lbfgs"].state))
    assert float(after) < 0.8 * float(before)
    numbers = found["lbfgs"].diagnostics
    assert numbers["cost_background"] + numbers["cost_observations"] < numbers["cost_before"]


def test_gradient_of_the_cost_is_right_to_rounding():
    """Taylor remainders fall by the square of the step: `J(v + e w) - J(v) - e dJ.w` (Navon et al. 1992)."""
    cost = Cost(four_times("lbfgs")[0])
    generator = np.random.default_rng(8)
    point, direction = (torch.from_numpy(generator.standard_normal((1, COUNT))) for _ in range(2))
    at = point.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cost(at), at)
    steps = [1e-2, 1e-3, 1e-4]
    with torch.no_grad():
        rest = [float(cost(point + e * direction) - cost(point) - e * (gradient * direction).sum()) for e in steps]
    assert [rest[k] / rest[k + 1] for k in range(2)] == pytest.approx([100, 100], rel=0.1)


def test_tangents_and_adjoints_agree():
    window, _, _ = four_times("lbfgs")
    cost, generator = Cost(window), np.random.default_rng(9)
    about = linearised(cost.departures, torch.from_numpy(generator.standard_normal((1, COUNT))))
    v = torch.from_numpy(generator.standard_normal((1, COUNT)))
    w = torch.from_numpy(generator.standard_normal(window.count))
    torch.testing.assert_close((about.tangent(v) * w).sum(), (about.adjoint(w) * v).sum(), rtol=1e-10, atol=0)


def test_conjugate_gradients_solve_in_as_many_steps_as_there_are_values():
    values = torch.tensor([1.0, 1.0, 4.0, 9.0, 9.0]).double()
    right = torch.ones(5).double()
    found = conjugate_gradients(lambda x: values * x, right, 1e-12, 10)
    torch.testing.assert_close(found.x, right / values)
    assert found.iterations == 3 and found.residual < 1e-12
    assert conjugate_gradients(lambda x: x, 0 * right, 1e-12, 10).iterations == 0


def test_observations_have_columns_of_one_length_and_positive_errors():
    with pytest.raises(ValueError, match="one length"):
        Observed(lambda x: x, torch.zeros(2), torch.ones(1), *3 * [np.zeros(2)])
    with pytest.raises(ValueError, match="above 0, got -1"):
        Observed(lambda x: x, torch.zeros(1), -torch.ones(1), *3 * [np.zeros(1)])
