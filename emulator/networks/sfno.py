"""Spherical Fourier Neural Operator (Bonev et al. 2023), channels last inside.

Between the first and the last layer a state is `(cell, batch, channel)`, its cells in the order of the transform's
kernels: 1x1 convolutions are plain linear layers, batch and channels together are the columns of the transform's
products, and nothing is permuted or copied between layers. Every layer but the transforms works on single cells, so
their order does not matter to it; the MLP's stencil, where it has one, finds the neighbours by itself.
"""

import dataclasses
from typing import Literal

import torch
from torch import nn

from emulator.kernels.recording import recorded
from emulator.networks.conditions import NoiseModulation, NoiseOptions, noise_count, scalar_count
from emulator.networks.dropout import DropPath, LeavesOut
from emulator.networks.grids import blocks_between, noise_of_blocks, outer_and_inner
from emulator.networks.layers import MLP, Linear, full, gelu
from emulator.networks.map_network import GridNetwork
from emulator.networks.norms import Norm
from emulator.networks.position import Position
from emulator.networks.registry import expect_global, network
from emulator.networks.spectral import DegreeGate, SpectralFilter
from emulator.networks.stencil import StencilMLP
from emulator.options import Options, option
from emulator.parallel.space import ALONE, Space
from emulator.planet.grid import Grid
from emulator.sphere.tables import latitudes
from emulator.sphere.transform import SphericalTransform

Skip = Literal["none", "identity", "linear"]
Precision = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class SFNOOptions(Options):
    """Spherical Fourier neural operator (Bonev et al. 2023) and its variants.

    A `filter` is "complex" (as published: equivariant about the polar axis), "real" (under every rotation, at half the
    cost), "diagonal" (one complex factor per degree and channel) or "low_rank" (`rank` directions shared by all degrees).
    Filters are isotropic, so a `stencil` of 3 is what gives a block slopes and their directions, as advection needs.
    `encoder_layers` are 0 in torch-harmonics and 1 in ACE; ACE normalises the "stream".
    """

    embed_dim: int = option(64, "channels of the state", minimum=1)
    blocks: int = option(4, "each a transform, a filter, the transform back and an MLP", minimum=1)
    scale_factor: float = option(1, "how much coarser the inner blocks' grid is", minimum=1)
    truncation: float | None = option(
        None,
        "share of the inner grid's degrees to keep (1: all, as published); none: those that its quadrature resolves",
        above=0,
        maximum=1,
    )
    filter: Literal["complex", "real", "diagonal", "low_rank"] = option("complex", "of channels, degree by degree")
    filter_precision: Precision = option("float32", "of its products")
    rank: int = option(16, "directions of a low_rank filter", minimum=1)
    spectral_layers: int = option(1, "filters in a block, with a gate on every degree's power between them", minimum=1)
    mlp_ratio: float = option(2.0, "hidden width of a block's MLP over embed_dim; 0: no MLP", minimum=0)
    mlp_precision: Precision = option("float32", "of the products of linear layers")
    stencil: int = option(1, "cells each way that a block's MLP takes in, odd; 3 learns much faster", minimum=1)
    encoder_layers: int = option(1, "hidden layers of encoder and decoder; 0: linear, as published", minimum=0)
    norm: Literal["instance", "area_instance", "layer", "none"] = option("instance", "before the MLP")
    pre_norm: Literal["none", "branch", "stream"] = option(
        "stream", "before the transform: for the branch alone, or for the skips too"
    )
    activation: bool = option(True, "GELU between filter and MLP")
    inner_skip: Skip = option("linear", "around the filter")
    outer_skip: Skip = option("identity", "around the block")
    big_skip: Literal["none", "concat", "add"] = option(
        "concat", "the input is handed to the decoder, or added to the output"
    )
    position: Literal["none", "harmonics", "learned"] = option(
        "none",
        "a field added to the encoded state to tell places apart: harmonics of low degree, or learned",
    )
    noise: NoiseOptions | None = option(None, "random fields that scale and shift normalised features")
    condition: tuple[str, ...] = option(
        (), "time_of_year, or forcing without levels, to scale and shift all features by"
    )
    checkpointing: bool = option(False, "compute blocks again in the backward pass instead of storing them")
    drop_path: float = option(
        0.0, "probability to skip the last block's branch, growing from 0 at the first", minimum=0, below=1
    )
    dropout: float = option(
        0.0,
        "probability that a number after either layer of a block's MLP is left out",
        minimum=0,
        below=1,
        new=True,
        keyword=True,
    )
    zero_output: bool = option(False, "the decoder starts at zero")

    def __post_init__(self):
        super().__post_init__()
        if self.mlp_ratio and int(self.embed_dim * self.mlp_ratio) < 1:
            raise ValueError(
                f"Expected an mlp_ratio of 0 or one that leaves a channel of {self.embed_dim}, got {self.mlp_ratio}"
            )
        if self.stencil > 1 and not self.mlp_ratio:
            raise ValueError(f"Expected an MLP for a stencil of {self.stencil}, got an mlp_ratio of 0")


