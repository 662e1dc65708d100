"""A training step of the networks on meshes against PyPI `neural-lam`'s on the same graph.

Same edges, width, rounds and channels; each case in a process of its own, so that the peak of resident memory is its own.
The graphs: a Gaussian grid of 64 x 128 cells and a multi-mesh of 2562 nodes, against interaction networks; and, with
`--hierarchical`, a map of 81 x 81 cells or as many as asked for and a hierarchy of square meshes, against Hi-LAM and its
parallel kind. Peer: `pip install neural-lam`.
"""

import json
import tempfile
from pathlib import Path

import measure
import neural_lam_parts
import numpy as np
import torch
from torch import nn

from emulator.networks.graph import GraphNetwork, GraphOptions
from emulator.networks.hierarchical import HierarchicalNetwork, HierarchicalOptions
from emulator.planet.grid import Grid
from emulator.sphere.mesh import EDGE_FEATURES, NODE_FEATURES, MeshGraph, MeshOptions, graph_of
from emulator.sphere.square_mesh import SquareOptions, square_levels

CHANNELS = 40


class Peer(nn.Module):
    """The same encode - process - decode network of the peer's parts."""

    def __init__(self, graph: MeshGraph, width: int, rounds: int):
        super().__init__()
        interaction, mlp = neural_lam_parts.parts()
        g2m, m2m, m2g = (
            torch.stack([torch.as_tensor(e.senders), torch.as_tensor(e.receivers)])
            for e in (graph.encode, graph.process, graph.decode)
        )
        self.grid_in = mlp([CHANNELS, width, width])
        self.out = mlp([width, width, CHANNELS], layer_norm=False)
        self.mesh_in = mlp([NODE_FEATURES, width, width])
        self.edge_in = nn.ModuleList(mlp([EDGE_FEATURES, width, width]) for _ in range(3))
        self.encode = interaction(g2m, width, update_edges=False)
        self.process = nn.ModuleList(interaction(m2m, width) for _ in range(rounds))
        self.decode = interaction(m2g, width, update_edges=False)
        self.mesh = torch.as_tensor(graph.nodes)
        self.edges = [torch.as_tensor(e.features) for e in (graph.encode, graph.process, graph.decode)]

    def forward(self, x):
        """`(batch, channel, *space)` -> the same."""
        cells = x.flatten(2).transpose(1, 2)
        edges_in, edges, edges_out = (
            embed(features).expand(len(x), -1, -1) for embed, features in zip(self.edge_in, self.edges, strict=True)
        )
        cells = self.grid_in(cells)
        nodes = self.encode(cells, self.mesh_in(self.mesh).expand(len(x), -1, -1), edges_in)
        for layer in self.process:
            nodes, edges = layer(nodes, nodes, edges)
        return self.out(self.decode(nodes, cells, edges_out)).transpose(1, 2).reshape(x.shape)


def one(case: dict, repeats: int, device: str) -> dict:
    if case["who"] == "both":
        return {"difference": _difference(case)}
    names = ("width", "rounds", "precision", "checkpointing")
    ours = {name: case[name] for name in names if name in case}
    if "sweeps" in case:
        graph, x = _map_graph(case), torch.randn(case["batch"], 2 * CHANNELS, case["cells"], case["cells"])
        if case["who"] == "ours":
            options = HierarchicalOptions(sweeps=case["sweeps"], **ours)
            network = HierarchicalNetwork(2 * CHANNELS, CHANNELS, graph, options)
        else:
            network = neural_lam_parts.Hierarchical(graph, CHANNELS, case["width"], case["rounds"], case["sweeps"])
    else:
        graph, x = MeshGraph.load(case["graph"]), torch.randn(case["batch"], CHANNELS, *case["shape"])
        if case["who"] == "ours":
            network = GraphNetwork(CHANNELS, CHANNELS, graph, GraphOptions(**ours))
        else:
            network = Peer(graph, case["width"], case["rounds"])
    return measure.training_step(network.to(device), x.to(device), repeats)


