"""A process's part of a graph: the cells of its band, a share of the nodes from north to south, and the edges to both.

Edges belong to the process of their receiver, so that their states never travel. What sends to them from elsewhere is
fetched. Nodes are shared so that every process has as many edges, counted once for every round of messages along them. By the
rows of the cells it would not: those near a pole cover less of the sphere. So some cells' nodes are with a neighbour.
"""

from typing import NamedTuple

import numpy as np

from emulator.networks.edge_index import EdgeIndex
from emulator.parallel.space import Fetch, Space
from emulator.sphere.mesh import Edges, MeshGraph


class OwnEdges(NamedTuple):
    """Edges of one kind to a process's nodes or cells.

    Attributes:
      index: rows of the nodes at both ends, the senders' with those that are fetched after the own.
      features: `(edge, 4)` float32.
    """

    index: EdgeIndex
    features: np.ndarray


class Part(NamedTuple):
    """What a process has of a graph.

    Attributes:
      cells: number of its cells. nodes: positions of its nodes, `(node, 3)` float32.
      encode, process, decode: the edges to its nodes, from cells and from nodes, and those to its cells.
    """

    cells: int
    nodes: np.ndarray
    encode: OwnEdges
    process: OwnEdges
    decode: OwnEdges


def part_of(graph: MeshGraph, space: Space, rows: int, rounds: int) -> Part:
    """The part of this process; of a single one the whole graph as it is.

    Args:
      rows: of the grid, of which each process has a band. rounds: of messages between nodes.
    Raises `ValueError` for fewer rows or nodes than processes.
    """
    count = len(graph.nodes)
    if space.size == 1:
        counts = {
            "encode": (graph.cells + graph.boundary, count),
            "process": (count, count),
            "decode": (count, graph.cells),
        }
        edges = {kind: getattr(graph, kind) for kind in counts}
        whole = {n: OwnEdges(EdgeIndex(e.senders, e.receivers, *counts[n]), e.features) for n, e in edges.items()}
        return Part(graph.cells, graph.nodes, **whole)
    if graph.boundary:
        raise ValueError(f"Expected one process for a state with a boundary of its own, got {space.size}")
    of_cells = np.array(space.bounds(rows)) * (graph.cells // rows)
    southward = np.argsort(-graph.nodes[:, -1], kind="stable")
    number = np.empty(count, np.int64)
    number[southward] = np.arange(count)
    of_nodes = _node_bounds(graph, southward, space.size, rounds)
    encode, process, decode = graph.encode, graph.process, graph.decode
    own = slice(*of_nodes[space.rank : space.rank + 2])
    return Part(
        cells=int(np.diff(of_cells)[space.rank]),
        nodes=graph.nodes[southward[own]],
        encode=_own(space, encode, (encode.senders, number[encode.receivers]), of_cells, of_nodes),
        process=_own(space, process, (number[process.senders], number[process.receivers]), of_nodes, of_nodes),
        decode=_own(space, decode, (number[decode.senders], decode.receivers), of_nodes, of_cells),
    )


def _node_bounds(graph, southward, size, rounds):
    """Where the shares of the nodes from north to south begin and end, `(size + 1,)`, by the edges that they receive."""
    received = rounds * np.bincount(graph.process.receivers, minlength=len(southward))
    received += np.bincount(graph.encode.receivers, minlength=len(southward))
    until = np.cumsum(received[southward])
    bounds = np.searchsorted(until, until[-1] * np.arange(size) / size, side="right")
    bounds = np.append(bounds, len(southward))
    bounds[0] = 0
    if np.diff(bounds).min() < 1:
        raise ValueError(f"Expected mesh nodes for each of {size} processes, got {len(southward)}; raise `refinement`")
    return bounds


def _own(space: Space, edges: Edges, ends, of_senders, of_receivers) -> OwnEdges:
    """The edges to this process's receivers.

    `ends`: numbers of senders and receivers. `of_senders`, `of_receivers`: bounds of their shares.
    """
    order = np.argsort(ends[1], kind="stable")
    senders, receivers = (end[order] for end in ends)
    bounds = np.searchsorted(receivers, of_receivers)

    def elsewhere(rank):
        sending = np.unique(senders[bounds[rank] : bounds[rank + 1]])
        return sending[(sending < of_senders[rank]) | (sending >= of_senders[rank + 1])]

    me = space.rank
    mine, count = slice(bounds[me], bounds[me + 1]), int(np.diff(of_senders)[me])
    numbers, others = senders[mine] - of_senders[me], elsewhere(me)
    foreign = (numbers < 0) | (numbers >= count)
    numbers[foreign] = count + np.searchsorted(others, senders[mine][foreign])
    index = EdgeIndex(
        numbers,
        receivers[mine] - of_receivers[me],
        count + len(others),
        int(np.diff(of_receivers)[me]),
        Fetch(space, of_senders, elsewhere),
    )
    return OwnEdges(index, edges.features[order[mine]])
