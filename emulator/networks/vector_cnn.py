"""Spherical CNN of scalars and vectors, after Esteves et al. (2020, 2023): winds are vector fields, inside and out.

Isotropic filters act on coefficients, degree by degree: of scalars, and of the spheroidal and the toroidal part of vectors.
They are all linear maps between these that commute with rotations; among them are gradients, divergence and vorticity. On the
grid, vectors enter scalars by inner products, and scalars gate vectors. States are pairs of `(cell, batch, scalar)` and
`(cell, batch, 2 * vector)` in the order of the transforms' kernels, as in `emulator.networks.sfno`.
"""

import dataclasses
import functools
from typing import Literal

import torch
from torch import nn

from emulator.kernels.recording import recorded
from emulator.networks.channel_axes import Axes, ChannelAxis
from emulator.networks.conditions import NoiseModulation, NoiseOptions, noise_count, scalar_count
from emulator.networks.dropout import DropPath
from emulator.networks.grids import Sizes, blocks_between, noise_of_blocks, outer_and_inner
from emulator.networks.layers import MLP, full
from emulator.networks.map_network import GridNetwork
from emulator.networks.position import Position
from emulator.networks.registry import expect_global, network
from emulator.networks.signature import Signature
from emulator.networks.spectral import SpectralFilter
from emulator.networks.vectors import (
    Components,
    Sorting,
    SpectralNorm,
    VectorLinear,
    along,
    components_of,
    from_condition,
    gated,
    joined,
    lengths,
    parted,
    scalars_of,
    vectors_of,
)
from emulator.options import Options, option
from emulator.parallel.space import ALONE, Space
from emulator.planet.grid import Grid
from emulator.sphere.transform import SphericalTransform, VectorTransform

Precision = Literal["float32", "bfloat16"]
Pair = tuple[torch.Tensor, torch.Tensor]  # of scalars and of vectors


@dataclasses.dataclass(frozen=True)
class VectorCNNOptions(Options):
    """Spherical CNN of scalars and vectors (Esteves et al. 2023), which every rotation commutes with.

    Winds, currents and stresses are found among the channels by their names. `scale_factor` is the papers' spectral pooling,
    `knots` their localised filters.
    """

    width: int = option(64, "scalar channels of the state", minimum=1)
    vectors: int = option(24, "vector channels of the state", minimum=1)
    blocks: int = option(
        4, "each a filter between transforms, and a perceptron of scalars that gates vectors", minimum=1
    )
    scale_factor: float = option(1, "how much coarser the inner blocks' grid is", minimum=1)
    truncation: float | None = option(
        None, "share of the inner grid's degrees to keep; none: those that its quadrature resolves", above=0, maximum=1
    )
    knots: int = option(0, "degrees that have weights of their own, others lie between; 0: all", minimum=0)
    filter_precision: Precision = option("float32", "of the filters' products")
    mlp_ratio: float = option(2.0, "hidden width of a block's MLP over width", above=0)
    mlp_precision: Precision = option("float32", "of the products of linear layers")
    encoder_layers: int = option(1, "hidden layers of the scalars' encoder and decoder", minimum=0)
    components: bool = option(True, "scales and offsets are learned for winds normalised component by component")
    position: Literal["none", "harmonics", "learned"] = option(
        "none", "a field added to the encoded state to tell places apart: harmonics of low degree, or learned"
    )
    noise: NoiseOptions | None = option(None, "random fields that scale and shift what an MLP takes in")
    condition: tuple[str, ...] = option(
        (), "time_of_year, or forcing without levels, to scale and shift all features by"
    )
    checkpointing: bool = option(False, "compute blocks again in the backward pass instead of storing them")
    drop_path: float = option(
        0.0, "probability to skip the last block's branch, growing from 0 at the first", minimum=0, below=1
    )
    zero_output: bool = option(False, "the decoder starts at zero")

    def __post_init__(self):
        super().__post_init__()
        if int(self.width * self.mlp_ratio) < 1:
            raise ValueError(f"Expected an mlp_ratio that leaves a channel of {self.width}, got {self.mlp_ratio}")


