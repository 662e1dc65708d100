"""WXFormer, the network of CREDIT (Schreck et al. 2024): CrossFormer's stages (Wang et al. 2022) and a decoder with skips.

A stage takes its map in through stencils of several sizes at once, each for some of the channels, at every second cell or so.
Then cells attend to their neighbours in a window, and to cells all over the map that are equally far apart.
"""

import dataclasses
import itertools
import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from emulator.networks.channel_axes import Axes, ChannelAxis
from emulator.networks.conditions import ModulatedNorm, NoiseOptions, noise_count, scalar_count
from emulator.networks.edges import Edges, edges_of
from emulator.networks.layers import full
from emulator.networks.map_layers import (
    Larger,
    MapConv,
    Patches,
    Residual,
    Sharper,
    Surroundings,
    cells_of_channels,
    start_at_zero,
)
from emulator.networks.map_network import MapNetwork
from emulator.networks.registry import network
from emulator.networks.spectral_norm import limit
from emulator.networks.windows import Dense, Moves, Perceptron, Windows, far, fitting, near
from emulator.options import Options, option
from emulator.parallel.space import ALONE, Space
from emulator.planet.grid import Grid


@dataclasses.dataclass(frozen=True)
class WXFormerOptions(Options):
    """WXFormer of CREDIT (Schreck et al. 2024): attention nearby and far away on coarser and coarser maps.

    Options with a number for every stage are of equal length.
    """

    widths: tuple[int, ...] = option(
        (32, 64, 128), "channels of the stages, multiples of the first", minimum=1, shortest=1
    )
    depths: tuple[int, ...] = option((2, 2, 2), "blocks of the stages", minimum=1, shortest=1)
    strides: tuple[int, ...] = option(
        (2, 2, 2), "cells of a stage's map that become one, each way", minimum=2, shortest=1
    )
    stencils: tuple[int, ...] = option(
        (4, 8, 16), "sizes of the first stage's, of the parity of the strides", minimum=1, shortest=1
    )
    further_stencils: tuple[int, ...] = option((2, 4), "those of the other stages", minimum=1, shortest=1)
    near: int = option(
        6, "cells of a window of neighbours each way; along a circle the largest number up to it that fits", minimum=1
    )
    far: tuple[int, ...] = option(
        (6, 6, 3), "of every stage, cells each way among which distant ones attend; along a circle likewise", minimum=1
    )
    head_width: int = option(16, "channels of a head of attention, which divide the widths", minimum=1)
    mlp_ratio: float = option(4.0, "hidden width of a block's MLPs over its width", above=0)
    decoder: Literal["shuffle", "transposed"] = option(
        "shuffle", "how a map becomes finer: channels that become cells, as CREDIT does today, or as it was published"
    )
    spectral_norm: bool = option(False, "weights are divided by their largest singular value")
    noise: NoiseOptions | None = option(None, "random fields that scale and shift normalised features")
    condition: tuple[str, ...] = option(
        (), "time_of_year, or forcing without levels, to scale and shift normalised features by"
    )
    checkpointing: bool = option(False, "compute blocks again in the backward pass instead of storing them")
    zero_output: bool = option(False, "the last layer starts at zero")

    def __post_init__(self):
        super().__post_init__()
        for name in ("depths", "strides", "far"):
            if len(getattr(self, name)) != len(self.widths):
                raise ValueError(f"Expected {name} for {len(self.widths)} widths, got {getattr(self, name)}")
        if any(width % self.head_width or width % self.widths[0] for width in self.widths):
            raise ValueError(
                f"Expected widths in multiples of the first and of a head_width of {self.head_width}, got {self.widths}"
            )
        if self.zero_output and self.spectral_norm:
            raise ValueError("Expected zero_output or spectral_norm, got both: weights of zero have no singular value")


@network("wxformer", WXFormerOptions, regions=("box", "projected"), bands=True)
def build(options: WXFormerOptions, inputs: int, outputs: int, grid: Grid, space: Space) -> "WXFormer":
    return WXFormer(inputs, outputs, grid.shape, edges_of(grid), options, space)


