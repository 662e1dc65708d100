"""Fourier neural operator on the plane (Li et al. 2021): the baseline that knows nothing of the sphere, unless told.

A block: waves of low number along latitude and longitude, each mixed over its channels by a complex matrix of its own,
beside a 1 x 1 convolution, and a GELU. Longitude is periodic. Latitude is not, so that rows of zeros follow the last one, as
published for such axes; or it is taken for periodic; or meridians go on across the poles and back on the other side, which
makes them circles (the double Fourier sphere; Merilees 1973).
"""

import dataclasses
import itertools
import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from emulator.networks.conditions import MapModulation, NoiseOptions
from emulator.networks.edges import Edges
from emulator.networks.halos import Rows
from emulator.networks.layers import full
from emulator.networks.map_layers import start_at_zero
from emulator.networks.map_network import MapNetwork
from emulator.networks.registry import expect_global, network
from emulator.options import Options, option
from emulator.parallel.space import ALONE, Space, even_bounds
from emulator.planet.grid import Grid


@dataclasses.dataclass(frozen=True)
class FNOOptions(Options):
    """Fourier neural operator on the plane (Li et al. 2021), a baseline."""

    width: int = option(32, "channels of the state", minimum=1)
    blocks: int = option(4, "each waves beside a 1 x 1 convolution", minimum=1)
    modes: tuple[int, int] = option((12, 16), "wave numbers kept in latitude and longitude, from 0 on", minimum=1)
    latitude: Literal["padded", "periodic", "sphere"] = option(
        "padded", "rows of zeros after the last, none, or across the poles and back on the other side"
    )
    padding: int = option(8, "rows of zeros of a padded latitude", minimum=0)
    hidden: int = option(64, "channels of the layer before the last", minimum=1)
    noise: NoiseOptions | None = option(None, "random fields that scale and shift what a block's activation is given")
    condition: tuple[str, ...] = option(
        (), "time_of_year, or forcing without levels, to scale and shift what a block's activation is given"
    )
    checkpointing: bool = option(False, "compute blocks again in the backward pass instead of storing them")
    zero_output: bool = option(False, "the last layer starts at zero")

    def __post_init__(self):
        super().__post_init__()
        if len(self.modes) != 2:
            raise ValueError(f"Expected two numbers of modes, of latitude and longitude, got {self.modes}")


@network("fno", FNOOptions, regions=(), bands=True)
def build(options: FNOOptions, inputs: int, outputs: int, grid: Grid, space: Space) -> "FNO":
    expect_global(grid, "gaussian", "equiangular", "regular")
    return FNO(inputs, outputs, *grid.shape, poles=grid.has_poles, options=options, space=space)


class FNO(MapNetwork):
    """Fourier neural operator on a latitude-longitude grid.

    Args:
      in_channels, out_channels: channels of the input and of the output. nlat, nlon: the grid.
      poles: whether the grid has rows at the poles. options: size and design.
      space: processes that hold a state together, each a band of rows, and of all rows a share of the waves along longitude.
    Raises `ValueError` for more modes than the grid has, and fewer than processes.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        nlat: int,
        nlon: int,
        poles: bool = False,
        options: FNOOptions | None = None,
        space: Space = ALONE,
    ):
        options = options or FNOOptions()
        super().__init__(in_channels, out_channels, (nlat, nlon), options, space)
        self.poles = 1 if poles else 0
        rows = {"periodic": nlat, "padded": nlat + options.padding, "sphere": 2 * (nlat - self.poles)}[options.latitude]
        if 2 * options.modes[0] > rows or options.modes[1] > nlon // 2 + 1:
            raise ValueError(
                f"Expected modes of at most {rows // 2} and {nlon // 2 + 1}, got {options.modes[0]} and {options.modes[1]}"
            )
        if options.modes[1] < space.size:
            raise ValueError(
                f"Expected waves along longitude for each of {space.size} processes, got modes {options.modes[1]}"
            )
        width, bounds = options.width, space.bounds(rows)
        self.extension = None if space.size == 1 else Extension(nlat, rows, Edges(poles), options.latitude, space)
        self.lift = nn.Conv2d(in_channels, width, 1)
        self.blocks = nn.ModuleList(
            Block(options, n + 1 < options.blocks, space, bounds) for n in range(options.blocks)
        )
        self.project = nn.Conv2d(width, options.hidden, 1)
        self.last = start_at_zero(nn.Conv2d(options.hidden, out_channels, 1), options.zero_output)

    def _map(self, x, condition, noise):
        x, noise = self._extended(self.lift(x)), None if noise is None else self._extended(noise)
        for block in self.blocks:
            x = self._run(block, x, condition, noise)
        x = x[:, :, : self.shape[0]] if self.extension is None else self.extension.off(x)
        return self.last(F.gelu(self.project(x)))

    def _extended(self, x):
        """With the rows beyond the last that make latitude what the options say."""
        if self.extension is not None:
            return self.extension(x)
        if self.options.latitude == "padded":
            return F.pad(x, (0, 0, 0, self.options.padding))
        if self.options.latitude == "periodic":
            return x
        back = x[:, :, self.poles : x.shape[2] - self.poles].flip(2).roll(x.shape[3] // 2, 3)
        return torch.cat([x, back], 2)


class Extension(nn.Module):
    """Bands of a grid to bands of all rows that waves are taken of, and back.

    Args:
      nlat, rows: of the grid and in all. edges: of the grid. latitude: what follows the grid's rows. space: the processes.
    """

    def __init__(self, nlat: int, rows: int, edges: Edges, latitude: str, space: Space):
        super().__init__()
        own, whole = (list(itertools.pairwise(space.bounds(count))) for count in (nlat, rows))
        there = rows if latitude == "sphere" else nlat  # others are zeros
        wanted = [range(min(start, there), min(stop, there)) for start, stop in whole]
        self.onto = Rows(space, space.bounds(nlat), wanted, edges)
        self.zeros = (whole[space.rank][1] - whole[space.rank][0]) - len(wanted[space.rank])
        self.back = Rows(space, space.bounds(rows), [range(*pair) for pair in own])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, channel, own rows of the grid, nlon)` -> `(batch, channel, own of all rows, nlon)`."""
        return F.pad(self.onto(x), (0, 0, 0, self.zeros))

    def off(self, x: torch.Tensor) -> torch.Tensor:
        """The way back."""
        return self.back(x)


