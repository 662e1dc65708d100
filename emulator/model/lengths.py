"""Steps of several lengths: what changes of a step with its length.

Lengths are in steps of the store. A variable of variance s^2 whose change over one step has the variance c^2 has the
autocorrelation r = 1 - c^2 / (2 s^2). In a first-order autoregression, the process behind the damping too
(`emulator.model.step`), it is r^n over n steps, so that the change's variance is 2 s^2 (1 - r^n).
"""

import torch
from torch import Tensor


def growth(change: Tensor, spread: Tensor, length: Tensor | float) -> Tensor:
    """How much larger than over one step the change over some steps is: all broadcast together; 1 for what never changes."""
    lost = (change.double() / torch.where(spread > 0, spread, 1.0)).square() / 2
    kept = torch.where((spread > 0) & (change > 0), (1 - lost).clamp(min=0), 0.0)
    return ((1 - kept**length) / (1 - kept)).sqrt().to(change.dtype)


def over_length(change: Tensor, damping: Tensor, spread: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviation of the change and damping `(channel, 1, 1)` over steps of some lengths `(batch,)`.

    Gives both as `(batch, channel, 1, 1)`.
    """
    length = length.view(-1, *[1] * change.dim())
    return change * growth(change, spread, length), (1 - (1 - damping.double()) ** length).to(damping.dtype)
