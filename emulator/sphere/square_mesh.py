"""Square meshes in the plane of a region, each level three times as coarse as the one below (Oskarsson et al. 2023).

Nodes lie in the middles of equal rectangles that cover the cells and the places of a boundary, and have edges to their eight
neighbours. Nine rectangles make one of the next level, whose node lies at the place of the middle one. A cell sends to the
nodes within a radius and receives from the corners of the rectangle of nodes around it. The reach of a cell is a share of the
diagonal between nodes, from a half of which on every cell reaches one: 0.67 of a side, as in Neural-LAM, misses cells in the
middle of four nodes.
"""

import dataclasses

import numpy as np

from emulator.options import Options, option
from emulator.planet.grid import Grid
from emulator.sphere.level_graph import LevelGraph, in_order
from emulator.sphere.mesh import MeshGraph
from emulator.sphere.plane import places, spacing

FACTOR = 3
ROUNDING = 1e-9  # so that half a diagonal reaches the cell in the very middle of four nodes


@dataclasses.dataclass(frozen=True)
class SquareOptions(Options):
    """A square mesh in the plane of a region (Oskarsson et al. 2023)."""

    spacing: float = option(3.0, "of the finest level's nodes, about, in spacings of the grid", minimum=1)
    levels: int = option(3, "each three times as coarse as the one below", minimum=1, maximum=8)
    radius: float = option(
        0.51,
        "reach of a cell, as a share of the diagonal between nodes; 0.5 reaches every cell",
        minimum=0.5,
        maximum=4,
    )


def square_levels(grid: Grid, options: SquareOptions, boundary: Grid | None = None) -> LevelGraph:
    """The levels of a region's square mesh and their edges; features are lengths and displacements in the plane.

    Edges: length, and `x` and `y` of the sender from the receiver, over the longest edge within a level; nodes: `x` and `y`
    from the middle, over the longer side of the domain. Raises `ValueError` for a region that is too small for the levels.
    """
    cells, *others = places(grid, *([] if boundary is None else [boundary]))
    given = np.concatenate([cells, *others])
    low, width = given.min(0), np.ptp(given, axis=0)
    meshes = [_Mesh(low, width, counts) for counts in _counts(width, spacing(grid, cells), options)]
    longest = float(np.hypot(*meshes[-1].step))

    def edges(senders, receivers, sender_places, receiver_places):
        displacement = sender_places[senders] - receiver_places[receivers]
        length = np.hypot(*displacement.T)[:, None]
        return in_order(senders, receivers, np.concatenate([length, displacement], 1) / longest)

    points, pairs = [mesh.places for mesh in meshes], list(zip(meshes[:-1], meshes[1:], strict=True))
    up = [(np.arange(lower.size), lower.parents(upper)) for lower, upper in pairs]
    bottom = meshes[0]
    return LevelGraph(
        cells=len(cells),
        nodes=tuple(((each - low - width / 2) / width.max()).astype(np.float32) for each in points),
        encode=edges(*bottom.within(given, options.radius * np.hypot(*bottom.step)), given, points[0]),
        same=tuple(edges(*mesh.neighbours(), each, each) for mesh, each in zip(meshes, points, strict=True)),
        up=tuple(edges(*ends, points[n], points[n + 1]) for n, ends in enumerate(up)),
        down=tuple(edges(*ends[::-1], points[n + 1], points[n]) for n, ends in enumerate(up)),
        decode=edges(*bottom.corners(cells), points[0], cells),
        boundary=len(given) - len(cells),
    )


