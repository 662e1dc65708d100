"""Configuration of the stages train_downscaling and downscale."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from emulator.downscaling.options import ApplyOptions, DownscalingOptions
from pipelines.config.base import Period, Positive
from pipelines.config.declared import OneOf, model_of
from pipelines.config.networks import network_models

NETWORKS = OneOf(network_models, "unet")


class TrainDownscalingConfig(
    model_of(DownscalingOptions, period=Period, network=Annotated[Any, NETWORKS], variable_weights=dict[str, Positive])
):
    """A network from the fields of a coarse store to those of a fine one, at the same times or at several within a step."""


class DownscaleConfig(model_of(ApplyOptions, period=Period, method=None)):
    """The fine fields of a coarse store, of analyses or of forecasts, by a trained network, and by interpolation beside."""

    checkpoint: Path = Field(description="of the network, as train_downscaling writes it")
    store: Path = Field(description="coarse analysis or forecast store")
    output: Path = Field(description="the fine store")
    bilinear: Path | None = Field(None, description="the same by interpolation alone, to compare with")
