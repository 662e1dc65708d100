"""The loss of a window of autoregressive steps, as one module, so that what wraps modules can wrap it whole."""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from emulator.data.samples import Batch
from emulator.model.step import Step, StepResult


@dataclasses.dataclass(frozen=True)
class StepLoss:
    """Loss of one predicted step: the error of its fields, and the soft penalty on its budgets where there is one."""

    error: nn.Module
    penalty: Callable | None = None

    def __call__(self, step: Step, state: Tensor, result: StepResult, truth: tuple[Tensor, Tensor], anchor) -> Tensor:
        """From `state` to `result`, whose true state and diagnostics are `truth`; all in physical units."""
        value = self.error(result.state, result.diagnostic, *truth)
        if self.penalty is None:
            return value
        after = step.fields(result.state, result.diagnostic)
        return value + self.penalty(step.fields(state), after, anchor).mean().float()


@dataclasses.dataclass(frozen=True)
class Manner:
    """How a window is run: see the fields of the same names in `Phase` and `Recipe`; `taught` has one entry a step."""

    taught: tuple[bool, ...] = ()
    gradient_steps: int = 0
    precision: str = "float32"
    checkpoint_steps: bool = False


class Window(nn.Module):
    """Runs a step over a window of a batch and gives the mean loss of its steps."""

    def __init__(self, step: Step, loss: StepLoss):
        super().__init__()
        self.step, self.loss = step, loss

    def forward(self, batch: Batch, manner: Manner) -> tuple[Tensor, StepResult]:
        """The loss, a scalar, and the result of the last step."""
        steps = batch.diagnostic.shape[1]
        state, total = batch.state[:, 0], 0.0
        anchor = self.step.anchor(state)
        for k in range(steps):
            if k and manner.taught and manner.taught[k]:
                state = batch.state[:, k]
                anchor = self.step.anchor(state)
            elif k and manner.gradient_steps and k % manner.gradient_steps == 0:
                state = state.detach()
            noise = None if batch.noise is None else batch.noise[:, k]
            result = self._step(state, batch.forcing[:, k], batch.clock[:, k], anchor, noise, manner)
            truth = batch.state[:, k + 1], batch.diagnostic[:, k]
            total = total + self.loss(self.step, state, result, truth, anchor) / steps
            state, anchor = result.state, result.anchor
        return total, result

    def _step(self, state, forcing, clock, anchor, noise, manner: Manner) -> StepResult:
        half = manner.precision == "bfloat16"
        with torch.autocast(state.device.type, torch.bfloat16, enabled=half):
            if manner.checkpoint_steps and torch.is_grad_enabled():
                return checkpoint(self.step, state, forcing, clock, anchor, noise, use_reentrant=False)
            return self.step(state, forcing, clock, anchor, noise)
