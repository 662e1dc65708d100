"""The graph of an encode - process - decode emulator: an icosahedral mesh and its edges from and to the cells of a grid.

The icosahedron is refined by halving its edges (10 * 4^n + 2 nodes after n times; the nodes of a refinement are the first
of the next). A mesh has the edges of the finest refinement (Keisler 2022), or those of all together (the multi-mesh of
GraphCast, Lam et al. 2023), in both directions. A cell sends to all nodes within a radius, and receives from the three
corners of the triangle that it lies in.

The mesh of a region is what lies within reach of its cells and one longest edge around, so that messages can pass outside
its border, with all edges between those nodes.
"""

import dataclasses
import functools
import hashlib
import logging
import zipfile
import zlib
from pathlib import Path

import numpy as np

from emulator.files.whole_file import whole_file
from emulator.planet.cell_areas import unit_vectors
from emulator.planet.grid import Grid

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
    """

    refinement: int = 4
    multi: bool = True
    radius: float = 0.6

    def __post_init__(self):
        if not 0 <= self.refinement <= 8:
            raise ValueError(f"Expected a refinement from 0 to 8, got {self.refinement}")
        if not 0.58 <= self.radius <= 4:
            raise ValueError(f"Expected a radius from 0.58 to 4 (0.58 reaches every cell), got {self.radius}")


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
      nodes: positions of the mesh nodes on the unit sphere, `(node, 3)` float32; also their features.
      encode, process, decode: edges from cells to nodes, between nodes, and from nodes to cells.
      key: hash of the grid's coordinates and of the options.
    """

    cells: int
    nodes: np.ndarray
    encode: Edges
    process: Edges
    decode: Edges
    key: str

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
        return cls(int(stored["cells"]), stored["nodes"], **edges, key=texts["key"])

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {"cells": np.array(self.cells), "nodes": self.nodes}
        for kind in ("encode", "process", "decode"):
            edges = getattr(self, kind)
            arrays |= {f"{kind}_{f.name}": getattr(edges, f.name) for f in dataclasses.fields(Edges)}
        return arrays


def graph_of(grid: Grid, options: MeshOptions | None = None, path: Path | None = None) -> MeshGraph:
    """The graph of a grid, from the file where there is one, otherwise built and, with a path, written to it.

    Raises `GraphError` for a file that is damaged or belongs to another grid or other options.
    """
    options = options or MeshOptions()
    key = graph_key(grid, options)
    if path is None or not Path(path).exists():
        graph = build_graph(grid, options)
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


def graph_key(grid: Grid, options: MeshOptions) -> str:
    """Hash of the cells' coordinates, to a millionth of a degree, and of the options."""
    kind = () if grid.is_global() else ("region",)
    digest = hashlib.sha256(repr((SCHEMA, dataclasses.astuple(options), grid.shape, *kind)).encode())
    for angle in grid.mesh():
        digest.update(np.round(np.asarray(angle, np.float64) * 1e6).astype(np.int64).tobytes())
    return digest.hexdigest()[:16]


def build_graph(grid: Grid, options: MeshOptions) -> MeshGraph:
    """The graph, built anew; see `MeshGraph`."""
    points = unit_vectors(*(np.ravel(angle) for angle in grid.mesh()))
    nodes, faces = icosphere(options.refinement)
    levels = range(options.refinement + 1) if options.multi else (options.refinement,)
    senders, receivers = np.concatenate([mesh_edges(icosphere(level)[1]) for level in levels], 1)
    longest = np.linalg.norm(np.subtract(*nodes[mesh_edges(faces)]), axis=1).max()
    corners = faces[containing_face(points, options.refinement)]
    if not grid.is_global():
        kept = np.unique(within(points, nodes, (options.radius + MARGIN) * longest)[1])
        number = np.full(len(nodes), -1)
        number[kept] = np.arange(len(kept))
        senders, receivers = number[np.stack([senders, receivers])]
        inside = (senders >= 0) & (receivers >= 0)
        nodes, senders, receivers, corners = nodes[kept], senders[inside], receivers[inside], number[corners]
    cell, near = within(points, nodes, options.radius * longest)
    _warn_of_silence(np.arange(len(nodes)) if grid.is_global() else np.unique(corners), near)
    return MeshGraph(
        cells=len(points),
        nodes=nodes.astype(np.float32),
        encode=Edges.between(cell, near, points, nodes),
        process=Edges.between(senders, receivers, nodes, nodes),
        decode=Edges.between(corners.ravel(), np.repeat(np.arange(len(points)), 3), nodes, points),
        key=graph_key(grid, options),
    )


def _warn_of_silence(nodes: np.ndarray, near: np.ndarray) -> None:
    if silent := len(np.setdiff1d(nodes, near)):
        log.warning(
            "%d of %d mesh nodes receive from no cell: lower `refinement`, the mesh is finer than the grid",
            silent,
            len(nodes),
        )


