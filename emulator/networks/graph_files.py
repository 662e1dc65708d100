"""Graphs in the files of Neural-LAM and weather-model-graphs: tensors of torch in a folder (graph storage, version 0.1.0).

The files number cells in an order of their own. Where a cell lies follows from the edges to it, which tell how far it is from
nodes whose places the files have; so a grid's cells are found whatever their order, and another grid's graph is refused.
"""

import pickle
import re
from pathlib import Path

import numpy as np
import torch

from emulator.planet.grid import Grid
from emulator.sphere.level_graph import LevelGraph, in_order
from emulator.sphere.mesh import GraphError, MeshGraph

VERSION = "0.1.0"
KINDS = {"g2m": "edges from cells", "m2m": "edges within levels", "m2g": "edges to cells"}
BETWEEN = {"mesh_up": "edges up", "mesh_down": "edges down"}
TOLERANCE = 0.01  # spacings of the grid: the files hold float32


def read_graph(folder: Path, grid: Grid) -> LevelGraph:
    """The graph of a grid from a folder with Neural-LAM's files; of a graph without a hierarchy one level.

    Lengths are over the longest edge within a level and places over the longer side of the domain, as Neural-LAM has them.
    Raises `GraphError` for files that are absent, damaged, of another version, or of another grid.
    """
    folder = Path(folder)
    mesh = _levels(folder, "mesh_features")
    legacy = _is_legacy(folder)
    same, same_features = _levels(folder, "m2m_edge_index"), _levels(folder, "m2m_features")
    count, total = len(same), sum(map(len, mesh))
    if not len(mesh) == len(same_features) == count:
        raise GraphError(
            f"Expected as many levels in all files of {folder}, got {len(mesh)} of nodes and {count} of edges"
        )
    (up, up_features), (down, down_features) = (
        (_levels(folder, f"{kind}_edge_index"), _levels(folder, f"{kind}_features")) if count > 1 else ([], [])
        for kind in BETWEEN
    )
    g2m, m2g = _tensor(folder, "g2m_edge_index"), _tensor(folder, "m2g_edge_index")
    if legacy:  # one numbering of all nodes, levels and cells
        same, up, down = ([ends - ends.min(1, keepdims=True) for ends in kind] for kind in (same, up, down))
        mesh_first = m2g[0].min() < m2g[1].min()
        cells = 0 if mesh_first else int(m2g[1].max()) + 1
        g2m = g2m - (np.array([[total], [0]]) if mesh_first else np.array([[0], [cells]]))
        m2g = m2g - (np.array([[0], [total]]) if mesh_first else np.array([[cells], [0]]))
    features = {kind: _tensor(folder, f"{kind}_features") for kind in ("g2m", "m2g")}
    _check(folder, grid.area.size, [len(each) for each in mesh], same, (up, down), (g2m, m2g))
    places = mesh[0][:, :2] * _unit(mesh[0], same[0], same_features[0])
    number = _cells_of(grid, places, m2g, features["m2g"], folder)
    longest = max(float(each[:, 0].max()) for each in same_features)
    span = 1.0 if legacy else _span(grid, places)
    return LevelGraph(
        cells=grid.area.size,
        nodes=tuple(np.concatenate([each[:, :2] / span, each[:, 2:]], 1).astype(np.float32) for each in mesh),
        encode=in_order(number[g2m[0]], g2m[1], features["g2m"] / longest),
        decode=in_order(m2g[0], number[m2g[1]], features["m2g"] / longest),
        **{
            name: tuple(in_order(*ends, each / longest) for ends, each in zip(*given, strict=True))
            for name, given in (
                ("same", (same, same_features)),
                ("up", (up, up_features)),
                ("down", (down, down_features)),
            )
        },
    )


def read_flat(folder: Path, grid: Grid) -> MeshGraph:
    """As `read_graph`, of a graph without a hierarchy. Raises `GraphError` for one with several levels."""
    graph = read_graph(folder, grid)
    if len(graph.nodes) > 1:
        raise GraphError(
            f"Expected a graph of one level in {folder}, got {len(graph.nodes)}; they are for `kind: hierarchical`"
        )
    return MeshGraph(graph.cells, graph.nodes[0], graph.encode, graph.same[0], graph.decode, "")


def _is_legacy(folder):
    """Whether the files are from before there was a version."""
    path = folder / "metainfo.yaml"
    if not path.exists():
        return True
    found = re.search(r"^spec_version:\s*['\"]?([^'\"\s]+)", path.read_text(), re.MULTILINE)
    if found is None or found[1] != VERSION:
        raise GraphError(f"Expected graph files of version {VERSION}, got {found[1] if found else 'none'} in {path}")
    return False


def _load(folder, name):
    path = folder / f"{name}.pt"
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise GraphError(f"Expected a graph of Neural-LAM in {folder}, got no {path.name} there") from None
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GraphError(f"Expected tensors in {path}, it cannot be read: {reason}") from None