@network("vector_cnn", VectorCNNOptions, regions=(), bands=True, signature=True, more_inputs=True)
def build(
    options: VectorCNNOptions, inputs: int, outputs: int, grid: Grid, space: Space, signature: Signature
) -> "VectorCNN":
    expect_global(grid, "gaussian", "equiangular")
    return VectorCNN(signature, *grid.shape, grid=grid.kind, poles=grid.has_poles, options=options, space=space)


class Transforms(nn.Module):
    """Transforms of scalars and of vectors on one grid."""

    def __init__(self, sizes: Sizes, space: Space):
        super().__init__()
        self.of_scalars, self.of_vectors = SphericalTransform(*sizes, space), VectorTransform(*sizes, space)

    def analyse(self, s: torch.Tensor, w: torch.Tensor) -> tuple[Pair, Pair]:
        """Coefficients of both, and both states for what else takes them in."""
        (a, s), (b, w) = self.of_scalars.analyse_besides(s), self.of_vectors.analyse_besides(w)
        return (a, b), (s, w)

    def synthesise(self, a: torch.Tensor, b: torch.Tensor) -> Pair:
        return self.of_scalars.synthesise(a), self.of_vectors.synthesise(b)


class VectorCNN(GridNetwork):
    """Spherical CNN of scalars and vectors on a Gaussian or equiangular grid.

    Args:
      signature: what the channels are; eastward and northward components of the same name, level and time are one vector.
      nlat, nlon, grid, poles: the grid, as for `emulator.sphere.transform.SphericalTransform`.
      options: size and design.
      space: the processes that hold a state together, each the rows of its band; weights are the same on all.
    Raises `ValueError` for a grid without the wanted degrees or with too few for all processes.
    """

    def __init__(
        self,
        signature: Signature,
        nlat: int,
        nlon: int,
        grid: str = "gaussian",
        poles: bool = False,
        options: VectorCNNOptions | None = None,
        space: Space = ALONE,
    ):
        options = options or VectorCNNOptions()
        outer, inner = outer_and_inner(nlat, nlon, grid, poles, options.scale_factor, options.truncation)
        transforms = Transforms(outer, space)
        super().__init__(len(signature.inputs), len(signature.outputs), transforms.of_scalars.shape, options)
        self.outer = transforms
        self.inner = self.outer if inner == outer else Transforms(inner, space)
        self.given, self.made = Sorting(signature.inputs), Sorting(signature.outputs)
        hidden, precision = [options.width] * options.encoder_layers, options.mlp_precision
        seen, winds, made = self.given.scalars + self.given.vectors, self.given.vectors, self.made.vectors
        self.encoder = MLP((seen, *hidden, options.width), bool(hidden), precision=precision)
        self.decoder = self.vector_encoder = self.vector_decoder = None
        if self.made.scalars:
            widths = options.width + seen, *hidden, self.made.scalars
            self.decoder = MLP(widths, bool(hidden), precision=precision)
        if winds:
            self.vector_encoder = VectorLinear(winds, options.vectors, precision)
        if made:
            self.vector_decoder = VectorLinear(options.vectors + winds, made, precision)
        self.given_components = Components(winds) if winds and options.components else nn.Identity()
        self.made_components = Components(made) if made and options.components else nn.Identity()
        for layer in (self.decoder and self.decoder.layers[-1], self.vector_decoder):
            if options.zero_output and layer is not None:
                nn.init.zeros_(layer.weight)
        self.position = Position(options.position, self.outer.of_scalars, options.width)
        self.blocks = blocks_between(Block, self.outer, self.inner, options)

    @property
    def channel_axes(self) -> Axes:
        """Where channels lie: scalars before vectors, of which scalar layers take the lengths; components by themselves."""
        options = self.options
        vectors = functools.partial(vectors_of, components=options.components)

        def seen(channels):
            return scalars_of(channels) + vectors(channels)

        made, last = ChannelAxis("outputs", 0, entries=scalars_of), f"decoder.layers.{options.encoder_layers}"
        axes = {"encoder.layers.0.weight": [ChannelAxis("inputs", 1, entries=seen)]}
        axes["decoder.layers.0.weight"] = [ChannelAxis("inputs", 1, options.width, entries=seen)]
        axes[f"{last}.weight"] = [*axes.get(f"{last}.weight", []), made]
        axes[f"{last}.bias"] = [made]
        axes["vector_encoder.weight"] = [ChannelAxis("inputs", 2, entries=vectors)]
        axes["vector_decoder.weight"] = [
            ChannelAxis("inputs", 2, options.vectors, entries=vectors),
            ChannelAxis("outputs", 1, entries=vectors),
        ]
        for name, of in (("given_components", "inputs"), ("made_components", "outputs")):
            axes[f"{name}.scale"] = [ChannelAxis(of, 0, fresh=True, entries=components_of)]
            axes[f"{name}.offset"] = [ChannelAxis(of, 0, entries=components_of)]
        return axes

    def _output(self, x, condition, noise):
        if condition is None and noise is None and self.outer.of_scalars.space.size == 1:
            return recorded(self, self._computed, x)
        return self._computed(x, condition, noise)

    def _computed(self, x, condition=None, noise=None):
        grid = self.outer.of_scalars
        scalars, winds = (grid.from_maps(part) for part in self.given.part(x))
        winds = self.given_components(winds)
        scalars = joined([scalars, lengths(winds)], 2)
        s = self.position(self.encoder, scalars)
        if self.vector_encoder is None:
            w = s.new_zeros(*s.shape[:2], 2 * self.options.vectors)
        else:
            w = self.vector_encoder(winds)
        fields = noise_of_blocks(noise, grid, self.inner.of_scalars, len(self.blocks))
        for block, field in zip(self.blocks, fields, strict=True):
            s, w = self._run(block, s, w, condition, field)
        made = [s[..., :0], w[..., :0]]
        if self.decoder is not None:
            made[0] = full(self.decoder(s, besides=scalars))
        if self.vector_decoder is not None:
            made[1] = self.made_components(self.vector_decoder(_joined(w, winds)))
        return self.made.join(*(grid.to_maps(part) for part in made))


