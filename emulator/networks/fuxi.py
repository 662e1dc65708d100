"""FuXi (Chen et al. 2023): a patch of both input states becomes a cell of a coarser map, on which windows attend.

A cube of all input times that is as long as they are and moves on by itself is a patch whose channels are the fields of all
times, which is how a network is given them: one convolution, with any number of times, and fields without a time once.

Windows are those of Swin-V2 (Liu et al. 2022): products of directions scaled by head, a bias that is a function of the
logarithm of the distance, and norms after each branch.
"""

import dataclasses
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from emulator.kernels.library import alone
from emulator.networks.channel_axes import Axes, ChannelAxis
from emulator.networks.conditions import ModulatedNorm, NoiseOptions, noise_count, scalar_count
from emulator.networks.dropout import DropPath
from emulator.networks.edges import Edges, edges_of
from emulator.networks.map_layers import MapConv, Patches, Residual, Surroundings, start_at_zero
from emulator.networks.map_network import MapNetwork
from emulator.networks.registry import network
from emulator.networks.windows import Dense, Moves, Perceptron, Windows, shifted
from emulator.options import Options, option
from emulator.parallel.space import ALONE, Space
from emulator.planet.grid import Grid

STEEPEST = math.log(100.0)  # of the logarithm that scales products, so that one cell never takes all


@dataclasses.dataclass(frozen=True)
class FuXiOptions(Options):
    """FuXi (Chen et al. 2023): patches of all input times, and Swin-V2 windows at half their resolution.

    As published for 0.25 degrees: width 1536, 48 blocks, patches of 4.
    """

    width: int = option(128, "channels of the state", minimum=1)
    blocks: int = option(6, "of windows; those of every second one lie half a window further", minimum=1)
    heads: int = option(4, "of attention, which divide the width", minimum=1)
    window: int = option(
        6, "cells of the inner grid each way; along a circle the largest number up to it that fits", minimum=1
    )
    patch: int = option(2, "cells of the grid each way that become one", minimum=1)
    groups: int = option(32, "of channels that convolutions are normalised by, which divide the width", minimum=1)
    mlp_ratio: float = option(4.0, "hidden width of a block's MLP over width", above=0)
    noise: NoiseOptions | None = option(None, "random fields that scale and shift normalised features")
    condition: tuple[str, ...] = option(
        (), "time_of_year, or forcing without levels, to scale and shift normalised features by"
    )
    checkpointing: bool = option(False, "compute blocks again in the backward pass instead of storing them")
    drop_path: float = option(
        0.0, "probability to skip the last block's branches, growing from 0 at the first", minimum=0, below=1
    )
    zero_output: bool = option(False, "the last layer starts at zero")

    def __post_init__(self):
        super().__post_init__()
        for name in ("heads", "groups"):
            if self.width % getattr(self, name):
                raise ValueError(f"Expected {name} that divide a width of {self.width}, got {getattr(self, name)}")


@network("fuxi", FuXiOptions, regions=("box", "projected"), bands=True)
def build(options: FuXiOptions, inputs: int, outputs: int, grid: Grid, space: Space) -> "FuXi":
    return FuXi(inputs, outputs, grid.shape, edges_of(grid), options, space)


class FuXi(MapNetwork):
    """U-Transformer on a latitude-longitude grid, a box of one, or a map.

    Args:
      in_channels, out_channels: channels of the input, all its times together, and of the output.
      shape: rows and columns. edges: what lies beyond them. options: size and design.
      space: processes that hold a state together, each a band of rows, and windows of the inner map.
    Raises `ValueError` for a number of longitudes that is no multiple of four patches, and too few rows for the processes.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        shape: tuple[int, int],
        edges: Edges,
        options: FuXiOptions | None = None,
        space: Space = ALONE,
    ):
        options = options or FuXiOptions()
        super().__init__(in_channels, out_channels, shape, options, space)
        width, patch = options.width, options.patch
        self.patches = Patches(shape, 2 * patch, edges, space=space)
        around = Surroundings(edges, space, self.patches.bounds).coarser(patch)
        inner, of_inner = tuple(n // (2 * patch) for n in self.patches.padded), around.coarser(2)
        self.embed = nn.Conv2d(in_channels, width, patch, patch)
        self.norm = nn.LayerNorm(width)
        self.down = nn.Sequential(MapConv(width, width, 3, around, 2, 1), Residual(width, options.groups, of_inner))
        self.windows = nn.ModuleList(shifted(inner, options.window, of_inner.edges, space, of_inner.bounds))
        largest = self.windows[0].largest
        last = max(options.blocks - 1, 1)
        self.blocks = nn.ModuleList(
            Block(self.windows[max(n - 1, 0) % 2], self.windows[n % 2], largest, options, options.drop_path * n / last)
            for n in range(options.blocks)
        )
        self.up = nn.Sequential(nn.ConvTranspose2d(2 * width, width, 2, 2), Residual(width, options.groups, around))
        self.head = start_at_zero(nn.Conv2d(width, out_channels * patch**2, 1), options.zero_output)

    @property
    def channel_axes(self) -> Axes:
        """Where channels lie: the head's are cells of a patch side by side."""
        cells = [ChannelAxis("outputs", 0, each=self.options.patch**2)]
        return {"head.weight": cells, "head.bias": cells}

    def _map(self, x, condition, noise):
        # channels last for the norm, and where patches are many; other convolutions are faster without
        x = self.embed(self.patches(x).contiguous(memory_format=torch.channels_last))
        x = self.down(self.norm(x.movedim(1, -1)).movedim(-1, 1).contiguous())
        y = self._attended(x, condition, noise)
        y = self.head(self.up(torch.cat([x, y.to(x.dtype)], 1)))
        return self.patches.off(F.pixel_shuffle(y, self.options.patch))

    def _attended(self, x, condition, noise):
        """The coarser map after all blocks, which see means of the noise."""
        if noise is None:
            fields = [None] * len(self.windows)
        else:
            means = F.avg_pool2d(self.patches(noise), 2 * self.options.patch)
            fields = [windows.from_map(means) for windows in self.windows]
        x = self.windows[0].from_map(x)
        for n, block in enumerate(self.blocks):
            x = self._run(block, x, condition, fields[n % 2])
        return self.windows[(len(self.blocks) - 1) % 2].to_map(x)