def _tensor(folder, name) -> np.ndarray:
    return _array(folder, name, _load(folder, name))


def _levels(folder, name) -> list[np.ndarray]:
    found = _load(folder, name)
    if not isinstance(found, list | tuple) or not found:
        raise GraphError(
            f"Expected a list of a tensor for each level in {folder / name}.pt, got {type(found).__name__}"
        )
    return [_array(folder, name, each) for each in found]


def _array(folder, name, tensor) -> np.ndarray:
    columns = {"mesh_features": 2}.get(name, 3)
    ends = name.endswith("edge_index")
    if not isinstance(tensor, torch.Tensor) or tensor.ndim != 2 or not len(tensor.flatten()):
        raise GraphError(f"Expected tensors with two axes in {folder / name}.pt, got other things")
    if tensor.shape[0] != 2 if ends else tensor.shape[1] < columns:
        wanted = "(2, edge)" if ends else f"(row, {columns} or more)"
        raise GraphError(f"Expected {wanted} in {folder / name}.pt, got {tuple(tensor.shape)}")
    return tensor.numpy().astype(np.int64 if ends else np.float64)


def _check(folder, cells, nodes, same, between, outer):
    """Raises `GraphError` for indices of nodes that there are not, and for cells without edges."""
    (up, down), (g2m, m2g) = between, outer
    last = len(nodes) - 1
    if len(up) != last or len(down) != last:
        raise GraphError(
            f"Expected edges between all {last + 1} levels in {folder}, got {len(up)} up and {len(down)} down"
        )
    wanted = [("g2m", g2m, cells, nodes[0]), ("m2g", m2g, nodes[0], cells)]
    wanted += [(f"m2m {n}", ends, nodes[n], nodes[n]) for n, ends in enumerate(same)]
    wanted += [(f"mesh_up {n}", ends, nodes[n], nodes[n + 1]) for n, ends in enumerate(up)]
    wanted += [(f"mesh_down {n}", ends, nodes[n + 1], nodes[n]) for n, ends in enumerate(down)]
    for name, ends, *counts in wanted:
        if ends.min() < 0 or any(end.max() >= count for end, count in zip(ends, counts, strict=True)):
            raise GraphError(
                f"Expected {name} from {counts[0]} to {counts[1]} nodes in {folder}, got numbers up to {ends[0].max()} and "
                f"{ends[1].max()}: the graph is of another grid"
            )
    for words, end in (("from", g2m[0]), ("to", m2g[1])):
        if missing := cells - len(np.unique(end)):
            raise GraphError(f"Expected edges {words} every cell in {folder}, got none {words} {missing} of {cells}")


def _unit(places, ends, features) -> float:
    """Length of the edges' coordinates that is 1 in the nodes': other than 1 where these were normalised."""
    distance = np.linalg.norm(places[ends[0], :2] - places[ends[1], :2], axis=1)
    return float(np.median(features[:, 0] / np.maximum(distance, 1e-30)))


def _axes(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """`x` and `y` of every cell, flattened: of the map, or longitude and latitude."""
    if grid.kind == "projected":
        x, y = np.meshgrid(grid.x, grid.y)
    else:
        y, x = grid.mesh()
    return np.ravel(x), np.ravel(y)


def _span(grid, places) -> float:
    return float(max(map(np.ptp, _axes(grid))) if grid.kind in ("projected", "box") else np.ptp(places, axis=0).max())


def _cells_of(grid, places, ends, features, folder) -> np.ndarray:
    """The grid's number of every cell of the files."""
    found = np.zeros((grid.area.size, 2))
    found[ends[1]] = places[ends[0]] - features[:, 1:3]
    axes = _axes(grid)
    order, theirs = np.lexsort(_rounded(*axes)), np.lexsort(_rounded(*found.T))
    number = np.empty(grid.area.size, np.int64)
    number[theirs] = order
    away = max(float(np.abs(x[number] - each).max()) for x, each in zip(axes, found.T, strict=True))
    step = min(float(np.diff(np.unique(np.round(each, 6))).max(initial=0)) for each in axes)
    if away > TOLERANCE * step:
        raise GraphError(
            f"Expected the graph of {grid.describe()} in {folder}, got one whose cells lie elsewhere, up to {away:.4g} from "
            "its own; coordinates must be those of the map in m, or longitudes and latitudes"
        )
    return number


def _rounded(x, y):
    """Keys to sort cells by, which rounding of either side does not change: ranks among values that differ clearly."""
    return tuple(_ranks(each) for each in (x, y))


def _ranks(values):
    order = np.argsort(values, kind="stable")
    steps = np.diff(values[order])
    apart = steps > max(1e-4 * np.ptp(values) / max(len(values), 1), 1e-4 * float(steps.max(initial=0)))
    ranks = np.empty(len(values), np.int64)
    ranks[order] = np.concatenate([[0], np.cumsum(apart)])
    return ranks