def _joined(w, more):
    """Vectors and further vectors."""
    (a, b), (c, d) = w.chunk(2, -1), more.chunk(2, -1)
    return joined([a, c, b, d], 2)


class Block(nn.Module):
    """Norm and filter of the coefficients, then an MLP of scalars and inner products, added to scalars and gating vectors."""

    def __init__(self, analysis: Transforms, synthesis: Transforms, options: VectorCNNOptions, drop_path: float):
        super().__init__()
        self.analysis, self.synthesis = analysis, synthesis
        width, vectors, plan = options.width, options.vectors, analysis.of_scalars.plan
        conditions, space = scalar_count(options.condition), analysis.of_scalars.space
        self.norm = SpectralNorm(plan, width, vectors, conditions, space)
        self.shift = from_condition(conditions, width)
        self.filter = SpectralFilter(
            plan, width + 2 * vectors, "real", precision=options.filter_precision, knots=options.knots
        )
        self.turn = VectorLinear(vectors, vectors, options.mlp_precision)
        self.noise = NoiseModulation(noise_count(options.noise), width) if options.noise else None
        widths = width + vectors, int(width * options.mlp_ratio), width + vectors
        self.mlp = MLP(widths, bias_last=False, precision=options.mlp_precision)
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        s: torch.Tensor,
        w: torch.Tensor,
        condition: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scalars and vectors on the grid of `analysis` -> those on the grid of `synthesis`, which is the noise's."""
        coefficients, (s, w) = self.analysis.analyse(s, w)
        if self.analysis is not self.synthesis:  # what is kept goes through the same change of grid
            s, w = self.synthesis.synthesise(*coefficients)
        filtered = self.filter(self.norm(*coefficients, condition))
        scalars, vectors = self.synthesis.synthesise(*parted(filtered, s.shape[-1]))
        if self.shift is not None:
            scalars = scalars + full(self.shift(condition))
        if self.noise is not None:
            scalars = self.noise(scalars, noise)
        turned = self.turn(vectors)
        made = full(self.mlp(scalars, besides=along(vectors, turned)))
        if self.drop_path.active:  # scalars and vectors of a sample are left out together
            kept = self.drop_path(made.new_ones(1, *made.shape[1:2], 1))
            made, turned = made * kept, turned * kept
        return gated(s, w, made, turned)
