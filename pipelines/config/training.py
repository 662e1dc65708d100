"""Configuration of the training: budgets, loss, phases, validation, optimizer."""

from pathlib import Path
from typing import Literal

import pydantic
from pydantic import Field

from pipelines.config.base import Count, Fraction, Model, Period, Positive, Precision
from pipelines.config.networks import DEFAULT_KIND, NetworkConfig


class ConservationConfig(Model):
    """Which budgets are closed inside the step, and how; see docs/conservation.md."""

    ADDED = frozenset({"bands"})

    kind: Literal["none", "sequential", "projection"] = "sequential"
    budgets: list[str] = Field(
        ["dry_air", "water", "energy"],
        validate_default=False,
        description="of the registered quantities: these, column_water, ...",
    )
    energy: Literal["hydrostatic", "total"] = "hydrostatic"
    heat_capacity: Literal["constant", "moist"] = "constant"
    kinetic: bool = True
    anchor: Literal["initial", "previous", "given"] = "initial"
    dry_mass: Positive | None = Field(None, description="kg m-2, with the anchor 'given'")
    dry_air: Literal["ratio", "offset", "humidity"] | None = None
    water: Literal["precipitation", "evaporation"] = "precipitation"
    temperature: Literal["uniform", "ratio"] = "uniform"
    controls: list[str] | None = Field(None, description="fields that the projection may change")
    bands: list[float] = Field(
        [],
        description="latitudes between bands in which the projection closes water; needs its transport's divergence",
    )
    unaccounted: list[Literal["heating", "moistening", "dry_mass"]] = Field(
        ["heating", "moistening"], description="mean residuals of the training data that are let stand, not forced to 0"
    )
    penalty: float = Field(
        0.0, ge=0, description="weight of the squared residuals in the loss; works with kind none too"
    )

    @pydantic.field_validator("budgets")
    @classmethod
    def _registered(cls, names: list[str]) -> list[str]:
        from emulator.planet.quantities import quantity  # not before a configuration is read

        return [quantity(name).name for name in names]


class OptimizerConfig(Model):
    lr: Positive = 2e-3
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    warmup_steps: int = Field(100, ge=0)
    final_lr: float = Field(0.0, ge=0)
    clip: Positive = 1.0


class LossConfig(Model):
    """Error of a step, in units of a typical change; `spectral` weights its square by (1 + l (l + 1))^power.

    `crps` and `energy` are fair scores of several members, for networks with noise (docs/models.md).
    """

    kind: Literal["mse", "l1", "huber", "spectral", "crps", "energy"] = "mse"
    members: int = Field(2, ge=2, description="of crps and energy: forecasts of every sample")
    delta: Positive = Field(1.0, description="of huber: where the square ends")
    power: float = Field(0.5, description="of spectral: above 0 small scales count more")


class PhaseConfig(Model):
    """A stretch of training with one number of autoregressive steps."""

    updates: Count
    rollout_steps: Count = 1
    batch_size: Count = Field(4, description="over all processes")
    lr_scale: Positive = 1.0
    random_steps: bool = Field(False, description="every update draws its number of steps from 1 to rollout_steps")
    gradient_steps: int = Field(0, ge=0, description="gradients reach no more steps back; 0: through the whole window")
    teacher: Fraction = Field(0.0, description="probability that a step starts from the truth, not the network's state")
    replay: float = Field(0.0, ge=0, lt=1, description="share of samples that go on from the network's own last states")
    replay_most: Count = Field(16, description="windows in a row that a sample may go on")
    accumulate: Count = Field(1, description="parts that a batch is computed in, for less memory")

    @pydantic.model_validator(mode="after")
    def _parts_of_equal_size(self) -> "PhaseConfig":
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"Expected batch_size {self.batch_size} to divide into {self.accumulate} parts (accumulate)"
            )
        return self