def _map_graph(case: dict):
    side = np.arange(case["cells"]) * 1e4
    mapping = {"grid_mapping_name": "lambert_azimuthal_equal_area", "latitude_of_projection_origin": 60.0}
    mapping |= {"longitude_of_projection_origin": 10.0, "earth_radius": 6371e3}
    grid = Grid.projected(side - side.mean(), (side - side.mean())[::-1], mapping)
    return square_levels(grid, SquareOptions(levels=case["levels"]))


def rows(arguments):
    grid = Grid.gaussian(arguments.nlat)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.npz"
        graph = graph_of(grid, MeshOptions(arguments.refinement, True, arguments.radius), path)
        edges = f"{len(graph.encode)} / {len(graph.process)} / {len(graph.decode)} edges"
        shared = {"graph": str(path), "shape": grid.shape, "width": arguments.width, "rounds": arguments.rounds}
        yield from _compared(arguments, shared, edges)


def hierarchical_rows(arguments):
    shared = {"cells": arguments.cells, "levels": arguments.levels, "width": arguments.width}
    graph = _map_graph(shared)
    edges = f"{len(graph.encode)} / {[len(e) for e in graph.same]} / {[len(e) for e in graph.up]} / {len(graph.decode)} edges"
    for sweeps in ("sequential", "parallel"):
        case = {**shared, "sweeps": sweeps, "rounds": arguments.rounds}
        found = measure.alone(__file__, {**case, "who": "both"}, arguments)
        more = {"peer_failed": found["failed"]} if "failed" in found else {}
        yield measure.row(f"difference with the same weights, {sweeps}", found.get("difference"), None, "", **more)
        yield from _compared(arguments, case, edges)


def _difference(case: dict) -> float:
    """The largest of a sample's outputs, on a map of 28 cells a side, which are about 2."""
    graph, width, rounds = _map_graph({"cells": 28, "levels": 3}), case["width"], case["rounds"]
    options = HierarchicalOptions(sweeps=case["sweeps"], width=width, rounds=rounds)
    network = HierarchicalNetwork(2 * CHANNELS, CHANNELS, graph, options)
    peer = neural_lam_parts.Hierarchical(graph, CHANNELS, width, rounds, case["sweeps"])
    return neural_lam_parts.difference(network, peer, torch.randn(2, 2 * CHANNELS, 28, 28))


def _compared(arguments, shared, edges):
    for batch in arguments.batches:
        peer = measure.alone(__file__, {**shared, "who": "neural-lam", "batch": batch}, arguments)
        for precision, checkpointing in (("float32", False), ("float32", True), ("bfloat16", False)):
            case = {**shared, "who": "ours", "batch": batch, "precision": precision, "checkpointing": checkpointing}
            ours = measure.alone(__file__, case, arguments)
            if "failed" in ours:
                raise RuntimeError(ours["failed"])
            kind = f"{shared['sweeps']}, " if "sweeps" in shared else ""
            name = f"{kind}batch {batch}, {precision}{', checkpointing' if checkpointing else ''}"
            more = {"edges": edges, "parameters": [ours["parameters"], peer.get("parameters")]}
            if "failed" in peer:
                more["peer_failed"] = peer["failed"]
            yield measure.row(f"training step, {name}", ours["seconds"], peer.get("seconds"), "s", **more)
            yield measure.row(f"peak memory, {name}", ours["peak_mib"], peer.get("peak_mib"), "MiB")
            own = (
                ours["peak_mib"] - ours["start_mib"],
                peer["peak_mib"] - peer["start_mib"] if "peak_mib" in peer else None,
            )
            yield measure.row(f"peak memory less libraries, graph and weights, {name}", *own, "MiB")


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--nlat", type=int, default=64)
    parser.add_argument("--refinement", type=int, default=4)
    parser.add_argument("--radius", type=float, default=1.0)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--hierarchical", action="store_true", help="on a map and a hierarchy of square meshes")
    parser.add_argument("--cells", type=int, default=81, help="of a side of the map")
    parser.add_argument("--levels", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    arguments = parser.parse_args()
    measure.prepare(arguments)
    if arguments.one:
        print(json.dumps(one(json.loads(arguments.one), arguments.repeats, arguments.device)))
        return
    measure.report(arguments, hierarchical_rows(arguments) if arguments.hierarchical else rows(arguments))


if __name__ == "__main__":
    main()
