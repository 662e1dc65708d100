"""What steps a state forward in time: the protocol that one network, a cascade of them and models of other code fulfil."""

import copy
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Protocol, Self, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from emulator.conservation.budgets import Anchor
from emulator.data.channels import Layout
from emulator.model.noise import NetworkNoise


@dataclasses.dataclass(frozen=True)
class Carry:
    """What a forecast goes on from besides its state, where that is more than an anchor: the loop hands it on as one.

    Attributes:
      anchor: of the budgets.
      kept: tensors by name, `(batch, ...)` each: the state of an ocean, or what a window of steps began with. Empty before
        the first step.
    """

    anchor: Anchor | None
    kept: dict[str, Tensor] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class StepResult:
    """What a step yields.

    Attributes:
      state: prognostic fields at the end of the step, `(batch, channel, *space)`.
      diagnostic: diagnostics of the step, `(batch, channel, *space)`.
      record: what the conservation scheme measured and changed, each `(batch,)`.
      anchor: what the next step's budgets are pinned to, alone or in a `Carry`.
      past: of a stepper with several input times, those before `state` that the next step starts from too,
        `(batch, history - 1, channel, *space)`; else None.
      beside: fields of what the stepper is coupled with, by name, `(batch, *space)` each, of any type.
      ocean: of the step of another network that ended with this one; else None.
    """

    state: Tensor
    diagnostic: Tensor
    record: dict[str, Tensor]
    anchor: Anchor | Carry | None = None
    past: Tensor | None = None
    beside: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    ocean: "StepResult | None" = None

    @property
    def onward(self) -> Tensor:
        """What the next step starts from: `(batch, [history,] channel, *space)`."""
        return self.state if self.past is None else torch.cat([self.past, self.state.unsqueeze(1)], 1)


def newest(state: Tensor, layout: Layout) -> Tensor:
    """The last of a stepper's input times: `(batch, [history,] channel, *space)` to `(batch, channel, *space)`."""
    return state if layout.history == 1 else state[:, -1]


@runtime_checkable
class Stepper(Protocol):
    """From a state to the state one time step later, physical units, on whatever device its weights lie.

    A state is `(batch, channel, *space)`, or with `layout.history` above 1 the last so many of them, oldest first:
    `(batch, history, channel, *space)`; such a stepper's results have `past`.

    Attributes:
      layout: names of the channels.
      noise: the random fields that every step has to be given; None where it takes none.
      device: where states and inputs have to lie.

    To perturb initial states in units of a step's change, a stepper also has `change_std`, `lower` and `upper` as `Step` has;
    to be written to a store that goes on where it stopped, `digest`, a text that tells its weights from others'. One whose
    `prediction.reference` is true is given the climatology. One whose steps belong to windows of several has their number as
    `horizon`, makes each by what `at` gives, and hands on in a `Carry` what a window's later steps need.
    """

    layout: Layout
    noise: NetworkNoise | None
    device: torch.device

    def at(self, number: int) -> "Stepper":
        """The one that makes step `number` of a forecast, counted from 1; itself where all steps are alike."""
        ...

    def anchor(self, state: Tensor) -> Anchor | None:
        """What the budgets of a forecast from `state` are pinned to, at its last time; None without budgets."""
        ...

    def __call__(
        self, state: Tensor, forcing: Tensor, clock: Tensor, anchor: Anchor | None = None, noise: Tensor | None = None
    ) -> StepResult:
        """One step; shapes as in `emulator.data.forcing.StepInputs` and `StepResult`.

        What else `StepInputs.more` holds, such as the length of a step where there are several, comes by name.
        """
        ...


class Wrapped:
    """A stepper around another one, whose layout, noise, device and anchors it has.

    Args:
      stepper: that makes the steps.
    """

    def __init__(self, stepper: Stepper):
        self.stepper = stepper
        self.layout, self.noise, self.device = stepper.layout, stepper.noise, stepper.device

    def at(self, number: int) -> Self:
        """The same around what makes step `number`."""
        found = copy.copy(self)
        Wrapped.__init__(found, self.stepper.at(number))
        return found

    def anchor(self, state: Tensor) -> Anchor | None:
        return self.stepper.anchor(state)


class Cascade:
    """Several steppers that take over from one another at given steps.

    Args:
      stages: pairs of the number of steps done before a stepper takes over, 0 for the first, and the stepper; increasing.
    Raises `ValueError` for stages that do not begin at 0 and increase, for channels or spectra of noise that differ, and for
    one that ends within a window of its steps (`horizon`).
    """

    def __init__(self, stages: Sequence[tuple[int, Stepper]]):
        starts = [start for start, _ in stages]
        if not starts or starts[0] != 0 or starts != sorted(set(starts)):
            raise ValueError(f"Expected a cascade whose stages start at step 0 and increase, got starts at {starts}")
        self.stages, first = tuple(stages), stages[0][1]
        if any(stepper.layout != first.layout for _, stepper in stages):
            raise ValueError("Expected the same channels in all stages of a cascade, got others")
        for (start, stepper), (end, _) in itertools.pairwise(self.stages):
            if (end - start) % (horizon := getattr(stepper, "horizon", 1)):
                raise ValueError(
                    f"Expected a cascade to leave a network of windows of {horizon} steps where one ends, got {end - start} "
                    "steps of it"
                )
        spectra = [getattr(getattr(stepper, "noise", None), "power", None) for _, stepper in stages]
        if any(not np.array_equal(power, spectra[0]) for power in spectra):
            raise ValueError("Expected noise of the same spectra in all stages of a cascade, got others")
        self.layout, self.noise, self.device = first.layout, first.noise, first.device

    def at(self, number: int) -> Stepper:
        start, stepper = [stage for stage in self.stages if stage[0] < number][-1]
        return stepper.at(number - start)

    def anchor(self, state: Tensor) -> Anchor | None:
        return self.stages[0][1].anchor(state)

    def __call__(self, state, forcing, clock, anchor=None, noise=None, **more) -> StepResult:
        """A step of the first stepper; `at` gives those of the others."""
        return self.stages[0][1](state, forcing, clock, anchor, noise, **more)


def changed(stepper: Stepper, change: Callable[[Stepper], Stepper]) -> Stepper:
    """A model changed, or each of a cascade; those that are given stay as they are."""
    if isinstance(stepper, Cascade):
        return Cascade([(start, changed(stage, change)) for start, stage in stepper.stages])
    return change(stepper)
