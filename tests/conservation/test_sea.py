"""Heat and salt of a sea: against closed forms and NumPy's own sums, with masks, and closed by both schemes."""

import numpy as np
import pytest
import torch
from small_sea import CONSTANTS, HEAT, SALT, SO, STEP, THETAO, THICKNESS, grid, small_sea, water

from emulator.conservation.options import SchemeOptions
from emulator.conservation.scheme import make_budgets
from emulator.conservation.schemes import build
from emulator.conservation.sea import Sea

BUDGETS = ("ocean_heat", "ocean_salt")
NAMES = (THETAO, SO, HEAT, SALT)
VARIANCES = {THETAO: torch.tensor([1.0, 0.1, 0.001]), SO: torch.tensor([0.01, 0.001, 0.0])}
AREA = np.where(water()[0], grid().area, 0) / grid().area[water()[0]].sum()


def sea():
    return Sea.of(grid().area, THICKNESS, water(), CONSTANTS, STEP)


def scheme_of(kind, place=None):
    options = SchemeOptions(kind="projection" if kind == "together" else kind, budgets=BUDGETS)
    scheme = build(options, place or sea(), NAMES, VARIANCES)
    return scheme.among(3) if kind == "together" else scheme


def states(dtype=torch.float64, outside=0.0, pairs=6):
    """Consecutive true states `(batch, ...)`, with something outside the sea."""
    data = small_sea()

    def taken(first):
        fields = {name: data[name].values[first : first + pairs] for name in NAMES}
        return {name: torch.from_numpy(np.nan_to_num(field, nan=outside)).to(dtype) for name, field in fields.items()}

    return taken(3), taken(4)


def disturbed(state, seed=0):
    """As a network predicts it: with an error in all cells, none in the fluxes, which are prescribed."""
    generator = torch.Generator().manual_seed(seed)
    errors = {THETAO: 0.3, SO: 0.02}
    return state | {n: state[n] + s * torch.randn(state[n].shape, generator=generator) for n, s in errors.items()}


def test_contents_are_those_of_the_columns():
    """A sea of one temperature and salinity holds `rho cp (T - 273.15) V / A` and `rho s V / A`, whatever lies on land."""
    volume = (water() * THICKNESS[:, None, None] * AREA).sum()
    fields = {THETAO: np.where(water(), 283.15, np.nan), SO: np.where(water(), 35.0, 1e6)}
    state = {name: torch.from_numpy(field)[None] for name, field in fields.items()}
    budgets = make_budgets(SchemeOptions(budgets=BUDGETS), sea(), NAMES)
    assert float(budgets["ocean_heat"].scale(state)) == pytest.approx(1024 * 4000 * 10 * volume, rel=1e-12)
    assert float(budgets["ocean_salt"].scale(state)) == pytest.approx(1024 * 0.035 * volume, rel=1e-12)


def test_true_states_close():
    """What lies outside the sea, no number even, has no part in it."""
    for outside in (0.0, float("nan"), 1e5):
        before, after = states(outside=outside)
        for name, budget in make_budgets(SchemeOptions(budgets=BUDGETS), sea(), NAMES).items():
            rate = {"ocean_heat": HEAT, "ocean_salt": SALT}[name]
            brought = torch.from_numpy(np.nan_to_num(after[rate].numpy() * AREA).sum((1, 2)) * STEP)
            rounding = {"ocean_heat": 1e-4, "ocean_salt": 1e-9}[name]
            torch.testing.assert_close(budget.residual(before, after), 0 * brought, rtol=0, atol=rounding)
            wrong = after | {rate: 2 * after[rate]}
            torch.testing.assert_close(budget.residual(before, wrong), -brought, rtol=0, atol=rounding)
            assert float(brought.abs().min()) > 1e4 * rounding


