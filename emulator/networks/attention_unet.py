"""U-Net whose skips are gated by attention (Oktay et al. 2018), as Gupta et al. (2025) take it for gravity-wave fluxes.

A gate looks at what comes across a level and at what comes up to it: a convolution of each, added, a ReLU, and a convolution
to one channel, whose sigmoid scales what comes across (additive attention). For diagnostic tasks whose answer in a cell
depends on what is around it, such as fluxes of waves that have come from elsewhere.
"""

import dataclasses
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from emulator.networks.conditions import MapModulation, NoiseOptions
from emulator.networks.edges import SPHERE, Edges, edges_of
from emulator.networks.halos import Level, expect_halvings, levels
from emulator.networks.map_layers import SphereConv, start_at_zero
from emulator.networks.map_network import MapNetwork
from emulator.networks.map_norms import map_norm
from emulator.networks.registry import network
from emulator.options import Options, option
from emulator.parallel.space import ALONE, Space
from emulator.planet.grid import Grid


@dataclasses.dataclass(frozen=True)
class AttentionUNetOptions(Options):
    """U-Net with attention gates on its skips (Oktay et al. 2018); published: width 64, depth 4, dropout 0.2."""

    width: int = option(24, "channels on the finest level; twice as many on the next", minimum=2)
    depth: int = option(3, "halvings of the grid", minimum=1)
    norm: Literal["batch", "instance", "whole", "none"] = option("batch", "after every convolution")
    dropout: float = option(0.0, "share of numbers that are left out on the way down", minimum=0, below=1)
    noise: NoiseOptions | None = option(None, "random fields that scale and shift normalised features")
    condition: tuple[str, ...] = option(
        (), "time_of_year, or forcing without levels, to scale and shift normalised features by"
    )
    checkpointing: bool = option(False, "compute blocks again in the backward pass instead of storing them")
    zero_output: bool = option(False, "the last layer starts at zero")


@network("attention_unet", AttentionUNetOptions, regions=("box", "projected"), bands=True)
def build(options: AttentionUNetOptions, inputs: int, outputs: int, grid: Grid, space: Space) -> "AttentionUNet":
    if options.dropout and space.size > 1:
        raise ValueError(
            "Expected no dropout for states that several processes hold together, since what is left out is drawn for whole "
            f"maps, got {options.dropout}"
        )
    return AttentionUNet(inputs, outputs, *grid.shape, edges_of(grid), options, space)


class AttentionUNet(MapNetwork):
    """U-Net with gated skips on a latitude-longitude grid, a box of one, or a map.

    Args:
      in_channels, out_channels: channels of the input and of the output. nlat, nlon: the grid.
      edges: of the grid. options: size and design. space: processes that hold a state together, each a band of rows.
    Raises `ValueError` for a grid that cannot be halved so often.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        nlat: int,
        nlon: int,
        edges: Edges = SPHERE,
        options: AttentionUNetOptions | None = None,
        space: Space = ALONE,
    ):
        options = options or AttentionUNetOptions()
        super().__init__(in_channels, out_channels, (nlat, nlon), options, space)
        expect_halvings(edges, nlat, nlon, options.depth)
        widths = [options.width * 2**n for n in range(options.depth + 1)]
        self.halvings, places = levels(edges, space, nlat, options.depth)
        pairs = list(enumerate(zip((in_channels, *widths), widths, strict=False)))
        self.down = nn.ModuleList(Convolutions((a, b, b), places[n], options) for n, (a, b) in pairs)
        self.widened = nn.ModuleList(Convolutions((b, a), places[n - 1], options) for n, (a, b) in pairs[1:])
        self.gates = nn.ModuleList(Gate(a, places[n - 1], options.norm) for n, (a, _) in pairs[1:])
        self.up = nn.ModuleList(Convolutions((2 * a, a, a), places[n - 1], options) for n, (a, _) in pairs[1:])
        self.last = start_at_zero(nn.Conv2d(widths[0], out_channels, 1), options.zero_output)

    def _map(self, x, condition, noise):
        kept, noises = [], [noise]
        for n, block in enumerate(self.down):
            if n:
                x = self.halvings[n - 1].largest(x)
                noises.append(None if noise is None else self.halvings[n - 1](noises[-1]))
            x = F.dropout(self._run(block, x, condition, noises[n]), self.options.dropout, self.training)
            kept.append(x)
        for n in reversed(range(self.options.depth)):
            across = kept[n]
            x = self.halvings[n].back(x, *across.shape[2:])
            x = self._run(self.widened[n], x, condition, noises[n])
            x = torch.cat([x, self._run(self.gates[n], across, x)], 1)
            x = self._run(self.up[n], x, condition, noises[n])
        return self.last(x)


class Convolutions(nn.Module):
    """Convolutions from width to width, each with a norm and a ReLU after it."""

    def __init__(self, widths, place: Level, options):
        super().__init__()
        pairs, around = list(zip(widths[:-1], widths[1:], strict=True)), place.around()
        self.convolutions = nn.ModuleList(SphereConv(a, b, around) for a, b in pairs)
        self.norms = nn.ModuleList(map_norm(options.norm, b, place.space, place.share) for _, b in pairs)
        self.modulations = nn.ModuleList(MapModulation(b, options) for _, b in pairs)

    def forward(self, x: torch.Tensor, condition: torch.Tensor | None = None, noise: torch.Tensor | None = None):
        """`(batch, widths[0], nlat, nlon)` -> `(batch, widths[-1], nlat, nlon)`."""
        for convolution, norm, modulation in zip(self.convolutions, self.norms, self.modulations, strict=True):
            x = F.relu(modulation(norm(convolution(x)), condition, noise))
        return x


class Gate(nn.Module):
    """Scales what comes across a level by attention, one factor between 0 and 1 a cell."""

    def __init__(self, channels, place: Level, norm):
        super().__init__()
        inner, around = channels // 2, place.around()

        def convolution(inputs, outputs):
            return nn.Sequential(SphereConv(inputs, outputs, around), map_norm(norm, outputs, place.space, place.share))

        self.across, self.below = convolution(channels, inner), convolution(channels, inner)
        self.attention = convolution(inner, 1)

    def forward(self, across: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
        """Two maps `(batch, channels, nlat, nlon)` -> the first, scaled."""
        return across * torch.sigmoid(self.attention(F.relu(self.across(across) + self.below(below))))