def local_frame(points: np.ndarray) -> np.ndarray:
    """Up, east and north at every point, `(point, 3, 3)`; at a pole, those of longitude 0."""
    longitude = np.arctan2(points[:, 1], points[:, 0])
    longitude[np.hypot(points[:, 0], points[:, 1]) < 1e-9] = 0.0
    east = np.stack([-np.sin(longitude), np.cos(longitude), np.zeros_like(longitude)], 1)
    return np.stack([points, east, np.cross(points, east)], 1)


@functools.lru_cache(maxsize=10)
def icosphere(refinement: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes `(10 * 4^n + 2, 3)` float64 and triangles `(20 * 4^n, 3)`, counter-clockwise from outside.

    The children of triangle t are 4t ... 4t + 3. Two nodes of the icosahedron are the poles.
    """
    if refinement == 0:
        ring = np.radians(72 * np.arange(5))
        z, r = 1 / np.sqrt(5), 2 / np.sqrt(5)
        upper = np.stack([r * np.cos(ring), r * np.sin(ring), np.full(5, z)], 1)
        lower = np.stack([r * np.cos(ring + np.pi / 5), r * np.sin(ring + np.pi / 5), np.full(5, -z)], 1)
        nodes = np.concatenate([[[0, 0, 1]], upper, lower, [[0, 0, -1]]])
        a, b = np.arange(5), (np.arange(5) + 1) % 5
        faces = [
            (np.zeros(5, int), 1 + a, 1 + b),
            (1 + a, 6 + a, 1 + b),
            (6 + a, 6 + b, 1 + b),
            (6 + a, 11 + 0 * a, 6 + b),
        ]
        return nodes, np.concatenate([np.stack(face, 1) for face in faces])
    nodes, faces = icosphere(refinement - 1)
    pairs = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1)
    pairs, index = np.unique(pairs, axis=0, return_inverse=True)
    middle = nodes[pairs].sum(1)
    middle /= np.linalg.norm(middle, axis=1, keepdims=True)
    ab, bc, ca = index.reshape(3, -1) + len(nodes)
    a, b, c = faces.T
    children = np.stack([[a, ab, ca], [b, bc, ab], [c, ca, bc], [ab, bc, ca]])  # (child, corner, face)
    return np.concatenate([nodes, middle]), children.transpose(2, 0, 1).reshape(-1, 3)


def mesh_edges(faces: np.ndarray) -> np.ndarray:
    """Both directions of every edge of closed triangles, `(2, edge)`: each side belongs to two, of opposite sense."""
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).T


def containing_face(points: np.ndarray, refinement: int) -> np.ndarray:
    """Index of the finest triangle that each point `(point, 3)` lies in, found from the coarsest downwards."""
    face = _deepest(points, np.broadcast_to(np.arange(20), (len(points), 20)), 0)
    for level in range(1, refinement + 1):
        face = _deepest(points, 4 * face[:, None] + np.arange(4), level)
    return face


def _deepest(points, candidates, level):
    """Of each point's candidate triangles, `(point, candidate)`, the one that it lies deepest inside."""
    nodes, faces = icosphere(level)
    corners = nodes[faces]
    inward = np.cross(corners, np.roll(corners, -1, axis=1))  # normals of the planes through the sides
    inward /= np.linalg.norm(inward, axis=2, keepdims=True)
    depth = np.einsum("pi,pcki->pck", points, inward[candidates]).min(-1)
    return np.take_along_axis(candidates, depth.argmax(1)[:, None], 1)[:, 0]


def within(points: np.ndarray, nodes: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """All pairs (point, node) closer than `radius`, a chord: a search in cubes of that size, exact."""
    count = int(2 / radius) + 3
    cube = np.floor((nodes + 1) / radius).astype(np.int64) + 1
    number = (cube[:, 0] * count + cube[:, 1]) * count + cube[:, 2]
    order = np.argsort(number, kind="stable")
    number = number[order]
    home = np.floor((points + 1) / radius).astype(np.int64) + 1
    found = []
    for shift in np.ndindex(3, 3, 3):
        x, y, z = (home + np.array(shift) - 1).T
        wanted = (x * count + y) * count + z
        first, last = np.searchsorted(number, wanted, "left"), np.searchsorted(number, wanted, "right")
        point = np.repeat(np.arange(len(points)), last - first)
        start = np.repeat(first - np.concatenate([[0], np.cumsum(last - first)[:-1]]), last - first)
        node = order[start + np.arange(len(point))]
        close = ((points[point] - nodes[node]) ** 2).sum(1) < radius**2
        found.append((point[close], node[close]))
    return tuple(np.concatenate(part) for part in zip(*found, strict=True))


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
