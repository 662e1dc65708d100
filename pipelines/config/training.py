"""Configuration of the training: budgets, loss, phases, validation, optimizer."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from emulator.conservation.options import ConservationOptions
from emulator.losses.options import members_of
from emulator.training.options import TrainOptions
from emulator.training.options.phases import Phase
from emulator.training.options.sections import (
    LoraOptions,
    OptimizerOptions,
    ParallelOptions,
    PosteriorOptions,
    StartOptions,
    ValidationOptions,
)
from pipelines.config.base import Period, Positive, registered
from pipelines.config.declared import model_of
from pipelines.config.losses import LossConfig
from pipelines.config.networks import NetworkConfig

ConservationConfig = model_of(ConservationOptions, humidity_from_level=None, relative=None)
OptimizerConfig = model_of(OptimizerOptions)
PhaseConfig = model_of(Phase)
ValidationConfig = model_of(ValidationOptions, period=Period)
ParallelConfig = model_of(ParallelOptions)
LoraConfig = model_of(LoraOptions)
PosteriorConfig = model_of(PosteriorOptions)
StartConfig = model_of(StartOptions, lora=LoraConfig | None, lr_by=dict[str, Positive])


def _weights_alone(value: Any) -> Any:
    """`ddp` or `fsdp`, as older configurations have it, says what each process holds of the network."""
    return {"weights": value} if isinstance(value, str) else value


def _as_before(parallel: Any) -> str | dict:
    """The one word where it says all, so that fingerprints of older runs stay."""
    return parallel.weights if parallel.space == 1 else {"space": parallel.space, "weights": parallel.weights}


class TrainConfig(
    model_of(
        TrainOptions,
        period=Period,
        validation=ValidationConfig | None,
        network=NetworkConfig,
        start=StartConfig | None,
        posterior=PosteriorConfig | None,
        conservation=ConservationConfig,
        loss=LossConfig,
        variable_weights=dict[str, Positive],
        level_weights=Literal["alike", "mass"] | list[Positive],
        parallel=Annotated[ParallelConfig, BeforeValidator(_weights_alone), PlainSerializer(_as_before)],
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
        return members_of(self.loss)
