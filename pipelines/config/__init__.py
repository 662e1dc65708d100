"""Every knob of every stage: passive models over YAML, which `pipelines.load` reads.

Of the library it knows the options that this declares, without torch; registries are asked where a section is validated.
"""

from pathlib import Path

import pydantic

from pipelines.config.base import NEW, ConfigError, Count, DaskConfig, DaskSlurmConfig, Model, Period
from pipelines.config.cycles import AssimilateConfig, CycleConfig
from pipelines.config.data import (
    GridConfig,
    IngestConfig,
    OutflowConfig,
    SimulateConfig,
    SourceConfig,
    StatsConfig,
    VerticalConfig,
)
from pipelines.config.downscaling import DownscaleConfig, TrainDownscalingConfig
from pipelines.config.forecasts import (
    CascadeConfig,
    EnsembleConfig,
    ObservationsConfig,
    RolloutConfig,
    ThinConfig,
    VerifyConfig,
)
from pipelines.config.learn import LearnConfig
from pipelines.config.losses import LossConfig
from pipelines.config.networks import NetworkConfig, network_config
from pipelines.config.observe import ObserveConfig
from pipelines.config.report import ReportConfig
from pipelines.config.training import (
    ConservationConfig,
    OptimizerConfig,
    PhaseConfig,
    TrainConfig,
    ValidationConfig,
)

__all__ = [
    "STAGES",
    "AssimilateConfig",
    "CascadeConfig",
    "ConfigError",
    "ConservationConfig",
    "Count",
    "CycleConfig",
    "DaskConfig",
    "DaskSlurmConfig",
    "DownscaleConfig",
    "EnsembleConfig",
    "Experiment",
    "GridConfig",
    "IngestConfig",
    "LearnConfig",
    "LossConfig",
    "Model",
    "NetworkConfig",
    "ObservationsConfig",
    "ObserveConfig",
    "OptimizerConfig",
    "OutflowConfig",
    "Period",
    "PhaseConfig",
    "ReportConfig",
    "RolloutConfig",
    "SimulateConfig",
    "SourceConfig",
    "StatsConfig",
    "ThinConfig",
    "TrainConfig",
    "TrainDownscalingConfig",
    "ValidationConfig",
    "VerifyConfig",
    "VerticalConfig",
    "network_config",
]


class Experiment(Model):
    """A chain of stages over one run directory; absent stages are skipped."""

    directory: Path
    simulate: SimulateConfig | None = None
    ingest: IngestConfig | None = None
    stats: StatsConfig | None = None
    outflow: OutflowConfig | None = pydantic.Field(None, json_schema_extra=NEW)
    train: TrainConfig | None = None
    observe: ObserveConfig | None = pydantic.Field(None, json_schema_extra=NEW)
    learn: LearnConfig | None = pydantic.Field(None, json_schema_extra=NEW)
    assimilate: AssimilateConfig | None = pydantic.Field(None, json_schema_extra=NEW)
    cycle: CycleConfig | None = pydantic.Field(None, json_schema_extra=NEW)
    rollout: RolloutConfig | None = None
    train_downscaling: TrainDownscalingConfig | None = pydantic.Field(None, json_schema_extra=NEW)
    downscale: DownscaleConfig | None = pydantic.Field(None, json_schema_extra=NEW)
    verify: VerifyConfig | None = None
    report: ReportConfig | None = None

    @pydantic.model_validator(mode="after")
    def _stores_of_their_own(self) -> "Experiment":
        """No forecast takes the place of an analysis: scenarios name stores of both."""
        analyses = {one.output for one in self.ingest.stores()} if self.ingest else set()
        for name, store in self.rollout.scenario_stores.items() if self.rollout else ():
            if store in analyses:
                raise ValueError(f"Expected rollout.scenarios named otherwise than the stores of ingest, got {name!r}")
        return self


STAGES: dict[str, type[Model]] = {
    "simulate": SimulateConfig,
    "ingest": IngestConfig,
    "stats": StatsConfig,
    "outflow": OutflowConfig,
    "train": TrainConfig,
    "observe": ObserveConfig,
    "learn": LearnConfig,
    "assimilate": AssimilateConfig,
    "cycle": CycleConfig,
    "rollout": RolloutConfig,
    "train_downscaling": TrainDownscalingConfig,
    "downscale": DownscaleConfig,
    "verify": VerifyConfig,
    "report": ReportConfig,
}