class Block(nn.Module):
    """Attention in windows and an MLP, each followed by a norm and added to what it took in."""

    def __init__(
        self, before: Windows, windows: Windows, largest: tuple[int, int], options: FuXiOptions, drop_path: float
    ):
        super().__init__()
        width = options.width
        given = noise_count(options.noise), scalar_count(options.condition)
        self.moves = Moves(before, windows)
        self.attention = CosineAttention(width, options.heads, windows, largest)
        self.attention_norm = ModulatedNorm(width, *given)
        self.mlp = Perceptron(width, int(width * options.mlp_ratio))
        self.mlp_norm = ModulatedNorm(width, *given)
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: torch.Tensor, condition: torch.Tensor | None = None, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """`(cell, batch, width)` in the order of the windows before -> the same in that of its own, which is the noise's."""
        x = self.moves(x)
        x = x + self.drop_path(self.attention_norm(self.attention(x), condition, noise))
        return x + self.drop_path(self.mlp_norm(self.mlp(x), condition, noise))


class CosineAttention(nn.Module):
    """Attention by the angle between query and key, scaled by head, with a bias by distance (Liu et al. 2022, section 3).

    Weights of a key are the softmax of `exp(min(scale, log 100)) cos(q, k) + 16 sigmoid(f(offset))`, f a perceptron of the
    signed logarithms of rows and columns between the two, so that windows of other sizes can take it over.

    Args:
      channels, heads: of the states. windows: of the map. largest: rows and columns of a whole window, which offsets are
        scaled by.
    """

    def __init__(self, channels: int, heads: int, windows: Windows, largest: tuple[int, int]):
        super().__init__()
        self.heads, self.windows = heads, windows
        self.mixing = Dense(channels, 3 * channels, bias=False)
        self.query_bias, self.value_bias = (nn.Parameter(torch.zeros(channels)) for _ in range(2))
        self.scale = nn.Parameter(torch.full((heads, 1), math.log(10.0)))
        self.distance = nn.Sequential(nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, heads, bias=False))
        self.out = Dense(channels, channels)
        offsets = 8 * windows.offsets / np.maximum(np.array(largest) - 1, 1)
        places = np.sign(offsets) * np.log2(1 + np.abs(offsets)) / 3
        self._kept = None
        self.register_buffer("places", torch.from_numpy(places.astype(np.float32)), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(cell, batch, channel)` in the order of the windows -> the same."""
        bias = torch.cat([self.query_bias, torch.zeros_like(self.query_bias), self.value_bias])
        parts = F.linear(x, self.mixing.weight, bias).unflatten(-1, (3, self.heads, -1))
        scale = self.scale[:, 0].clamp(max=STEEPEST).exp()
        return self.out(self.windows.attend([parts], self._biases(), scale))

    def _biases(self):
        """Those of the windows, where no gradients are wanted from an earlier call with weights that were the same."""
        weights = tuple(self.distance.parameters())
        if torch.is_autocast_enabled("cpu") or not alone(self.places, *weights):
            return self._made()
        if self._kept is None or not all(map(torch.equal, self._kept[0], weights)):
            self._kept = [weight.detach().clone() for weight in weights], self._made()
        return self._kept[1]

    def _made(self):
        return self.windows.biases(16 * self.distance(self.places).sigmoid())
