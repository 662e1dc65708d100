"""Multigrid neural operator (He, Liu and Xu 2024, ICLR): linear operators between channels as cycles over coarser grids.

A layer is a linear operator and a 1 x 1 convolution, added, and a GELU. The operator solves as multigrid methods do: with
3 x 3 convolutions A and S an iteration is u <- u + S (f - A u), f being the layer's input; strided convolutions take u and f
to grids with half as many rows and columns, and transposed ones bring what is found there back. There is no lifting: the
first layer takes the input as it is.
"""

import dataclasses

import torch
import torch.nn.functional as F
from torch import nn

from emulator.networks.channel_axes import Axes, ChannelAxis
from emulator.networks.conditions import MapModulation, NoiseOptions
from emulator.networks.edges import SPHERE, Edges, edges_of
from emulator.networks.halos import Level, expect_halvings, levels
from emulator.networks.map_layers import SphereConv, start_at_zero
from emulator.networks.map_network import MapNetwork
from emulator.networks.registry import network
from emulator.options import Options, option
from emulator.parallel.space import ALONE, Space
from emulator.planet.grid import Grid


@dataclasses.dataclass(frozen=True)
class MgNOOptions(Options):
    """Multigrid neural operator (He, Liu and Xu 2024), small."""

    width: int = option(24, "channels of every layer", minimum=1)
    layers: int = option(4, "each a cycle over all levels", minimum=1)
    depth: int = option(3, "halvings of the grid", minimum=1)
    before: int = option(1, "iterations on every level on the way down, one more on the coarsest", minimum=1)
    after: int = option(0, "iterations on every level but the coarsest on the way up", minimum=0)
    residual: bool = option(False, "coarser levels are given what is left of f, not f itself")
    noise: NoiseOptions | None = option(None, "random fields that scale and shift what a layer's activation is given")
    condition: tuple[str, ...] = option(
        (), "time_of_year, or forcing without levels, to scale and shift what a layer's activation is given"
    )
    checkpointing: bool = option(False, "compute layers again in the backward pass instead of storing them")
    zero_output: bool = option(False, "the last layer starts at zero")


@network("mgno", MgNOOptions, regions=("box", "projected"), bands=True)
def build(options: MgNOOptions, inputs: int, outputs: int, grid: Grid, space: Space) -> "MgNO":
    return MgNO(inputs, outputs, *grid.shape, edges_of(grid), options, space)


