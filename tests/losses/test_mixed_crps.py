"""Almost-fair scores and scores of the parts of fields: closed forms, limits, Parseval's theorem, and what each part sees."""

import math

import pytest
import torch

from emulator.losses.ensemble import EnsembleError, fair_crps, fair_energy_score
from emulator.losses.mixed import PARTS, MixedError, MixedOptions
from emulator.losses.registry import LOSSES
from emulator.losses.scaled import ScaledError
from emulator.planet.constants import ERA5
from emulator.planet.grid import Grid
from emulator.sphere.transform import SphericalTransform

GRID = Grid.gaussian(12)
AREA = torch.as_tensor(GRID.area)
ERROR = ScaledError(
    AREA, torch.tensor([2.0, 0.5]), torch.tensor([4.0]), torch.tensor([1.0, 2.0]), torch.tensor([0.5]), "l1"
)
TRANSFORM = SphericalTransform(*GRID.shape)


def plain_crps(members, truth):
    """The empirical distribution's, by its definition."""
    return (members - truth).abs().mean(0) - (members[:, None] - members).abs().mean((0, 1)) / 2


@pytest.mark.parametrize("count", [2, 3, 8])
def test_the_almost_fair_score_lies_between_the_plain_and_the_fair_one(count):
    torch.manual_seed(0)
    members, truth = torch.randn(count, 50).double(), torch.randn(50).double()
    fair, plain = fair_crps(members, truth), plain_crps(members, truth)
    torch.testing.assert_close(fair_crps(members, truth, 0.0), plain)
    torch.testing.assert_close(fair_crps(members, truth, 0.95), 0.95 * fair + 0.05 * plain)
    # as published: all pairs of different members, with 1 - (1 - alpha) / M before their distance
    share = 1 - 0.05 / count
    pairs = [
        (members[j] - truth).abs() + (members[k] - truth).abs() - share * (members[j] - members[k]).abs()
        for j in range(count) for k in range(count) if j != k
    ]  # fmt: skip
    published = sum(pairs) / (2 * count * (count - 1))
    torch.testing.assert_close(fair_crps(members, truth, 0.95), published)


def test_the_fair_score_of_gaussian_members_is_that_of_their_distribution_and_the_plain_one_is_not():
    """Of y = 0 and N(m, s): E|x - y| - E|x - x'| / 2, in closed form, whatever the number of members."""
    torch.manual_seed(0)
    mean, std, count = 0.7, 1.3, 4
    members = mean + std * torch.randn(count, 400_000).double()
    z = mean / std
    expected = std * (
        z * math.erf(z / math.sqrt(2)) + math.sqrt(2 / math.pi) * math.exp(-z * z / 2) - 1 / math.sqrt(math.pi)
    )
    truth = torch.zeros(400_000).double()
    fair, plain = fair_crps(members, truth).mean(), fair_crps(members, truth, 0.0).mean()
    assert abs(float(fair) - expected) < 5e-3
    assert abs(float(plain) - expected - std / math.sqrt(math.pi) / count) < 5e-3  # it likes too little spread


def test_of_a_last_member_where_all_others_are_right_only_the_almost_fair_score_tells():
    truth, far = torch.zeros(1), torch.tensor([[0.0], [0.0], [5.0]])
    near = torch.tensor([[0.0], [0.0], [1.0]])
    assert float(fair_crps(far, truth)) == pytest.approx(float(fair_crps(near, truth)))
    assert float(fair_crps(far, truth, 0.9)) > float(fair_crps(near, truth, 0.9)) + 0.04


def smooth(*shape, seed=0):
    """Fields `(*shape, *space)` of the transform's degrees alone."""
    torch.manual_seed(seed)
    c = TRANSFORM.analysis(torch.randn(*GRID.shape, math.prod(shape)))
    return TRANSFORM.synthesis(c).permute(2, 0, 1).reshape(*shape, *GRID.shape)


def batch(values, truth):
    """Of `(member, sample, channel, *space)` as a loss is given it."""
    members = len(values)
    rows = values.transpose(0, 1).flatten(0, 1)
    true = truth.repeat_interleave(members, 0)
    return rows[:, :2], rows[:, 2:], true[:, :2], true[:, 2:]


def score(part, values, truth, alpha=1.0, **more):
    weights = dict.fromkeys(PARTS, 0.0) | {part: 1.0}
    return MixedError(ERROR, MixedOptions(members=len(values), alpha=alpha, **weights | more), GRID)(
        *batch(values, truth)
    )


@pytest.mark.parametrize("members", [2, 3])
def test_values_are_the_crps_and_parts_add_up_by_weight(members):
    values, truth = smooth(members, 2, 3), smooth(2, 3, seed=1)
    expected = EnsembleError(ERROR, "crps", members, alpha=0.9)(*batch(values, truth))
    torch.testing.assert_close(score("values", values, truth, 0.9), expected)
    each = {part: score(part, values, truth, 0.9) for part in PARTS}
    mixed = MixedError(ERROR, MixedOptions(members=members, alpha=0.9, **{part: 0.5 for part in PARTS}), GRID)
    torch.testing.assert_close(mixed(*batch(values, truth)), 0.5 * sum(each.values()))
    assert all(value > 0 for value in each.values())


