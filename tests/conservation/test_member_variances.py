"""A projection with the members' own variances, against the closed form in dense matrices and against that of the step."""

import numpy as np
import pytest
import torch
from planets import CONSTANTS, GRIDS, LEVELS, STEP, VARIANCES, Auditor, make_atmosphere, random_step

from emulator.conservation import Atmosphere, SchemeOptions, build, fluxes
from emulator.conservation.member_variances import LEAST, ratios
from emulator.conservation.multipliers import REFERENCE_PRESSURE
from emulator.planet.grid import Grid
from emulator.planet.vertical import Levels

CONTROLS = ("specific_humidity", fluxes.PRECIPITATION, fluxes.EVAPORATION)


def part(state, index):
    return {name: value[index] for name, value in state.items()}


def scheme_of(atmosphere, state1, **options):
    return build(SchemeOptions(kind="projection", **options), atmosphere, state1, VARIANCES)


def starts(atmosphere, members, count, dtype=torch.float64, noise=0.1):
    """Steps of some starts, whose members differ by place more or less, one after the other."""
    state0, state1 = random_step(atmosphere, dtype, batch=members * count, noise=noise)
    generator, spread = torch.Generator().manual_seed(1), {}
    for name, field in state1.items():
        if field.shape[-1] == atmosphere.area.shape[-1] and name not in fluxes.SURFACE_FLUXES + fluxes.TOP_FLUXES:
            spread[name] = torch.rand(field.shape[1:], generator=generator, dtype=torch.float64).to(dtype) ** 3
    for name in spread:
        middle = state0[name] if name in state0 else state1[name].mean(0)
        state1[name] = middle + 4 * spread[name] * (state1[name] - middle)
    return state0, state1


def numpy_ratios(values, step, members, area):
    """As `ratios`, from the formulas; `values` and `step` `(row, level, cell)`, `area` `(cell,)`."""
    own = values.reshape(-1, members, *values.shape[1:]).var(1, ddof=1)
    step = step.reshape(-1, members, *step.shape[1:]).mean(1)

    def mean(field):
        return (field * area).sum(-1, keepdims=True)

    scale = mean(own) / mean(step)
    weight = np.minimum(1, mean(2 * own**2 / (members + 1)) / mean((own - scale * step) ** 2))
    return np.repeat(np.clip(((1 - weight) * own + weight * scale * step) / step, LEAST, 1 / LEAST), members, 0)


def water_between_pressures(members, count):
    """A water budget that is linear, between fixed pressures, far from its bounds."""
    places = np.linspace(60, -60, 8), 45.0 * np.arange(8), 1 + 0.1 * np.arange(8)
    atmosphere = make_atmosphere(Grid.points(*places), LEVELS["pressure"], surface_pressure=False)
    state0, state1 = starts(atmosphere, members, count)
    for state in (state0, state1):
        state["specific_humidity"] = state["specific_humidity"] + 5e-3
    state1[fluxes.PRECIPITATION] = state1[fluxes.PRECIPITATION].abs() + 1e-3
    state1[fluxes.EVAPORATION] = state1[fluxes.EVAPORATION] - 1e-3
    return atmosphere, state0, state1


