"""Losses: closed forms, Parseval's theorem, and what a proper score must do."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.data.channels import Channels, Layout
from emulator.losses.ensemble import EnsembleError, fair_crps, fair_energy_score
from emulator.losses.options import SHARED, LossOptions, members_of
from emulator.losses.registry import LOSSES
from emulator.losses.scaled import ScaledError, channel_weights
from emulator.losses.spectral import SpectralError
from emulator.options import as_before
from emulator.planet.grid import Grid
from emulator.sphere.transform import SphericalTransform

GRID = Grid.gaussian(12)
AREA = torch.as_tensor(GRID.area)
SCALES = torch.tensor([2.0, 0.5, 3.0]), torch.tensor([4.0])
WEIGHTS = torch.tensor([1.0, 2.0, 1.0]), torch.tensor([0.5])


def error(**more):
    return ScaledError(AREA, *SCALES, *WEIGHTS, **more)


def fields(seed=0, smooth=False, batch=2):
    """State, diagnostic, true state, true diagnostic; `smooth` fields hold the transform's degrees alone."""
    torch.manual_seed(seed)
    values = torch.randn(2, batch, 4, *GRID.shape)
    if smooth:
        transform = SphericalTransform(*GRID.shape)
        values = transform.synthesis(transform.analysis(values.permute(3, 4, 0, 1, 2))).permute(2, 3, 4, 0, 1)
    return values[0, :, :3], values[0, :, 3:], values[1, :, :3], values[1, :, 3:]


@pytest.mark.parametrize("kind, expected", [("mse", 9.0), ("l1", 3.0), ("huber", 2 * 1.5 * 3 - 1.5**2)])
def test_an_error_of_three_units_everywhere(kind, expected):
    state, diagnostic = torch.zeros(2, 3, *GRID.shape), torch.zeros(2, 1, *GRID.shape)
    off = (3 * scale.view(-1, 1, 1).expand(2, -1, *GRID.shape) for scale in SCALES)
    found = error(kind=kind, delta=1.5)(state, diagnostic, *off)
    torch.testing.assert_close(found, torch.tensor(expected))


def test_huber_is_the_square_of_small_errors_and_has_no_kink():
    square, huber = error(), error(kind="huber", delta=1e3)
    torch.testing.assert_close(huber(*fields()), square(*fields()))
    size = torch.tensor([0.999, 1.001], requires_grad=True)
    value = error(kind="huber")._error(2 * size.view(2, 1, 1, 1), slice(0, 1)).sum()
    (slope,) = torch.autograd.grad(value, size)
    torch.testing.assert_close(slope, torch.tensor([2 * 0.999, 2.0]))


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match="got 'cubic'"):
        error(kind="cubic")
    with pytest.raises(ValueError, match="squared error to weight by degree"):
        SpectralError(error(kind="l1"), SphericalTransform(*GRID.shape), 1.0)


@pytest.mark.parametrize("smooth", [True, False])
def test_a_power_of_zero_is_the_squared_error(smooth):
    spectral = SpectralError(error(), SphericalTransform(*GRID.shape), 0.0)
    torch.testing.assert_close(spectral(*fields(smooth=smooth)), error()(*fields(smooth=smooth)))


def test_the_powers_of_all_degrees_add_up_to_the_mean_square():
    """Parseval: with the last degree's share taken away nothing is left but the sum over degrees."""
    spectral = SpectralError(error(), SphericalTransform(*GRID.shape), 0.0)
    orders = torch.where(torch.arange(spectral.table.shape[1]) == 0, 1.0, 2.0) / (4 * math.pi)
    spectral.table = orders.view(1, -1, 1, 1, 1).expand(spectral.table.shape[0], -1, 1, 1, 1)
    spectral.last = 0.0
    given = fields(smooth=True)
    torch.testing.assert_close(spectral(*given), error()(*given))


@pytest.mark.parametrize("degree", [0, 1, 5])
@pytest.mark.parametrize("power", [-0.5, 0.5, 1.0])
def test_an_error_of_one_degree_is_weighted_by_that_degree(degree, power):
    transform = SphericalTransform(*GRID.shape)
    coefficients = torch.zeros(transform.lmax, transform.lmax, 2, 2, 3)
    coefficients[degree, : degree + 1, 0] = torch.randn(degree + 1, 2, 3)
    state = transform.synthesis(coefficients).permute(2, 3, 0, 1)
    zero, none = torch.zeros_like(state), torch.zeros(2, 1, *GRID.shape)
    expected = (1 + degree * (degree + 1)) ** power * error()(state, none, zero, none)
    found = SpectralError(error(), transform, power)(state, none, zero, none)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 6), st.integers(0, 1000))
