"""Encode - process - decode message passing on an icosahedral mesh, after Keisler (2022) and GraphCast (Lam et al. 2023).

Of a region the mesh is the part in it and around it. Cells send to the nodes of a mesh, the nodes exchange messages for
some rounds, and send back to the cells. Inside, states are `(node, batch, channel)`. What depends on places alone
(embedded edges and nodes) is computed once for all samples. Of several processes each has a part of the graph
(`emulator.networks.parts`).
"""

import dataclasses
import math
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from emulator.networks.conditions import (
    NoiseModulation,
    NoiseOptions,
    check_condition,
    check_noise,
    noise_count,
    noise_style,
    scalar_count,
)
from emulator.networks.layers import Linear
from emulator.networks.messages import Interaction, Perceptron, exchange
from emulator.networks.parts import OwnEdges, part_of
from emulator.networks.registry import network
from emulator.options import Options, option
from emulator.parallel.space import ALONE, Space
from emulator.planet.grid import Grid
from emulator.sphere.mesh import EDGE_FEATURES, NODE_FEATURES, MeshGraph, MeshOptions, graph_of

Precision = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class GraphOptions(Options):
    """Message passing on an icosahedral mesh (Keisler 2022; GraphCast, Lam et al. 2023)."""

    refinement: int = option(
        MeshOptions.refinement, "halvings of the icosahedron: 10 * 4^n + 2 nodes", minimum=0, maximum=8
    )
    multi: bool = option(MeshOptions.multi, "edges of all refinements (GraphCast), or of the finest alone (Keisler)")
    radius: float = option(
        MeshOptions.radius, "reach of a cell, as a share of the longest finest edge", minimum=0.58, maximum=4
    )
    file: Path | None = option(None, "where the graph is kept; made there if absent; None: in memory")
    width: int = option(128, "channels of nodes and edges", minimum=1)
    rounds: int = option(8, "of messages between nodes", minimum=1)
    noise: NoiseOptions | None = option(None, "random fields that scale and shift the embedded cells")
    condition: tuple[str, ...] = option(
        (),
        "time_of_year, or forcing without levels, to scale and shift the embedded cells and nodes by",
        new=True,
        keyword=True,
    )
    precision: Precision = option("float32", "of the products; sums over edges, norms and states stay in float32")
    checkpointing: bool = option(False, "compute rounds again in the backward pass instead of storing them")
    zero_output: bool = option(False, "the last layer starts at zero")

    @property
    def mesh(self) -> MeshOptions:
        return MeshOptions(self.refinement, self.multi, self.radius)


@network("graph", GraphOptions, bands=True)
def build(options: GraphOptions, inputs: int, outputs: int, grid: Grid, space: Space) -> "GraphNetwork":
    return GraphNetwork(inputs, outputs, graph_of(grid, options.mesh, options.file), options, space, grid.shape[0])


class GraphNetwork(nn.Module):
    """Message passing between the cells of a grid and a mesh.

    Args:
      in_channels, out_channels: channels of the input and of the output.
      graph: nodes and edges for the grid (`emulator.sphere.mesh.graph_of`).
      options: size and design.
      space: processes that hold a state together. rows: of the grid, of which each has a band.
    Raises `ValueError` for fewer rows or nodes than processes.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        graph: MeshGraph,
        options: GraphOptions | None = None,
        space: Space = ALONE,
        rows: int = 1,
    ):
        super().__init__()
        self.options = options = options or GraphOptions()
        part = part_of(graph, space, rows, options.rounds)
        self.in_channels, self.out_channels, self.cells = in_channels, out_channels, part.cells
        width, precision = options.width, options.precision
        self.cell_in = Perceptron(in_channels, width, precision)
        self.noise_channels, scalars = options.noise.count if options.noise else 0, scalar_count(options.condition)
        self.noise = NoiseModulation(noise_count(options.noise), width) if self.noise_channels else None
        self.noise_style = noise_style(options.noise)
        self.condition = nn.ModuleList(NoiseModulation(scalars, width) for _ in range(2 if scalars else 0))
        self.node_in = Perceptron(NODE_FEATURES, width, precision)
        self.register_buffer("nodes", torch.as_tensor(part.nodes), persistent=False)
        self.encode = _Edges(part.encode, 1, options)
        self.process = _Edges(part.process, options.rounds, options)
        self.decode = _Edges(part.decode, 1, options)
        self.hidden = Linear(width, width, gain=2.0, precision=precision)
        self.out = Linear(width, out_channels, precision=precision)
        if options.zero_output:
            nn.init.zeros_(self.out.weight)

    def forward(
        self, x: torch.Tensor, noise: torch.Tensor | None = None, condition: torch.Tensor | None = None
    ) -> torch.Tensor:
        """`(batch, in_channels, *space)` -> `(batch, out_channels, *space)`.

        `noise`: `(batch, noise_channels, *space)` and `condition`: `(batch, scalar)` where the options ask for them.
        `*space`: the grid's shape, with the own rows. Raises `ValueError` for other shapes.
        """
        space = x.shape[2:]
        check_condition(condition, x, self.options.condition)
        check_noise(noise, x, self.noise_channels)
        if x.ndim < 3 or x.shape[1] != self.in_channels or space.numel() != self.cells:
            raise ValueError(
                f"Expected an input of shape ('batch', {self.in_channels}, *space) with {self.cells} cells, got "
                f"{tuple(x.shape)}"
            )
        noise = noise if self.noise_style is None else self.noise_style(noise)
        cells = self.cell_in(x.flatten(2).permute(2, 0, 1).contiguous())
        if self.noise is not None:
            cells = self.noise(cells, noise.flatten(2).permute(2, 0, 1).contiguous())
        nodes = self.node_in(self.nodes)[:, None].expand(-1, len(x), -1).contiguous()
        if condition is not None:
            cells, nodes = (change(x, condition) for change, x in zip(self.condition, (cells, nodes), strict=True))
        nodes = self.encode(cells, nodes)
        nodes = self.process(nodes, nodes)
        cells = self.decode(nodes, cells)
        y = self.out(F.silu(self.hidden(cells))).to(cells.dtype)
        return y.permute(1, 2, 0).reshape(len(x), self.out_channels, *space)


class _Edges(nn.Module):
    """Embedded edges of one kind and the rounds of messages along them."""

    def __init__(self, edges: OwnEdges, rounds: int, options: GraphOptions):
        super().__init__()
        self.embed = Perceptron(EDGE_FEATURES, options.width, options.precision)
        self.register_buffer("features", torch.as_tensor(edges.features), persistent=False)
        self.rounds = nn.ModuleList(  # the last round's edges go nowhere
            Interaction(edges.index, options.width, n < rounds - 1, options.precision) for n in range(rounds)
        )
        # rounds that are computed again together: edges are stored before each group, two numbers a round within one
        self.together = max(1, round(math.sqrt(rounds / 2))) if options.checkpointing else 0

    def forward(self, senders, receivers):
        """`(node, batch, width)` twice -> the receivers."""
        edges = self.embed(self.features)[:, None]
        step = self.together if self.together and torch.is_grad_enabled() else len(self.rounds)
        for start in range(0, len(self.rounds), step):
            group = self.rounds[start : start + step], receivers if start else senders, receivers, edges
            if step == self.together:
                receivers, edges = checkpoint(exchange, *group, use_reentrant=False)
            else:
                receivers, edges = exchange(*group)
        return receivers