@pytest.mark.parametrize("relative", [(), (fluxes.PRECIPITATION, "specific_humidity")])
def test_linear_budget_is_probconserv_with_the_members_covariance(relative):
    """`x - S G^T (G S G^T)^-1 (G x - b)` and, S taken as constant, its gradient, in dense matrices of float64."""
    members, count = 3, 2
    atmosphere, state0, state1 = water_between_pressures(members, count)
    for name in CONTROLS:
        state1[name].requires_grad_()
    scheme = scheme_of(atmosphere, state1, budgets=("water",), relative=relative).among(members)
    changed, record = scheme(state0, state1)
    assert max(float(record[f"saturation_{name}"].max()) for name in CONTROLS[:2]) == 0

    rows, area = members * count, atmosphere.area.numpy()
    layers, sums, shares, spread, used = np.diff(atmosphere.levels.half_a), [], [], [], []
    for name in CONTROLS:
        field = state1[name].detach().numpy().reshape(rows, -1, len(area))
        change = field - state0[name].numpy().reshape(field.shape) if name in state0 else field
        size = field / (field * area).sum(-1, keepdims=True) if name in relative else np.ones_like(field)
        step = VARIANCES[name] * size
        levels = name == "specific_humidity"
        weight = layers[:, None] / REFERENCE_PRESSURE if levels else np.ones((1, 1))
        used.append(numpy_ratios(change, step, members, area))
        shares.append((step * used[-1] / (weight * area)).reshape(rows, -1))
        sums.append((np.outer(layers / CONSTANTS.gravity, area) if levels else STEP * area[None]).reshape(-1))
        spread.append(field.reshape(rows, -1))
    x, covariances, budget = np.concatenate(spread, 1), np.concatenate(shares, 1), np.concatenate(sums)[None]
    target = state0["specific_humidity"].reshape(rows, -1).numpy() @ sums[0]
    along = np.random.default_rng(0).standard_normal(x.shape) / budget[0]
    expected, pulled = np.empty_like(x), np.empty_like(x)
    for row in range(rows):
        covariance = np.diag(covariances[row])
        gain = covariance @ budget.T @ np.linalg.inv(budget @ covariance @ budget.T)
        expected[row] = -gain @ (budget @ x[row] - target[row])
        pulled[row] = along[row] - budget.T @ (gain.T @ along[row])
    flat = torch.cat([changed[name].reshape(rows, -1) for name in CONTROLS], 1)
    np.testing.assert_allclose(flat.detach() - x, expected, rtol=1e-7, atol=1e-17)
    assert max(float(np.ptp(each, axis=-1).max()) for each in used) > 1  # from cell to cell
    (flat * torch.as_tensor(along)).sum().backward()
    found = np.concatenate([state1[name].grad.reshape(rows, -1).numpy() for name in CONTROLS], 1)
    np.testing.assert_allclose(found / along, pulled / along, rtol=0, atol=1e-7)


@pytest.mark.parametrize("times", [0.3, 1.0, 4.0])
def test_equal_variances_give_the_projection_of_the_step(times):
    """Two members that are as far apart everywhere, in units of the step's deviation: nothing is learnt, nothing differs."""
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["sigma"])
    state0, state1 = random_step(atmosphere, torch.float64, noise=0.1)
    signs = torch.Generator().manual_seed(0)
    for name, variance in VARIANCES.items():
        if name in state0:
            state0[name] = state0[name][:1].expand_as(state0[name]).clone()
        sign = torch.randint(0, 2, state1[name][:1].shape, generator=signs).double() * 2 - 1
        apart = times * (variance / 2) ** 0.5 * sign
        middle = state1[name][:1] + (1e-2 if name in fluxes.NON_NEGATIVE else 0)
        state1[name] = torch.cat([middle - apart, middle + apart])
    plain = scheme_of(atmosphere, state1, relative=())
    expected, found = plain(state0, state1)[0], plain.among(2)(state0, state1)
    for name, value in expected.items():
        torch.testing.assert_close(
            found[0][name] - state1[name], value - state1[name], rtol=1e-5, atol=1e-14
        )  # of budgets that nearly cancel
    for name in VARIANCES:
        for what in ("mean", "largest"):
            ratio = found[1][f"variance_ratio_{what}_{name}"]
            torch.testing.assert_close(ratio, torch.full((2,), times**2, dtype=torch.float64), rtol=1e-9, atol=0)


def test_members_that_are_all_the_same_have_the_variances_of_the_step():
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["sigma"])
    state0, state1 = random_step(atmosphere, torch.float64)
    state0, state1 = (part(state, torch.tensor([0, 0, 0, 1, 1, 1])) for state in (state0, state1))
    plain = scheme_of(atmosphere, state1)
    expected, (found, record) = plain(state0, state1)[0], plain.among(3)(state0, state1)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-18)
    assert set(record["variance_ratio_largest_temperature"].tolist()) == {LEAST}


