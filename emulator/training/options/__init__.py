"""How to train: every option of a training with its default, its meaning and its limits, and which go together.

Needs no torch.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from emulator.generative.windows import INTERPOLATOR, horizon_of, windowed
from emulator.losses.options import LossOptions, RegionWeight, members_of
from emulator.options import Options, option
from emulator.training.options.phases import MaskOptions, Phase, check_single
from emulator.training.options.sections import (
    BoundaryOptions,
    ForecastOptions,
    OptimizerOptions,
    ParallelOptions,
    PeriodOptions,
    PosteriorOptions,
    StartOptions,
    ValidationOptions,
)


@dataclasses.dataclass(frozen=True)
class TrainOptions(Options):
    """One network trained on one store, or on several that follow one another.

    `network` and `conservation` are mappings of `kind` and options, as in a configuration.
    """

    store: Path = option()
    statistics: Path = option()
    output: Path = option()
    period: PeriodOptions = option(PeriodOptions())
    validation: ValidationOptions | None = option(None)
    prognostic: tuple[str, ...] | None = option(None, "None: by the roles in the store")
    diagnostic: tuple[str, ...] | None = option(None)
    forcing: tuple[str, ...] | None = option(None)
    forcing_moments: dict[str, Literal["start", "end", "both", "mean"]] = option(
        {}, "of a step, by forcing variable; of those not named snapshots at the start, means at the end", new=True
    )
    history: int = option(1, "input times, one step apart", minimum=1, new=True)
    steps: tuple[float, ...] = option(
        (),
        "hours: lengths of the steps that it learns, of which every update draws one; none: the store's",
        above=0,
        new=True,
    )
    mask_channels: bool = option(
        False, "the network is given the masks of variables that do not exist everywhere", new=True
    )
    gaps: Literal["refused", "zero", "told"] = option(
        "refused",
        "states that lack variables or cells: refused; given to the network as the mean; or so with a channel for each "
        "prognostic variable that tells where it is known",
        new=True,
    )
    forecasts: ForecastOptions | None = option(
        None, "forecasts of an earlier network, from which windows start; truth stays the analysis", new=True
    )
    predict: str = option(
        "change",
        "what the network predicts: the change over a step, the state, or its anomaly (emulator/model/predictions)",
        new=True,
    )
    climatology: Path | None = option(None, "of predict anomaly: the store that stats writes", new=True)
    boundary: BoundaryOptions | None = option(
        None, "of a limited area: the state outside; None: nothing is known of it", new=True
    )
    network: dict[str, Any] = option({"kind": "sfno"})
    objective: dict[str, Any] = option(
        {"kind": "regression"},
        "regression by the loss; how a step is sampled: flow_matching, interpolant or edm with its options; or windows of "
        "steps: dyffusion_interpolator, then dyffusion",
        new=True,
    )
    start: StartOptions | None = option(None, "weights to start from, in place of fresh ones", new=True)
    conservation: dict[str, Any] = option({})
    optimizer: OptimizerOptions = option(OptimizerOptions())
    phases: tuple[Phase, ...] = option((Phase(1000),), shortest=1)
    loss: LossOptions = option(LossOptions())
    variable_weights: dict[str, float] = option({}, "weight in the loss, by variable")
    level_weights: Any = option(
        "alike", "of a variable's levels from the top down: alike, by their share of the air (mass), or one number each"
    )
    diagnostic_weight: float = option(0.2, "weight of the diagnostics that variable_weights leaves out", above=0)
    region_weight: RegionWeight | None = option(
        None, "a region and its share of the loss; None: cells count by area", new=True
    )
    damping: float = option(
        1.0, "share of the optimal linear relaxation to the mean in the residual step", minimum=0, maximum=1
    )
    ema: float = option(
        0.0, "decay of the exponential moving average of the weights; 0 keeps none", minimum=0, maximum=1
    )
    bounds: Literal["envelope", "physical", "none"] = option(
        "envelope",
        "states stay in the training data's local range (of the statistics' period), in their variables' physical limits, or "
        "are free",
        new=True,
    )
    margin: float | dict[str, float] = option(
        0.5, "share by which the envelope is widened; by variable: 0.5 of those that are not named", minimum=0
    )
    seed: int = option(0)
    later_stores: tuple[Path, ...] = option(
        (), "stores like the first that go on after it; windows cross the seam where they meet"
    )
    scenarios: tuple[Path, ...] = option(
        (),
        "further stores like the first of any times, such as other scenarios or members; no window leads to another",
        new=True,
    )
    cache_gigabytes: float = option(3.0, "hold the period in memory when it needs at most this", minimum=0)
    posterior: PosteriorOptions | None = option(
        None, "a distribution of weights beside the checkpoint, for rollout.ensemble.weights; None: none", new=True
    )
    loader_threads: int = option(2, "that read and decompress, when the period is not held in memory", minimum=1)
    precision: Literal["float32", "bfloat16"] = option(
        "float32", "of the network's products; budgets and losses are never halved"
    )
    compile: bool = option(False, "torch.compile the network")
    checkpoint_steps: bool = option(False, "compute steps again in the backward pass: less memory, a third slower")
    checkpoint_rows: int = option(
        0,
        "forecasts, as the members of a sample, that the network is run on at a time, and again in the backward pass, so "
        "that of the others only fields are kept; 0: all at once",
        minimum=0,
        new=True,
    )
    parallel: ParallelOptions = option(ParallelOptions(), "what the processes share out: states, weights")
    save_every: int = option(250, "updates between resumable checkpoints", minimum=1)
    save_minutes: float = option(5.0, "time after which one is saved also between those", above=0)
    keep: int = option(2, "resumable checkpoints to keep; the one before serves where the last is damaged", minimum=1)
    retries: int = option(0, "after divergence go back to the last good checkpoint with half the rate", minimum=0)
    loss_limit: float | None = option(
        None,
        "a loss above it, in phases.single the squared error, counts as divergence; no change scores about 1 by that",
        above=0,
    )
    log_every: int = option(20, minimum=1)
    overwrite: bool = option(
        False, "replace a finished checkpoint of another training, which else has to be moved away", new=True
    )

    def __post_init__(self):
        super().__post_init__()
        if self.members > 1 and not self.network.get("noise"):
            raise ValueError(
                f"Expected network.noise with loss.kind {self.loss.kind}: without, all members are the same"
            )
        check_single(self.phases, self.loss.kind, self.members, self.steps)
        self._check_objective()
        onward = any(phase.replays for phase in self.phases)
        if len(self.steps) > 1 and self.history > 1 and (onward or self.forecasts):
            raise ValueError(
                "Expected steps of one length with a history and replay or forecasts: states that go on lie one step apart"
            )
        if self.forecasts and self.scenarios:
            raise ValueError(
                "Expected windows that start from forecasts, or scenarios, whose times are not one's own, got both"
            )
        if self.forecasts and onward:
            raise ValueError("Expected windows that start from forecasts or go on by replay, got both")
        self._check_gaps([phase.masks for phase in self.phases if phase.masks])
        if self.steps and self.conservation.get("penalty"):
            raise ValueError("Expected steps of the store's own length with conservation.penalty, got others")

    def _check_objective(self) -> None:
        if self.objective == {"kind": "regression"}:
            return
        if windowed(self.objective):
            self._check_windows()
        else:
            from emulator.generative.objectives import objective  # torch, which other trainings are read without

            objective(dict(self.objective))
            if self.loss.kind != "mse":
                raise ValueError(f"Expected loss.kind mse with train.objective, got {self.loss.kind}")
        if self.conservation.get("penalty"):
            raise ValueError("Expected no conservation.penalty with train.objective, got one")
        if (
            self.steps
            or self.gaps != "refused"
            or any(p.rollout_steps > 1 or p.replays or p.masks for p in self.phases)
        ):
            raise ValueError(
                "Expected phases of one step from true, whole states with train.objective, got rollout_steps, replay, "
                "masks, gaps or steps of several lengths"
            )
        if self.start or self.parallel.space > 1:
            raise ValueError(
                "Expected fresh weights and states that one process holds with train.objective, got others"
            )

    def _check_windows(self) -> None:
        kind = self.objective["kind"]
        if kind != INTERPOLATOR and self.members > 1:
            raise ValueError(
                f"Expected a loss of single forecasts, such as l1, with objective {kind}, got {self.loss.kind}"
            )
        if any(phase.single for phase in self.phases):
            raise ValueError(f"Expected no phases of single forecasts (phases.single) with objective {kind}, got some")
        needed = horizon_of(self.objective) if kind == INTERPOLATOR and self.validation else 1
        if self.validation and self.validation.steps < needed:
            raise ValueError(
                f"Expected validation.steps of at least the horizon {needed} of the interpolator, got {self.validation.steps}"
            )
        if self.predict != "change" or self.history > 1 or self.forecasts:
            raise ValueError(f"Expected predict change, history 1 and no forecasts with objective {kind}, got others")
        if self.compile or self.parallel.weights != "ddp" or self.posterior:
            raise ValueError(
                f"Expected no compile, parallel.weights or posterior with objective {kind}, got one of them"
            )

    def _check_gaps(self, masks: list[MaskOptions]) -> None:
        if self.gaps == "refused":
            if masks:
                raise ValueError("Expected train.gaps zero or told with phases that mask states, got refused")
            return
        if self.conservation.get("kind") != "none" or self.conservation.get("penalty"):
            raise ValueError(
                "Expected conservation {kind: none} without a penalty with train.gaps, since budgets of a state that lacks "
                f"cells are unknown, got {self.conservation.get('kind', 'the default')}"
            )
        if any(not each.lead for each in masks) and (self.steps or self.forecasts):
            raise ValueError("Expected masks.lead 0 without train.steps and train.forecasts, got it with one of them")

    @property
    def members(self) -> int:
        """Forecasts of every sample."""
        return members_of(self.loss)

    @property
    def paths(self) -> list[Path]:
        """All stores, those that follow one another in the order of time, then the scenarios."""
        return [self.store, *self.later_stores, *self.scenarios]