@pytest.mark.parametrize("kind", ["sequential", "projection", "together"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_schemes_close_it_and_leave_land_alone(kind, dtype):
    before, after = states(dtype)
    predicted, scheme = disturbed(after), scheme_of(kind)
    changed, record = scheme(before, predicted)
    assert set(changed) == {THETAO, SO}
    # float32 on 64 columns; rounding falls with the root of the number of cells, and faster where a level has one increment
    coarse = 1e-6 if kind == "together" else 1e-7
    tolerance = 1e-12 if dtype is torch.float64 else coarse
    for name in BUDGETS:
        assert float(record[f"residual_before_{name}"].abs().max()) > 1e-5
        torch.testing.assert_close(
            record[f"residual_after_{name}"], torch.zeros(6, dtype=torch.float64), rtol=0, atol=tolerance
        )
    dry = ~torch.from_numpy(water())
    for name, field in changed.items():
        torch.testing.assert_close(field[:, dry], predicted[name][:, dry], rtol=0, atol=0)


def test_variances_of_members_are_counted_where_there_is_water():
    """Shrinking leaves a level's mean as it is, so that the recorded one is that of the members' own."""
    before, after = states()
    predicted, variances = disturbed(after), {THETAO: torch.full((3,), 0.09), SO: torch.full((3,), 4e-4)}
    scheme = build(SchemeOptions(kind="projection", budgets=BUDGETS), sea(), NAMES, variances).among(3)
    _, record = scheme(before, predicted)
    shares = torch.from_numpy(water() * AREA)
    for name, variance in variances.items():
        own = (predicted[name] - before[name]).unflatten(0, (2, 3)).var(1)
        expected = ((own * shares).sum((1, 2, 3)) / (shares.sum() * variance[0])).repeat_interleave(3)
        torch.testing.assert_close(record[f"variance_ratio_mean_{name}"], expected, rtol=1e-2, atol=0)


def test_sequential_changes_are_alike_and_projected_ones_go_by_the_variance():
    before, after = states()
    predicted, wet = disturbed(after), torch.from_numpy(water())
    moved = {
        kind: {n: field - predicted[n] for n, field in scheme_of(kind)(before, predicted)[0].items()}
        for kind in ("sequential", "projection")
    }
    for name in (THETAO, SO):
        alike = moved["sequential"][name][:, wet]
        torch.testing.assert_close(alike, alike[:, :1].expand_as(alike), rtol=0, atol=1e-11)
        by_level = moved["projection"][name]
        expected = by_level[:, :1, :1, 5:6] / VARIANCES[name][0] * VARIANCES[name].view(1, -1, 1, 1) * wet
        torch.testing.assert_close(by_level, expected, rtol=0, atol=1e-11)
        assert float(alike.abs().min()) > 1e-6 and float(by_level[:, 0, 0, 5].abs().min()) > 1e-6


@pytest.mark.parametrize("kind", ["sequential", "projection"])
def test_gradients_are_those_of_finite_differences(kind):
    before, after = states(pairs=1)
    predicted, scheme = disturbed(after), scheme_of(kind)

    def corrected(theta):
        return scheme(before, predicted | {THETAO: theta})[0][THETAO]

    theta = predicted[THETAO].clone().requires_grad_()
    weights = torch.randn(theta.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((corrected(theta) * weights).sum(), theta)
    direction = torch.randn(theta.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with torch.no_grad():
        ends = [float((corrected(predicted[THETAO] + s * direction) * weights).sum()) for s in (-1.0, 1.0)]
    assert float((gradient * direction).sum()) == pytest.approx((ends[1] - ends[0]) / 2, rel=1e-6)


def test_a_sea_is_the_same_after_json():
    place = sea()
    again = Sea.from_json(place.to_json(), grid().area, CONSTANTS, STEP)
    for name in ("area", "depths", "wet"):
        torch.testing.assert_close(getattr(again, name), getattr(place, name), rtol=0, atol=0)


def test_what_is_refused():
    with pytest.raises(ValueError, match="budgets of the sea, ocean_heat, ocean_salt, got energy"):
        make_budgets(SchemeOptions(budgets=("energy", "ocean_heat")), sea(), NAMES)
    with pytest.raises(ValueError, match=f"{HEAT} among the variables, which the budget ocean_heat needs"):
        make_budgets(SchemeOptions(budgets=("ocean_heat",)), sea(), (THETAO,))
    above = water()
    above[0, 0, 5] = False
    with pytest.raises(ValueError, match="sea at the surface above all water"):
        Sea.of(grid().area, THICKNESS, above, CONSTANTS, STEP)
    with pytest.raises(ValueError, match="positive thickness"):
        Sea.of(grid().area, 0 * THICKNESS, water(), CONSTANTS, STEP)
    with pytest.raises(ValueError, match="water at the surface, got none"):
        Sea.of(grid().area, THICKNESS, 0 * water(), CONSTANTS, STEP)
