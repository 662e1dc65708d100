"""The constants of a step, as they are made of data and kept in checkpoints."""

import dataclasses

import torch
from torch import Tensor

from emulator.data.channels import Layout
from emulator.data.normalisation import Normalizer
from emulator.model.gaps import REFUSED
from emulator.model.predictions import PREDICTIONS

PLACES = ("sin_latitude", "cos_latitude_cos_longitude", "cos_latitude_sin_longitude")  # position on the unit sphere


@dataclasses.dataclass(frozen=True)
class StepBuffers:
    """Constants of a step that travel in its checkpoint.

    Attributes:
      state, diagnostic, forcing: normalisers.
      change_std: standard deviation of the step difference, `(channel, 1, 1)`.
      lower, upper: envelope of the training data widened by the margin, `(channel, *space)`.
      damping: relaxation per step, `(channel, 1, 1)`, and resting: its target, `(channel, *space)`.
      static: features of the place: normalised static fields, masks where asked for, and position, `(feature, *space)`.
      spread: standard deviation about the time mean, `(channel, 1, 1)`, where a step needs it, else None.
      exists, diagnostic_exists: where the fields exist, `(channel, *space)` bool; None for everywhere.
      boundary: normaliser of what a limited area is given at its boundary; None without one.
    """

    state: Normalizer
    diagnostic: Normalizer
    forcing: Normalizer
    change_std: Tensor
    lower: Tensor
    upper: Tensor
    damping: Tensor
    resting: Tensor
    static: Tensor
    spread: Tensor | None = None
    exists: Tensor | None = None
    diagnostic_exists: Tensor | None = None
    boundary: Normalizer | None = None

    @classmethod
    def blank(cls, layout: Layout, space: tuple[int, ...], predicts: str = "change") -> "StepBuffers":
        """Placeholders of the right shapes, for a checkpoint to fill."""
        count, ones = layout.prognostic.count, [1] * len(space)
        features = layout.static.count + layout.masks + len(PLACES)

        def mask(channels):
            return torch.ones(channels.count, *space, dtype=torch.bool) if layout.is_masked(channels) else None

        return cls(
            state=Normalizer.blank(count),
            diagnostic=Normalizer.blank(layout.diagnostic.count),
            forcing=Normalizer.blank(layout.given.count),
            change_std=torch.zeros(count, *ones),
            lower=torch.zeros(count, *space),
            upper=torch.zeros(count, *space),
            damping=torch.zeros(count, *ones),
            resting=torch.zeros(count, *space),
            static=torch.zeros(features, *space),
            spread=torch.zeros(count, *ones) if needs_spread(layout, predicts) else None,
            exists=mask(layout.prognostic),
            diagnostic_exists=mask(layout.diagnostic),
            boundary=layout.border and Normalizer.blank(layout.border.channels),
        )


def needs_spread(layout: Layout, predicts: str) -> bool:
    """Whether a step needs the standard deviation of the state about its time mean."""
    return layout.lengths != (1,) or layout.gaps != REFUSED or PREDICTIONS[predicts].spread
