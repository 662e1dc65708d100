"""States that lack values: which are known, and what stands for the others.

A value that is not known is missing (NaN) in a state, be it that the analysis lacks it or that a training hid it. A cell of a
variable is known where all its levels are, at all input times. A network sees the mean of the training period there, 0 in
normalised units, in all levels. Once a step is done the state is whole.
"""

import torch
from torch import Tensor

from emulator.data.channels import Channels, Layout
from emulator.model.predictions import Known

REFUSED, TOLD = "refused", "told"


def known_in(state: Tensor, layout: Layout) -> Tensor:
    """Where a state `(batch, [history,] channel, *space)` has values: `(batch, variable, *space)` bool."""
    found = ~state.isnan()
    if layout.history > 1:
        found = found.all(1)
    return torch.stack([part.all(1) for part in found.split(layout.prognostic.widths, 1)], 1)


def by_channel(known: Tensor, channels: Channels) -> Tensor:
    """From `(batch, variable, *space)` to `(batch, channel, *space)`."""
    parts = zip(known.split(1, 1), channels.widths, strict=True)
    return torch.cat([part.expand(-1, width, *part.shape[2:]) for part, width in parts], 1)


def filled(state: Tensor, known: Tensor, mean: Tensor, layout: Layout) -> Tensor:
    """The state with the mean `(channel,)` where a variable is not known by `(batch, variable, *space)`."""
    where = by_channel(known, layout.prognostic)
    where = where.unsqueeze(1) if layout.history > 1 else where
    return torch.where(where, state, mean.view(-1, *[1] * (known.dim() - 2)))


def completed(following: Tensor, known: Tensor, about: Known, predicted: Tensor, channels: Channels) -> Tensor:
    """Fields at a step's end, `(batch, channel, *space)`, of which those that were not known at its start begin anew.

    They have no change to be predicted: what a network predicts is their departure from the mean over the training period, or
    the climatology where there is one, in units of the spread about the time mean.
    """
    middle = about.resting if about.reference is None else about.reference
    return torch.where(by_channel(known, channels), following, middle + about.spread * predicted)