@network("sfno", SFNOOptions, regions=(), bands=True)
def build(options: SFNOOptions, inputs: int, outputs: int, grid: Grid, space: Space) -> "SFNO":
    expect_global(grid, "gaussian", "equiangular")
    return SFNO(inputs, outputs, *grid.shape, grid=grid.kind, poles=grid.has_poles, options=options, space=space)


class SFNO(GridNetwork):
    """Spherical Fourier Neural Operator on a Gaussian or equiangular grid.

    Args:
      in_channels, out_channels: channels of the input and of the output.
      nlat, nlon, grid, poles: the grid, as for `emulator.sphere.transform.SphericalTransform`.
      options: size and design.
      space: the processes that hold a state together, each the rows of its band; weights are the same on all.
    Raises `ValueError` for a grid without the wanted degrees or with too few for all processes.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        nlat: int,
        nlon: int,
        grid: str = "gaussian",
        poles: bool = False,
        options: SFNOOptions | None = None,
        space: Space = ALONE,
    ):
        options = options or SFNOOptions()
        outer, inner = _transforms(nlat, nlon, grid, poles, options, space)
        super().__init__(in_channels, out_channels, outer.shape, options)
        self.outer, self.inner, width = outer, inner, options.embed_dim
        hidden = [width] * options.encoder_layers
        self.encoder = MLP((in_channels, *hidden, width), bool(hidden), precision=options.mlp_precision)
        decoded = width + (in_channels if options.big_skip == "concat" else 0)
        self.decoder = MLP((decoded, *hidden, out_channels), bool(hidden), precision=options.mlp_precision)
        if options.zero_output:
            nn.init.zeros_(self.decoder.layers[-1].weight)
        self.residual = None
        if options.big_skip == "add" and in_channels != out_channels:
            self.residual = Linear(in_channels, out_channels, bias=False)
        self.position = Position(options.position, self.outer, width)
        self.blocks = blocks_between(Block, outer, inner, options)
        self._random = [layer for layer in self.modules() if isinstance(layer, LeavesOut) and layer.probability]

    def _output(self, x, condition, noise):
        if condition is None and noise is None and self.outer.space.size == 1 and not self._leaves_out():
            return recorded(self, self._computed, x)
        return self._computed(x, condition, noise)

    def _leaves_out(self):
        return any(layer.active for layer in self._random)

    def _computed(self, x, condition=None, noise=None):
        x = self.outer.from_maps(x)
        fields = noise_of_blocks(noise, self.outer, self.inner, len(self.blocks))
        h = self.position(self.encoder, x)
        for block, field in zip(self.blocks, fields, strict=True):
            h = self._run(block, h, condition, field)
        h = full(self.decoder(h, besides=x if self.options.big_skip == "concat" else None))
        if self.options.big_skip == "add":
            h = h + (x if self.residual is None else self.residual(x))
        return self.outer.to_maps(h)


class Block(nn.Module):
    """Transform, filter, inverse transform, then an MLP, with a skip around the filter and one around all of it."""

    def __init__(self, analysis, synthesis, options, drop_path):
        super().__init__()
        width, scalars = options.embed_dim, scalar_count(options.condition)
        self.analysis, self.synthesis = analysis, synthesis
        self.options = options
        if options.pre_norm != "none":
            self.pre_norm = Norm(options.norm, width, _areas(analysis), scalars, space=analysis.space)
        gain = 2.0 if options.inner_skip == "none" else 1.0
        self.filters = nn.ModuleList(
            SpectralFilter(analysis.plan, width, options.filter, gain, options.rank, options.filter_precision)
            for _ in range(options.spectral_layers)
        )
        self.gates = nn.ModuleList(DegreeGate(analysis.plan, width, analysis.space) for _ in self.filters[1:])
        self.norm = Norm(options.norm, width, _areas(synthesis), scalars, space=synthesis.space)
        self.noise = NoiseModulation(noise_count(options.noise), width) if options.noise else None
        self.inner_skip, self.outer_skip = _skip(options.inner_skip, options), _skip(options.outer_skip, options)
        self.mlp = None
        if options.mlp_ratio:
            widths = (width, int(width * options.mlp_ratio), width)
            if options.stencil == 1:
                self.mlp = MLP(widths, False, precision=options.mlp_precision, dropout=options.dropout)
            else:
                self.mlp = StencilMLP(synthesis, widths, options.stencil, options.mlp_precision, options.dropout)
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: torch.Tensor, condition: torch.Tensor | None = None, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """`(cell, batch, channel)` on the grid of `analysis` -> the same on the grid of `synthesis`, which is the noise's."""
        entered = x
        if self.options.pre_norm != "none":
            x = self.pre_norm(x, condition)
        c, x = self.analysis.analyse_besides(x)
        kept = entered if self.options.pre_norm == "branch" else x
        inner = x
        if self.analysis is not self.synthesis:  # what is kept goes through the same change of grid
            inner = self.synthesis.synthesise(c)
            kept = inner if kept is x else self.synthesis.synthesise(self.analysis.analyse(kept))
        c = self.filters[0](c)
        for gate, mixing in zip(self.gates, self.filters[1:], strict=True):
            c = mixing(gate(c))
        x = self.synthesis.synthesise(c)
        if self.options.activation:
            x = self._normalised(_activated(x, self.inner_skip, inner), condition, noise)
        else:
            x = _plus(self._normalised(x, condition, noise), self.inner_skip, inner)
        if self.mlp is not None:
            if isinstance(self.outer_skip, nn.Identity) and not self.drop_path.active:
                return full(self.mlp(x, kept))
            x = self.mlp(x)
        return full(_plus(self.drop_path(x), self.outer_skip, kept))

    def _normalised(self, x, condition, noise):
        x = self.norm(x, condition)
        return x if self.noise is None else self.noise(x, noise)


def _skip(kind, options):
    if kind == "none":
        return None
    width = options.embed_dim
    return nn.Identity() if kind == "identity" else Linear(width, width, precision=options.mlp_precision)


def _plus(x, skip, kept):
    if skip is None:
        return x
    return skip(kept, x) if isinstance(skip, Linear) else x + skip(kept)


def _activated(x, skip, kept):
    return skip(kept, x, activate=True) if isinstance(skip, Linear) else gelu(_plus(x, skip, kept))


def _transforms(nlat, nlon, grid, poles, options, space):
    outer, inner = outer_and_inner(nlat, nlon, grid, poles, options.scale_factor, options.truncation)
    transform = SphericalTransform(*outer, space)
    return transform, (transform if inner == outer else SphericalTransform(*inner, space))


def _areas(transform):
    """The cells' shares of the sphere, `(cell,)`, summing to 1 over all processes."""
    weights = latitudes(transform.nlat, transform.grid, transform.poles)[1]
    shares = (weights / (2 * transform.nlon)).float()[transform.band, None].expand(transform.shape)
    return transform.arrange(shares[..., None])[:, 0]
