"""Encode - process - decode: cells send to the nodes of a mesh, the nodes exchange messages, and send back to the cells.

What the networks on meshes share; they differ in what happens between the nodes. Inside, states are `(node, batch, channel)`.
What depends on places alone (embedded edges and nodes) is computed once for all samples. The boundary of a region, given at
places of its own, has a perceptron of its own and sends to the nodes as cells do; nothing is sent back to it.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from emulator.networks.conditions import (
    NoiseModulation,
    check_condition,
    check_noise,
    noise_count,
    noise_style,
    scalar_count,
)
from emulator.networks.layers import Linear
from emulator.networks.messages import Interaction, Perceptron, exchange
from emulator.networks.parts import OwnEdges, Part

Precision = Literal["float32", "bfloat16"]


class MeshNetwork(nn.Module):
    """Base of networks on meshes.

    Args:
      in_channels, out_channels: channels of the input and of the output.
      part: cells, the nodes that they send to, and the edges between both (`process` is not looked at).
      process: makes the module from these nodes `(node, batch, width)` to the same. options: size and design; those of
        `emulator.networks.graph.GraphOptions` that are named here.
      boundary: channels and number of the places of a boundary, each 0 without one.
      update_cells: cells have a perceptron of their own, added to them before they receive.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        part: Part,
        process: Callable[[], nn.Module],
        options,
        boundary: tuple[int, int] = (0, 0),
        update_cells: bool = False,
    ):
        super().__init__()
        self.options = options
        self.in_channels, self.out_channels, self.cells = in_channels, out_channels, part.cells
        self.boundary_channels, self.boundary_places = boundary
        width, precision = options.width, options.precision
        self.cell_in = Perceptron(in_channels, width, precision)
        self.noise_channels, scalars = options.noise.count if options.noise else 0, scalar_count(options.condition)
        self.noise = NoiseModulation(noise_count(options.noise), width) if self.noise_channels else None
        self.noise_style = noise_style(options.noise)
        self.condition = nn.ModuleList(NoiseModulation(scalars, width) for _ in range(2 if scalars else 0))
        self.node_in = Perceptron(part.nodes.shape[1], width, precision)
        self.register_buffer("nodes", torch.as_tensor(part.nodes), persistent=False)
        self.encode = Rounds(part.encode, 1, options)
        self.process = process()
        self.decode = Rounds(part.decode, 1, options)
        self.hidden = Linear(width, width, gain=2.0, precision=precision)
        self.out = Linear(width, out_channels, precision=precision)
        self.cell_update = Perceptron(width, width, precision) if update_cells else None
        self.boundary_in = Perceptron(boundary[0], width, precision) if boundary[1] else None
        if options.zero_output:
            nn.init.zeros_(self.out.weight)

    def forward(
        self,
        x: torch.Tensor,
        noise: torch.Tensor | None = None,
        condition: torch.Tensor | None = None,
        boundary: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """`(batch, in_channels, *space)` -> `(batch, out_channels, *space)`.

        `noise`: `(batch, noise_channels, *space)` and `condition`: `(batch, scalar)` where the options ask for them;
        `boundary`: `(batch, boundary_channels, *places)` where there is one. `*space`: the grid's shape, with the own rows.
        Raises `ValueError` for other shapes.
        """
        space = x.shape[2:]
        check_condition(condition, x, self.options.condition)
        check_noise(noise, x, self.noise_channels)
        noise = noise if self.noise_style is None else self.noise_style(noise)
        if x.ndim < 3 or x.shape[1] != self.in_channels or space.numel() != self.cells:
            raise ValueError(
                f"Expected an input of shape ('batch', {self.in_channels}, *space) with {self.cells} cells, got "
                f"{tuple(x.shape)}"
            )
        cells = self.cell_in(_rows(x))
        if self.noise is not None:
            cells = self.noise(cells, _rows(noise))
        nodes = self.node_in(self.nodes)[:, None].expand(-1, len(x), -1).contiguous()
        if condition is not None:
            cells, nodes = (change(x, condition) for change, x in zip(self.condition, (cells, nodes), strict=True))
        around = self._embedded_boundary(boundary, len(x))
        nodes = self.encode(cells if around is None else torch.cat([cells, around]), nodes)
        nodes = self.process(nodes)
        if self.cell_update is not None:
            cells = cells + self.cell_update(cells)
        cells = self.decode(nodes, cells)
        y = self.out(F.silu(self.hidden(cells))).to(cells.dtype)
        return y.permute(1, 2, 0).reshape(len(x), self.out_channels, *space)

    def _embedded_boundary(self, boundary, batch):
        """`(place, batch, width)`; None without a boundary."""
        came = None if boundary is None else (*boundary.shape[:2], boundary.shape[2:].numel())
        wanted = (batch, self.boundary_channels, self.boundary_places) if self.boundary_places else None
        if came != wanted:
            words = "no boundary" if wanted is None else f"a boundary of {wanted} samples, channels and places"
            raise ValueError(f"Expected {words}, got {'none' if came is None else came}")
        return None if boundary is None else self.boundary_in(_rows(boundary))


def _rows(x):
    """`(batch, channel, *space)` -> `(cell, batch, channel)`."""
    return x.flatten(2).permute(2, 0, 1).contiguous()


class Rounds(nn.Module):
    """Embedded edges of one kind and the rounds of messages along them."""

    def __init__(self, edges: OwnEdges, rounds: int, options):
        super().__init__()
        self.embed = Perceptron(edges.features.shape[1], options.width, options.precision)
        self.register_buffer("features", torch.as_tensor(edges.features), persistent=False)
        self.rounds = nn.ModuleList(  # the last round's edges go nowhere
            Interaction(edges.index, options.width, n < rounds - 1, options.precision) for n in range(rounds)
        )
        # rounds that are computed again together: edges are stored before each group, two numbers a round within one
        self.together = max(1, round(math.sqrt(rounds / 2))) if options.checkpointing else 0

    def forward(self, senders, receivers=None):
        """`(node, batch, width)` twice, or once for nodes that send to each other -> the receivers."""
        receivers = senders if receivers is None else receivers
        edges = self.embed(self.features)[:, None]
        step = self.together if self.together and torch.is_grad_enabled() else len(self.rounds)
        for start in range(0, len(self.rounds), step):
            group = self.rounds[start : start + step], receivers if start else senders, receivers, edges
            if step == self.together:
                receivers, edges = checkpoint(exchange, *group, use_reentrant=False)
            else:
                receivers, edges = exchange(*group)
        return receivers
