"""The graph of a hierarchy of meshes: levels of nodes, edges within each, and edges up and down between neighbours."""

import dataclasses

import numpy as np

from emulator.planet.grid import Grid
from emulator.sphere.icosphere import icosphere, mesh_edges
from emulator.sphere.mesh import Edges, MeshOptions, build_graph, directions, kept_nodes


@dataclasses.dataclass(frozen=True, eq=False)
class LevelGraph:
    """Nodes and edges of all levels, the finest first, which alone sends to the cells and is sent to.

    Attributes:
      cells: number of the grid's cells, in the order of the grid's shape flattened.
      nodes: features of each level's nodes, of which the first are their places, `(node, feature)` float32.
      encode, decode: edges from cells, followed by the places of a boundary, to the finest level, and from it to the cells.
      same: edges within each level. up, down: edges to the next coarser level, and from it, of every level but the coarsest.
      boundary: number of places of a boundary.
    """

    cells: int
    nodes: tuple[np.ndarray, ...]
    encode: Edges
    same: tuple[Edges, ...]
    up: tuple[Edges, ...]
    down: tuple[Edges, ...]
    decode: Edges
    boundary: int = 0


def in_order(senders: np.ndarray, receivers: np.ndarray, features: np.ndarray) -> Edges:
    """Edges in the order of their receivers; `features` `(edge, feature)`."""
    order = np.lexsort((senders, receivers))
    ends = (np.asarray(end, np.int64)[order] for end in (senders, receivers))
    return Edges(*ends, np.asarray(features, np.float32)[order])


def icosahedral_levels(grid: Grid, options: MeshOptions, levels: int, boundary: Grid | None = None) -> LevelGraph:
    """Refinements of the icosahedron from `options.refinement` on downwards, of a region those around it.

    A node sends up to the coarser node at its place, or to the two whose edge it halves; down the same way back. Raises
    `ValueError` for more levels than refinements.
    """
    if levels > options.refinement + 1:
        raise ValueError(
            f"Expected at most {options.refinement + 1} levels of an icosahedron that is refined {options.refinement} times, "
            f"got {levels}"
        )
    finest = build_graph(grid, dataclasses.replace(options, multi=False), boundary)
    given = [directions(each) for each in (grid, boundary) if each is not None]
    kept = kept_nodes(grid, np.concatenate(given), options)
    places, same, up, down = [icosphere(options.refinement)[0][kept]], [finest.process], [], []
    for refinement in range(options.refinement, options.refinement - levels + 1, -1):
        points = icosphere(refinement - 1)[0]
        fine, coarse = _parents(refinement)
        fine, coarse = fine[kept[fine]], coarse[kept[fine]]
        above = np.zeros(len(points), bool)
        above[coarse] = True
        fine, coarse = _numbers(kept)[fine], _numbers(above)[coarse]
        within = _numbers(above)[mesh_edges(icosphere(refinement - 1)[1])]
        within = within[:, (within >= 0).all(0)]
        if not within.size:
            raise ValueError(
                f"Expected nodes of refinement {refinement - 1} that are neighbours, got one; lower `levels`"
            )
        places.append(points[above])
        same.append(Edges.between(*within, places[-1], places[-1]))
        up.append(Edges.between(fine, coarse, places[-2], places[-1]))
        down.append(Edges.between(coarse, fine, places[-1], places[-2]))
        kept = above
    nodes = tuple(each.astype(np.float32) for each in places)
    edges = tuple(same), tuple(up), tuple(down)
    return LevelGraph(finest.cells, nodes, finest.encode, *edges, finest.decode, finest.boundary)


def _parents(refinement: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of a node and a node of the next coarser refinement at its place or at an end of the edge that it halves."""
    coarse = len(icosphere(refinement - 1)[0])
    senders, receivers = mesh_edges(icosphere(refinement)[1])
    halving = (senders >= coarse) & (receivers < coarse)
    same = np.arange(coarse)
    return np.concatenate([same, senders[halving]]), np.concatenate([same, receivers[halving]])


def _numbers(kept: np.ndarray) -> np.ndarray:
    """Rows of those that are kept among themselves, -1 for others."""
    return np.where(kept, np.cumsum(kept) - 1, -1)
