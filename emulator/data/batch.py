"""Consecutive steps of some samples as tensors: what a training, or a validation, takes at a time."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from emulator.data.forcing import StepInputs
from emulator.parallel.host_copies import pinned, to_device


@dataclasses.dataclass(frozen=True)
class Batch:
    """Consecutive steps of some samples, physical units, float32.

    Attributes:
      state: prognostic fields at the `history + steps` times, `(batch, time, channel, *space)`; the first `history` are what
        the first step starts from.
      diagnostic: means over (or values at the end of) each step, `(batch, steps, channel, *space)`.
      forcing: `(batch, steps, channel, *space)`, as `Layout.given` has it.
      clock: features of each step, `(batch, steps, 5, *space)`.
      noise: of a stochastic network, `(batch, steps, channel, *space)`, or None.
      length: of the steps, in steps of the store: a number, or `(batch, steps)` float64, or None, as in `StepInputs`.
      reference: climatology at the end of each step, `(batch, steps, channel, *space)`, where a network starts from it.
      boundary: of a limited area the state outside at both ends of each step, `(batch, steps, 2 * channel, point)`.
      outflow: of one with closed budgets what leaves it by its sides in each step, `(batch, steps, budget)` float64.
    """

    state: Tensor
    diagnostic: Tensor
    forcing: Tensor
    clock: Tensor
    noise: Tensor | None = None
    length: Tensor | float | None = None
    reference: Tensor | None = None
    boundary: Tensor | None = None
    outflow: Tensor | None = None

    @property
    def history(self) -> int:
        """Times that a step starts from."""
        return self.state.shape[1] - self.forcing.shape[1]

    def start(self, step: int = 0) -> Tensor:
        """The true state that a step, counted from 0, starts from: `(batch, [history,] channel, *space)`."""
        return self.state[:, step] if self.history == 1 else self.state[:, step : step + self.history]

    def begin(self, rows: np.ndarray, states: Tensor) -> None:
        """Has some rows, by their positions, start from other states, one for each, as `start` gives them."""
        index = to_device(torch.from_numpy(rows), states.device)  # flags would have the host wait for their count
        self.start().index_copy_(0, index, states)

    def truth(self, step: int) -> tuple[Tensor, Tensor]:
        """The true state at the end of a step, counted from 0, and its diagnostics, `(batch, channel, *space)` each."""
        return self.state[:, step + self.history], self.diagnostic[:, step]

    def to(self, device: torch.device) -> "Batch":
        """On a device; itself where it is there already."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def for_members(self, members: int, noise: Tensor | None) -> "Batch":
        """Every sample `members` times, one after the other, with noise `(batch * members, steps, channel, *space)`."""
        rows = self if members == 1 else self._with(lambda tensor: tensor.repeat_interleave(members, 0))
        return dataclasses.replace(rows, noise=noise)

    def pinned(self) -> "Batch":
        """In page-locked memory, from which copies to a GPU run beside its work; itself on a machine without one."""
        return self._with(pinned)

    def inputs(self) -> Iterator[StepInputs]:
        """Of every step in turn."""
        names = ("forcing", "clock", "noise", "length", "reference", "boundary", "outflow")
        for k in range(self.forcing.shape[1]):
            parts = {name: getattr(self, name) for name in names}
            yield StepInputs(**{n: part[:, k] if isinstance(part, Tensor) else part for n, part in parts.items()})

    def split(self, parts: int) -> list["Batch"]:
        """In equal parts of its samples, in order. Raises `ValueError` where they do not divide."""
        if len(self.state) % parts:
            raise ValueError(f"Expected samples that divide into {parts} parts, got {len(self.state)}")
        size = len(self.state) // parts
        return [self._with(lambda tensor, n=n: tensor[n * size : (n + 1) * size]) for n in range(parts)]

    def _with(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return type(self)(
            **{name: change(part) if isinstance(part, Tensor) else part for name, part in vars(self).items()}
        )

    def _tensors(self) -> list[Tensor]:
        return [part for part in vars(self).values() if isinstance(part, Tensor)]
