"""Message passing on one mesh, after Keisler (2022), GraphCast (Lam et al. 2023) and Neural-LAM (Oskarsson et al. 2023).

The mesh is a refined icosahedron, of a region the part in it and around it; or, in the plane of a region, a square mesh with
the edges of all its levels; or what graph files hold. Of several processes each has a part of the graph
(`emulator.networks.parts`).
"""

import dataclasses
from pathlib import Path

from emulator.networks.conditions import NoiseOptions
from emulator.networks.graph_files import read_flat
from emulator.networks.mesh_network import MeshNetwork, Precision, Rounds
from emulator.networks.parts import part_of
from emulator.networks.registry import network
from emulator.options import Options, option
from emulator.parallel.space import ALONE, Space
from emulator.planet.grid import Grid
from emulator.sphere.mesh import MeshGraph, MeshOptions, graph_of
from emulator.sphere.square_mesh import SquareOptions, square_graph


@dataclasses.dataclass(frozen=True)
class GraphOptions(Options):
    """Message passing on one mesh (Keisler 2022; GraphCast, Lam et al. 2023; Neural-LAM, Oskarsson et al. 2023)."""

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
    inside: int | None = option(
        None, "refinement around the fine cells of a stretched grid", minimum=1, maximum=8, new=True, keyword=True
    )
    square: SquareOptions | None = option(
        None, "a square mesh in the plane of a region, not the icosahedron", new=True, keyword=True
    )
    graph_files: Path | None = option(
        None, "folder with a graph of Neural-LAM or weather-model-graphs", new=True, keyword=True
    )

    def __post_init__(self):
        super().__post_init__()
        chosen = [name for name in ("file", "square", "graph_files") if getattr(self, name) is not None]
        if len(chosen) > 1:
            raise ValueError(f"Expected one of file, square and graph_files, got {' and '.join(chosen)}")

    @property
    def mesh(self) -> MeshOptions:
        return MeshOptions(self.refinement, self.multi, self.radius, self.inside)


@network("graph", GraphOptions, bands=True, boundary=True)
def build(
    options: GraphOptions,
    inputs: int,
    outputs: int,
    grid: Grid,
    space: Space,
    boundary: Grid | None = None,
    boundary_channels: int = 0,
) -> "GraphNetwork":
    if options.graph_files is not None:
        expect_no_boundary(boundary)
        graph = read_flat(options.graph_files, grid)
    elif options.square is not None:
        graph = square_graph(grid, options.square, boundary)
    else:
        graph = graph_of(grid, options.mesh, options.file, boundary)
    return GraphNetwork(inputs, outputs, graph, options, space, grid.shape[0], boundary_channels)


def expect_no_boundary(boundary: Grid | None) -> None:
    """Raises `ValueError` for a boundary, of which graph files know nothing."""
    if boundary is not None:
        raise ValueError(
            f"Expected no graph_files for a boundary at {boundary.describe()}, whose edges the files do not have"
        )


class GraphNetwork(MeshNetwork):
    """Message passing between the cells of a grid and a mesh.

    Args:
      in_channels, out_channels: channels of the input and of the output.
      graph: nodes and edges for the grid (`emulator.sphere.mesh.graph_of`).
      options: size and design.
      space: processes that hold a state together. rows: of the grid, of which each has a band.
      boundary_channels: of the places of the graph's boundary.
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
        boundary_channels: int = 0,
    ):
        options = options or GraphOptions()
        part = part_of(graph, space, rows, options.rounds)
        super().__init__(
            in_channels,
            out_channels,
            part,
            lambda: Rounds(part.process, options.rounds, options),
            options,
            (boundary_channels, graph.boundary),
        )
