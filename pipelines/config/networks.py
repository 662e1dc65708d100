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
    """Spherical Fourier neural operator; the fields are those of `emulator.networks.sfno.SFNOOptions`."""

    kind: Literal["sfno"] = "sfno"
    embed_dim: Count = Field(64, description="channels of the state")
    blocks: Count = Field(4, description="each a transform, a filter, the transform back and an MLP")
    scale_factor: float = Field(1, ge=1, description="how much coarser the inner blocks' grid is")
    truncation: Fraction | None = Field(
        None, description="share of the inner grid's degrees to keep; none: those that its quadrature resolves"
    )
    filter: Literal["complex", "real", "diagonal", "low_rank"] = Field(
        "complex", description="of channels, degree by degree"
    )
    filter_precision: Precision = Field("float32", description="of its products")
    rank: Count = Field(16, description="directions of a low_rank filter")
    spectral_layers: Count = Field(1, description="filters in a block, with a gate between them")
    mlp_ratio: float = Field(2.0, ge=0, description="hidden width of a block's MLP over embed_dim; 0: no MLP")
    mlp_precision: Precision = Field("float32", description="of the products of linear layers")
    stencil: int = Field(1, ge=1, description="cells each way that a block's MLP takes in, odd; 3 learns much faster")
    encoder_layers: int = Field(1, ge=0, description="hidden layers of encoder and decoder; 0: linear, as published")
    norm: Literal["instance", "area_instance", "layer", "none"] = Field("instance", description="before the MLP")
    pre_norm: Literal["none", "branch", "stream"] = Field(
        "stream", description="before the transform: for the branch alone, or for the skips too"
    )
    activation: bool = Field(True, description="GELU between filter and MLP")
    inner_skip: Skip = Field("linear", description="around the filter")
    outer_skip: Skip = Field("identity", description="around the block")
    big_skip: Literal["none", "concat", "add"] = Field(
        "concat", description="the input is handed to the decoder, or added to the output"
    )
    position: Literal["none", "harmonics", "learned"] = Field("none", description="what tells cells where they lie")
    noise: Noise = None
    condition: list[str] = Field(
        default_factory=list, description="time_of_year, or forcing without levels, to scale and shift all features by"
    )
    checkpointing: bool = Field(False, description="compute blocks again in the backward pass instead of storing them")
    drop_path: Fraction = Field(
        0.0, description="probability to skip the last block's branch, growing from 0 at the first"
    )
    zero_output: bool = Field(False, description="the decoder starts at zero")


class GraphConfig(Model):
    """Message passing on an icosahedral mesh; see `emulator.sphere.mesh` and `emulator.networks.graph`."""

    kind: Literal["graph"] = "graph"
    refinement: int = Field(4, ge=0, le=8, description="halvings of the icosahedron: 10 * 4^n + 2 nodes")
    multi: bool = Field(True, description="edges of all refinements (GraphCast), or of the finest alone (Keisler)")
    radius: float = Field(0.6, ge=0.58, le=4, description="reach of a cell, as a share of the longest finest edge")
    file: Path | None = Field(None, description="where the graph is kept; made there if absent; None: in memory")
    width: Count = Field(128, description="channels of nodes and edges")
    rounds: Count = Field(8, description="of messages between nodes")
    noise: Noise = None
    precision: Precision = Field("float32", description="of the products")
    checkpointing: bool = Field(False, description="compute rounds again in the backward pass instead of storing them")
    zero_output: bool = Field(False, description="the last layer starts at zero")


class UNetConfig(Model):
    """U-Net with convolutions around the sphere; the fields are those of `emulator.networks.unet.UNetOptions`."""

    kind: Literal["unet"] = "unet"
    width: Count = Field(48, description="channels on the finest level; twice as many on the next")
    depth: Count = Field(3, description="halvings of the grid")
    blocks: Count = Field(1, description="residual blocks on a level")
    noise: Noise = None
    checkpointing: bool = Field(False, description="compute blocks again in the backward pass instead of storing them")
    zero_output: bool = Field(False, description="the last layer starts at zero")


class TorchHarmonicsConfig(Model):
    """torch-harmonics' own SFNO, a baseline; options by its names."""

    kind: Literal["torch_harmonics"] = "torch_harmonics"
    embed_dim: Count = 64
    num_layers: Count = 4
    scale_factor: Count = 1
    mlp_ratio: Positive = 2.0
    normalization_layer: Literal["instance_norm", "layer_norm", "none"] = "instance_norm"
    residual_prediction: bool = False


class ExternalConfig(Model):
    """A network from your own code or another package: any module from `(batch, in, *space)` to `(batch, out, *space)`."""

    kind: Literal["external"] = "external"
    factory: str = Field(
        description="package.module:name, called with channels in, channels out, the grid's shape, options"
    )
    options: dict[str, pydantic.JsonValue] = Field(default_factory=dict, description="named arguments of the factory")


def _kind_given(value: Any) -> Any:
    """A network without a kind is an SFNO."""
    return {"kind": "sfno"} | value if isinstance(value, dict) else value


NetworkConfig = Annotated[
    SFNOConfig | GraphConfig | UNetConfig | TorchHarmonicsConfig | ExternalConfig,
    Field(discriminator="kind"),
    pydantic.BeforeValidator(_kind_given),
]
