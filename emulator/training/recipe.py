"""How to train: phases, learning rate, and everything that an update's number decides."""

import dataclasses
import math
import sys
from collections.abc import Callable, Mapping

import numpy as np

from emulator.generative.windows import horizon_of
from emulator.training.options import TrainOptions
from emulator.training.options.phases import Phase
from emulator.training.options.sections import StartOptions

SINGLE = "mse"  # the loss of phases of single forecasts


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train: phases in order, one warm-up and cosine decay over all of them.

    Attributes:
      ema: decay of the average of the weights, 0 for none. clip: largest norm of the gradient.
      save_every, save_seconds: a state is saved at the multiples of so many updates, and so long after the last save.
        When a state is saved by time changes no result: what a run that diverged goes back to is saved by updates.
      keep: resumable states that are kept, the newest. precision: of the network, "float32" or "bfloat16".
      checkpoint_steps: steps of a window are computed again in the backward pass instead of stored.
      retries: how often a run that diverged goes back to the last good state with half the learning rate.
      loss_limit: a loss above it counts as divergence, as one that is not finite does.
      members: forecasts of every sample that a score of ensembles compares; 1 for other losses.
      loss: its kind, "" where that is not known.
      lengths: of a step, in steps of the store; every update draws one.
      rest: hash of all that decides the weights besides the phases, "" where that is not known.
      horizon: steps of the store that one step of a window stands for, where an objective has several belong together.
      start: what is trained of weights that were there before, and how; None: all parameters alike.
    """

    phases: tuple[Phase, ...]
    lr: float
    final_lr: float
    warmup: int
    betas: tuple[float, float]
    weight_decay: float
    clip: float
    ema: float
    seed: int
    save_every: int
    log_every: int
    save_seconds: float = math.inf
    keep: int = 2
    precision: str = "float32"
    checkpoint_steps: bool = False
    retries: int = 0
    loss_limit: float = sys.float_info.max
    members: int = 1
    loss: str = ""
    lengths: tuple[int, ...] = (1,)
    rest: str = ""
    start: StartOptions | None = None
    horizon: int = 1

    @classmethod
    def of(cls, options: TrainOptions, lengths: tuple[int, ...] = (1,), loss: str = "") -> "Recipe":
        """What the options of a training say of the order of its updates.

        `lengths`: of its steps, as in a `Layout`; `loss`: the kind of its loss.
        """
        return cls(
            phases=tuple(options.phases),
            **rates_of(options),
            save_seconds=60 * options.save_minutes,
            keep=options.keep,
            precision=options.precision,
            checkpoint_steps=options.checkpoint_steps,
            retries=options.retries,
            loss_limit=sys.float_info.max if options.loss_limit is None else options.loss_limit,
            members=options.members,
            loss=loss,
            lengths=lengths,
            start=options.start,
            horizon=horizon_of(options.objective),
        )

    @property
    def updates(self) -> int:
        return sum(phase.updates for phase in self.phases)

    def record(self) -> dict:
        """What a state keeps of the recipe, so that one that has grown at its end can go on with it."""
        return {"rest": self.rest, "phases": [dataclasses.asdict(phase) for phase in self.phases]}

    def grew_from(self, record: Mapping, update: int) -> bool:
        """Whether this is what a state after some updates was trained by, with more updates or phases at its end alone."""
        if not self.rest or record.get("rest") != self.rest:
            return False
        known = [Phase.of(phase) for phase in record.get("phases", ())]
        shared = [
            old == new
            or (n == len(known) - 1 and old == dataclasses.replace(new, updates=min(old.updates, new.updates)))
            for n, (old, new) in enumerate(zip(known, self.phases, strict=False))
        ]
        return len(known) <= len(self.phases) and all(shared) and update <= sum(phase.updates for phase in known)

    def locate(self, update: int) -> tuple[int, int]:
        """Phase that an update belongs to, and its number within the phase."""
        for index, phase in enumerate(self.phases):
            if update < phase.updates:
                return index, update
            update -= phase.updates
        raise ValueError(f"Expected an update below {self.updates}")

    def phase(self, update: int) -> Phase:
        return self.phases[self.locate(update)[0]]

    def sum(self, of: Callable[[Phase], float], first: int, last: int) -> float:
        """Sum of a number that each phase gives its updates, over the updates from `first` up to `last`."""
        total, begin = 0.0, 0
        for phase in self.phases:
            end = begin + phase.updates
            total += of(phase) * max(0, min(last, end) - max(first, begin))
            begin = end
        return total

    def learning_rate(self, update: int) -> float:
        ramp = min(1.0, (update + 1) / max(1, self.warmup))
        done = max(0.0, (update - self.warmup) / max(1, self.updates - self.warmup))
        cosine = self.final_lr + (self.lr - self.final_lr) * (1 + math.cos(math.pi * done)) / 2
        return ramp * cosine * self.phase(update).lr_scale

    @property
    def singles(self) -> int:
        """Updates of the phases of single forecasts, with which a training begins."""
        return sum(phase.updates for phase in self.phases if phase.single)

    def loss_at(self, update: int) -> str:
        """Kind of the loss of an update."""
        return SINGLE if self.phase(update).single else self.loss

    def members_at(self, update: int) -> int:
        """Forecasts of every sample of an update."""
        return 1 if self.phase(update).single else self.members

    def work(self, phase: Phase) -> float:
        """Model steps of an update of a phase over all forecasts, what its time grows with."""
        return phase.work * (1 if phase.single else self.members)

    def steps(self, update: int) -> int:
        """Steps of the windows of an update."""
        phase = self.phase(update)
        steps = phase.rollout_steps
        if phase.random_steps:
            steps = int(np.random.default_rng([self.seed, update, 1]).integers(1, steps + 1))
        return steps * self.horizon

    def length(self, update: int) -> int:
        """Length of the steps of an update, in steps of the store."""
        if len(self.lengths) == 1:
            return self.lengths[0]
        return int(np.random.default_rng([self.seed, update, 7]).choice(self.lengths))

    def times(self, update: int) -> int:
        """Length of the windows of an update, in steps of the store."""
        return self.steps(update) * self.length(update)

    def teacher_forced(self, update: int) -> list[bool]:
        """For every step of an update's windows whether it starts from the truth; the first one does anyway."""
        steps, probability = self.steps(update), self.teacher(update)
        if not probability:
            return [False] * steps
        return (np.random.default_rng([self.seed, update, 2]).random(steps) < probability).tolist()

    def teacher(self, update: int) -> float:
        """Probability that a step of an update starts from the truth: over a phase constant, or a line."""
        (index, done), phase = self.locate(update), self.phase(update)
        if phase.teacher_end is None:
            return phase.teacher
        return phase.teacher + (phase.teacher_end - phase.teacher) * done / max(1, self.phases[index].updates - 1)

    def seed_of(self, update: int, rank: int) -> int:
        """Seed of what a network draws in an update, as for stochastic depth."""
        return int(np.random.SeedSequence([self.seed, update, rank, 3]).generate_state(1, np.uint32)[0])


def rates_of(options) -> dict:
    """Of a `Recipe` what any training says, of forecasts or of anything else, by options of the same names."""
    optimizer = options.optimizer
    return {
        "lr": optimizer.lr,
        "final_lr": optimizer.final_lr,
        "warmup": optimizer.warmup_steps,
        "betas": tuple(optimizer.betas),
        "weight_decay": optimizer.weight_decay,
        "clip": optimizer.clip,
        "ema": options.ema,
        "seed": options.seed,
        "save_every": options.save_every,
        "log_every": options.log_every,
    }
