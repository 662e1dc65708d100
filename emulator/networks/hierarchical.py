"""Message passing on a hierarchy of meshes: Hi-LAM of Neural-LAM (Oskarsson et al. 2023), for regions and for globes.

Cells send to the finest level. From there messages go up to the coarsest, then for some rounds within and between levels,
then down again, and back to the cells. In a round of sequential sweeps every level hears what the level above it has just
heard, down to the finest and up again; in a parallel round all edges carry messages at once. Every level and every kind of
edges has its own weights. With one hidden layer, and the graph files of Neural-LAM, the network is theirs.
"""

import dataclasses
import itertools
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from emulator.networks.conditions import NoiseOptions
from emulator.networks.edge_index import EdgeIndex
from emulator.networks.graph import expect_no_boundary
from emulator.networks.graph_files import read_graph
from emulator.networks.mesh_network import MeshNetwork, Precision
from emulator.networks.messages import Interaction, Messages, Perceptron, Update, exchange
from emulator.networks.parts import part_of
from emulator.networks.registry import network
from emulator.options import Options, option
from emulator.parallel.space import ALONE
from emulator.planet.grid import Grid
from emulator.sphere.level_graph import LevelGraph, icosahedral_levels
from emulator.sphere.mesh import Edges, MeshGraph, MeshOptions
from emulator.sphere.square_mesh import SquareOptions, square_levels

ENDS = {"same": (0, 0), "up": (0, 1), "down": (1, 0)}  # levels of sender and receiver, from the lower one
Key = tuple[str, int]  # kind of edges and their lower level


@dataclasses.dataclass(frozen=True)
class HierarchicalOptions(Options):
    """Message passing on a hierarchy of meshes (Hi-LAM of Neural-LAM, Oskarsson et al. 2023)."""

    sweeps: Literal["sequential", "parallel"] = option(
        "sequential", "one level after the other, down and up again; or all edges at once"
    )
    mesh: Literal["fitting", "square", "icosahedral"] = option(
        "fitting", "squares in the plane of a region, a refined icosahedron on a globe"
    )
    levels: int = option(3, "of the mesh", minimum=1, maximum=9)
    spacing: float = option(
        SquareOptions.spacing, "of the finest squares' nodes, about, in spacings of the grid", minimum=1
    )
    refinement: int = option(
        MeshOptions.refinement, "halvings of the finest icosahedron: 10 * 4^n + 2 nodes", minimum=0, maximum=8
    )
    radius: float = option(1.02, "reach of a cell, as a multiple of what reaches a node from everywhere", minimum=1)
    graph_files: Path | None = option(None, "folder with a graph of Neural-LAM or weather-model-graphs, with levels")
    width: int = option(128, "channels of nodes and edges", minimum=1)
    rounds: int = option(4, "of sweeps down and up, or of messages along all edges", minimum=1)
    noise: NoiseOptions | None = option(None, "random fields that scale and shift the embedded cells")
    condition: tuple[str, ...] = option(
        (), "time_of_year, or forcing without levels, to scale and shift the embedded cells and the finest nodes by"
    )
    precision: Precision = option("float32", "of the products; sums over edges, norms and states stay in float32")
    checkpointing: bool = option(False, "compute rounds again in the backward pass instead of storing them")
    zero_output: bool = option(False, "the last layer starts at zero")


@network("hierarchical", HierarchicalOptions, boundary=True)
def build(
    options: HierarchicalOptions,
    inputs: int,
    outputs: int,
    grid: Grid,
    boundary: Grid | None = None,
    boundary_channels: int = 0,
) -> "HierarchicalNetwork":
    return HierarchicalNetwork(inputs, outputs, _graph(options, grid, boundary), options, boundary_channels)


def _graph(options: HierarchicalOptions, grid: Grid, boundary: Grid | None) -> LevelGraph:
    if options.graph_files is not None:
        expect_no_boundary(boundary)
        return read_graph(options.graph_files, grid)
    if options.mesh == "square" or (options.mesh == "fitting" and not grid.is_global()):
        return square_levels(grid, SquareOptions(options.spacing, options.levels, 0.5 * options.radius), boundary)
    mesh = MeshOptions(options.refinement, multi=False, radius=0.58 * options.radius)
    return icosahedral_levels(grid, mesh, options.levels, boundary)


