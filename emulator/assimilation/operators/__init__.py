"""Observation operators: what a state would give where something is observed. One file a kind, registered by name.

A kind prepares, from where the channels of states lie and rows of observations of that kind, a function H: it takes states
`(batch, channel, *space)` in physical units and gives `(batch, row)` in the state's precision, differentiable by torch.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from emulator.assimilation.geometry import Geometry
from emulator.assimilation.observations import Observations
from emulator.registry import Registry

Equivalent = Callable[[Tensor], Tensor]  # states `(batch, channel, *space)` -> `(batch, row)`


class ObservationOperator(Protocol):
    """A kind of operator.

    Attributes:
      column: whether it takes a variable's whole column, so that one without levels cannot be observed.
      variables: names that it can observe; none: all.
    """

    column: bool
    variables: Sequence[str]

    def prepare(self, geometry: Geometry, rows: Observations) -> Equivalent:
        """H for these rows. Raises `ValueError` in one sentence for a row that it cannot observe."""
        ...

    def channels(self, geometry: Geometry, rows: Observations) -> tuple[np.ndarray, np.ndarray]:
        """Channels of the state that every row takes and their shares, `(slot, row)` each. Raises as `prepare`."""
        ...


OPERATORS: Registry[ObservationOperator] = Registry("observation operator", __name__)


def equivalents(geometry: Geometry, observations: Observations) -> Equivalent:
    """H for rows of any kinds, in their order.

    Raises `ValueError` in one sentence for an unknown operator and for rows that the state cannot give.
    """
    if not len(observations):
        return lambda state: state.new_zeros(len(state), 0)
    kinds = sorted(set(observations.operator.tolist()))
    places = [np.flatnonzero(observations.operator == kind) for kind in kinds]
    made = [OPERATORS[kind].prepare(geometry, observations.where(at)) for kind, at in zip(kinds, places, strict=True)]
    if len(made) == 1:
        return made[0]
    back = torch.as_tensor(np.argsort(np.concatenate(places)))[None]

    def h(state: Tensor) -> Tensor:
        values = torch.cat([each(state) for each in made], 1)
        return values.gather(1, back.to(state.device).expand(len(values), -1))

    return h
