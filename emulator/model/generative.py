"""What a step whose network samples what comes (`emulator.networks.generative`) is taught, from its true start and end.

That is the error of its network, and the spectra of the noise that its samples begin as.
"""

import torch
from torch import Tensor

from emulator.data.channels import kept_within
from emulator.data.forcing import StepInputs
from emulator.data.samples import Samples, evenly
from emulator.model.gaps import REFUSED
from emulator.model.noise import NetworkNoise, Seeds
from emulator.model.step import Step
from emulator.model.stepper import newest
from emulator.model.windows import WindowStep
from emulator.networks.generative import Generative
from emulator.sphere.random_fields import power_of
from emulator.sphere.transform import transform

PAIRS, BLOCK = 64, 8  # of a state and the next that spectra are measured on, and at a time


def noise_in_training(step: Step) -> NetworkNoise | Seeds | None:
    """What a training draws for a step: all its noise, and of a network that samples, or of windows, what it learns with."""
    if isinstance(step.network, Generative):
        return step.noise.picked(range(step.network.taught_with))
    return step.taught if isinstance(step, WindowStep) else step.noise


def target(step: Step, state: Tensor, truth: tuple[Tensor, Tensor], reference: Tensor | None = None) -> Tensor:
    """What the network would have to predict for a step to end with the truth, `(batch, channel, *space)`, before bounds.

    Every kind of prediction is a line in what is predicted, so that two of its points give it. 0 where nothing can change.
    """
    following, diagnostic = truth
    about = step.known(state, reference)
    zero = torch.zeros_like(following)
    start = step.prediction.following(about, zero).double()
    slope = step.prediction.following(about, zero.double() + 1) - step.prediction.following(about, zero.double())
    told = torch.where(slope > 0, (following - start) / slope, 0.0).float()
    told = kept_within(told, step.exists)
    return torch.cat([told, kept_within(step.diagnostic_scale(diagnostic), step.diagnostic_exists)], 1)


@torch.no_grad()
def measure_noise(step: Step, samples: Samples) -> None:
    """Has samples of a step begin as noise with the spectra of what its network predicts, where its objective asks for it.

    They are means over pairs that lie evenly over the period, by total wavenumber: a mean pattern, as of diagnostics, counts.
    """
    if step.noise_power is None:
        return
    chosen, total, of_grid = evenly(samples.some_starts(1), PAIRS), 0.0, transform(samples.grid)
    for first in range(0, len(chosen), BLOCK):
        batch = samples.batch(chosen[first : first + BLOCK], 1)
        given = next(iter(batch.inputs()))
        state = kept_within(batch.start(), step.exists)
        told = target(step, newest(state, step.layout), batch.truth(0), given.reference)
        total = total + power_of(told, of_grid).sum(0)
    step.begin_as(total / len(chosen))


def error(step: Step, state: Tensor, given: StepInputs, truth: tuple[Tensor, Tensor], weights: Tensor) -> Tensor:
    """The error of every sample, `(batch,)`.

    Args:
      state: true, `(batch, [history,] channel, *space)`. given: of the step, with `noise_in_training`.
      truth: state and diagnostics at its end. weights: of squared errors in the units of `target`, `(channel, *space)`, of
        mean 1.
    Raises `ValueError` for a step with several lengths or gaps.
    """
    if step.layout.lengths != (1,) or step.layout.gaps != REFUSED:
        raise ValueError("Expected steps of the store's length from whole states for a generative network, got others")
    state = kept_within(state, step.exists)
    x = step.inputs(state, given.forcing, given.clock)
    condition = step.scalars and step.scalars(step.forcing_scale(given.forcing), given.clock)
    told = target(step, newest(state, step.layout), truth, given.reference)
    return step.network.error(x, told, given.noise, weights, condition)