class MgNO(MapNetwork):
    """Multigrid neural operator on a latitude-longitude grid, a box of one, or a map.

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
        options: MgNOOptions | None = None,
        space: Space = ALONE,
    ):
        options = options or MgNOOptions()
        super().__init__(in_channels, out_channels, (nlat, nlon), options, space)
        expect_halvings(edges, nlat, nlon, options.depth)
        places, width = levels(edges, space, nlat, options.depth)[1], options.width
        inputs = [in_channels] + [width] * (options.layers - 1)
        self.layers = nn.ModuleList(Layer(count, width, places, options) for count in inputs)
        self.last = start_at_zero(nn.Conv2d(width, out_channels, 1), options.zero_output)

    @property
    def channel_axes(self) -> Axes:
        """Where channels lie: on coarser levels the first layer has a hidden one for every input.

        Not known where the finest level subtracts something of every input, which also goes on once it is dropped.
        """
        options, (first, *_) = self.options, self.layers
        known = int(options.before == 1 and not options.after and not options.residual)
        inputs = ChannelAxis("inputs", 1, blocks=known)
        made, used = (ChannelAxis("inputs", axis, hidden=True, fresh=not axis) for axis in (0, 1))
        axes = {"start.weight": [inputs], "coarser_f.0.weight": [made, inputs]}
        for name, _ in first.cycle.named_parameters():
            if name.endswith("operator.weight"):
                axes[name] = [made]
            elif name.endswith("smoother.weight"):
                axes[name] = [used]
            elif name.startswith("coarser_f") and name not in axes:
                axes[name] = [made, used]
        return {f"layers.0.cycle.{name}": found for name, found in axes.items()} | {"layers.0.linear.weight": [inputs]}

    def _map(self, x, condition, noise):
        for layer in self.layers:
            x = self._run(layer, x, condition, noise)
        return self.last(x)


class Layer(nn.Module):
    """A cycle and a 1 x 1 convolution, added, and a GELU."""

    def __init__(self, inputs, width, places, options):
        super().__init__()
        self.cycle = Cycle(inputs, width, places, options)
        self.linear = nn.Conv2d(inputs, width, 1)
        self.modulation = MapModulation(width, options)

    def forward(self, x: torch.Tensor, condition: torch.Tensor | None = None, noise: torch.Tensor | None = None):
        """`(batch, inputs, nlat, nlon)` -> `(batch, width, nlat, nlon)`."""
        return F.gelu(self.modulation(self.cycle(x) + self.linear(x), condition, noise))


class Cycle(nn.Module):
    """A linear operator from `inputs` channels of f to `width` channels of u, from the finest level down and up again.

    Args:
      places: the levels.
    """

    def __init__(self, inputs: int, width: int, places: list[Level], options: MgNOOptions):
        super().__init__()
        last, around = len(places) - 1, [place.around() for place in places]
        strided = [place.around(stride=2) for place in places]

        def iterations(n, count):
            return nn.ModuleList(Iteration(inputs, width, around[n]) for _ in range(count))

        self.start = SphereConv(inputs, width, around[0], bias=False)
        counts = [options.before - 1] + [options.before] * (last - 1) + [options.before + 1]
        self.before = nn.ModuleList(iterations(n, count) for n, count in enumerate(counts))
        self.after = nn.ModuleList(iterations(n, options.after) for n in range(last))
        self.operators = nn.ModuleList(
            SphereConv(width, inputs, around[n], bias=False) for n in range(last if options.residual else 0)
        )
        self.coarser_u = nn.ModuleList(SphereConv(width, width, strided[n], False, 2) for n in range(last))
        self.coarser_f = nn.ModuleList(SphereConv(inputs, inputs, strided[n], False, 2) for n in range(last))
        self.finer = nn.ModuleList(Prolongation(width, around[n + 1], places[n].first % 2) for n in range(last))

    def forward(self, f: torch.Tensor) -> torch.Tensor:
        """`(batch, inputs, nlat, nlon)` -> `(batch, width, nlat, nlon)`."""
        u, kept = self.start(f), []
        for n, iterations in enumerate(self.before):
            if n:
                left = f - self.operators[n - 1](u) if self.operators else f
                u, f = self.coarser_u[n - 1](u), self.coarser_f[n - 1](left)
            for iteration in iterations:
                u = iteration(u, f)
            kept.append((u, f))
        for n in reversed(range(len(self.after))):
            finer, f = kept[n]
            u = finer + self.finer[n](u, *finer.shape[2:])
            for iteration in self.after[n]:
                u = iteration(u, f)
        return u


class Iteration(nn.Module):
    """u + S (f - A u)."""

    def __init__(self, inputs, width, around):
        super().__init__()
        self.operator = SphereConv(width, inputs, around, bias=False)
        self.smoother = SphereConv(inputs, width, around, bias=False)

    def forward(self, u: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
        """`(batch, width, nlat, nlon)` and `(batch, inputs, nlat, nlon)` -> the first."""
        return u + self.smoother(f - self.operator(u))


class Prolongation(nn.ConvTranspose2d):
    """Transposed convolution of 4 x 4 cells to a grid with twice as many rows and columns, around the sphere.

    Args:
      around: of the coarser level. odd: whether the first row of the finer band is the second half of a coarse one.
    """

    def __init__(self, width, around, odd):
        super().__init__(width, width, 4, stride=2, padding=1, bias=False)
        self.around, self.start = around, 2 - odd

    def forward(self, x: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        """`(batch, width, own rows, nlon)` -> `(batch, width, rows, columns)` of the finer band."""
        return super().forward(self.around(x))[:, :, self.start : self.start + rows, 2 : 2 + columns]