def test_fair_crps_is_the_sum_over_pairs(count, seed):
    torch.manual_seed(seed)
    members, truth = torch.randn(count, 3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    pairs = (members[:, None] - members[None]).abs().sum((0, 1)) / (2 * count * (count - 1))
    torch.testing.assert_close(fair_crps(members, truth), (members - truth).abs().mean(0) - pairs)


def test_fair_crps_does_not_reward_a_small_ensemble_and_matches_the_closed_form():
    """Of members and truth from one normal distribution the mean is 1 / sqrt(pi), whatever the number of members."""
    torch.manual_seed(1)
    for count in (2, 5, 20):
        found = fair_crps(torch.randn(count, 200_000), torch.randn(200_000)).mean()
        assert float(found) == pytest.approx(1 / math.sqrt(math.pi), abs=0.01)


def test_a_proper_score_prefers_the_right_spread():
    torch.manual_seed(2)
    truth, noise = torch.randn(4000, 2, 3, 4), torch.randn(4, 4000, 2, 3, 4)
    weight = torch.full((2, 3, 4), 1 / 24)
    for score in (lambda m: fair_crps(m, truth).mean(), lambda m: fair_energy_score(m, truth, weight).mean()):
        right = score(noise)
        assert right < score(0.6 * noise) and right < score(1.5 * noise) and right < score(noise + 0.5)


def test_the_energy_score_of_one_value_is_the_crps():
    torch.manual_seed(3)
    members, truth = torch.randn(5, 7, 1, 1, dtype=torch.float64), torch.randn(7, 1, 1, dtype=torch.float64)
    found = fair_energy_score(members, truth, torch.ones(1, 1, dtype=torch.float64))
    torch.testing.assert_close(found, fair_crps(members, truth).flatten())


def test_one_member_is_no_ensemble():
    with pytest.raises(ValueError, match="2 members or more"):
        fair_crps(torch.zeros(1, 3), torch.zeros(3))


def ensemble_error(kind, members=3):
    return EnsembleError(error(kind={"crps": "l1", "energy": "mse"}[kind]), kind, members)


@pytest.mark.parametrize("kind", ["crps", "energy"])
def test_a_loss_of_ensembles_is_the_score_of_scaled_and_weighted_values(kind):
    state, diagnostic, true_state, true_diagnostic = fields(batch=6)
    truth = [part[::3].repeat_interleave(3, 0) for part in (true_state, true_diagnostic)]
    found = ensemble_error(kind)(state, diagnostic, *truth)
    scale = torch.cat(SCALES).view(-1, 1, 1)
    weight = (torch.cat(WEIGHTS) / torch.cat(WEIGHTS).sum()).view(-1, 1, 1) * AREA.float()
    by_sample = []
    for sample in range(2):
        rows = slice(3 * sample, 3 * sample + 3)
        members = torch.cat([state, diagnostic], 1)[rows] / scale
        true = torch.cat(truth, 1)[3 * sample] / scale
        if kind == "crps":
            by_sample.append((fair_crps(members, true) * weight).sum())
        else:
            by_sample.append(fair_energy_score(members[:, None], true[None], weight)[0])
    torch.testing.assert_close(found, torch.stack(by_sample).mean(), rtol=1e-5, atol=0)


def test_of_members_that_agree_the_crps_is_the_absolute_error_and_the_energy_score_the_root_of_the_squared_one():
    given = [part.repeat_interleave(3, 0) for part in fields(batch=1)]
    torch.testing.assert_close(ensemble_error("crps")(*given), error(kind="l1")(*given))
    torch.testing.assert_close(ensemble_error("energy")(*given), error()(*given).sqrt())


def test_a_loss_of_ensembles_refuses_what_it_cannot_score():
    for wrong, kind, members in ((error(), "crps", 2), (error(kind="l1"), "energy", 2), (error(kind="l1"), "crps", 1)):
        with pytest.raises(ValueError, match="Expected crps of an l1 error or energy of an mse error"):
            EnsembleError(wrong, kind, members)


@pytest.mark.parametrize("kind", ["crps", "energy"])
@pytest.mark.parametrize("count", [2, 5])
def test_the_gradient_vanishes_on_average_for_a_calibrated_ensemble_and_pulls_back_every_other(kind, count):
    """d/dm and d/ds of the score of members m + s e_i, for a truth from N(0, 1): zero at m = 0, s = 1, for any count."""
    torch.manual_seed(4)
    draws = 200_000
    truth, noise = torch.randn(draws, 1, 1), torch.randn(count, draws, 1, 1)
    if kind == "energy":
        truth, noise = truth.expand(-1, 3, -1) * 1.0, torch.randn(count, draws, 3, 1)
        truth = torch.randn_like(truth)
    weight = torch.full(truth.shape[1:], 1 / truth[0].numel())

    def gradient(mean, spread):
        # one parameter a draw, so that the gradients' own scatter tells how near to zero their mean has to be
        at = [torch.full((draws, 1, 1), value, requires_grad=True) for value in (mean, spread)]
        members = at[0] + at[1] * noise
        score = fair_crps(members, truth) if kind == "crps" else fair_energy_score(members, truth, weight)
        return [(g.mean().item(), g.std().item() / math.sqrt(draws)) for g in torch.autograd.grad(score.sum(), at)]

    for mean, error in gradient(0.0, 1.0):
        assert abs(mean) < 4 * error
    for values, which, sign in (((0.0, 0.5), 1, -1), ((0.0, 1.5), 1, 1), ((0.4, 1.0), 0, 1), ((-0.4, 1.0), 0, -1)):
        mean, error = gradient(*values)[which]
        assert sign * mean > 20 * error


LAYOUT = Layout(Channels(("t", "ps"), (3, 0)), Channels(("rain", "cloud"), (0, 3)), Channels((), ()), Channels((), ()))


def test_levels_share_the_weight_of_their_variable_as_asked():
    """The mean over a variable's levels stays the variable's weight, and a surface field keeps its own."""
    by_level = torch.tensor([1.0, 2.0, 3.0])
    prognostic, diagnostic = channel_weights(LAYOUT, {"t": 4.0}, 0.2, by_level)
    torch.testing.assert_close(prognostic, torch.tensor([2.0, 4.0, 6.0, 1.0]))
    torch.testing.assert_close(diagnostic, torch.tensor([0.2, 0.1, 0.2, 0.3]))
    alike = channel_weights(LAYOUT, {"t": 4.0}, 0.2)
    torch.testing.assert_close(torch.cat(alike), torch.tensor([4.0, 4.0, 4.0, 1.0, 0.2, 0.2, 0.2, 0.2]))
    with pytest.raises(ValueError, match="3 levels of t, got 2"):
        channel_weights(LAYOUT, {}, 0.2, by_level[:2])
    with pytest.raises(ValueError, match="predicted variables .* got .'q'"):
        channel_weights(LAYOUT, {"q": 1.0}, 0.2)


def test_an_error_of_one_level_counts_by_that_levels_weight():
    layout = Layout(Channels(("t",), (3,)), *[Channels((), ())] * 3)
    weights = channel_weights(layout, {}, 0.2, torch.tensor([1.0, 2.0, 3.0]))
    scaled = ScaledError(AREA, SCALES[0], torch.zeros(0), *weights)
    state, none = torch.zeros(1, 3, *GRID.shape), torch.zeros(1, 0, *GRID.shape)
    for level, share in enumerate((1 / 6, 2 / 6, 3 / 6)):
        off = state.clone()
        off[:, level] = SCALES[0][level]
        torch.testing.assert_close(scaled(state, none, off, none), torch.tensor(share))


def test_recorded_options_of_every_first_loss_are_read_and_what_is_no_loss_is_refused():
    recorded = {"members": 3, "delta": 2.0, "power": 0.25}  # runs hold all of them, whatever their kind
    for kind in SHARED:
        options = LossOptions.of({"kind": kind, **recorded})
        assert as_before(options) == {"kind": kind, **recorded}
        assert members_of(options) == (3 if kind in ("crps", "energy") else 1)
    assert LossOptions.of({}) == LossOptions("mse") and set(SHARED) <= set(LOSSES.names())
    with pytest.raises(ValueError, match="among crps, dynamic, energy, huber, .*got 'hubber'; nearest: huber"):
        LossOptions.of({"kind": "hubber"})
    with pytest.raises(ValueError, match="members of at least 2, got 1"):
        LossOptions.of({"kind": "crps", "members": 1})
