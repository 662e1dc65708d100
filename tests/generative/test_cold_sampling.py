"""Cold sampling with functions that are known: exact ones give the path back, offsets of the interpolator cancel."""

import pytest
import torch
from torch.testing import assert_close

from emulator.generative.cold import cold_sampled, sampled_step

HORIZON = 6
START = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SLOPE = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def forecast(state, step):
    return state + (HORIZON - step) * SLOPE


def interpolate(start, end, step):
    return start + step / HORIZON * (end - start)


@pytest.mark.parametrize("refine", [False, True])
def test_exact_functions_give_the_path_back(refine):
    states = cold_sampled(forecast, interpolate, START, HORIZON, refine)
    for step, state in enumerate(states, 1):
        assert_close(state, START + step * SLOPE)
    assert len(states) == HORIZON


def test_the_end_is_the_forecasts_whatever_the_offset_of_the_interpolator():
    """An offset that is the same at every step enters once, after the first step, and leaves with the last."""
    states = cold_sampled(lambda x, s: START + HORIZON * SLOPE, lambda *a: interpolate(*a) + 0.5, START, HORIZON)
    for step, state in enumerate(states[:-1], 1):
        assert_close(state, START + step * SLOPE + 0.5)
    assert_close(states[-1], START + HORIZON * SLOPE)


def test_one_step_alone_goes_on_where_a_window_was_left():
    noise = [
        torch.randn(START.shape, generator=torch.Generator().manual_seed(n), dtype=torch.float64) for n in range(7)
    ]

    def stochastic(start, end, step):
        return interpolate(start, end, step) + 0.1 * noise[step]

    whole = cold_sampled(forecast, stochastic, START, HORIZON)
    state = whole[2]
    for step in range(3, HORIZON):
        state, _ = sampled_step(forecast, stochastic, START, state, step, HORIZON)
        assert_close(state, whole[step], rtol=0, atol=0)


def test_networks_are_called_as_often_as_the_method_says():
    calls = {"forecast": 0, "interpolate": 0}

    def counted(name, function):
        def call(*given):
            calls[name] += 1
            return function(*given)

        return call

    cold_sampled(counted("forecast", forecast), counted("interpolate", interpolate), START, HORIZON)
    assert calls == {"forecast": HORIZON, "interpolate": 2 * (HORIZON - 1)}


def test_a_step_outside_the_window_is_refused():
    with pytest.raises(ValueError, match="below the horizon 6, got 6"):
        sampled_step(forecast, interpolate, START, START, 6, HORIZON)
