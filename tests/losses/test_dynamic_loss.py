"""Weights of channels that follow their errors: by the formula, up to the limit, and whatever shares out a batch."""

import pytest
import torch
from torch.testing import assert_close

from emulator.losses.dynamic import DynamicError
from emulator.losses.scaled import ScaledError

AREA = torch.tensor([[0.1, 0.2], [0.3, 0.4]])
SCALES, WEIGHTS = (torch.tensor([2.0, 0.5]), torch.tensor([4.0])), (torch.tensor([1.0, 3.0]), torch.tensor([0.5]))


def error(weights=WEIGHTS, **more):
    return ScaledError(AREA, *SCALES, *weights, **more)


def made(window=4, limit=None, **more):
    return DynamicError(error(**more), window, limit)


def fields(factors=(1.0, 1.0, 1.0), batch=3):
    """State, diagnostic and their truth; errors times a factor for each channel."""
    torch.manual_seed(0)
    truth = torch.randn(batch, 3, 2, 2)
    found = truth + torch.tensor(factors).view(3, 1, 1) * torch.randn(batch, 3, 2, 2)
    return found[:, :2], found[:, 2:], truth[:, :2], truth[:, 2:]


def mean_squares(given):
    """Of every channel in units of its scale."""
    difference = torch.cat([given[0] - given[2], given[1] - given[3]], 1)
    return ((difference / torch.cat(SCALES).view(3, 1, 1)).square() * AREA).sum((2, 3)).mean(0)


def test_it_starts_as_the_squared_error():
    given = fields()
    assert_close(made()(*given), error()(*given))


def test_weights_are_a_running_mean_of_the_errors_reciprocals():
    loss, expected = made(window=4), torch.ones(3)
    for factors in ((1, 2, 0.1), (3, 1, 0.2)):
        given = fields(factors)
        share = torch.cat(WEIGHTS) / 4.5
        assert_close(loss(*given), (share * expected * mean_squares(given)).sum())
        loss.advance()
        expected = (3 * expected + 1 / mean_squares(given)) / 4
        assert_close(loss.scale, expected)


def test_channels_come_to_count_as_their_weights_say():
    loss, given = made(window=1), fields((1, 30, 0.01))
    loss(*given)
    loss.advance()
    for channel in range(2):
        alone = [tensor.clone() for tensor in given]
        alone[0][:] = alone[2]
        alone[1][:] = alone[3]
        alone[0][:, channel] = given[0][:, channel]
        assert_close(loss(*alone), WEIGHTS[0][channel] / 4.5)


def test_the_limit_is_over_the_smallest_weight():
    loss, given = made(window=1, limit=20.0), fields((1, 30, 1e-3))
    loss(*given)
    loss.advance()
    wanted = 1 / mean_squares(given)
    assert wanted.max() > 20 * wanted.min() and float(loss.scale.max() / loss.scale.min()) == pytest.approx(20)


def test_parts_of_a_batch_and_steps_of_a_window_count_together():
    given, parted, whole = fields((1, 2, 3), 4), made(), made()
    whole(*given)
    for part in (slice(0, 2), slice(2, 4)):
        parted(*(tensor[part] for tensor in given))
    whole.advance(), parted.advance()
    assert_close(parted.scale, whole.scale)


def test_without_gradients_nothing_is_learned_and_without_errors_the_weights_stay():
    loss = made()
    with torch.no_grad():
        loss(*fields())
    loss.advance()
    assert torch.equal(loss.scale, torch.ones(3))


def test_a_channel_of_no_weight_and_one_without_error_do_no_harm():
    loss = made(weights=(torch.tensor([0.0, 3.0]), torch.tensor([0.5])), limit=20.0)
    state, diagnostic, *truth = fields()
    loss(state, truth[1], *truth)
    loss.advance()
    assert loss.scale.isfinite().all() and loss(state, diagnostic, *truth).isfinite()


def test_only_the_weights_are_saved_and_what_was_seen_is_forgotten():
    loss, other = made(), made()
    for each in (loss, other):
        each(*fields())
    loss.advance()
    assert set(loss.state_dict()) == {"scale"}
    other.load_state_dict(loss.state_dict())
    other.advance()
    assert torch.equal(other.scale, loss.scale)


def test_another_kind_of_error_is_refused():
    with pytest.raises(ValueError, match="a squared error to weight by channel, got 'l1'"):
        made(kind="l1")
