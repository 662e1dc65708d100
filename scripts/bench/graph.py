"""A training step of the graph emulator against PyPI `neural-lam`'s interaction network on the same graph.

Same edges, width, rounds and channels; each case in a process of its own, so that the peak of resident memory is its own.
The graph: a Gaussian grid of 64 x 128 cells and a multi-mesh of 2562 nodes. Peer: `pip install neural-lam`.
"""

import importlib.util
import json
import sys
import tempfile
import types
from pathlib import Path

import measure
import torch
from torch import nn

from emulator.networks.graph import GraphNetwork, GraphOptions
from emulator.planet.grid import Grid
from emulator.sphere.mesh import EDGE_FEATURES, NODE_FEATURES, MeshGraph, MeshOptions, graph_of

CHANNELS = 40


def neural_lam():
    """`InteractionNet` and `make_mlp` without the package's training tools (lightning, mlflow), which they do not need."""
    spec = importlib.util.find_spec("neural_lam")
    if spec is None:
        raise ImportError("Expected neural-lam to be installed, or in the folder given by --peers")
    package = types.ModuleType("neural_lam")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["neural_lam"] = package
    from torch_geometric import inspector

    named = inspector.type_repr  # which knows no `X | None` before Python 3.14, and neural-lam 0.7 is annotated with it
    inspector.type_repr = lambda kind, names: repr(kind) if isinstance(kind, types.UnionType) else named(kind, names)
    from neural_lam.gnn_layers import InteractionNet

    return InteractionNet, sys.modules["neural_lam.utils"].make_mlp


class Peer(nn.Module):
    """The same encode - process - decode network of the peer's parts."""

    def __init__(self, graph: MeshGraph, width: int, rounds: int):
        super().__init__()
        interaction, mlp = neural_lam()
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
    graph = MeshGraph.load(case["graph"])
    if case["who"] == "ours":
        options = GraphOptions(**{name: case[name] for name in ("width", "rounds", "precision", "checkpointing")})
        network = GraphNetwork(CHANNELS, CHANNELS, graph, options)
    else:
        network = Peer(graph, case["width"], case["rounds"])
    x = torch.randn(case["batch"], CHANNELS, *case["shape"])
    return measure.training_step(network.to(device), x.to(device), repeats)


def rows(arguments):
    grid = Grid.gaussian(arguments.nlat)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.npz"
        graph = graph_of(grid, MeshOptions(arguments.refinement, True, arguments.radius), path)
        edges = f"{len(graph.encode)} / {len(graph.process)} / {len(graph.decode)} edges"
        shared = {"graph": str(path), "shape": grid.shape, "width": arguments.width, "rounds": arguments.rounds}
        for batch in arguments.batches:
            peer = measure.alone(__file__, {**shared, "who": "neural-lam", "batch": batch}, arguments)
            for precision, checkpointing in (("float32", False), ("float32", True), ("bfloat16", False)):
                case = {**shared, "who": "ours", "batch": batch, "precision": precision, "checkpointing": checkpointing}
                ours = measure.alone(__file__, case, arguments)
                if "failed" in ours:
                    raise RuntimeError(ours["failed"])
                name = f"batch {batch}, {precision}{', checkpointing' if checkpointing else ''}"
                more = {"edges": edges, "parameters": [ours["parameters"], peer.get("parameters")]}
                if "failed" in peer:
                    more["peer_failed"] = peer["failed"]
                yield measure.row(f"training step, {name}", ours["seconds"], peer.get("seconds"), "s", **more)
                yield measure.row(f"peak memory, {name}", ours["peak_mib"], peer.get("peak_mib"), "MiB")


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--nlat", type=int, default=64)
    parser.add_argument("--refinement", type=int, default=4)
    parser.add_argument("--radius", type=float, default=1.0)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    arguments = parser.parse_args()
    measure.prepare(arguments)
    if arguments.one:
        print(json.dumps(one(json.loads(arguments.one), arguments.repeats, arguments.device)))
        return
    measure.report(arguments, rows(arguments))


if __name__ == "__main__":
    main()
