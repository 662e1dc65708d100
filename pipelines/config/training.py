"""Configuration of the training: budgets, loss, phases, validation, optimizer."""

from typing import Annotated, Literal

import pydantic
from pydantic import Field

from emulator.training.options import LossOptions, OptimizerOptions, Phase, TrainOptions, ValidationOptions
from pipelines.config.base import NEW, Model, Period, Positive, registered
from pipelines.config.declared import model_of
from pipelines.config.networks import NetworkConfig


class ConservationConfig(Model):
    """Which budgets are closed inside the step, and how; see docs/conservation.md."""

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
        json_schema_extra=NEW,
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
        from emulator.planet.quantities import registry

        return [registry.quantity(name).name for name in names]


OptimizerConfig = model_of(OptimizerOptions)
LossConfig = model_of(LossOptions)
PhaseConfig = model_of(Phase)
ValidationConfig = model_of(ValidationOptions, period=Period)


class TrainConfig(
    model_of(
        TrainOptions,
        period=Period,
        validation=ValidationConfig | None,
        network=NetworkConfig,
        conservation=ConservationConfig,
        variable_weights=dict[str, Positive],
        level_weights=Literal["alike", "mass"] | list[Positive],
        predict=Annotated[str, registered("emulator.model.predictions:PREDICTIONS", "change")],
    )
):
    """One network trained on one store."""

    tensorboard: bool = Field(False, description="write the log for TensorBoard too; needs the extra tensorboard")
    mlflow: bool = Field(
        False, description="write it for MLflow too, into output/mlruns or MLFLOW_TRACKING_URI; needs the extra mlflow"
    )
    threads: int | None = None

    @property
    def members(self) -> int:
        """Forecasts of every sample."""
        return self.loss.members if self.loss.kind in ("crps", "energy") else 1
