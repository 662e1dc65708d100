"""Encode - process - decode message passing on an icosahedral mesh, after Keisler (2022) and GraphCast (Lam et al. 2023).

Cells send to the nodes of a mesh, the nodes exchange messages for some rounds, and send back to the cells. Inside, states
are `(node, batch, channel)`. What depends on places alone (embedded edges and nodes) is computed once for all samples.
"""

import dataclasses
import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from emulator.networks.layers import Linear, NoiseModulation, check_noise
from emulator.networks.messages import EdgeIndex, Interaction, Perceptron, exchange
from emulator.sphere.mesh import EDGE_FEATURES, NODE_FEATURES, Edges, MeshGraph

Precision = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class GraphOptions:
    """Size and design of the network.

    Attributes:
      width: channels of nodes and edges. rounds: of messages on the mesh.
      precision: of the matrix products; sums over edges, norms and states stay in float32.
      checkpointing: rounds are computed again in the backward pass, a few at a time, instead of stored.
      zero_output: the last layer starts at zero, so that the output does.
      noise_channels: random fields that scale and shift the embedded cells, before they send and when they receive.
    """

    width: int = 128
    rounds: int = 8
    precision: Precision = "float32"
    checkpointing: bool = False
    zero_output: bool = False
    noise_channels: int = 0

    def __post_init__(self):
        for name in ("width", "rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected {name} of at least 1, got {getattr(self, name)}")
        if self.precision not in get_args(Precision):
            raise ValueError(f"Expected precision among {get_args(Precision)}, got {self.precision!r}")


class GraphNetwork(nn.Module):
    """Message passing between the cells of a grid and a mesh.

    Args:
      in_channels, out_channels: channels of the input and of the output.
      graph: nodes and edges for the grid (`emulator.sphere.mesh.graph_of`).
      options: size and design.
    """

    def __init__(self, in_channels: int, out_channels: int, graph: MeshGraph, options: GraphOptions | None = None):
        super().__init__()
        self.options = options = options or GraphOptions()
        self.in_channels, self.out_channels, self.cells = in_channels, out_channels, graph.cells
        width, precision, nodes = options.width, options.precision, len(graph.nodes)
        self.cell_in = Perceptron(in_channels, width, precision)
        self.noise = NoiseModulation(options.noise_channels, width) if options.noise_channels else None
        self.node_in = Perceptron(NODE_FEATURES, width, precision)
        self.register_buffer("nodes", torch.as_tensor(graph.nodes), persistent=False)
        self.encode = _Edges(graph.encode, graph.cells, nodes, 1, options)
        self.process = _Edges(graph.process, nodes, nodes, options.rounds, options)
        self.decode = _Edges(graph.decode, nodes, graph.cells, 1, options)
        self.hidden = Linear(width, width, gain=2.0, precision=precision)
        self.out = Linear(width, out_channels, precision=precision)
        if options.zero_output:
            nn.init.zeros_(self.out.weight)

    def forward(self, x: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """`(batch, in_channels, *space)` -> `(batch, out_channels, *space)`, with `noise` `(batch, noise_channels, *space)`.

        Raises `ValueError` for other shapes.
        """
        space = x.shape[2:]
        check_noise(noise, x, self.options.noise_channels)
        if x.ndim < 3 or x.shape[1] != self.in_channels or space.numel() != self.cells:
            raise ValueError(
                f"Expected an input of shape ('batch', {self.in_channels}, *space) with {self.cells} cells, got "
                f"{tuple(x.shape)}"
            )
        cells = self.cell_in(x.flatten(2).permute(2, 0, 1).contiguous())
        if self.noise is not None:
            cells = self.noise(cells, noise.flatten(2).permute(2, 0, 1).contiguous())
        nodes = self.node_in(self.nodes)[:, None].expand(-1, len(x), -1).contiguous()
        nodes = self.encode(cells, nodes)
        nodes = self.process(nodes, nodes)
        cells = self.decode(nodes, cells)
        y = self.out(F.silu(self.hidden(cells))).to(cells.dtype)
        return y.permute(1, 2, 0).reshape(len(x), self.out_channels, *space)


class _Edges(nn.Module):
    """Embedded edges of one kind and the rounds of messages along them."""

    def __init__(self, edges: Edges, senders: int, receivers: int, rounds: int, options: GraphOptions):
        super().__init__()
        index = EdgeIndex(edges.senders, edges.receivers, senders, receivers)
        self.embed = Perceptron(EDGE_FEATURES, options.width, options.precision)
        self.register_buffer("features", torch.as_tensor(edges.features), persistent=False)
        self.rounds = nn.ModuleList(  # the last round's edges go nowhere
            Interaction(index, options.width, n < rounds - 1, options.precision) for n in range(rounds)
        )
        # rounds that are computed again together: edges are stored before each group, two numbers a round within one
        self.together = max(1, round(math.sqrt(rounds / 2))) if options.checkpointing else 0

    def forward(self, senders, receivers):
        """`(node, batch, width)` twice -> the receivers."""
        edges = self.embed(self.features)[:, None]
        step = self.together if self.together and torch.is_grad_enabled() else len(self.rounds)
        for start in range(0, len(self.rounds), step):
            given = self.rounds[start : start + step], receivers if start else senders, receivers, edges
            if step == self.together:
                receivers, edges = checkpoint(exchange, *given, use_reentrant=False)
            else:
                receivers, edges = exchange(*given)
        return receivers