class ValidationConfig(Model):
    """Validation while training on times that it does not see: one step, and short rollouts, whose skill chooses."""

    period: Period
    every: Count = Field(250, description="updates between validations")
    windows: Count = Field(16, description="initial times, spread evenly over the period")
    steps: Count = Field(12, description="length of the rollouts")
    batch_size: Count = Field(4, description="of each process")
    patience: int = Field(0, ge=0, description="end after so many validations without a better one; 0: never")
    choose: Literal["best", "last"] = Field("best", description="weights of the best rollouts, or the last ones")


class TrainConfig(Model):
    """One network trained on one store."""

    store: Path
    statistics: Path
    output: Path
    period: Period = Period()
    validation: ValidationConfig | None = None
    prognostic: list[str] | None = Field(None, description="None: by the roles in the store")
    diagnostic: list[str] | None = None
    forcing: list[str] | None = None
    network: NetworkConfig = Field({"kind": DEFAULT_KIND})
    conservation: ConservationConfig = ConservationConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    phases: list[PhaseConfig] = Field(default_factory=lambda: [PhaseConfig(updates=1000)], min_length=1)
    loss: LossConfig = LossConfig()
    variable_weights: dict[str, Positive] = Field(default_factory=dict, description="weight in the loss, by variable")
    level_weights: Literal["alike", "mass"] | list[Positive] = Field(
        "alike",
        description="of a variable's levels from the top down: alike, by their share of the air, or one number each",
    )
    diagnostic_weight: Positive = Field(0.2, description="weight of the diagnostics that variable_weights leaves out")
    damping: Fraction = Field(
        1.0, description="share of the optimal linear relaxation to the mean in the residual step"
    )
    ema: Fraction = Field(0.0, description="decay of the exponential moving average of the weights; 0 keeps none")
    margin: float = Field(
        0.5, ge=0, description="states stay in the training data's local range, widened by this share"
    )
    seed: int = 0
    later_stores: list[Path] = Field(
        default_factory=list,
        description="stores like the first that go on after it; windows cross the seam where they meet",
    )
    cache_gigabytes: float = Field(3.0, ge=0, description="hold the period in memory when it needs at most this")
    loader_threads: Count = Field(2, description="that read and decompress, when the period is not held in memory")
    precision: Precision = Field(
        "float32", description="of the network's products; budgets and losses are never halved"
    )
    compile: bool = Field(False, description="torch.compile the network")
    checkpoint_steps: bool = Field(
        False, description="compute steps again in the backward pass: less memory, a third slower"
    )
    parallel: Literal["ddp", "fsdp"] = Field("ddp", description="each process holds the network, or a part of it")
    save_every: Count = Field(250, description="updates between resumable checkpoints")
    save_minutes: Positive = Field(5.0, description="time after which one is saved also between those")
    keep: Count = Field(2, description="resumable checkpoints to keep; the one before serves where the last is damaged")
    retries: int = Field(0, ge=0, description="after divergence go back to the last good checkpoint with half the rate")
    loss_limit: Positive | None = Field(
        None,
        description="a loss above it counts as divergence; predicting no change scores about 1 by the squared error",
    )
    log_every: Count = 20
    tensorboard: bool = Field(False, description="write the log for TensorBoard too; needs the extra tensorboard")
    mlflow: bool = Field(
        False, description="write it for MLflow too, into output/mlruns or MLFLOW_TRACKING_URI; needs the extra mlflow"
    )
    threads: int | None = None

    @pydantic.model_validator(mode="after")
    def _members_that_differ(self) -> "TrainConfig":
        if self.loss.kind in ("crps", "energy") and getattr(self.network, "noise", None) is None:
            raise ValueError(
                f"Expected network.noise with loss.kind {self.loss.kind}: without, all members are the same"
            )
        return self

    @property
    def members(self) -> int:
        """Forecasts of every sample."""
        return self.loss.members if self.loss.kind in ("crps", "energy") else 1
