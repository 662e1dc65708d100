"""The graph of an encode - process - decode emulator: an icosahedral mesh and its edges from and to the cells of a grid.

The icosahedron is refined by halving its edges (10 * 4^n + 2 nodes after n times; the nodes of a refinement are the first
of the next). A mesh has the edges of the finest refinement (Keisler 2022), or those of all together (the multi-mesh of
GraphCast, Lam et al. 2023), in both directions. A cell sends to all nodes within a radius, and receives from the three
corners of the triangle that it lies in.

The mesh of a region is what lies within reach of its cells and one longest edge around, so that messages can pass outside
its border, with all edges between those nodes. Where the boundary of a region is given at places of its own, these send to
nodes as cells do, and receive nothing. Around the fine cells of a stretched grid the mesh may be refined further.
"""

import dataclasses
import hashlib
import logging
import zipfile
import zlib
from pathlib import Path

import numpy as np

from emulator.files.whole_file import whole_file
from emulator.planet.cell_areas import unit_vectors
from emulator.planet.grid import Grid
from emulator.sphere.icosphere import containing_face, icosphere, local_frame, longest_edge, mesh_edges, within
from emulator.sphere.stretched import fine_cells

log = logging.getLogger(__name__)
SCHEMA = "graph-1"
EDGE_FEATURES = 4
NODE_FEATURES = 3
MARGIN = 1.0  # of a region's mesh beyond the reach of its cells, in longest edges


class GraphError(ValueError):
    """A graph file that is absent, damaged, or of another grid, other options or another schema."""


