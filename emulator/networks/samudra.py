"""Samudra's U-Net of dilated ConvNeXt blocks (Dheeshjith et al. 2025, arXiv 2412.03795; Samudra 2: arXiv 2606.02610).

A block: two dilated 3 x 3 convolutions on `expansion` times its input's channels, a norm and a capped GELU after each, and a
1 x 1 convolution back, added to the input, or to a 1 x 1 convolution of it where the width changes. Means halve the grid,
bilinear interpolation doubles it, and what comes up is added to what was there on the way down.

The networks for oceans give zeros on land, as our steps do for fields with a domain; convolutions near a coast see these.
"""

import dataclasses
import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from emulator.networks.channel_axes import Axes, ChannelAxis
from emulator.networks.conditions import MapModulation, NoiseOptions
from emulator.networks.dropout import DropPath
from emulator.networks.edges import SPHERE, Edges, edges_of
from emulator.networks.halos import Rows, levels
from emulator.networks.layers import gelu
from emulator.networks.map_layers import Pointwise, SphereConv, start_at_zero
from emulator.networks.map_network import MapNetwork
from emulator.networks.map_norms import map_norm
from emulator.networks.registry import network
from emulator.options import Options, option
from emulator.parallel.space import ALONE, Space
from emulator.planet.grid import Grid

CAP = 10.0  # of the activation, as published
WHOLE = ("sphere", "round")  # edges with no cell left out, the others are as published


@dataclasses.dataclass(frozen=True)
class SamudraOptions(Options):
    """Samudra's U-Net of dilated ConvNeXt blocks (Dheeshjith et al. 2025), for oceans and all else.

    At 1 degree Samudra has widths of 200, 250, 300 and 400 and an expansion of 4, Samudra 2 280, 380, 480 and 520 and 2, both
    with dilations of 1, 2, 4 and 8, and edges of the same name.
    """

    widths: tuple[int, ...] = option((48, 64, 96), "channels of every level from the finest on", minimum=1, shortest=1)
    dilations: tuple[int, ...] = option((1, 2, 4), "of the convolutions on every level, in cells", minimum=1)
    expansion: int = option(2, "channels within a block over those that it is given", minimum=1)
    norm: Literal["batch", "instance", "whole", "none"] = option(
        "batch", "after convolutions; batch, as published, has forecasts go by moments of the training"
    )
    edges: Literal["sphere", "round", "samudra2", "samudra"] = option(
        "sphere",
        "going on across the poles; round: a region whose rows go on at their other end, as a re-entrant channel's; or, as "
        "published, zeros beyond the poles, and doublings that go round or not",
    )
    noise: NoiseOptions | None = option(None, "random fields that scale and shift normalised features")
    condition: tuple[str, ...] = option(
        (), "time_of_year, or forcing without levels, to scale and shift normalised features by"
    )
    checkpointing: bool = option(False, "compute blocks again in the backward pass instead of storing them")
    drop_path: float = option(0.0, "probability to leave what comes across a level out", minimum=0, below=1)
    zero_output: bool = option(False, "the last layer starts at zero")

    def __post_init__(self):
        super().__post_init__()
        if len(self.widths) != len(self.dilations):
            raise ValueError(
                f"Expected as many dilations as widths, got {len(self.dilations)} and {len(self.widths)} of them"
            )


@network("samudra", SamudraOptions, regions=("box", "projected"), bands=True)
def build(options: SamudraOptions, inputs: int, outputs: int, grid: Grid, space: Space) -> "Samudra":
    edges = edges_of(grid)
    if options.edges not in WHOLE and (edges.open or space.size > 1):
        raise ValueError(
            "Expected edges sphere or round for a region and for states that several processes hold together, got "
            f"{options.edges}"
        )
    if options.edges == "round":
        if not edges.open:
            raise ValueError("Expected edges round for a region, the rows of a globe go round with edges sphere")
        edges = dataclasses.replace(edges, round=True)
    return Samudra(inputs, outputs, *grid.shape, edges, options, space)


