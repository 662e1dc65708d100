"""The one autoregressive loop: training windows, validation, forecasts and bred vectors run it.

A generator of results, so that memory stays constant and the caller decides what to keep. It lies below training, which runs
it too.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from emulator.data.forcing import StepInputs
from emulator.model.stepper import Stepper, StepResult

Begin = Callable[[int, Tensor, object], tuple[Tensor, object]]


@dataclasses.dataclass(frozen=True)
class Execution:
    """How steps are computed.

    Attributes:
      precision: of the network's products, "float32" or "bfloat16".
      gradients: whether results carry gradients back to the weights and through the steps.
      recompute: with gradients, compute each step again in the backward pass instead of storing it.
    """

    precision: str = "float32"
    gradients: bool = False
    recompute: bool = False


def rollout(
    stepper: Stepper,
    state: Tensor,
    inputs: Iterable[StepInputs],
    anchor: object = None,
    *,
    first: int = 1,
    begin: Begin | None = None,
    execution: Execution = Execution(),
) -> Iterator[StepResult]:
    """Forecast from `state`, one step for each of `inputs`.

    Args:
      stepper: the emulator.
      state: prognostic fields at the initial time, physical units, `(batch, channel, *space)`, on the stepper's device; of a
        stepper with several input times `(batch, history, channel, *space)`, oldest first.
      inputs: forcing, clock, noise and more of every step, on the same device.
      anchor: what the budgets are pinned to; by default the initial state's.
      first: number of the first step, counted from 1 at the forecast's initial time; above 1 where a forecast goes on.
      begin: called before every step with its number, state and anchor, and gives those that the step starts from: where
        a training puts the truth in place of the state, or cuts gradients.
      execution: precision and gradients.
    """
    anchor = stepper.anchor(state) if anchor is None else anchor
    half = execution.precision == "bfloat16"
    for number, given in enumerate(inputs, first):
        if begin is not None:
            state, anchor = begin(number, state, anchor)
        step = stepper.at(number)
        if execution.recompute and execution.gradients:
            step = functools.partial(checkpoint, step, use_reentrant=False)
        with (
            torch.set_grad_enabled(execution.gradients),
            torch.autocast(state.device.type, torch.bfloat16, enabled=half),
        ):
            result = step(state, given.forcing, given.clock, anchor, given.noise, **given.more())
        state, anchor = result.onward, result.anchor
        yield result
