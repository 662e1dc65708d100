"""Configuration of the networks, one class a kind."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from pipelines.config.base import Count, Fraction, Model, Positive

Precision = Literal["float32", "bfloat16"]
Skip = Literal["none", "identity", "linear"]


class NoiseConfig(Model):
    """Gaussian random fields on the sphere, new at every step, that make a network stochastic (docs/models.md)."""

    length_scales: list[Annotated[float, Field(ge=0)]] = Field(
        [2000.0, 500.0], min_length=1, description="km, at which the correlation has fallen to 0.61; 0: white noise"
    )
    channels: Count = Field(4, description="independent fields of every length scale")
    correlation: float = Field(0.0, ge=0, lt=1, description="of a step's fields with those of the step before")

    @property
    def count(self) -> int:
        return len(self.length_scales) * self.channels


Noise = Annotated[NoiseConfig | None, Field(description="random fields that scale and shift normalised features")]


class SFNOConfig(Model):
    """Spherical Fourier neural operator; the fields are those of `emulator.models.sfno.SFNOOptions`."""

    kind: Literal["sfno"] = "sfno"
    embed_dim: Count = 64
    blocks: Count = 4
    scale_factor: float = Field(1, ge=1)
    truncation: Fraction | None = None
    filter: Literal["complex", "real", "diagonal", "low_rank"] = "complex"
    filter_precision: Precision = "float32"
    rank: Count = 16
    spectral_layers: Count = 1
    mlp_ratio: float = Field(2.0, ge=0)
    mlp_precision: Precision = "float32"
    stencil: int = Field(1, ge=1, description="cells each way that a block's MLP takes in, odd; 3 learns much faster")
    encoder_layers: int = Field(1, ge=0)
    norm: Literal["instance", "area_instance", "layer", "none"] = "instance"
    pre_norm: Literal["none", "branch", "stream"] = "stream"
    activation: bool = True
    inner_skip: Skip = "linear"
    outer_skip: Skip = "identity"
    big_skip: Literal["none", "concat", "add"] = "concat"
    position: Literal["none", "harmonics", "learned"] = "none"
    noise: Noise = None
    condition: list[str] = Field(
        default_factory=list, description="time_of_year, or forcing without levels, to scale and shift all features by"
    )
    checkpointing: bool = False
    drop_path: Fraction = 0.0
    zero_output: bool = False


class GraphConfig(Model):
    """Message passing on an icosahedral mesh; see `emulator.mesh.MeshOptions` and `emulator.models.graph.GraphOptions`."""

    kind: Literal["graph"] = "graph"
    refinement: int = Field(4, ge=0, le=8, description="halvings of the icosahedron: 10 * 4^n + 2 nodes")
    multi: bool = Field(True, description="edges of all refinements (GraphCast), or of the finest alone (Keisler)")
    radius: float = Field(0.6, ge=0.58, le=4, description="reach of a cell, as a share of the longest finest edge")
    file: Path | None = Field(None, description="where the graph is kept; made there if absent; None: in memory")
    width: Count = 128
    rounds: Count = 8
    noise: Noise = None
    precision: Precision = "float32"
    checkpointing: bool = False
    zero_output: bool = False


class UNetConfig(Model):
    """U-Net with convolutions around the sphere; the fields are those of `emulator.models.unet.UNetOptions`."""

    kind: Literal["unet"] = "unet"
    width: Count = 48
    depth: Count = 3
    blocks: Count = 1
    noise: Noise = None
    checkpointing: bool = False
    zero_output: bool = False


class TorchHarmonicsConfig(Model):
    """torch-harmonics' own SFNO, a baseline; options by its names."""

    kind: Literal["torch_harmonics"] = "torch_harmonics"
    embed_dim: Count = 64
    num_layers: Count = 4
    scale_factor: Count = 1
    mlp_ratio: Positive = 2.0
    normalization_layer: Literal["instance_norm", "layer_norm", "none"] = "instance_norm"
    residual_prediction: bool = False


def _kind_given(value: Any) -> Any:
    """A network without a kind is an SFNO."""
    return {"kind": "sfno"} | value if isinstance(value, dict) else value


NetworkConfig = Annotated[
    SFNOConfig | GraphConfig | UNetConfig | TorchHarmonicsConfig,
    Field(discriminator="kind"),
    pydantic.BeforeValidator(_kind_given),
]