class WXFormer(MapNetwork):
    """Stages of attention on coarser and coarser maps, and a decoder, on a latitude-longitude grid, a box of one, or a map.

    Args:
      in_channels, out_channels: channels of the input, all its times together, and of the output.
      shape: rows and columns. edges: what lies beyond them. options: size and design.
      space: processes that hold a state together, each a band of rows, and windows of every stage's map.
    Raises `ValueError` for longitudes that twice the product of the strides does not divide, stencils that are too large for
    the rows or do not fit the strides, and too few rows for the processes.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        shape: tuple[int, int],
        edges: Edges,
        options: WXFormerOptions | None = None,
        space: Space = ALONE,
    ):
        options = options or WXFormerOptions()
        super().__init__(in_channels, out_channels, shape, options, space)
        self.patches = Patches(shape, math.prod(options.strides), edges, space=space)
        edges, widths = dataclasses.replace(edges, poles=False), options.widths
        around = [
            Surroundings(edges, space, self.patches.bounds)
        ]  # of what each stage takes in, and of the last one's map
        self.stages, cells = nn.ModuleList(), self.patches.padded
        for n, entering in enumerate((in_channels, *widths[:-1])):
            sizes = options.further_stencils if n else options.stencils
            if max(sizes) - options.strides[n] > 2 * min(cells):
                raise ValueError(f"Expected stencils within {cells[0]} x {cells[1]} cells, got {sizes}")
            embed = CrossScale(entering, widths[n], sizes, options.strides[n], around[n])
            around.append(around[n].coarser(options.strides[n]))
            cells = tuple(size // options.strides[n] for size in cells)
            self.stages.append(Stage(embed, cells, around[n + 1], n, options))
        pairs = list(enumerate(itertools.pairwise(widths)))
        self.ups = nn.ModuleList(
            _finer(wide if n == len(widths) - 2 else 2 * wide, narrow, options, *around[n + 1 : n + 3])
            for n, (narrow, wide) in reversed(pairs)
        )
        self.head = _last(widths[0] * (2 if pairs else 1), out_channels, options, *around[:2])
        start_at_zero(self.head[-1] if options.decoder == "shuffle" else self.head, options.zero_output)
        if options.spectral_norm:
            limit(self)

    @property
    def channel_axes(self) -> Axes:
        """Where channels lie: the last layer takes as many hidden ones as there are outputs, which are cells side by side.

        Not known where weights are divided by a singular value, which more channels would change.
        """
        if self.options.spectral_norm:
            ends = {"stages.0.embed.": ChannelAxis("inputs", 1, blocks=0), "head.": ChannelAxis("outputs", 0, blocks=0)}
            return {n: [axis] for n, _ in self.named_parameters() for end, axis in ends.items() if n.startswith(end)}
        last = ChannelAxis("outputs", 0)
        if self.options.decoder == "transposed":
            return {"head.weight": [ChannelAxis("outputs", 1)], "head.bias": [last]}
        cells = ChannelAxis("outputs", 0, each=self.options.strides[0] ** 2, hidden=True, fresh=True)
        used = [last, ChannelAxis("outputs", 1, hidden=True)]
        return {"head.0.weight": [cells], "head.0.bias": [cells], "head.2.weight": used, "head.2.bias": [last]}

    def _map(self, x, condition, noise):
        """Stages see means of the noise."""
        x = self.patches(x).contiguous(memory_format=torch.channels_last)
        means, kept = None if noise is None else self.patches(noise), []
        for stage, stride in zip(self.stages, self.options.strides, strict=True):
            means = None if means is None else F.avg_pool2d(means, stride)
            x = stage(x, condition, means)
            kept.append(x)
        for up, skip in zip(self.ups, reversed(kept[:-1]), strict=True):
            x = up(x)
            x = torch.cat([x, skip.to(x.dtype)], 1)
        return self.patches.off(self.head(x))


class CrossScale(nn.Module):
    """Stencils of several sizes around the same cells; half of the channels of the smallest, and so on."""

    def __init__(self, inputs: int, outputs: int, sizes: tuple[int, ...], stride: int, around: Surroundings):
        super().__init__()
        widths = [outputs // 2**n for n in range(1, len(sizes))]
        widths.append(outputs - sum(widths))
        pairs = zip(sorted(sizes), widths, strict=True)
        self.convolutions = nn.ModuleList(MapConv(inputs, width, size, around, stride) for size, width in pairs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, channel, row, column)` -> the coarser map."""
        return torch.cat([convolution(x) for convolution in self.convolutions], 1)


