"""The loss of a window of autoregressive steps, as one module, so that what wraps modules can wrap it whole."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from emulator.data.batch import Batch
from emulator.model import generative
from emulator.model.rollout import Execution, rollout
from emulator.model.step import Step
from emulator.model.stepper import StepResult, newest
from emulator.model.windows import WindowStep
from emulator.networks.generative import Generative
from emulator.training.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class StepLoss:
    """Loss of one predicted step: the error of its fields, and the soft penalty on its budgets where there is one."""

    error: nn.Module
    penalty: Callable | None = None
    longer: Mapping[int, nn.Module] = dataclasses.field(default_factory=dict)  # errors of steps of other lengths
    single_error: nn.Module | None = (
        None  # in place of a score of members, of updates that make one forecast of a sample
    )

    def __call__(
        self, step: Step, state: Tensor, result: StepResult, truth: tuple[Tensor, Tensor], anchor, length: int = 1
    ) -> Tensor:
        """From `state` to `result`, whose true state and diagnostics are `truth`; all in physical units.

        `length`: of the step, in steps of the store.
        """
        value = self.longer.get(length, self.error)(result.state, result.diagnostic, *truth)
        if self.penalty is None:
            return value
        after = step.fields(result.state, result.diagnostic)
        penalty = self.penalty(step.fields(newest(state, step.layout)), after, anchor).mean().float()
        return value + penalty / step.space.size  # of several processes that hold a state each adds its part

    @property
    def errors(self) -> dict[int, nn.Module]:
        """Its errors by the length of the step, in steps of the store; 0 for the one of no length of its own."""
        return {0: self.error, **self.longer}

    def to(self, device: torch.device) -> "StepLoss":
        """With its errors on a device."""
        for error in (*self.errors.values(), *([] if self.single_error is None else [self.single_error])):
            error.to(device)
        return self

    def advance(self) -> None:
        """Has errors that change with what they have seen do so, after an update."""
        for error in self.errors.values():
            getattr(error, "advance", lambda: None)()

    def state(self) -> dict[str, Tensor]:
        """What its errors remember, as `loss/LENGTH/...`."""
        return {f"loss/{n}/{name}": t for n, error in self.errors.items() for name, t in error.state_dict().items()}

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Puts that back, of what a training saved; states from before errors were saved have none."""
        for n, error in self.errors.items():
            known = {name: saved.get(f"loss/{n}/{name}") for name in error.state_dict()}
            error.load_state_dict({name: t for name, t in known.items() if t is not None}, strict=False)


@dataclasses.dataclass(frozen=True)
class WindowOptions:
    """How a window is run.

    Attributes:
      teacher_forced: for every step whether it starts from the truth in place of the network's own state; empty: none.
      gradient_steps: the state is cut from its past after so many steps; 0 never.
      single: there is one forecast of every sample, whose error is `StepLoss.single_error`. members: forecasts of a sample.
      last_alone: the loss is that of the last step, and the steps before are run without gradients.
      precision, recompute: as in `emulator.model.rollout.Execution`.
    """

    teacher_forced: tuple[bool, ...] = ()
    gradient_steps: int = 0
    precision: str = "float32"
    recompute: bool = False
    last_alone: bool = False
    single: bool = False
    members: int = 1

    @classmethod
    def of(cls, recipe: Recipe, update: int) -> "WindowOptions":
        """Of an update of a training."""
        phase, how = recipe.phase(update), (recipe.precision, recipe.checkpoint_steps)
        which = phase.loss_steps == "last", phase.single, recipe.members_at(update)
        return cls(tuple(recipe.teacher_forced(update)), phase.gradient_steps, *how, *which)


class Window(nn.Module):
    """Runs a step over a window of a batch and gives the mean loss of its steps, or that of the last.

    The loss of the last step alone, after steps without gradients, is the zero-stability loss ("pushforward") of
    Brandstetter, Worrall and Welling (2022): the network learns to put right what its own errors have made of the state.
    """

    def __init__(self, step: Step, loss: StepLoss):
        super().__init__()
        self.step, self.loss = step, loss

    def forward(self, batch: Batch, options: WindowOptions) -> tuple[Tensor, StepResult]:
        """The loss, a scalar, and the result of the last step.

        Of several processes that hold a state together each gives its part times their number, so that the mean over all
        processes, to which their gradients are averaged too, is the loss.
        """
        if isinstance(self.step.network, Generative):
            return self._of_samples(batch, options)
        if isinstance(self.step, WindowStep):
            return self._as_one(batch, options)
        steps, total, start = batch.diagnostic.shape[1], 0.0, (batch.start(), None)
        length = round(batch.length) if isinstance(batch.length, float) else 1
        loss = dataclasses.replace(self.loss, error=self.loss.single_error) if options.single else self.loss

        def begin(number: int, state: Tensor, anchor: object) -> tuple[Tensor, object]:
            nonlocal start
            done = number - 1
            if done and options.teacher_forced and options.teacher_forced[done]:
                state = batch.start(done)
                anchor = self.step.anchor(state)
            elif done and options.gradient_steps and done % options.gradient_steps == 0:
                state = state.detach()
            start = state, anchor
            return start

        execution = Execution(options.precision, torch.is_grad_enabled(), options.recompute)
        state, inputs, anchor, first = batch.start(), batch.inputs(), None, 1
        if options.last_alone and steps > 1:
            blind = dataclasses.replace(execution, gradients=False)
            for result in rollout(self.step, state, itertools.islice(inputs, steps - 1), begin=begin, execution=blind):
                state, anchor = result.onward, result.anchor
            first = steps
        results = rollout(self.step, state, inputs, anchor, first=first, begin=begin, execution=execution)
        for done, result in enumerate(results, first - 1):
            error = loss(self.step, start[0], result, batch.truth(done), start[1], length)
            total = total + error / (steps - first + 1)
        return total * self.step.space.size, result

    def _as_one(self, batch: Batch, options: WindowOptions) -> tuple[Tensor, StepResult]:
        """The error of what a network makes at one place of a window whose steps belong together, and what it made."""
        with torch.autocast(batch.state.device.type, torch.bfloat16, enabled=options.precision == "bfloat16"):
            made, truth = self.step.learned(batch, options.members)
        return self.loss.error(*made, *truth), StepResult(*made, {})

    def _of_samples(self, batch: Batch, options: WindowOptions) -> tuple[Tensor, StepResult]:
        """The error of a network that learns to sample one step, and the truth in place of a result, which is not made."""
        state, truth, given = batch.start(), batch.truth(0), next(iter(batch.inputs()))
        half = options.precision == "bfloat16"
        with torch.autocast(state.device.type, torch.bfloat16, enabled=half):
            errors = generative.error(self.step, state, given, truth, self.loss.error.weights)
        return errors.mean(), StepResult(*truth, {})
