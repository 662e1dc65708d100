"""Rollout: a generator of states, so memory stays constant and the caller decides what to keep."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from emulator.model.step import Step, StepResult


def rollout(step: Step, state: Tensor, told: Iterable[tuple[Tensor, ...]], anchor=None) -> Iterator[StepResult]:
    """Forecast from `state`, one step for each (forcing, clock) pair, or (forcing, clock, noise) of a stochastic network.

    Args:
      step: the emulator.
      state: prognostic fields at the initial time, physical units, `(batch, channel, *space)`.
      told: for every step the forcing `(batch, channel, *space)`, the clock features `(batch, 5, *space)` and the noise
        `(batch, channel, *space)`, if any.
      anchor: what the budgets are pinned to; by default the initial state's.
    """
    with torch.no_grad():
        anchor = step.anchor(state) if anchor is None else anchor
        for forcing, clock, *noise in told:
            result = step(state, forcing, clock, anchor, *noise)
            state, anchor = result.state, result.anchor
            yield result