def of_degree(degree, *shape, seed=0):
    values = smooth(*shape, seed=seed)
    c = TRANSFORM.analysis(values.flatten(0, -3).permute(1, 2, 0).contiguous())
    kept = torch.zeros_like(c)
    kept[degree] = c[degree]
    return TRANSFORM.synthesis(kept).permute(2, 0, 1).reshape(values.shape)


def test_of_one_degree_the_energy_score_of_coefficients_is_that_of_the_field():
    """Parseval: the norm over cells, weighted by area, is the norm over the coefficients of an orthonormal basis."""
    values, truth = of_degree(5, 3, 2, 3), of_degree(5, 2, 3, seed=1)
    expected = 0.0
    for channel in range(3):
        weight = ERROR.factor[channel].sum()
        scaled, true = values[:, :, channel, None] * ERROR.unit[channel], truth[:, channel, None] * ERROR.unit[channel]
        expected = expected + weight * fair_energy_score(scaled, true, AREA[None].float()).mean()
    torch.testing.assert_close(score("degrees", values, truth), expected.float(), rtol=1e-4, atol=1e-6)


def test_of_one_coefficient_the_spectral_score_is_that_of_its_amplitude():
    """Y_20 times an amplitude: its square over the sphere's mean is 1 where the coefficient is sqrt(4 pi)."""
    c = torch.zeros(TRANSFORM.lmax, TRANSFORM.lmax, 2, 1)
    c[2, 0, 0] = math.sqrt(4 * math.pi)
    shape = TRANSFORM.synthesis(c)[..., 0] / ERROR.unit[0]
    amplitudes, true = torch.tensor([1.0, 2.5, -0.5]), 0.3
    values, truth = torch.zeros(3, 1, 3, *GRID.shape), torch.zeros(1, 3, *GRID.shape)
    values[:, 0, 0], truth[0, 0] = amplitudes.view(3, 1, 1) * shape, true * shape
    expected = fair_crps(amplitudes[:, None], torch.tensor([true])) * ERROR.factor[0].sum()
    torch.testing.assert_close(score("spectral", values, truth) * math.sqrt(5), expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(score("degrees", values, truth), expected[0], rtol=1e-4, atol=1e-5)


def test_scales_add_up_to_the_field_and_each_holds_its_degrees():
    loss = MixedError(ERROR, MixedOptions(scales=1.0, cuts=(2, 5)), GRID)
    torch.manual_seed(0)
    fields = torch.randn(2, 1, 3, *GRID.shape)
    parts = loss.between(fields, loss._coefficients(fields))
    torch.testing.assert_close(sum(parts), fields)
    c = loss._coefficients(parts[1])
    assert c[3:6].abs().max() > 0.1 and c[:3].abs().max() < 1e-4 and c[6:].abs().max() < 1e-4


def test_the_gradient_of_a_tilted_planet_is_its_slope():
    """sin(latitude): its gradient is cos(latitude) per radian northwards; without spread its score is the absolute error."""
    latitude = torch.as_tensor(GRID.mesh()[0]).float().deg2rad()
    values, truth = torch.zeros(2, 1, 3, *GRID.shape), torch.zeros(1, 3, *GRID.shape)
    values[:, 0, 0] = latitude.sin() / ERROR.unit[0]
    found = score("gradients", values, truth, gradient_km=ERA5.earth_radius / 1e3)
    torch.testing.assert_close(found, (ERROR.factor[0] * latitude.cos()).sum() / 2, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("part", PARTS)
def test_members_drawn_like_the_truth_score_best(part):
    """Proper: among Gaussian ensembles about the same mean that of the truth's own spread."""
    truth = smooth(40, 3, seed=1)
    found = [float(score(part, size * smooth(3, 40, 3, seed=2), truth)) for size in (0.5, 1.0, 1.5)]
    assert found[1] == min(found)


@pytest.mark.parametrize("part", PARTS)
def test_gradients_are_finite_also_of_members_that_are_equal(part):
    values, truth = smooth(1, 1, 3).repeat(3, 1, 1, 1, 1).requires_grad_(), smooth(1, 3, seed=1)
    score(part, values, truth).backward()
    assert torch.isfinite(values.grad).all() and values.grad.abs().max() > 0


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="weight above 0 of one of values, scales"):
        MixedOptions(values=0.0)
    with pytest.raises(ValueError, match=r"cuts that increase, got \[9, 4\]"):
        MixedOptions(cuts=(9, 4))
    box = Grid.from_coordinates([10.0, 5.0, 0.0], [0.0, 5.0])
    with pytest.raises(ValueError, match="global Gaussian or equiangular grid to transform"):
        MixedError(ERROR, MixedOptions(spectral=1.0), box)
    assert LOSSES["mixed_crps"].options is MixedOptions
