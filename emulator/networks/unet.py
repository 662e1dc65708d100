"""A small U-Net with convolutions that know the sphere: periodic in longitude, and going on beyond the poles.

On a region its cells at the border are repeated beyond it, but for rows of a zone, which go round. Several processes have a
band of rows each, on every level; rows around it are fetched before each convolution.

A baseline for the other networks. Cells of a convolution's stencil cover less ground towards the poles, so unlike those
it is not equivariant under rotations, except about the axis by whole cells of its coarsest level.
"""

import dataclasses
from typing import Literal

import torch
from torch import nn

from emulator.networks.conditions import NoiseModulation, NoiseOptions, modulated, noise_count, scalar_count
from emulator.networks.dropout import Dropout
from emulator.networks.edges import Edges, edges_of
from emulator.networks.halos import expect_halvings, levels
from emulator.networks.map_layers import SphereConv, start_at_zero
from emulator.networks.map_network import MapNetwork
from emulator.networks.map_norms import GroupNorm
from emulator.networks.registry import network
from emulator.options import Options, option
from emulator.parallel.space import ALONE, Space
from emulator.planet.grid import Grid


@dataclasses.dataclass(frozen=True)
class UNetOptions(Options):
    """U-Net with convolutions around the sphere, or of a region, a baseline."""

    width: int = option(48, "channels on the finest level; twice as many on the next", minimum=1)
    depth: int = option(3, "halvings of the grid", minimum=1)
    blocks: int = option(1, "residual blocks on a level, on the way down and up", minimum=1)
    noise: NoiseOptions | None = option(
        None, "random fields that scale and shift what every convolution of a block takes in"
    )
    condition: tuple[str, ...] = option(
        (),
        "time_of_year, or forcing without levels, to scale and shift what every convolution of a block takes in by",
        new=True,
        keyword=True,
    )
    dropout: float = option(
        0.0,
        "probability that a number after either convolution of a block is left out",
        minimum=0,
        below=1,
        new=True,
        keyword=True,
    )
    checkpointing: bool = option(False, "compute blocks again in the backward pass instead of storing them")
    zero_output: bool = option(False, "the last layer starts at zero")


@network("unet", UNetOptions, regions=("box", "projected"), bands=True)
def build(options: UNetOptions, inputs: int, outputs: int, grid: Grid, space: Space) -> "UNet":
    edges_of(grid)
    region = None if grid.is_global() else "round" if grid.goes_round else "open"
    return UNet(inputs, outputs, *grid.shape, poles=grid.has_poles, options=options, region=region, space=space)


class UNet(MapNetwork):
    """U-Net on a latitude-longitude grid, a box of one, or a map.

    Args:
      in_channels, out_channels: channels of the input and of the output.
      nlat, nlon: the grid; longitudes that go round must allow `depth` halvings and one more, for what lies beyond a pole.
      poles: whether the grid has rows at the poles.
      options: size and design.
      region: None on a globe; "open" on a region, "round" on one whose rows go round the sphere.
      space: processes that hold a state together, each a band of rows.
    Raises `ValueError` for a number of longitudes that cannot be halved so often, and for too few latitudes.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        nlat: int,
        nlon: int,
        poles: bool = False,
        options: UNetOptions | None = None,
        region: Literal["open", "round"] | None = None,
        space: Space = ALONE,
    ):
        options = options or UNetOptions()
        super().__init__(in_channels, out_channels, (nlat, nlon), options, space)
        edges = Edges(poles, region != "open", region is not None)
        expect_halvings(edges, nlat, nlon, options.depth)
        widths = [options.width * 2**n for n in range(options.depth + 1)]
        self.halvings, places = levels(edges, space, nlat, options.depth)
        self.first = SphereConv(in_channels, widths[0], places[0].around())
        self.down = nn.ModuleList(_blocks(w, place, options) for place, w in zip(places, widths, strict=True))
        self.widen = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(widths[:-1], widths[1:], strict=True))
        self.narrow = nn.ModuleList(nn.Conv2d(a + b, a, 1) for a, b in zip(widths[:-1], widths[1:], strict=True))
        self.up = nn.ModuleList(_blocks(w, place, options) for place, w in zip(places[:-1], widths[:-1], strict=True))
        self.last = start_at_zero(nn.Conv2d(widths[0], out_channels, 1), options.zero_output)

    def _map(self, x, condition, noise):
        """Coarser levels see means of the noise."""
        x = self.first(x)
        kept, noises = [], [noise]
        for n, blocks in enumerate(self.down):
            if n:
                x = self.widen[n - 1](self.halvings[n - 1](x))
                noises.append(None if noise is None else self.halvings[n - 1](noises[-1]))
            x = self._each(blocks, x, noises[n], condition)
            kept.append(x)
        for n in reversed(range(self.options.depth)):
            across = kept[n]
            x = self.halvings[n].back(x, *across.shape[2:])
            x = self._each(self.up[n], self.narrow[n](torch.cat([across, x], 1)), noises[n], condition)
        return self.last(x)

    def _each(self, blocks, x, *given):
        for block in blocks:
            x = self._run(block, x, *given)
        return x


def _blocks(width, place, options):
    given = noise_count(options.noise), scalar_count(options.condition)
    return nn.ModuleList(_Block(width, place, *given, options.dropout) for _ in range(options.blocks))


class _Block(nn.Module):
    """Two convolutions with a norm before each, added to the input."""

    def __init__(self, width, place, noise_channels, scalars, dropout):
        super().__init__()
        self.dropout = Dropout(dropout, batch_axis=0)
        around = place.around()
        self.layers = nn.Sequential(
            GroupNorm(1, width, place.space, place.share), SphereConv(width, width, around), nn.GELU(),
            GroupNorm(1, width, place.space, place.share), SphereConv(width, width, around),
        )  # fmt: skip
        self.noise, self.condition = (
            nn.ModuleList(NoiseModulation(given, width) for _ in range(2 if given else 0))
            for given in (noise_channels, scalars)
        )

    def forward(self, x, noise=None, condition=None):
        if noise is None and condition is None and not self.dropout.active:
            return x + self.layers(x)
        first, convolution, activation, second, last = self.layers
        y = self.dropout(activation(convolution(self._modulated(0, first(x), noise, condition))))
        return x + self.dropout(last(self._modulated(1, second(y), noise, condition)))

    def _modulated(self, n, x, noise, condition):
        pairs = (self.condition, condition), (self.noise, noise)
        return modulated(x, *((layers[n], given) for layers, given in pairs if given is not None))