@pytest.mark.parametrize("members", [2, 3, 8])
def test_shrunk_variances_are_nearer_the_truth_than_the_members_and_than_one_for_all(members):
    """Gaussian members of a known variance, from cell to cell and from level to level."""
    grid, levels = Grid.gaussian(24), Levels.sigma(np.linspace(0, 1, 5))
    atmosphere = Atmosphere(torch.as_tensor(grid.area), levels, CONSTANTS, None, STEP)
    random = np.random.default_rng(0)
    truth = torch.as_tensor(random.gamma(1.5, 1, (1, 4, *grid.shape)) * [[[[1.0]], [[3.0]], [[0.2]], [[0.5]]]])
    values = torch.as_tensor(random.standard_normal((members, 4, *grid.shape))) * truth.sqrt()
    step = torch.ones(1, 4, 1, 1, dtype=torch.float64)
    found, own = ratios(values, step, members, atmosphere), values.var(0, keepdim=True)
    mean = atmosphere.mean_by_level(own).expand_as(own)
    errors = [atmosphere.mean((each - truth).square())[0] for each in (found, own, mean)]
    assert (errors[0] < torch.minimum(errors[1], errors[2])).all(), errors
    # the best that any weight could do, with the truth at hand
    gap = own - mean
    best = ((own - truth) * gap).sum((0, 2, 3)) / gap.square().sum((0, 2, 3))
    possible = atmosphere.mean((own - best.view(1, -1, 1, 1) * gap - truth).square())[0]
    assert (errors[0] < 1.05 * possible).all()


@pytest.mark.parametrize("levels", ["sigma", "hybrid", "pressure"])
@pytest.mark.parametrize(("dtype", "closed"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_budgets_close_and_nothing_is_negative(levels, dtype, closed):
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS[levels])
    state0, state1 = starts(atmosphere, 4, 2, dtype, noise=1.0)
    scheme = scheme_of(atmosphere, state1)
    kept = {name: value.clone() for name, value in state1.items()}
    changed, record = scheme.among(4)(state0, state1)
    before, after = (Auditor(atmosphere).residuals(state0, state1 | each) for each in ({}, changed))
    for name, value in after.items():
        assert np.abs(value).max() <= closed < np.abs(before[name]).min() * (1 if dtype is torch.float64 else 1e2), name
        assert float(record[f"residual_after_{name}"].abs().max()) <= closed
    for name in ("specific_humidity", fluxes.PRECIPITATION):
        assert float(changed[name].min()) >= 0
    dry = state1[fluxes.PRECIPITATION] <= 0
    assert float(changed[fluxes.PRECIPITATION][dry].abs().max()) == 0 < int(dry.sum())
    assert float(record["saturation_projection"].max()) == 0
    assert all(torch.equal(kept[name], state1[name]) for name in kept)  # what it was given it has left alone
    apart = scheme(state0, state1)[0]["temperature"] - changed["temperature"]
    assert float(apart.abs().max()) > 0


def test_the_correction_goes_where_members_disagree():
    """Uncertain and biased near the poles: the members' mean is nearer the truth than after one increment for all."""
    grid = Grid.gaussian(32)
    atmosphere = Atmosphere(torch.as_tensor(grid.area), Levels.sigma([0, 1]), CONSTANTS, None, STEP)
    name, members, unit = fluxes.EVAPORATION, 8, 1e-8
    deviation = torch.as_tensor(unit * np.where(np.abs(grid.mesh()[0]) > 30, 300.0, 30.0))
    random, errors = torch.Generator().manual_seed(0), []
    zero = torch.zeros(members, *grid.shape, dtype=torch.float64)
    state0 = {"surface_pressure": zero + 1e5, "specific_humidity": zero[:, None] + 1e-2}
    for _ in range(4):
        truth = unit * 500 * torch.randn(1, *grid.shape, generator=random, dtype=torch.float64)
        truth = truth - atmosphere.mean(truth)
        noise = torch.randn(zero.shape, generator=random, dtype=torch.float64)
        state1 = state0 | {fluxes.PRECIPITATION: zero, name: truth + deviation * (0.3 + noise)}
        scheme = scheme_of(atmosphere, state1, budgets=("water",), controls=(name,))
        corrected = [each(state0, state1)[0][name] for each in (scheme, scheme.among(members))]
        assert all(float(atmosphere.mean(each).abs().max()) < 1e-20 for each in corrected)
        means = [each.mean(0, keepdim=True) for each in (state1[name], *corrected)]
        errors.append([float(atmosphere.mean((each - truth).square())) for each in means])
    raw, uniform, ours = np.sqrt(np.mean(errors, 0)) / unit
    assert ours < uniform < raw
    assert raw - ours > 1.3 * (raw - uniform)


def test_starts_do_not_depend_on_one_another():
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["sigma"])
    state0, state1 = starts(atmosphere, 3, 3, torch.float32, noise=1.0)
    scheme = scheme_of(atmosphere, state1).among(3)
    whole, record = scheme(state0, state1)
    for start in range(3):
        mine = slice(3 * start, 3 * start + 3)
        alone, own = scheme(part(state0, mine), part(state1, mine))
        assert all(torch.equal(value, whole[name][mine]) for name, value in alone.items())
        assert all(torch.equal(value, record[name][mine]) for name, value in own.items())
    order = torch.tensor([2, 0, 1])
    turned = scheme(part(state0, order), part(state1, order))[0]
    for name, value in turned.items():
        torch.testing.assert_close(value, whole[name][order], rtol=1e-6, atol=1e-12)


