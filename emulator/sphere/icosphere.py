"""The icosahedron and its refinements by halving edges: nodes, triangles, edges, and what lies where.

Refined n times it has 10 * 4^n + 2 nodes and 20 * 4^n triangles. The nodes of a refinement are the first of the next.
"""

import functools

import numpy as np


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


def longest_edge(refinement: int) -> float:
    """Of a refinement, on the unit sphere."""
    nodes, faces = icosphere(refinement)
    return float(np.linalg.norm(np.subtract(*nodes[mesh_edges(faces)]), axis=1).max())


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


def local_frame(points: np.ndarray) -> np.ndarray:
    """Up, east and north at every point, `(point, 3, 3)`; at a pole, those of longitude 0."""
    longitude = np.arctan2(points[:, 1], points[:, 0])
    longitude[np.hypot(points[:, 0], points[:, 1]) < 1e-9] = 0.0
    east = np.stack([-np.sin(longitude), np.cos(longitude), np.zeros_like(longitude)], 1)
    return np.stack([points, east, np.cross(points, east)], 1)
