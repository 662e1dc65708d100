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
    """A registered loss: its options, and the function `(options, weighted)` that makes it from a `build.Weighted`."""

    options: type[Options]
    build: Callable[[Any, Any], nn.Module]


LOSSES: Registry[Loss] = Registry("loss of a kind", __package__)


def loss(kind: str, options: type[Options]) -> Callable:
    """Registers a function `(options, weighted)` as what makes the losses of a kind."""
    return lambda builder: LOSSES.register(kind, Loss(options, builder)).build
