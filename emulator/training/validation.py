"""Validation while training: the error of one step and of short rollouts on times that training does not see."""

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor, nn

from emulator.data.batch import Batch
from emulator.data.samples import Samples
from emulator.model.noise import forecast_key
from emulator.model.rollout import Execution, rollout
from emulator.model.step import Step
from emulator.model.stepper import newest
from emulator.model.windows import Interpolator
from emulator.parallel.distributed import mean_over, share
from emulator.parallel.processes import Processes


@dataclasses.dataclass(frozen=True)
class Validation:
    """When to validate, on what, and what follows.

    Attributes:
      samples: the held-out times. error: `(state, diagnostic, true state, true diagnostic) -> scalar`; `squared` tells
        whether it is in squared units.
      every: updates between validations; the last update validates too.
      windows: number of initial times, spread evenly; steps: length of the rollouts from them; batch_size: at a time.
      patience: the run ends early when so many validations in a row found no better rollouts, of those after phases of single
        forecasts; 0 never.
      members: forecasts from every initial time, for an error of ensembles.
    """

    samples: Samples
    error: nn.Module
    every: int
    windows: int
    steps: int
    batch_size: int
    patience: int = 0
    members: int = 1
    squared: bool = True

    def starts(self, processes: Processes) -> np.ndarray:
        """Initial times of all processes' windows: as many for each. Raises `ValueError` for too short a period."""
        starts = self.samples.some_starts(self.steps, self.samples.layout.lengths[0])
        count = min(self.windows, len(starts)) // processes.size * processes.size
        if not count:
            raise ValueError(
                f"Expected a validation window of {self.steps} steps for each of {processes.size} processes, the period has "
                f"{len(starts)}, of which {self.windows} are asked for"
            )
        return starts[np.linspace(0, len(starts) - 1, count).round().astype(int)]

    def __call__(
        self, step: Step, processes: Processes, device: torch.device, precision: str = "float32"
    ) -> dict[str, float]:
        """Mean errors, in the loss's units: of one step, of the rollouts' last step, and the skill of the latter.

        The skill is `1 - sqrt(error / persistence's error)` at the end of the rollouts, without the root for an error that
        is not squared: 1 is perfect, 0 no better than persistence, negative worse. Where there is no state to persist it is
        of the diagnostics, against their mean over the training period; of an interpolator in the middle of windows, against
        the straight line between both ends. Of steps of several lengths the shortest count. All processes ask together and
        get the same numbers. The noise of a stochastic network is the same at every validation.
        """
        length = self.samples.layout.lengths[0]
        chosen = share(self.starts(processes), processes)
        sums = torch.zeros(3, dtype=torch.float64, device=device)  # on it, so that the host waits for the last alone
        for first in range(0, len(chosen), self.batch_size):
            part = chosen[first : first + self.batch_size]
            batch = self.samples.batch(part, self.steps, length)
            batch = batch.for_members(self.members, self._noise(step, part)).pinned().to(device)
            if isinstance(step, Interpolator):
                errors = self._inside(step, batch, precision)
            else:
                errors = self._rolled_out(step, batch, precision)
            sums += len(part) * torch.stack(errors).double()
        one, last, persistence = (mean_over(sums * self.samples.space.size) / len(chosen)).tolist()
        ratio = last / persistence if persistence > 0 else 1.0
        return {
            "one_step": one,
            "rollout": last,
            "rollout_persistence": persistence,
            "skill": 1 - (math.sqrt(ratio) if self.squared else ratio),
        }

    def _rolled_out(self, step: Step, batch: Batch, precision: str) -> tuple[Tensor, Tensor, Tensor]:
        """Errors of the first and the last of a window's steps, and of persistence at its end."""
        results = rollout(step, batch.start(), batch.inputs(), execution=Execution(precision))
        for k, result in enumerate(results):
            truth = batch.truth(k)
            if k == 0:
                one = self.error(result.state, result.diagnostic, *truth)
        if step.layout.prognostic.count:
            ours, theirs = (result.state, truth[1]), (newest(batch.start(), step.layout), truth[1])
        else:
            ours, theirs = (result.state, result.diagnostic), (truth[0], step.mean_diagnostic(truth[1]))
        return one, self.error(*ours, *truth), self.error(*theirs, *truth)

    @torch.no_grad()
    def _inside(self, step: Interpolator, batch: Batch, precision: str) -> tuple[Tensor, Tensor, Tensor]:
        """Of an interpolator errors a step after the start and in the middle, and of the straight line in the middle."""
        with torch.autocast(batch.state.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            (one, first), (middle, truth) = step.between(batch, 1), step.between(batch, step.horizon // 2)
        ends, share = (batch.state[:, 0], batch.state[:, step.horizon]), step.horizon // 2 / step.horizon
        line = ends[0] + share * (ends[1] - ends[0])
        return self.error(*one, *first), self.error(middle[0], truth[1], *truth), self.error(line, truth[1], *truth)

    def _noise(self, step: Step, starts: np.ndarray) -> Tensor | None:
        """Of the members of the windows that begin at some times, `(row, steps, channel, *space)`; one of an interpolator."""
        if step.noise is None:
            return None
        rows = [(self.samples.times[start], member) for start in starts for member in range(self.members)]
        numbers = range(1, 2 if isinstance(step, Interpolator) else self.steps + 1)
        return torch.stack([step.noise.rows(forecast_key(0, *row, k) for k in numbers) for row in rows])


@dataclasses.dataclass
class Best:
    """The best validation so far: its skill and update, and how many came after it. What a resumed run needs of it."""

    skill: float = -math.inf
    update: int = -1
    since: int = 0

    def take(self, skill: float, update: int) -> bool:
        """Whether a validation is the best so far; one that is not finite never is."""
        if math.isfinite(skill) and skill > self.skill:
            self.skill, self.update, self.since = skill, update, 0
            return True
        self.since += 1
        return False

    def to_json(self) -> dict:
        return {"skill": self.skill if math.isfinite(self.skill) else None, "update": self.update, "since": self.since}

    @classmethod
    def from_json(cls, saved: dict) -> "Best":
        return cls(-math.inf if saved["skill"] is None else saved["skill"], saved["update"], saved["since"])
