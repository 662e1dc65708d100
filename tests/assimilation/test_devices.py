"""Analyses on the host of a model on another device: states go there for its steps, and come back with gradients."""

from types import SimpleNamespace

import torch
from fake_gpu import CUDA, fake_gpu

from emulator.assimilation import forecasts as module
from emulator.assimilation.forecasts import Forecasts
from emulator.model.stepper import StepResult


class Inputs:
    """Of a step, wherever."""

    def to(self, device):
        return self

    def repeated(self, count: int):
        return self


class Clock:
    """Forcing of a model without any."""

    def later(self, time, steps: int):
        return time + steps

    def inputs(self, times):
        return Inputs()


def test_states_go_to_the_models_device_for_its_steps_and_come_back(monkeypatch):
    seen = []

    def doubled(stepper, state, inputs, execution):
        for _ in inputs:
            seen.append(state.device)
            state = 2 * state
            yield StepResult(state, state[:, :1], {})

    monkeypatch.setattr(module, "rollout", doubled)
    forecasts = object.__new__(Forecasts)
    forecasts.model, forecasts.forcing = SimpleNamespace(device=CUDA, noise=None), Clock()
    for batch_size in (1, 4):
        forecasts.batch_size = batch_size
        with fake_gpu():
            state = torch.zeros(3, 2, 4, 8, requires_grad=True)
            results = list(forecasts.steps(state, 0, 2))
            torch.autograd.backward([result.state.sum() for result in results])
            assert {field.device.type for r in results for field in (r.state, r.diagnostic)} == {"cpu"}
            assert state.grad.device.type == "cpu"
    assert set(seen) == {CUDA}