class Stage(nn.Module):
    """A coarser map, and blocks of attention on it.

    Args:
      embed: gives the map. shape: of the map. around: its edges and bands. number: of the stage. options: of the network.
    """

    def __init__(
        self, embed: nn.Module, shape: tuple[int, int], around: Surroundings, number: int, options: WXFormerOptions
    ):
        super().__init__()
        (rows, columns), edge = shape, not around.edges.round
        self.embed, self.checkpointing = embed, options.checkpointing
        window, members = options.near, options.far[number]
        cuts = (
            (near(rows, window), near(columns, fitting(columns, window, edge), edge=edge)),
            (far(rows, members), far(columns, fitting(columns, members, edge), edge)),
        )
        self.near, self.far = (Windows(shape, *cut, around.space, around.bounds) for cut in cuts)
        self.blocks = nn.ModuleList(
            Block(self.far if n else self.near, self.near, self.far, options.widths[number], options)
            for n in range(options.depths[number])
        )

    def forward(
        self, x: torch.Tensor, condition: torch.Tensor | None = None, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """`(batch, channel, row, column)` -> the coarser map, which is the noise's."""
        x = full(self.near.from_map(self.embed(x)))
        noises = (None, None) if noise is None else (self.near.from_map(noise), self.far.from_map(noise))
        for block in self.blocks:
            given = x, condition, *noises
            saving = self.checkpointing and torch.is_grad_enabled()
            x = checkpoint(block, *given, use_reentrant=False) if saving else block(*given)
        return self.far.to_map(x)


class Block(nn.Module):
    """Attention among neighbours, an MLP, attention among distant cells, and another MLP, each on what a norm makes of it."""

    def __init__(self, before: Windows, near: Windows, far: Windows, width: int, options: WXFormerOptions):
        super().__init__()
        given = noise_count(options.noise), scalar_count(options.condition)
        hidden = int(width * options.mlp_ratio)
        self.to_near, self.to_far = Moves(before, near), Moves(near, far)
        self.norms = nn.ModuleList(ModulatedNorm(width, *given) for _ in range(4))
        self.attentions = nn.ModuleList(Attention(width, width // options.head_width, w) for w in (near, far))
        self.mlps = nn.ModuleList(Perceptron(width, hidden) for _ in range(2))
        self.limited = options.spectral_norm

    def forward(
        self,
        x: torch.Tensor,
        condition: torch.Tensor | None = None,
        noise_near: torch.Tensor | None = None,
        noise_far: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """`(cell, batch, width)` in the order of the windows before -> the same in that of the distant ones."""
        if self.limited:
            with parametrize.cached():  # a weight is made of its parts once
                return self._both(x, condition, noise_near, noise_far)
        return self._both(x, condition, noise_near, noise_far)

    def _both(self, x, condition, *noises):
        for n, (moves, noise) in enumerate(zip((self.to_near, self.to_far), noises, strict=True)):
            x = moves(x)
            x = self.attentions[n](self.norms[2 * n](x, condition, noise), x)
            x = self.mlps[n](self.norms[2 * n + 1](x, condition, noise), x)
        return x


class Attention(nn.Module):
    """Attention with a bias that a perceptron makes of rows and columns between two cells (Wang et al. 2022, section 3.2).

    Distances of cells all around the globe are the shorter ones.

    Args:
      channels, heads: of the states. windows: of the map.
    """

    def __init__(self, channels: int, heads: int, windows: Windows):
        super().__init__()
        self.heads, self.windows = heads, windows
        self.mixing = Dense(channels, 3 * channels, bias=False)
        self.out = Dense(channels, channels)
        hidden, layers = max(channels // 4, 1), []
        for inputs in (2, hidden, hidden):
            layers += [nn.Linear(inputs, hidden), nn.LayerNorm(hidden), nn.ReLU()]
        self.distance = nn.Sequential(*layers, nn.Linear(hidden, 1))
        self.register_buffer("places", torch.from_numpy(windows.offsets.astype(np.float32)), persistent=False)

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """`(cell, batch, channel)` in the order of the windows -> the same, added to a residual."""
        parts = self.mixing(x).unflatten(-1, (3, self.heads, -1))
        table = self.distance(self.places)
        return self.out(self.windows.attend([parts], self.windows.biases(table), parts.shape[-1] ** -0.5), residual)


def _finer(inputs, outputs, options, finer, coarser):
    """To a map as many times as fine as the bands have more rows."""
    factor, last = finer.bounds[-1] // coarser.bounds[-1], Residual(outputs, options.widths[0], finer)
    if options.decoder == "transposed":
        return nn.Sequential(nn.ConvTranspose2d(inputs, outputs, factor, factor), last)
    return nn.Sequential(*cells_of_channels(inputs, outputs, factor, coarser), Sharper(outputs, finer), last)


def _last(inputs, outputs, options, finer, coarser):
    """To the network's output."""
    factor = finer.bounds[-1] // coarser.bounds[-1]
    if options.decoder == "transposed":
        return Larger(inputs, outputs, factor, coarser)
    return nn.Sequential(*cells_of_channels(inputs, outputs, factor, coarser), MapConv(outputs, outputs, 3, finer))
