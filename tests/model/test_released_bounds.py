"""Bounds of a rollout: the training's, none, or of what the network is shown alone."""

import copy

import numpy as np
import pytest
import torch
from small_planet import numpy_statistics
from small_training import buffers_of

from emulator.data.channels import Layout
from emulator.data.forcing import StepInputs
from emulator.data.samples import Samples
from emulator.forecasting.forecaster import Forecaster
from emulator.forecasting.schedule import Schedule
from emulator.model.bounds import KINDS, outside, released
from emulator.model.rollout import rollout
from emulator.model.saved_model import tensors_digest
from emulator.model.step import Step

PROGNOSTIC = ["temperature", "specific_humidity", "surface_pressure"]


class Grows(torch.nn.Module):
    """A network that answers a departure from the mean with a larger one of the same sign, in units of a step's change."""

    def __init__(self, layout: Layout, gain: float):
        super().__init__()
        self.count, self.more, self.gain = layout.prognostic.count, layout.diagnostic.count, gain
        self.seen = torch.empty(0)

    def forward(self, x):
        self.seen = x[:, : self.count]
        return torch.cat([self.gain * self.seen, x.new_zeros(len(x), self.more, *x.shape[2:])], 1)


@pytest.fixture(scope="module")
def samples(planet):
    data = planet.assign_attrs(time_step_seconds=21600.0)
    return Samples(data, Layout.of(data, {"prognostic": PROGNOSTIC}))


@pytest.fixture(scope="module")
def step(planet, samples):
    """One that grows by a fifth of the departure a step, without the damping that persistence has."""
    made = buffers_of(samples, numpy_statistics(planet))
    step = Step(Grows(samples.layout, 0.0), samples.layout, made)
    step.damping = torch.zeros_like(step.damping)
    step.network.gain = 0.2 * step.state_scale.std.view(-1, 1, 1) / step.change_std
    return step


def run(step, samples, steps):
    batch = samples.batch([4], 1)
    given = [StepInputs(batch.forcing[:, 0], batch.clock[:, 0])] * steps
    return batch.state[:, 0], [result.state for result in rollout(step, batch.state[:, 0], given)]


def test_a_departure_that_a_network_amplifies_grows_by_steps_alone_once_it_has_left(step, samples):
    """x' = x + g (x - m) grows as (1 + g)^n; shown no more than the edge, by g (edge - m) a step."""
    (start, free), (_, seen) = (run(released(step, kind), samples, 60) for kind in ("none", "inputs"))
    mean, std = (part.view(-1, 1, 1) for part in (step.state_scale.mean, step.state_scale.std))
    torch.testing.assert_close((free[19] - mean) / std, 1.2**20 * (start - mean) / std, rtol=1e-3, atol=1e-3)
    largest = torch.maximum((step.upper - mean).abs(), (step.lower - mean).abs())
    change = (seen[-1] - seen[-2]).abs()
    assert (change <= 0.2 * largest * 1.001 + 1e-3).all()
    assert ((seen[-1] > step.upper) | (seen[-1] < step.lower)).float().mean() > 0.9  # the states themselves are free
    assert (free[-1] - mean).abs().max() > 1000 * (seen[-1] - mean).abs().max()


def test_initial_states_that_the_first_step_would_move_are_counted_and_told(step, samples, planet, caplog):
    batch = samples.batch([4], 1).state[:, 0]
    assert outside(step, batch) == {}
    moved, where = batch.clone(), samples.layout.prognostic.slices["temperature"]
    quarter = batch.shape[-1] // 4
    moved[:, where, :, :quarter] += 300
    np.testing.assert_allclose(outside(step, moved)["temperature"], quarter / batch.shape[-1], rtol=0, atol=1e-6)
    assert list(outside(step, moved)) == ["temperature"] and outside(released(step, "inputs"), moved) == {}
    warm = planet.assign_attrs(time_step_seconds=21600.0).copy(deep=True)
    warm["temperature"] = warm["temperature"] + 300.0
    times = list(warm["time"].values[[2, 3]])
    for given, said in ((step, True), (released(step, "inputs"), False)):
        caplog.clear()
        for _ in Forecaster([given], warm).blocks(times, Schedule.every(1)):
            pass
        told = [r.getMessage() for r in caplog.records if "beyond the envelope" in r.getMessage()]
        assert len(told) == said and all(text.startswith("100 % of the values of temperature at") for text in told)


def test_a_network_is_shown_the_edge_and_within_it_the_state(step, samples):
    held = released(step, "inputs")
    batch = samples.batch([4], 1)
    inside, given = batch.state[:, 0], (batch.forcing[:, 0], batch.clock[:, 0])
    outside = inside.clone()
    outside[:, 0] = step.upper[0] + 7
    outside[:, 1] = step.lower[1] - 7
    scale = [part.view(-1, 1, 1) for part in (step.state_scale.mean, step.state_scale.std)]
    for state, wanted in ((inside, inside), (outside, torch.clamp(outside, step.lower, step.upper))):
        result = held(state, *given)
        torch.testing.assert_close(held.network.seen, (wanted - scale[0]) / scale[1])
        torch.testing.assert_close(result.state, state + 0.2 * (wanted - scale[0]), rtol=1e-6, atol=1e-3)
    same = [released(step, kind)(inside, *given).state for kind in KINDS[1:]]
    torch.testing.assert_close(*same, rtol=0, atol=0)
    torch.testing.assert_close(torch.clamp(same[0], step.lower, step.upper), step(inside, *given).state, rtol=0, atol=0)


def test_one_member_that_has_left_does_not_touch_another(step, samples):
    held, batch = released(step, "inputs"), samples.batch([4, 9], 1)
    state = batch.state[:, 0].clone()
    state[0] = state[0] + 5 * (step.upper - step.lower)
    both = held(state, batch.forcing[:, 0], batch.clock[:, 0]).state
    for row in range(2):
        alone = held(state[row : row + 1], batch.forcing[row : row + 1, 0], batch.clock[row : row + 1, 0]).state
        torch.testing.assert_close(both[row : row + 1], alone, rtol=0, atol=0)


def test_the_model_that_is_given_keeps_its_bounds_and_stores_tell_them_apart(step):
    before, lower = tensors_digest(step), step.lower.clone()
    made = {kind: released(step, kind) for kind in KINDS}
    assert made["trained"] is step and step.shown is None and tensors_digest(step) == before
    torch.testing.assert_close(step.lower, lower, rtol=0, atol=0)
    assert [made[kind].bounded_by for kind in KINDS] == ["", "inputs", "none"]


def test_what_has_no_envelope_cannot_be_shown_its_edge(step):
    free = copy.copy(step)
    free._buffers = dict(step._buffers)
    free.lower, free.upper = -torch.inf * torch.ones_like(step.lower), torch.inf * torch.ones_like(step.upper)
    with pytest.raises(ValueError, match="trained within bounds for bounds: inputs"):
        released(free, "inputs")
    with pytest.raises(ValueError, match="bounds among trained, inputs, none, got 'wide'"):
        released(step, "wide")
    with pytest.raises(ValueError, match="model from a checkpoint for bounds: none, got Identity"):
        released(torch.nn.Identity(), "none")
    assert np.isfinite(step.lower).all()
