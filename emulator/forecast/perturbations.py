"""Initial conditions of ensembles: Gaussian noise on the sphere, and bred vectors."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from emulator.data.channels import Channels
from emulator.model.step import Step
from emulator.sphere.random_fields import SphericalNoise


def noise(
    source: SphericalNoise, channels: Channels, generator: np.random.Generator, vertical_correlation: float = 0.8
) -> Tensor:
    """Noise of unit variance for every channel, `(channel, *space)`, correlated between neighbouring levels of a variable.

    Levels follow a first-order autoregression from the top down.
    """
    fields = source.draw(generator, channels.count)
    rest = (1 - vertical_correlation**2) ** 0.5
    for where in channels.slices.values():
        for level in range(where.start + 1, where.stop):
            fields[level] = vertical_correlation * fields[level - 1] + rest * fields[level]
    return fields


def perturbed(step: Step, state: Tensor, perturbation: Tensor) -> Tensor:
    """State plus perturbation in units of the change over a step, `(..., channel, *space)`, inside the step's bounds."""
    moved = state + step.change_std * perturbation
    # A state of the analysis may lie outside the bounds itself: it is not pulled in.
    lower, upper = torch.minimum(step.lower, state), torch.maximum(step.upper, state)
    return torch.minimum(torch.maximum(moved, lower), upper)


def size_of(step: Step, difference: Tensor, area: Tensor) -> Tensor:
    """Root mean square over channels and area of a difference of states, in units of the change over a step: `(...)`."""
    scaled = (difference / step.change_std).double().square()
    return (scaled * area).sum((-2, -1)).mean(-1).sqrt()


def bred(
    step: Step,
    states: Sequence[Tensor],
    start: Tensor,
    advance: Callable[[Tensor, int], Tensor],
    area: Tensor,
    amplitude: float,
) -> Tensor:
    """Bred vectors (Toth and Kalnay 1993) for the last of `states`, in units of the change over a step.

    Args:
      step: the emulator, which gives bounds and units.
      states: analyses one cycle apart, oldest first, `(channel, *space)` each.
      start: perturbations of the oldest, `(member, channel, *space)` in the same units.
      advance: `(state, cycle) -> state` at the end of the cycle, for `(member, channel, *space)` states.
      area: cell areas, summing to 1.
      amplitude: root mean square (`size_of`) to which the difference is rescaled after every cycle.
    """
    vectors = start * (amplitude / size_of(step, step.change_std * start, area)).float().view(-1, 1, 1, 1)
    for cycle, analysis in enumerate(states[:-1]):
        control = advance(analysis[None], cycle)
        grown = advance(perturbed(step, analysis[None], vectors), cycle) - control
        size = size_of(step, grown, area).clamp(min=1e-12)
        vectors = grown / step.change_std * (amplitude / size).float().view(-1, 1, 1, 1)
    return vectors