class HierarchicalNetwork(MeshNetwork):
    """Message passing between the cells of a grid and a hierarchy of meshes.

    Args:
      in_channels, out_channels: channels of the input and of the output.
      graph: nodes and edges for the grid. options: size and design.
      boundary_channels: of the places of the graph's boundary.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        graph: LevelGraph,
        options: HierarchicalOptions | None = None,
        boundary_channels: int = 0,
    ):
        options = options or HierarchicalOptions()
        finest = MeshGraph(graph.cells, graph.nodes[0], graph.encode, graph.same[0], graph.decode, "", graph.boundary)
        super().__init__(
            in_channels,
            out_channels,
            part_of(finest, ALONE, 1, 1),
            lambda: Hierarchy(graph, options),
            options,
            (boundary_channels, graph.boundary),
            update_cells=True,
        )


class Hierarchy(nn.Module):
    """What happens between the nodes of the finest level: `(node, batch, width)` -> the same."""

    def __init__(self, graph: LevelGraph, options: HierarchicalOptions):
        super().__init__()
        self.checkpointing = options.checkpointing
        width, precision = options.width, options.precision
        levels = range(len(graph.nodes))
        self.nodes = nn.ModuleList(Embedded(graph.nodes[level], width, precision) for level in levels[1:])
        indices = {key: _index(edges, graph, key) for key, edges in _edge_sets(graph).items()}
        self.edges = nn.ModuleDict(
            {_name(key): Embedded(edges.features, width, precision) for key, edges in _edge_sets(graph).items()}
        )
        self.keys = list(indices)
        up, down = ([(kind, level) for level in levels[:-1]] for kind in ("up", "down"))
        if options.sweeps == "sequential":
            parts = [up, *[_sweeps(len(levels))] * options.rounds, down[::-1]]
            steps = list(itertools.chain(*parts))
            layers = [Interaction(indices[key], width, key in steps[n + 1 :], precision) for n, key in enumerate(steps)]
            self.steps = nn.ModuleList(Step(key, layer) for key, layer in zip(steps, layers, strict=True))
            self.sections = [len(part) for part in parts]
        else:
            start = [Step(key, Interaction(indices[key], width, True, precision)) for key in up]
            rounds = [
                AtOnce(indices, len(levels), width, n == options.rounds - 1, precision) for n in range(options.rounds)
            ]
            read = [Step(key, Interaction(indices[key], width, False, precision)) for key in down[::-1]]
            self.steps = nn.ModuleList([*start, *rounds, *read])
            self.sections = [len(start), *[1] * len(rounds), len(read)]

    def forward(self, finest: torch.Tensor) -> torch.Tensor:
        batch = finest.shape[1]
        nodes = [finest, *(level().expand(-1, batch, -1).contiguous() for level in self.nodes)]
        edges = [self.edges[_name(key)]() for key in self.keys]
        ends = [0, *itertools.accumulate(self.sections)]
        for first, last in itertools.pairwise(ends):
            if self.checkpointing and torch.is_grad_enabled():
                nodes, edges = checkpoint(self._section, first, last, nodes, edges, use_reentrant=False)
            else:
                nodes, edges = self._section(first, last, nodes, edges)
        return nodes[0]

    def _section(self, first, last, nodes, edges):
        """Steps one after the other; those along the same edges that follow each other go together."""
        nodes, edges = list(nodes), dict(zip(self.keys, edges, strict=True))
        for _, steps in itertools.groupby(self.steps[first:last], key=lambda step: getattr(step, "key", None)):
            steps = list(steps)
            if isinstance(steps[0], AtOnce):
                for step in steps:
                    nodes, edges = step(nodes, edges)
                continue
            key = steps[0].key
            sender, receiver = (key[1] + above for above in ENDS[key[0]])
            nodes[receiver], edges[key] = exchange(
                [step.layer for step in steps], nodes[sender], nodes[receiver], edges[key]
            )
        return nodes, list(edges.values())


class Step(nn.Module):
    """Messages along the edges of one kind and level."""

    def __init__(self, key: Key, layer: Interaction):
        super().__init__()
        self.key, self.layer = key, layer


class AtOnce(nn.Module):
    """Messages along all edges, with weights of their own for each kind and level, and updates of all levels by their sums.

    Args:
      indices: of the edges. levels: their number. last: whether only the edges down are asked for afterwards.
    """

    def __init__(self, indices: dict[Key, EdgeIndex], levels: int, width: int, last: bool, precision: str):
        super().__init__()
        self.messages = nn.ModuleDict(
            {
                _name(key): Messages(index, width, not last or key[0] == "down", precision)
                for key, index in indices.items()
            }
        )
        self.updates = nn.ModuleList(Update(width, precision) for _ in range(levels))

    def forward(self, nodes, edges):
        sums, changed = [0] * len(nodes), {}
        for key, state in edges.items():
            sender, receiver = (key[1] + above for above in ENDS[key[0]])
            came, changed[key] = self.messages[_name(key)](nodes[sender], nodes[receiver], state)
            sums[receiver] = sums[receiver] + came
        return [update(*pair) for update, *pair in zip(self.updates, nodes, sums, strict=True)], changed


class Embedded(nn.Module):
    """Features of nodes or edges `(row, feature)`, embedded: `(row, 1, width)`."""

    def __init__(self, features, width: int, precision: str):
        super().__init__()
        self.embed = Perceptron(features.shape[1], width, precision)
        self.register_buffer("features", torch.as_tensor(features), persistent=False)

    def forward(self) -> torch.Tensor:
        return self.embed(self.features)[:, None]


def _sweeps(levels: int) -> list[Key]:
    """The edges of a round, in order: down from the coarsest level, and up from the finest."""
    down = [key for level in reversed(range(levels - 1)) for key in (("down", level), ("same", level))]
    up = [key for level in range(levels - 1) for key in (("up", level), ("same", level + 1))]
    return [("same", levels - 1), *down, ("same", 0), *up]


def _edge_sets(graph: LevelGraph) -> dict[Key, Edges]:
    return {(kind, level): edges for kind in ENDS for level, edges in enumerate(getattr(graph, kind))}


def _index(edges: Edges, graph: LevelGraph, key: Key) -> EdgeIndex:
    counts = (len(graph.nodes[key[1] + above]) for above in ENDS[key[0]])
    return EdgeIndex(edges.senders, edges.receivers, *counts)


def _name(key: Key) -> str:
    return f"{key[0]}_{key[1]}"
