"""Losses by kind: from options to a module `(state, diagnostic, true state, true diagnostic) -> error`.

A loss is one file of this folder: a frozen dataclass of options, whose first is its `kind`, and a function under
`@loss(kind, its options)` that makes the module. With an option `members` it is a score of as many forecasts of every sample.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from emulator.options import Options
from emulator.registry import Registry


class Loss(NamedTuple):
    """A registered loss: its options, and the function `(options, weighted)` that makes it from a `build.Weighted`.

    `bands`: whether processes that hold a state together can each compute a part of it, whose sum is the loss.
    """

    options: type[Options]
    build: Callable[[Any, Any], nn.Module]
    bands: bool


LOSSES: Registry[Loss] = Registry("loss of a kind", __package__)


def loss(kind: str, options: type[Options], bands: bool = False) -> Callable:
    """Registers a function `(options, weighted)` as what makes the losses of a kind; `bands` as in `Loss`."""
    return lambda builder: LOSSES.register(kind, Loss(options, builder, bands)).build