class Samudra(MapNetwork):
    """U-Net of dilated ConvNeXt blocks on a latitude-longitude grid, a box of one, or a map.

    Args:
      in_channels, out_channels: channels of the input and of the output. nlat, nlon: the grid.
      edges: of the grid. options: size and design.
      space: processes that hold a state together, each a band of rows.
    Raises `ValueError` for a grid that cannot be halved once a level, or whose coarsest one dilations reach around.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        nlat: int,
        nlon: int,
        edges: Edges = SPHERE,
        options: SamudraOptions | None = None,
        space: Space = ALONE,
    ):
        options = options or SamudraOptions()
        super().__init__(in_channels, out_channels, (nlat, nlon), options, space)
        widths, dilations, depth = options.widths, options.dilations, len(options.widths)
        if options.edges in WHOLE:
            self.halvings, places = levels(edges, space, nlat, depth)
            doublings = (
                Doubling(place, halving.first) for place, halving in zip(places[1:], self.halvings, strict=True)
            )
        else:
            self.halvings = nn.ModuleList(nn.AvgPool2d(2) for _ in widths)
            places = [PublishedLevel(nlat // 2**n) for n in range(depth + 1)]
            doublings = (PublishedDoubling(options.edges == "samudra2") for _ in widths)
        self.doublings = nn.ModuleList(doublings)
        _expect_room(options, edges, [place.bounds[-1] for place in places], nlon)

        def block(inputs, outputs, n, dilation):
            return Block(inputs, outputs, places[n], dilation, options)

        pairs = list(enumerate(zip((in_channels, *widths), widths, dilations, strict=False)))
        self.down = nn.ModuleList(block(a, b, n, dilation) for n, (a, b, dilation) in pairs)
        self.middle = block(widths[-1], widths[-1], depth, dilations[-1])
        # as published, the last block is dilated as those of the second level are
        self.last = block(widths[0], widths[0], 0, dilations[min(1, depth - 1)])
        self.up = nn.ModuleList(block(b, a, n, dilation) for n, (a, b, dilation) in pairs[1:])
        self.decoder = start_at_zero(SphereConv(widths[0], out_channels, places[0].around(1)), options.zero_output)
        self.drop_path = DropPath(options.drop_path)

    @property
    def channel_axes(self) -> Axes:
        """Where channels lie: the first block has hidden ones for every input.

        Not known where its input is added as it is, and where a norm takes all hidden channels together.
        """
        hidden = {"each": self.options.expansion, "blocks": int(self.options.norm != "whole")}
        made, used = (ChannelAxis("inputs", axis, hidden=True, fresh=not axis, **hidden) for axis in (0, 1))
        plain = isinstance(self.down[0].skip, nn.Identity)
        inputs = ChannelAxis("inputs", 1, blocks=0 if plain else 1)
        axes = {
            "first.weight": [made, inputs],
            "second.weight": [made, used],
            "third.weight": [used],
            "skip.weight": [dataclasses.replace(inputs, needed=True)],
        }
        norms = (f"norms.{n}.{part}" for n in range(2) for part in ("weight", "bias", "running_mean", "running_var"))
        axes |= {name: [made] for name in ("first.bias", "second.bias", *norms)}
        return {f"down.0.{name}": found for name, found in axes.items()}

    def _map(self, x, condition, noise):
        kept, noises = [], [noise]
        for block, halving in zip(self.down, self.halvings, strict=True):
            kept.append(self._run(block, x, condition, noises[-1]))
            x = halving(kept[-1])
            noises.append(None if noise is None else halving(noises[-1]))
        x = self._run(self.middle, x, condition, noises[-1])
        for n, block in reversed([*enumerate((self.last, *self.up))]):
            across = kept[n]
            if self.drop_path.active:
                across = across * self.drop_path(across.new_ones(1, len(across), 1)).view(-1, 1, 1, 1)
            x = self.doublings[n](x, *across.shape[2:]) + across
            x = self._run(block, x, condition, noises[n])
        return self.decoder(x)


class Block(nn.Module):
    """Two dilated convolutions with a norm and a capped GELU after each, and one of single cells, added to the input."""

    def __init__(self, inputs, outputs, place, dilation, options):
        super().__init__()
        hidden, around = inputs * options.expansion, place.around(dilation)
        self.first = SphereConv(inputs, hidden, around)
        self.second = SphereConv(hidden, hidden, around)
        self.third = Pointwise(hidden, outputs)
        self.skip = nn.Identity() if inputs == outputs else Pointwise(inputs, outputs)
        self.norms = nn.ModuleList(map_norm(options.norm, hidden, place.space, place.share) for _ in range(2))
        self.modulations = nn.ModuleList(MapModulation(hidden, options) for _ in range(2))

    def forward(self, x: torch.Tensor, condition: torch.Tensor | None = None, noise: torch.Tensor | None = None):
        """`(batch, inputs, own rows, nlon)` -> `(batch, outputs, own rows, nlon)`."""
        y = x
        for convolution, norm, modulation in zip((self.first, self.second), self.norms, self.modulations, strict=True):
            y = _activated(modulation(norm(convolution(y)), condition, noise))
        return self.skip(x) + self.third(y)


def _activated(x):
    """Capped GELU. That of the cap is the cap, and capping first has a fused gradient, as GELU of what is contiguous has."""
    return gelu(F.hardtanh(x, -math.inf, CAP).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Doubling(nn.Module):
    """Bilinear interpolation to a grid with twice as many rows and columns, around the sphere and across the poles.

    Args:
      place: the coarser level. first: whether the first row of the finer band is the second half of a coarse one.
    """

    def __init__(self, place, first):
        super().__init__()
        self.around, self.start = place.around(1), 2 - first

    def forward(self, x: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        """`(batch, channel, own rows, nlon)` -> `(batch, channel, rows, columns)` of the finer band."""
        x = F.interpolate(self.around(x), scale_factor=2, mode="bilinear")
        return x[:, :, self.start : self.start + rows, 2 : 2 + columns]


class PublishedDoubling(nn.Module):
    """Bilinear interpolation as published, going round in longitude or not; what is missing of an odd number is zero."""

    def __init__(self, round):
        super().__init__()
        self.round = round

    def forward(self, x: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        """`(batch, channel, nlat, nlon)` -> `(batch, channel, rows, columns)`."""
        side = 1 if self.round else 0
        x = F.interpolate(F.pad(x, (side, side, 0, 0), mode="circular"), scale_factor=2, mode="bilinear")
        x = x[..., 2 * side : x.shape[3] - 2 * side]
        below, east = rows - x.shape[2], columns - x.shape[3]
        return F.pad(x, (east // 2, east - east // 2, below // 2, below - below // 2))


class PublishedLevel:
    """A level of so many rows with zeros beyond the poles, whatever lies there; of one process."""

    space, share = ALONE, 1.0

    def __init__(self, rows):
        self.bounds = (0, rows)

    def around(self, margin):
        return PublishedAround(margin, self.bounds)


class PublishedAround(nn.Module):
    """Maps with `margin` cells more on every side: around in longitude, and zeros beyond the poles."""

    def __init__(self, margin, bounds):
        super().__init__()
        self.margin, self.round = margin, Rows(ALONE, bounds, [range(*bounds)], SPHERE, margin)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, channel, nlat, nlon)` -> `(batch, channel, nlat + 2 margin, nlon + 2 margin)`."""
        return F.pad(self.round(x), (0, 0, self.margin, self.margin))


def _expect_room(options, edges, rows, columns):
    """Raises `ValueError` unless a grid of so many rows on every level, and columns on the finest, has room for all."""
    depth, published = len(options.widths), options.edges not in WHOLE
    # beyond a pole are columns half a turn on, on every level; without poles an odd last column stands by itself
    if not published and not edges.open and columns % 2 ** (depth + 1):
        raise ValueError(
            f"Expected longitudes in a multiple of {2 ** (depth + 1)} for {depth} halvings, got {columns}; edges samudra2 "
            "takes others as published, with a seam"
        )
    for n, (count, dilation) in enumerate(zip(rows, (*options.dilations, options.dilations[-1]), strict=True)):
        # the outer blocks reach as far as those of the second level
        dilation = max(dilation, options.dilations[min(1, depth - 1)]) if n == 0 else dilation
        across = columns // 2**n if published else -(-columns // 2**n)
        most = across if published else min(count - edges.poles * (n == 0), across)
        if dilation > most or not count:
            raise ValueError(
                f"Expected dilations within the grid, which has {count} x {across} cells after {n} halvings, got {dilation}"
            )