def square_graph(grid: Grid, options: SquareOptions, boundary: Grid | None = None) -> MeshGraph:
    """The finest level with the edges of all: what the nodes of others have lies at the places of its own."""
    graph = square_levels(grid, options, boundary)
    at, ends = np.arange(len(graph.nodes[0])), []
    for level, edges in enumerate(graph.same):
        if level:
            below = graph.up[level - 1]  # nine senders to a node, of which the one at its place is the nearest
            middle = below.features[:, 0].reshape(-1, FACTOR**2).argmin(1)
            at = at[below.senders.reshape(-1, FACTOR**2)[np.arange(len(middle)), middle]]
        ends.append((at[edges.senders], at[edges.receivers]))
    senders, receivers = (np.concatenate(part) for part in zip(*ends, strict=True))
    process = in_order(senders, receivers, np.concatenate([edges.features for edges in graph.same]))
    return MeshGraph(graph.cells, graph.nodes[0], graph.encode, process, graph.decode, "", graph.boundary)


def _counts(width: np.ndarray, distance: float, options: SquareOptions) -> list[tuple[int, int]]:
    """Nodes along x and y of every level, the finest first."""
    coarsest = distance * options.spacing * FACTOR ** (options.levels - 1)
    top = np.maximum(2, np.round(width / coarsest).astype(int))
    counts = [tuple(int(n) for n in top * FACTOR**level) for level in reversed(range(options.levels))]
    if width.min() < coarsest:
        raise ValueError(
            f"Expected a region at least {np.ceil(coarsest / distance):.0f} cells across for {options.levels} levels of a "
            f"square mesh whose finest nodes are {options.spacing:g} cells apart, got {width.min() / distance:.1f}; lower "
            "`levels` or `spacing`"
        )
    return counts


class _Mesh:
    """Nodes in the middles of `counts` rectangles along x and y; x runs fastest."""

    def __init__(self, low: np.ndarray, width: np.ndarray, counts: tuple[int, int]):
        self.counts, self.step = counts, width / counts
        self.first, self.size = low + self.step / 2, counts[0] * counts[1]
        self.x, self.y = np.tile(np.arange(counts[0]), counts[1]), np.repeat(np.arange(counts[1]), counts[0])

    @property
    def places(self) -> np.ndarray:
        """`(node, 2)`."""
        return self.first + np.stack([self.x, self.y], 1) * self.step

    def neighbours(self) -> tuple[np.ndarray, np.ndarray]:
        """Both directions of every edge to the eight neighbours."""
        found = [
            self._inside(np.arange(self.size), self.x + dx, self.y + dy)
            for dx, dy in ((i - 1, j - 1) for i, j in np.ndindex(3, 3))
            if dx or dy
        ]
        return tuple(np.concatenate(part) for part in zip(*found, strict=True))

    def within(self, points: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
        """All pairs of a point and a node not farther than `radius`."""
        nearest, around = self._cell(points, 0.5), np.ceil(radius / self.step).astype(int)
        found = []
        for shift in np.ndindex(*(2 * around + 1)):
            point, node = self._inside(np.arange(len(points)), *(nearest + np.array(shift) - around).T)
            close = np.hypot(*(points[point] - self.places[node]).T) <= radius * (1 + ROUNDING)
            found.append((point[close], node[close]))
        return tuple(np.concatenate(part) for part in zip(*found, strict=True))

    def corners(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Nodes at the corners of the rectangle of nodes around each point, the nearest one outside all; and the points."""
        lower = np.clip(self._cell(points, 0.0), 0, np.array(self.counts) - 2)
        nodes = [(lower[:, 1] + dy) * self.counts[0] + lower[:, 0] + dx for dx, dy in np.ndindex(2, 2)]
        return np.concatenate(nodes), np.tile(np.arange(len(points)), 4)

    def parents(self, upper: "_Mesh") -> np.ndarray:
        """The upper level's node of every node."""
        return (self.y // FACTOR) * upper.counts[0] + self.x // FACTOR

    def _cell(self, points, offset):
        return np.floor((points - self.first) / self.step + offset).astype(int)

    def _inside(self, point, x, y):
        kept = (x >= 0) & (x < self.counts[0]) & (y >= 0) & (y < self.counts[1])
        return point[kept], y[kept] * self.counts[0] + x[kept]