class Block(nn.Module):
    """Waves beside a 1 x 1 convolution, added, and a GELU but in the last block."""

    def __init__(self, options, activate, space, bounds):
        super().__init__()
        self.waves = Waves(options.width, options.width, options.modes, space, bounds)
        self.linear = nn.Conv2d(options.width, options.width, 1)
        self.modulation, self.activate = MapModulation(options.width, options), activate

    def forward(self, x: torch.Tensor, condition: torch.Tensor | None = None, noise: torch.Tensor | None = None):
        """`(batch, width, rows, nlon)` -> the same."""
        x = self.modulation(self.waves(x) + self.linear(x), condition, noise)
        return F.gelu(x) if self.activate else x


class Waves(nn.Module):
    """Every wave of low number of `(batch, inputs, rows, columns)` times a complex matrix of its own; others are left out.

    Several processes have all rows of some wave numbers along columns each, between two exchanges of all with all.

    Args:
      inputs, outputs: channels. modes: wave numbers kept along rows (of either sign: from -modes[0] to modes[0] - 1) and
        columns. space: the processes. bounds: of their bands of rows.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        modes: tuple[int, int],
        space: Space = ALONE,
        bounds: tuple[int, ...] | None = None,
    ):
        super().__init__()
        self.modes, self.space, self.bounds = modes, space, bounds
        self.shares = even_bounds(modes[1], space.size)
        weight = torch.randn(2 * modes[0], modes[1], inputs, outputs, 2) * math.sqrt(1 / (2 * inputs))
        self.weight = nn.Parameter(weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, inputs, own rows, columns)` -> `(batch, outputs, own rows, columns)`, float32 at least."""
        columns, (south, east) = x.shape[3], self.modes
        with torch.autocast(x.device.type, enabled=False):
            c = torch.fft.rfft(full(x).permute(0, 2, 3, 1), dim=2)[:, :, :east]
            c = torch.fft.fft(self._all_rows(c), dim=1)
            rows = c.shape[1]
            c = torch.cat([c[:, :south], c[:, rows - south :]], 1)
            own = slice(*self.shares[self.space.rank : self.space.rank + 2])
            c = torch.einsum("brcx,rcxy->brcy", c, torch.view_as_complex(self.weight)[:, own])
            between = c.new_zeros(len(c), rows - 2 * south, *c.shape[2:])
            c = torch.fft.ifft(torch.cat([c[:, :south], between, c[:, south:]], 1), dim=1)
            return torch.fft.irfft(self._own_rows(c), n=columns, dim=2).permute(0, 3, 1, 2)

    def _all_rows(self, c):
        """`(batch, own row, wave, channel)` -> `(batch, row, own wave, channel)`."""
        if self.space.size == 1:
            return c
        c = torch.view_as_real(c.permute(1, 2, 0, 3).contiguous())
        return torch.view_as_complex(self.space.turned(c, self.shares, self.bounds)).permute(2, 0, 1, 3)

    def _own_rows(self, c):
        """The way back."""
        if self.space.size == 1:
            return c
        c = torch.view_as_real(c.permute(1, 2, 0, 3).contiguous())
        return torch.view_as_complex(self.space.turned_back(c, self.shares, self.bounds)).permute(2, 0, 1, 3)
