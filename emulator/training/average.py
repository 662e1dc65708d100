"""The exponential moving average of a step's weights, by parameter name; spread over processes as the weights are."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from emulator.parallel.distributed import local

Average = dict[str, Tensor]


def begin(step: nn.Module, decay: float) -> Average:
    """A copy of the weights to start from; empty without averaging (a decay of 0)."""
    return {name: p.detach().clone() for name, p in step.named_parameters()} if decay else {}


def advance(average: Average, step: nn.Module, decay: float) -> None:
    """Draw the average towards the weights by a share of 1 - decay."""
    with torch.no_grad():
        for name, parameter in step.named_parameters() if average else ():
            local(average[name]).lerp_(local(parameter), 1 - decay)


@contextlib.contextmanager
def in_use(average: Average, step: nn.Module) -> Iterator[None]:
    """The step with the averaged weights, where an average is kept, in evaluation mode; as it was afterwards."""
    trained_weights = begin(step, bool(average))
    trained = step.training
    step.eval()
    try:
        _put(average, step)
        yield
    finally:
        _put(trained_weights, step)
        step.train(trained)


def _put(weights: Average, step: nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in step.named_parameters() if weights else ():
            local(parameter).copy_(local(weights[name]))