def test_a_member_that_is_no_number_leaves_the_others_their_steps_variances():
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["sigma"])
    state0, state1 = starts(atmosphere, 3, 2, torch.float64, noise=1.0)
    plain, whole = scheme_of(atmosphere, state1), scheme_of(atmosphere, state1).among(3)
    expected = whole(state0, state1)[0]
    state1["temperature"][1, 2, 3, 4] = torch.nan
    found, by_step = whole(state0, state1)[0], plain(state0, state1)[0]
    for name, value in found.items():
        torch.testing.assert_close(value[[0, 2]], by_step[name][[0, 2]], rtol=1e-12, atol=1e-18)
        torch.testing.assert_close(value[3:], expected[name][3:], rtol=1e-13, atol=1e-20)


def test_a_member_that_runs_away_does_not_take_the_others_with_it():
    """1e25 K is finite in float32, and its square is not."""
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["sigma"])
    state0, state1 = starts(atmosphere, 3, 1, torch.float32, noise=1.0)
    state1["temperature"][1, 2, 3, 4] = 1e25
    changed, record = scheme_of(atmosphere, state1).among(3)(state0, state1)
    assert all(bool(field[[0, 2]].isfinite().all()) for field in changed.values())
    for name in ("dry_air", "water", "energy"):
        left = record[f"residual_after_{name}"][[0, 2]]
        torch.testing.assert_close(left, torch.zeros_like(left), rtol=0, atol=1e-6)


def test_steps_of_other_lengths_have_the_members_variances_too():
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["sigma"])
    state0, state1 = starts(atmosphere, 2, 1)
    scheme = scheme_of(atmosphere, state1)
    scheme.of_length = lambda length: scheme
    assert scheme.among(2).lasting(2.0).members == 2 and scheme.members == 0
    seconds = torch.full((2,), 1.1 * STEP, dtype=torch.float64)
    _, record = scheme.among(2)(state0, state1, None, seconds)
    assert "variance_ratio_mean_temperature" in record and float(record["residual_after_water"].abs().max()) < 1e-12


def test_one_member_and_parts_of_starts_are_refused():
    atmosphere = make_atmosphere(GRIDS["gaussian"](), LEVELS["sigma"])
    state0, state1 = random_step(atmosphere, batch=5)
    scheme = scheme_of(atmosphere, state1)
    with pytest.raises(ValueError, match="two members or more .* got 1"):
        scheme.among(1)
    with pytest.raises(ValueError, match="all 3 members of every start in a batch, got 5 rows"):
        scheme.among(3)(state0, state1)
