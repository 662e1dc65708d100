"""Networks of single columns, shared by all cells, for what depends on the column alone, such as convection.

A perceptron over all channels of a cell; or a recurrence down and up the levels, as the one that stood in for a convection
scheme in Zhong et al. (2024, Geosci. Model Dev. 17, 3667).
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from emulator.networks.channel_axes import Axes, ChannelAxis, Entry
from emulator.networks.conditions import NoiseModulation, NoiseOptions, noise_count, scalar_count
from emulator.networks.layers import MLP, Linear, gelu
from emulator.networks.level_tables import ByLevel, columns_of, level_tables, output_order
from emulator.networks.map_network import GridNetwork
from emulator.networks.recurrence import Recurrence
from emulator.networks.registry import network
from emulator.networks.signature import Channel, Signature
from emulator.options import Options, option
from emulator.parallel.space import Space
from emulator.planet.grid import REGIONAL, Grid

CHUNK = 4096  # cells that are computed together where memory is to be saved


@dataclasses.dataclass(frozen=True)
class ColumnOptions(Options):
    """Every column by itself: a perceptron, or a recurrence over its levels."""

    design: Literal["perceptron", "recurrence"] = option("perceptron", "over all channels, or down and up the levels")
    width: int = option(128, "hidden channels; of a recurrence in each direction", minimum=1)
    layers: int = option(2, "hidden layers, or recurrences one upon the other", minimum=1)
    noise: NoiseOptions | None = option(None, "random fields that scale and shift every hidden state")
    condition: tuple[str, ...] = option(
        (), "time_of_year, time_step, or forcing without levels, to scale and shift every hidden state by", new=True
    )
    checkpointing: bool = option(False, f"compute {CHUNK} cells after the others, and again in the backward pass")
    zero_output: bool = option(False, "the last layers start at zero")


@network("column", ColumnOptions, regions=REGIONAL, bands=True, signature=True)
def build(
    options: ColumnOptions, inputs: int, outputs: int, grid: Grid, space: Space, signature: Signature
) -> "ColumnNetwork":
    own = space.band(grid.shape[0])
    return ColumnNetwork(signature, (own.stop - own.start, *grid.shape[1:]), options)


class ColumnNetwork(GridNetwork):
    """A network of columns on cells of any grid.

    Args:
      signature: what the channels are. shape: of the cells. options: size and design.
    Raises `ValueError` for a recurrence where no channel has levels.
    """

    def __init__(self, signature: Signature, shape: tuple[int, ...], options: ColumnOptions | None = None):
        options = options or ColumnOptions()
        super().__init__(len(signature.inputs), len(signature.outputs), shape, options)
        if options.design == "perceptron":
            self.columns = Perceptron(self.in_channels, self.out_channels, options)
        else:
            self.columns = Recurrent(signature, options)
        if options.zero_output:
            for layer in self.columns.last_layers():
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    @property
    def channel_axes(self) -> Axes:
        """Where channels lie in a recurrence: variables with levels, which are alike on all, before those without."""
        if self.options.design == "perceptron":
            return {}
        axes = {"layers.0.weight": [ChannelAxis("inputs", 1, entries=_entering)]}
        for name, leaving in (("on_levels", _on_levels), ("on_surface", _on_surface)):
            rows = [ChannelAxis("outputs", 0, entries=leaving)]
            axes |= {f"{name}.weight": rows, f"{name}.bias": rows}
        return {f"columns.{name}": found for name, found in axes.items()}

    def _output(self, x, condition, noise):
        given, cells = [x, condition, noise], x[0, 0].numel()
        if condition is not None:
            given[1] = condition[..., None].expand(-1, -1, cells)
        rows = [None if t is None else t.flatten(2).transpose(1, 2).flatten(0, 1) for t in given]
        if self.options.checkpointing and torch.is_grad_enabled():
            count = -(-len(rows[0]) // CHUNK)
            parts = zip(*([None] * count if t is None else t.split(CHUNK) for t in rows), strict=True)
            y = torch.cat([self._run(self.columns, *part) for part in parts])
        else:
            y = self.columns(*rows)
        return y.to(x.dtype).unflatten(0, (len(x), -1)).transpose(1, 2).unflatten(2, self.shape).contiguous()


class Perceptron(nn.Module):
    """`(cell, channel)` -> `(cell, channel)`; `condition`: `(cell, scalar)`, `noise`: `(cell, field)`."""

    def __init__(self, inputs: int, outputs: int, options: ColumnOptions):
        super().__init__()
        self.mlp = MLP((inputs, *[options.width] * options.layers, outputs))
        self.condition, self.noise = _modulations(options, options.width)

    def forward(self, x, condition=None, noise=None):
        # one by one: fused layers round otherwise, and modulations are to change no bit before they are learned
        for n, layer in enumerate(self.mlp.layers[:-1]):
            x = _modulated(self, n, gelu(layer(x)), condition, noise)
        return self.mlp.layers[-1](x)

    def last_layers(self) -> list[nn.Linear]:
        return [self.mlp.layers[-1]]


class Recurrent(nn.Module):
    """As `Perceptron`, by recurrences down and up the levels.

    All fields without levels are inputs on each level. Outputs on a level are linear in both states there, those without
    levels in the last states of both ways, which have been over the whole column. Levels are those of inputs and outputs.
    """

    def __init__(self, signature: Signature, options: ColumnOptions):
        super().__init__()
        values = level_tables(signature.outputs).values
        inputs = level_tables(signature.inputs, values)
        outputs = level_tables(signature.outputs, inputs.values)
        if not inputs.levelled:
            raise ValueError("Expected inputs with levels for a recurrence, got none; a perceptron needs none")
        width = options.width
        self.levelled, self.surface = ByLevel(inputs.levelled), ByLevel(inputs.surface) if inputs.surface else None
        beside = self.surface.shape[1] if inputs.surface else 0
        entering = [self.levelled.shape[1] + beside] + [2 * width] * (options.layers - 1)
        self.layers = nn.ModuleList(Recurrence(entered, width) for entered in entering)
        self.condition, self.noise = _modulations(options, 2 * width)
        self.on_levels = Linear(2 * width, len(outputs.levelled)) if outputs.levelled else None
        self.on_surface = Linear(2 * width, len(outputs.surface)) if outputs.surface else None
        self.register_buffer("order", output_order(outputs, len(signature.outputs)), persistent=False)

    def forward(self, x, condition=None, noise=None):
        parts = [self.levelled(x)]
        if self.surface is not None:
            parts.append(self.surface(x).expand(-1, parts[0].shape[1], -1))
        x = torch.cat(parts, -1).transpose(0, 1)  # (level, cell, channel)
        for n, layer in enumerate(self.layers):
            x = _modulated(self, n, layer(x), condition, noise)
        fields = []
        if self.on_surface is not None:
            down, up = x.chunk(2, -1)
            fields.append(self.on_surface(torch.cat([down[-1], up[0]], -1)))
        if self.on_levels is not None:
            fields.append(self.on_levels(x).permute(1, 2, 0).flatten(1))  # (cell, variable * level)
        return torch.cat(fields, 1).index_select(1, self.order)

    def last_layers(self) -> list[nn.Linear]:
        return [layer for layer in (self.on_levels, self.on_surface) if layer is not None]


def _entering(channels: Sequence[Channel]) -> list[Entry]:
    on_levels, on_surface = columns_of(level_tables(channels))
    return on_levels + on_surface


def _on_levels(channels: Sequence[Channel]) -> list[Entry]:
    return columns_of(level_tables(channels))[0]


def _on_surface(channels: Sequence[Channel]) -> list[Entry]:
    return columns_of(level_tables(channels))[1]


def _modulations(options: ColumnOptions, width: int) -> list[nn.ModuleList]:
    """By the condition and by noise, of every hidden layer, where the options ask for them."""
    counts = scalar_count(options.condition), noise_count(options.noise)
    return [nn.ModuleList(NoiseModulation(n, width) for _ in range(options.layers if n else 0)) for n in counts]


def _modulated(columns, layer, x, condition, noise):
    """A layer's states `(..., cell, channel)`, scaled and shifted by what each cell is given, `(cell, number)` or None."""
    for modulations, given in ((columns.condition, condition), (columns.noise, noise)):
        x = x if given is None else modulations[layer](x, given)
    return x