@dataclasses.dataclass(frozen=True)
class MeshOptions:
    """What the graph is made of.

    Attributes:
      refinement: times that the icosahedron's edges are halved.
      multi: edges of all refinements (GraphCast) or of the finest alone (Keisler).
      radius: reach of the cells, as a share of the longest edge of the finest mesh. Below 0.58 some cells reach no node.
      inside: refinement around the fine cells of a stretched grid (`fine_cells`); None: the same everywhere.
    """

    refinement: int = 4
    multi: bool = True
    radius: float = 0.6
    inside: int | None = None

    def __post_init__(self):
        if not 0 <= self.refinement <= 8:
            raise ValueError(f"Expected a refinement from 0 to 8, got {self.refinement}")
        if not 0.58 <= self.radius <= 4:
            raise ValueError(f"Expected a radius from 0.58 to 4 (0.58 reaches every cell), got {self.radius}")
        if self.inside is not None and not self.refinement < self.inside <= 8:
            raise ValueError(f"Expected a refinement inside above {self.refinement} and at most 8, got {self.inside}")

    @property
    def finest(self) -> int:
        return self.refinement if self.inside is None else self.inside

    @property
    def levels(self) -> range:
        """Refinements whose edges the mesh has."""
        return range(0 if self.multi else self.refinement, self.finest + 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Edges:
    """Directed edges in the order of their receivers.

    Attributes:
      senders, receivers: indices of nodes, `(edge,)` int64; receivers never decrease.
      features: length and displacement of the sender (up, east, north at the receiver), over the longest edge of the
        same kind, `(edge, 4)` float32.
    """

    senders: np.ndarray
    receivers: np.ndarray
    features: np.ndarray

    @classmethod
    def between(cls, senders, receivers, sender_points, receiver_points) -> "Edges":
        """Edges between points `(node, 3)` on the unit sphere, sorted, with their features."""
        order = np.lexsort((senders, receivers))
        senders, receivers = senders[order], receivers[order]
        displacement = sender_points[senders] - receiver_points[receivers]
        frame = local_frame(receiver_points)[receivers]
        local = np.einsum("eij,ej->ei", frame, displacement)
        length = np.linalg.norm(displacement, axis=1, keepdims=True)
        features = np.concatenate([length, local], 1) / max(length.max(), 1e-12)
        return cls(senders.astype(np.int64), receivers.astype(np.int64), features.astype(np.float32))

    def __len__(self) -> int:
        return len(self.senders)


@dataclasses.dataclass(frozen=True, eq=False)
class MeshGraph:
    """Nodes and edges.

    Attributes:
      cells: number of the grid's cells, in the order of the grid's shape flattened.
      nodes: positions of the mesh nodes on the unit sphere, `(node, 3)` float32, or in a plane, `(node, 2)`; also their
        features. The last component grows northwards.
      encode, process, decode: edges from cells to nodes, between nodes, and from nodes to cells.
      key: hash of the grid's coordinates and of the options.
      boundary: number of places of a boundary, which follow the cells among the senders of `encode`.
    """

    cells: int
    nodes: np.ndarray
    encode: Edges
    process: Edges
    decode: Edges
    key: str
    boundary: int = 0

    def save(self, path: Path) -> None:
        """Write the graph as an `.npz` with schema, key and a hash of its arrays; whole or not at all."""
        arrays = self._arrays()
        texts = {"schema": SCHEMA, "key": self.key, "sha256": _digest(arrays)}
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path, shared=True, flush=False) as scratch, open(scratch, "wb") as file:
            np.savez_compressed(file, **arrays, **texts)

    @classmethod
    def load(cls, path: Path) -> "MeshGraph":
        """Read a graph. Raises `GraphError` when it is absent, damaged or of another schema."""
        try:
            with np.load(path, allow_pickle=False) as file:
                stored = {name: file[name] for name in file.files}
        except FileNotFoundError:
            raise GraphError(f"Expected a graph at {path}, got nothing there") from None
        except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise GraphError(f"Expected a graph at {path}, it cannot be read: {error}") from None
        texts = {name: str(stored.pop(name, "")) for name in ("schema", "key", "sha256")}
        if texts["schema"] != SCHEMA:
            raise GraphError(f"Expected a graph of schema {SCHEMA} at {path}, got {texts['schema']!r}")
        if _digest(stored) != texts["sha256"]:
            raise GraphError(f"Expected the graph that {path} was written with, its hash differs: the file is damaged")
        edges = {
            kind: Edges(*(stored[f"{kind}_{field.name}"] for field in dataclasses.fields(Edges)))
            for kind in ("encode", "process", "decode")
        }
        return cls(
            int(stored["cells"]), stored["nodes"], **edges, key=texts["key"], boundary=int(stored.get("boundary", 0))
        )

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {"cells": np.array(self.cells), "nodes": self.nodes}
        arrays |= {"boundary": np.array(self.boundary)} if self.boundary else {}
        for kind in ("encode", "process", "decode"):
            edges = getattr(self, kind)
            arrays |= {f"{kind}_{f.name}": getattr(edges, f.name) for f in dataclasses.fields(Edges)}
        return arrays


def graph_of(
    grid: Grid, options: MeshOptions | None = None, path: Path | None = None, boundary: Grid | None = None
) -> MeshGraph:
    """The graph of a grid, from the file where there is one, otherwise built and, with a path, written to it.

    `boundary`: places at which the boundary of a region is given. Raises `GraphError` for a file that is damaged or belongs
    to another grid or other options.
    """
    options = options or MeshOptions()
    key = graph_key(grid, options, boundary)
    if path is None or not Path(path).exists():
        graph = build_graph(grid, options, boundary)
        if path is not None:
            graph.save(path)
        return graph
    graph = MeshGraph.load(path)
    if graph.key != key:
        raise GraphError(
            f"Expected the graph of {grid.describe()} with {options} at {path} (key {key}), it has the key {graph.key}; "
            "remove the file to have it built anew"
        )
    return graph


def graph_key(grid: Grid, options: MeshOptions, boundary: Grid | None = None) -> str:
    """Hash of the coordinates of the cells and of the boundary, to a millionth of a degree, and of the options."""
    kind = () if grid.is_global() else ("region",)
    chosen = dataclasses.astuple(options)
    # as graphs were known before there was an inside; with one, before the sides of cells told which are fine
    chosen = (*chosen, "sides") if options.inside is not None else chosen[:-1]
    digest = hashlib.sha256(repr((SCHEMA, chosen, grid.shape, *kind)).encode())
    for places in (grid,) if boundary is None else (grid, boundary):
        for angle in places.mesh():
            digest.update(np.round(np.asarray(angle, np.float64) * 1e6).astype(np.int64).tobytes())
    return digest.hexdigest()[:16]


