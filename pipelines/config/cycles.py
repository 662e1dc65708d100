"""The sections `assimilate` and `cycle`: kinds of analysis, derived from the options that their files declare."""

from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import Field

from emulator.assimilation.options import QualityOptions
from pipelines.config.base import Count, Model, Moment, Period, Positive
from pipelines.config.declared import OneOf, model_of


def _models() -> dict[str, type[Model]]:
    from emulator.assimilation.kinds import registry  # imports torch, which reading other sections does not need

    return {kind: model_of(registry.KINDS[kind].options, kind) for kind in registry.KINDS.names()}


AnalysisConfig = Annotated[Any, OneOf(_models, "3dvar")]


class CovarianceConfig(Model):
    """The static covariance of background errors, estimated once from differences of forecasts."""

    path: Path | None = Field(
        None,
        description="its file; by default covariance-DIGEST.nc beside the output, named by settings, data and model",
    )
    samples: int = Field(40, ge=2, description="differences of forecasts")
    period: Period = Field(Period(), description="of the store, from which they are; by default all of it")
    short_hours: Positive = Field(24, description="length of the shorter forecast")
    long_hours: Positive = Field(48, description="length of the longer forecast, for the same time")
    degrees: Count | None = Field(None, description="total wavenumbers; None: all that the grid resolves")
    modes: Count | None = Field(None, description="leading vertical modes of each group of variables; None: all")
    scale: Positive = Field(1.0, description="factor of the standard deviations")

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> "CovarianceConfig":
        if self.long_hours <= self.short_hours:
            raise ValueError(f"Expected long_hours above short_hours, {self.short_hours:g}, got {self.long_hours:g}")
        return self


class _Analysing(Model):
    """What an analysis needs, alone or in a cycle."""

    store: Path = Field(description="analysis store with the forcing, the first state and what differences start from")
    checkpoint: Path = Field(description="of the model that forecasts between analyses")
    observations: Path = Field(description="Parquet table of observations")
    analysis: AnalysisConfig = Field(default_factory=dict, validate_default=True, description="kind and its options")
    covariance: CovarianceConfig = CovarianceConfig()
    quality: model_of(QualityOptions) = Field(default_factory=dict, validate_default=True)
    window: Count = Field(
        1, description="times of a window, a step of the model apart; more than 1 for 4dvar and letkf"
    )
    output: Path = Field(description="folder of analyses, feedback and records")
    batch_size: Count = Field(8, description="members computed at a time")


class AssimilateConfig(_Analysing):
    """One analysis, of a state of a store and the observations of a window that begins at its time."""

    time: Moment = Field(description="of the analysis and of the background")
    background: Path | None = Field(None, description="analysis store with the background; None: `store`")


class InitialConfig(Model):
    """States that a cycle starts from."""

    store: Path | None = Field(None, description="analysis store with them; None: that of the cycle")
    time: Moment | None = Field(
        None, description="of the state in it, which may be another, wrong date; None: the start's"
    )
    members: Count = Field(1, description="of an ensemble: states of other dates around that time")
    members_every_hours: Positive = Field(24, description="between these dates")


class CycleConfig(_Analysing):
    """Analyses and forecasts by turns."""

    start: Moment = Field(description="of the first forecast; the first analysis is a step later")
    end: Moment = Field(description="the last time, included, if windows end there")
    initial: InitialConfig = InitialConfig()
    additive: float = Field(
        0.0, ge=0, description="random errors of members before an analysis, in those of the covariance"
    )
    seed: int = Field(0, ge=0, description="of these, and of the noise of a stochastic network")
