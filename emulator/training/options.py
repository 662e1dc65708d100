"""How to train: every option of a training with its default, its meaning and its limits. Needs no torch."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from emulator.generative.windows import INTERPOLATOR, horizon_of, windowed
from emulator.losses.options import LossOptions, RegionWeight, members_of
from emulator.options import Options, option
from emulator.training.phases import MaskOptions, Phase, check_single


@dataclasses.dataclass(frozen=True)
class OptimizerOptions(Options):
    """AdamW with a linear warm-up and a cosine decay over all phases."""

    lr: float = option(2e-3, above=0)
    weight_decay: float = option(0.0, minimum=0)
    betas: tuple[float, float] = option((0.9, 0.95), minimum=0, maximum=1)
    warmup_steps: int = option(100, minimum=0)
    final_lr: float = option(0.0, minimum=0)
    clip: float = option(1.0, "largest norm of the gradient", above=0)


@dataclasses.dataclass(frozen=True)
class ForecastOptions(Options):
    """Stored forecasts from which the windows of a training start, in place of the analysis."""

    store: Path = option()
    lead_days: tuple[float, float] = option((0.0, 1e4), "days: the least and the most of their leads", minimum=0)

    def __post_init__(self):
        super().__post_init__()
        if self.lead_days[0] > self.lead_days[1]:
            raise ValueError(f"Expected forecasts.lead_days from the least to the most, got {list(self.lead_days)}")


@dataclasses.dataclass(frozen=True)
class PeriodOptions(Options):
    """Times from `start` to `end`, both included; None is open."""

    start: Any = option(None)
    end: Any = option(None)


@dataclasses.dataclass(frozen=True)
class ValidationOptions(Options):
    """Validation while training on times that it does not see: one step, and short rollouts, whose skill chooses."""

    period: PeriodOptions = option()
    every: int = option(250, "updates between validations", minimum=1)
    windows: int = option(16, "initial times, spread evenly over the period", minimum=1)
    steps: int = option(12, "length of the rollouts", minimum=1)
    batch_size: int = option(4, "of each process", minimum=1)
    patience: int = option(
        0, "end after so many validations without a better one, of those after phases.single; 0: never", minimum=0
    )
    choose: Literal["best", "last"] = option("best", "weights of the best rollouts, or the last ones")


@dataclasses.dataclass(frozen=True)
class ParallelOptions(Options):
    """How processes that train together share the work out. `ddp` or `fsdp` alone says what each holds of the network."""

    space: int = option(1, "processes that hold one state together, each a band of latitudes", minimum=1)
    weights: Literal["ddp", "fsdp"] = option("ddp", "each process holds the network, or a part of it")

    @classmethod
    def of(cls, given: Mapping[str, Any] | str) -> "ParallelOptions":
        """Options from what YAML can hold, or from the one word that they once were."""
        return super().of({"weights": given} if isinstance(given, str) else given)


@dataclasses.dataclass(frozen=True)
class LoraOptions(Options):
    """Low-rank adapters (Hu et al. 2021): a weight changes by a product of two small factors, the network else stays.

    A weight by degree, as a spherical filter, has two factors that all degrees share, and numbers of its own for each degree.
    """

    rank: int = option(8, "of the change of a weight", minimum=1)
    alpha: float = option(8.0, "the change is alpha / rank times the product of its factors", above=0)
    layers: tuple[str, ...] = option(("*",), "patterns of the weights that get an adapter", shortest=1)
    besides: tuple[str, ...] = option((), "patterns of what is trained whole beside the adapters")


@dataclasses.dataclass(frozen=True)
class BoundaryOptions(Options):
    """Driving data outside a limited area, given at both ends of every step (docs/limited_area.md)."""

    store: Path = option(about="analysis of any grid and step that covers the boundary")
    variables: tuple[str, ...] | None = option(None, "None: the prognostic ones of the training")
    width: int = option(4, "of the frame, in cells of the domain", minimum=1)
    width_degrees: float | None = option(None, "in place of width: as many cells as that needs", above=0)
    place: Literal["outside", "inside"] = option(
        "outside",
        "inside: the outermost cells of the domain are set to the driving data after every step; the loss leaves them out",
    )
    outflow: Path | None = option(
        None,
        "what leaves the domain by its sides over every step, with which conservation closes its budgets",
        new=True,
    )


@dataclasses.dataclass(frozen=True)
class StartOptions(Options):
    """Weights that a training starts from. Patterns are those of file names, for names of the network's parameters."""

    checkpoint: Path = option(about="whose weights are taken")
    statistics: Literal["new", "old"] = option(
        about="normalisation by the statistics of the new data, to which first and last layers are rescaled, or as the "
        "checkpoint has it"
    )
    freeze: tuple[str, ...] = option((), "patterns of what keeps its values")
    lora: LoraOptions | None = option(None, "adapters of low rank in place of the weights themselves")
    lr_by: dict[str, float] = option(
        {}, "factor of the learning rate by pattern; the last that matches counts", above=0
    )
    l2_start: float = option(
        0.0, "share of the rate by which every update draws weights to where they started", minimum=0
    )


@dataclasses.dataclass(frozen=True)
class PosteriorOptions(Options):
    """A distribution of weights that a training leaves beside its checkpoint, for ensembles whose members draw theirs."""

    kind: Literal["swag", "laplace"] = option(
        "swag", "of the states that are kept after multiples of save_every updates, or of one layer's weight"
    )
    rank: int = option(20, "of swag: the last states whose departures from the mean are kept", minimum=2)
    layer: str = option("", "of laplace: the last layer's weight, such as decoder.layers.0.weight")
    samples: int = option(32, "of laplace: samples that the features are estimated from", minimum=4)
    prior: float = option(1.0, "of laplace: precision of the prior", above=0)


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
        if self.members > 1:
            raise ValueError(
                f"Expected a loss of single forecasts, such as l1, with objective {kind}, got {self.loss.kind}"
            )
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