def build_graph(grid: Grid, options: MeshOptions, boundary: Grid | None = None) -> MeshGraph:
    """The graph, built anew; see `MeshGraph`."""
    points = directions(grid)
    given = points if boundary is None else np.concatenate([points, directions(boundary)])
    fine = np.flatnonzero(fine_cells(grid)) if options.inside is not None else None
    nodes, kept = icosphere(options.finest)[0], kept_nodes(grid, given, options, fine)
    reach = np.full(len(given), options.radius * longest_edge(options.refinement))
    if fine is not None:
        reach[fine] = options.radius * longest_edge(options.finest)
    number = np.where(kept, np.cumsum(kept) - 1, -1)
    edges = number[np.concatenate([mesh_edges(icosphere(level)[1]) for level in options.levels], 1)]
    senders, receivers = edges[:, (edges >= 0).all(0)]
    corners, nodes = number[_corners(points, kept, options)], nodes[kept]
    pairs = [
        (np.flatnonzero(reach == radius)[cell], near)
        for radius in np.unique(reach)
        for cell, near in [within(given[reach == radius], nodes, radius)]
    ]
    cell, near = (np.concatenate(part) for part in zip(*pairs, strict=True))
    _warn_of_silence(np.arange(len(nodes)) if grid.is_global() else np.unique(corners), near)
    return MeshGraph(
        cells=len(points),
        nodes=nodes.astype(np.float32),
        encode=Edges.between(cell, near, given, nodes),
        process=Edges.between(senders, receivers, nodes, nodes),
        decode=Edges.between(corners.ravel(), np.repeat(np.arange(len(points)), 3), nodes, points),
        key=graph_key(grid, options, boundary),
        boundary=len(given) - len(points),
    )


def kept_nodes(grid: Grid, given: np.ndarray, options: MeshOptions, fine: np.ndarray | None = None) -> np.ndarray:
    """Which nodes of the finest icosahedron the mesh of a grid has, boolean.

    `given`: cells and places of a boundary, `(cell + place, 3)`. `fine`: indices of a stretched grid's fine cells, around
    which alone nodes beyond `options.refinement` are; None: everywhere.
    """
    nodes, margin = icosphere(options.finest)[0], options.radius + MARGIN
    kept = np.ones(len(nodes), bool)
    if not grid.is_global():
        kept = _around(given, nodes, margin * longest_edge(options.refinement))
    if fine is not None:
        inside = _around(given[fine], nodes, margin * longest_edge(options.finest))
        kept &= inside | (np.arange(len(nodes)) < len(icosphere(options.refinement)[0]))
    return kept


def directions(grid: Grid) -> np.ndarray:
    """Cells as points on the unit sphere, `(cell, 3)`, in the order of the grid's shape flattened."""
    return unit_vectors(*(np.ravel(angle) for angle in grid.mesh()))


def _around(points: np.ndarray, nodes: np.ndarray, radius: float) -> np.ndarray:
    """Which nodes have a point within `radius`, boolean."""
    found = np.zeros(len(nodes), bool)
    found[within(points, nodes, radius)[1]] = True
    return found


def _corners(points: np.ndarray, kept: np.ndarray, options: MeshOptions) -> np.ndarray:
    """The corners `(point, 3)` of the finest triangle around each point whose corners are all in the mesh."""
    face = containing_face(points, options.finest)
    corners = icosphere(options.finest)[1][face]
    for level in range(options.finest - 1, options.refinement - 1, -1):
        coarser = ~kept[corners].all(1)
        corners[coarser] = icosphere(level)[1][face[coarser] >> 2 * (options.finest - level)]
    return corners


def _warn_of_silence(nodes: np.ndarray, near: np.ndarray) -> None:
    if silent := len(np.setdiff1d(nodes, near)):
        log.warning(
            "%d of %d mesh nodes receive from no cell: lower `refinement`, the mesh is finer than the grid",
            silent,
            len(nodes),
        )


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
