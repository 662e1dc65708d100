"""Stretches of a training: how long windows are, what they start from, and what of that is hidden. Needs no torch."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from emulator.options import Options, option


@dataclasses.dataclass(frozen=True)
class MaskOptions(Options):
    """What of a sample's initial state is hidden from the network (docs/training.md); needs `gaps` of the training."""

    share: float = option(0.5, "share of the patches that are hidden, in all variables", minimum=0, below=1)
    share_to: float | None = option(None, "each sample draws its share from share to this one", minimum=0, below=1)
    kind: Literal["local", "windows", "mixed"] = option(
        "local", "single patches in every window, whole windows, or one of these by sample"
    )
    patch: int = option(1, "cells along each side of a patch", minimum=1)
    window: int = option(4, "patches along each side of a window", minimum=1)
    variables: float = option(0.0, "probability that a variable is hidden everywhere; one stays", minimum=0, below=1)
    lead: int = option(
        1, "steps to what the network is to predict; 0: the state itself, of which it sees a part", minimum=0, maximum=1
    )

    def __post_init__(self):
        super().__post_init__()
        if self.share_to is not None and self.share_to < self.share:
            raise ValueError(f"Expected masks.share_to of at least share {self.share:g}, got {self.share_to:g}")


@dataclasses.dataclass(frozen=True)
class Phase(Options):
    """A stretch of training with one number of autoregressive steps."""

    updates: int = option(about="its length", minimum=1)
    rollout_steps: int = option(1, "autoregressive steps of a window", minimum=1)
    batch_size: int = option(4, "over all processes", minimum=1)
    lr_scale: float = option(1.0, "factor of the learning rate", above=0)
    random_steps: bool = option(False, "every update draws its number of steps from 1 to rollout_steps")
    gradient_steps: int = option(0, "gradients reach no more steps back; 0: through the whole window", minimum=0)
    teacher: float = option(
        0.0, "probability that a step starts from the truth, not the network's state", minimum=0, maximum=1
    )
    replay: float = option(0.0, "share of samples that go on from the network's own last states", minimum=0, below=1)
    replay_most: int = option(16, "windows in a row that a sample may go on", minimum=1)
    accumulate: int = option(1, "parts that a batch is computed in, for less memory", minimum=1)
    teacher_end: float | None = option(
        None,
        "what teacher becomes by the end of the phase, along a line; None: it stays",
        minimum=0,
        maximum=1,
        new=True,
    )
    loss_steps: Literal["all", "last"] = option(
        "all", "of a window; last: no gradient reaches the steps before, which are run without", new=True
    )
    replay_pool: int = option(1, "states of its own that each place of the batch draws from", minimum=1, new=True)
    replay_refresh: int = option(
        0,
        "updates after which a place takes a new state from the data; 0: by chance, as replay has it",
        minimum=0,
        new=True,
    )
    masks: MaskOptions | None = option(None, "what of the initial states is hidden; None: nothing", new=True)
    single: bool = option(
        False,
        "of a score of ensembles: one forecast of every sample, without noise, by the squared error, in place of members",
        new=True,
    )

    def __post_init__(self):
        super().__post_init__()
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"Expected batch_size {self.batch_size} to divide into {self.accumulate} parts (accumulate)"
            )
        if self.replay and self.replay_refresh:
            raise ValueError("Expected either replay, a share, or replay_refresh, a number of updates, got both")
        if self.replay_pool > 1 and not self.replays:
            raise ValueError(f"Expected replay or replay_refresh with replay_pool {self.replay_pool}, got neither")
        if self.loss_steps == "last" and self.gradient_steps:
            raise ValueError("Expected no gradient_steps with loss_steps last, whose gradients stay in the last step")
        if self.masks is not None:
            self._check_masks(self.masks)

    def _check_masks(self, masks: MaskOptions) -> None:
        if not masks.share and not masks.share_to and not masks.variables:
            raise ValueError("Expected masks that hide a share of the patches or variables, got both 0")
        if self.replays:
            raise ValueError("Expected masks or replay, whose states the network has made whole, got both in one phase")
        if not masks.lead and self.rollout_steps > 1:
            raise ValueError(f"Expected rollout_steps 1 with masks.lead 0, got {self.rollout_steps}")

    @property
    def replays(self) -> bool:
        """Whether samples go on from the network's own states."""
        return bool(self.replay or self.replay_refresh)

    @property
    def kept_steps(self) -> int:
        """Steps of a window that a backward pass goes through at once, which memory grows with."""
        return self.rollout_steps if self.loss_steps == "all" else 1

    @property
    def work(self) -> float:
        """Model steps of an update over all its samples, what its time grows with; the mean where steps are drawn.

        A step without a backward pass counts as a third.
        """
        steps = (1 + self.rollout_steps) / 2 if self.random_steps else self.rollout_steps
        return (steps if self.loss_steps == "all" else 1 + (steps - 1) / 3) * self.batch_size


def check_single(phases: Sequence[Phase], kind: str, members: int, steps: Sequence[float]) -> None:
    """Raises `ValueError` where phases of single forecasts do not go with the rest of a training.

    Args:
      kind: of the loss, which compares so many members. steps: hours of the steps that are learned, none: the store's.
    """
    single = [number for number, phase in enumerate(phases) if phase.single]
    if not single:
        return
    if members == 1:
        raise ValueError(
            f"Expected a loss of members, such as crps, with phases of single forecasts (phases.single), got {kind}"
        )
    if steps:
        raise ValueError(
            "Expected steps of the store's own length with phases of single forecasts (phases.single), got train.steps "
            f"{list(steps)}"
        )
    if single != list(range(len(single))) or len(single) == len(phases):
        raise ValueError(
            "Expected phases of single forecasts (phases.single) first and members in those after them and in the last, got "
            f"single in phases {', '.join(map(str, single))} of 0 to {len(phases) - 1}"
        )
