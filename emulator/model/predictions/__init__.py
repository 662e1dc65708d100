"""What a network predicts of the prognostic fields: one file a kind, registered under the file's name.

A kind is a function from what a step knows and the network's output, both `(batch, channel, *space)`, to the fields at the
step's end in physical units.
"""

import dataclasses
from collections.abc import Callable

from torch import Tensor

from emulator.registry import Registry


@dataclasses.dataclass(frozen=True)
class Known:
    """What a prediction may start from; each broadcasts to `(batch, channel, *space)`, physical units.

    Attributes:
      state: at the start of the step. resting: its mean over the training period.
      mean, std: of the channel over time and space.
      change: standard deviation of the change over the step. spread: standard deviation about the time mean.
      damping: share by which a linear forecast draws the state towards `resting`.
      reference: the climatology at the end of the step, None for kinds that do not ask for it.
    """

    state: Tensor
    resting: Tensor
    mean: Tensor
    std: Tensor
    change: Tensor
    damping: Tensor
    spread: Tensor | None = None
    reference: Tensor | None = None


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A kind of prediction.

    Attributes:
      following: `(known, predicted) -> fields` at the end of the step.
      spread: whether it needs the standard deviation about the time mean. reference: whether it needs the climatology.
      damped: whether it is a change on top of damped persistence, as the compiled pass of a step has it.
    """

    following: Callable[[Known, Tensor], Tensor]
    spread: bool = False
    reference: bool = False
    damped: bool = False


PREDICTIONS: Registry[Prediction] = Registry("kind of prediction", __name__)
