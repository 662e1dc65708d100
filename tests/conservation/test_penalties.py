"""Soft constraints: the corrections' residuals as terms of a loss."""

import pytest
import torch
from planets import GRIDS, LEVELS, STEP, VARIANCES, make_atmosphere, random_step

from emulator.conservation import SchemeOptions, build, make_budgets, truth_residuals
from emulator.conservation.penalties import Penalty


def setting(dtype=torch.float64):
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["sigma"])
    pairs = [random_step(atmosphere, dtype, seed=seed) for seed in range(4)]
    return atmosphere, pairs, make_budgets(SchemeOptions(), atmosphere, pairs[0][1])


def test_truth_costs_one_per_budget():
    """With the truth's deviation as tolerance and its mean accounted for, the truth costs 1 per budget on average."""
    atmosphere, pairs, budgets = setting()
    truth = truth_residuals(budgets.values(), pairs, STEP)
    budgets = make_budgets(SchemeOptions(unaccounted=truth.unaccounted()), atmosphere, pairs[0][1])
    penalty = Penalty.from_truth(budgets, truth)
    cost = torch.cat([penalty(*pair) for pair in pairs]).mean()
    torch.testing.assert_close(float(cost), 3.0, rtol=1e-6, atol=0)


def test_closed_budgets_cost_nothing():
    atmosphere, pairs, budgets = setting()
    scheme = build(SchemeOptions(kind="projection"), atmosphere, pairs[0][1], VARIANCES)
    penalty = Penalty(budgets, {"dry_air": 1e-3, "water": 1e-3, "energy": 1e3})
    state0, state1 = pairs[0]
    assert float(penalty(state0, state1).min()) > 1
    assert float(penalty(state0, state1 | scheme(state0, state1)[0]).max()) < 1e-12


def test_weights_and_the_anchor_count():
    atmosphere, pairs, budgets = setting()
    state0, state1 = pairs[0]
    tolerances = {"dry_air": 1.0, "water": 1.0, "energy": 1e5}
    parts = {name: Penalty({name: budget}, tolerances)(state0, state1) for name, budget in budgets.items()}
    weighted = Penalty(budgets, tolerances, {"water": 3.0, "energy": 0.5})(state0, state1)
    torch.testing.assert_close(weighted, parts["dry_air"] + 3 * parts["water"] + 0.5 * parts["energy"])
    expected = (budgets["water"].residual(state0, state1)) ** 2
    torch.testing.assert_close(parts["water"], expected)
    anchor = build(SchemeOptions(), atmosphere, state1).anchor(pairs[1][0])
    pinned = Penalty({"dry_air": budgets["dry_air"]}, tolerances)(state0, state1, anchor)
    torch.testing.assert_close(pinned, (budgets["dry_air"].mass(state1) - anchor.dry_mass) ** 2)


def test_descent_closes_the_budgets():
    """A penalty's gradient leads to a step that closes, from an open one."""
    _, pairs, budgets = setting(torch.float32)
    state0, state1 = pairs[0]
    penalty = Penalty(budgets, {"dry_air": 1.0, "water": 0.1, "energy": 1e5})
    names = {"temperature": 1.0, "surface_pressure": 100.0, "mean_total_precipitation_rate": 1e-5}
    shifts = {name: torch.zeros(2, requires_grad=True) for name in names}
    optimizer = torch.optim.Adam(shifts.values(), lr=0.1)
    costs = []
    for _ in range(60):
        moved = {n: state1[n] + s * shifts[n].reshape(-1, *[1] * (state1[n].ndim - 1)) for n, s in names.items()}
        cost = penalty(state0, state1 | moved).sum()
        costs.append(float(cost.detach()))
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
    assert costs[-1] < 0.01 * costs[0]


@pytest.mark.parametrize(
    ("tolerances", "weights", "message"),
    [
        ({"dry_air": 1.0, "water": 1.0}, {}, "positive tolerance of the budget energy"),
        ({"dry_air": 1.0, "water": 0.0, "energy": 1.0}, {}, "positive tolerance of the budget water"),
        ({"dry_air": 1.0, "water": 1.0, "energy": 1.0}, {"momentum": 1.0}, "weights of the budgets"),
    ],
)
def test_wrong_penalties_are_refused(tolerances, weights, message):
    _, _, budgets = setting()
    with pytest.raises(ValueError, match=message):
        Penalty(budgets, tolerances, weights)
