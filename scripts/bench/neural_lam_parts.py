"""Networks of PyPI `neural-lam` without the package's tools for training, data and plots, which they do not need."""

import functools
import importlib.util
import logging
import sys
import types

import torch
from torch import nn

LEFT_OUT = {
    "datastore": {"BaseDatastore": object},
    "utils.logging": {
        "init_training_logger_metrics": None,
        "setup_training_logger": None,
        "log_on_rank_zero": logging.getLogger(__name__).info,
    },
    "utils.plot": {"fractional_plot_bundle": None, "has_working_latex": None},
}
FOLDERS = ("", ".models", ".models.step_predictors", ".models.step_predictors.graph")  # whose imports are left out


@functools.cache
def prepare() -> None:
    """Makes the files of `neural_lam` importable. Raises `ImportError` where it is not installed."""
    spec = importlib.util.find_spec("neural_lam")
    if spec is None:
        raise ImportError("Expected neural-lam to be installed, or in the folder given by --peers")
    root = next(iter(spec.submodule_search_locations))
    for name in FOLDERS:
        package = types.ModuleType(f"neural_lam{name}")
        package.__path__ = [root + name.replace(".", "/")]
        sys.modules[package.__name__] = package
    for name, members in LEFT_OUT.items():
        module = types.ModuleType(f"neural_lam.{name}")
        vars(module).update(members)
        sys.modules[module.__name__] = module
    from torch_geometric import inspector

    named = inspector.type_repr  # which knows no `X | None` before Python 3.14, and neural-lam 0.7 is annotated with it
    inspector.type_repr = lambda kind, names: repr(kind) if isinstance(kind, types.UnionType) else named(kind, names)


def parts():
    """`InteractionNet` and `make_mlp`."""
    prepare()
    from neural_lam.gnn_layers import InteractionNet
    from neural_lam.utils import make_mlp

    return InteractionNet, make_mlp


class Hierarchical(nn.Module):
    """Hi-LAM, or its parallel kind, on a graph of ours (`emulator.sphere.level_graph.LevelGraph`).

    `(batch, 2 states, *space)` -> `(batch, states, *space)`: two states without forcing and static fields.
    """

    def __init__(self, graph, states: int, width: int, rounds: int, sweeps: str):
        super().__init__()
        prepare()
        from neural_lam import utils
        from neural_lam.models.step_predictors.graph.hi_lam import HiLAM
        from neural_lam.models.step_predictors.graph.hi_lam_parallel import HiLAMParallel

        def register(model, *_, **__):
            for name, edges in (("g2m", graph.encode), ("m2g", graph.decode)):
                model.register_buffer(f"{name}_edge_index", _ends(edges), persistent=False)
                model.register_buffer(f"{name}_features", torch.as_tensor(edges.features), persistent=False)
            for name, levels in (("m2m", graph.same), ("mesh_up", graph.up), ("mesh_down", graph.down)):
                setattr(model, f"{name}_edge_index", utils.BufferList([_ends(each) for each in levels], False))
                features = [torch.as_tensor(each.features) for each in levels]
                setattr(model, f"{name}_features", utils.BufferList(features, False))
            nodes = [torch.as_tensor(each) for each in graph.nodes]
            model.mesh_static_features = utils.BufferList(nodes, persistent=False)
            return True

        utils.load_and_register_graph = register
        kind = {"sequential": HiLAM, "parallel": HiLAMParallel}[sweeps]
        self.model = kind(_Datastore(states, graph.cells), hidden_dim=width, processor_layers=rounds)

    def forward(self, x):
        rows = x.flatten(2).transpose(1, 2)
        last, before = rows.chunk(2, -1)
        y, _ = self.model(last, before, rows[..., :0])
        return y.transpose(1, 2).reshape(len(x), -1, *x.shape[2:])


def difference(network, peer: Hierarchical, x: torch.Tensor) -> float:
    """Largest difference of a network's output from the peer's change of the last state, with the peer's weights in both.

    `network`: an `emulator.networks.hierarchical.HierarchicalNetwork` on the same graph, of the same size and sweeps.
    """
    theirs = peer.model
    with torch.no_grad():
        _give(network, theirs)
        return float((network(x) - (peer(x) - x.chunk(2, 1)[0])).abs().max())


def _give(ours, theirs) -> None:
    process, levels = ours.process, len(theirs.mesh_embedders)
    embedded = [(ours.cell_in, theirs.grid_embedder), (ours.node_in, theirs.mesh_embedders[0])]
    embedded += [(ours.cell_update, theirs.encoding_grid_mlp), (ours.encode.embed, theirs.g2m_embedder)]
    embedded += [(ours.decode.embed, theirs.m2g_embedder)]
    embedded += [(node.embed, mlp) for node, mlp in zip(process.nodes, theirs.mesh_embedders[1:], strict=True)]
    for kind in ("same", "up", "down"):
        for level, mlp in enumerate(getattr(theirs, f"mesh_{kind}_embedders")):
            embedded.append((process.edges[f"{kind}_{level}"].embed, mlp))
    for part, mlp in embedded:
        _copy((part.first, mlp[0]), (part.second, mlp[2]), (part.norm, mlp[3]))
    _copy((ours.hidden, theirs.output_map[0]), (ours.out, theirs.output_map[2]))
    pairs = [(ours.encode.rounds[0], theirs.g2m_gnn), (ours.decode.rounds[0], theirs.m2g_gnn)]
    steps = [step.layer if hasattr(step, "layer") else step for step in process.steps]
    between = [*theirs.mesh_init_gnns, *_rounds(theirs, levels), *reversed(theirs.mesh_read_gnns)]
    for ours_step, theirs_step in [*pairs, *zip(steps, between, strict=True)]:
        if hasattr(ours_step, "updates"):  # all edges at once
            for part, mlp in zip(ours_step.messages.values(), theirs_step.edge_mlp.mlps, strict=True):
                _message(part, mlp)
            for part, mlp in zip(ours_step.updates, theirs_step.aggr_mlp.mlps, strict=True):
                _update(part, mlp)
        else:
            _message(ours_step, theirs_step.edge_mlp)
            _update(ours_step, theirs_step.aggr_mlp)


def _rounds(theirs, levels: int):
    """Their interaction networks in the order of the sweeps."""
    if hasattr(theirs, "processor"):
        yield from theirs.processor.children()
        return
    kinds = theirs.mesh_down_gnns, theirs.mesh_down_same_gnns, theirs.mesh_up_gnns, theirs.mesh_up_same_gnns
    for down, down_same, up, up_same in zip(*kinds, strict=True):
        yield down_same[levels - 1]
        for level in reversed(range(levels - 1)):
            yield from (down[level], down_same[level])
        yield up_same[0]
        for level in range(levels - 1):
            yield from (up[level], up_same[level + 1])


def _message(part, mlp) -> None:
    for layer, weight in zip(
        (part.edge_first, part.sender_first, part.receiver_first), mlp[0].weight.chunk(3, 1), strict=True
    ):
        layer.weight.copy_(weight)
    part.receiver_first.bias.copy_(mlp[0].bias)
    _copy((part.edge_second, mlp[2]), (part.edge_norm, mlp[3]))


def _update(part, mlp) -> None:
    for layer, weight in zip((part.own_first, part.sum_first), mlp[0].weight.chunk(2, 1), strict=True):
        layer.weight.copy_(weight)
    part.own_first.bias.copy_(mlp[0].bias)
    _copy((part.node_second, mlp[2]), (part.node_norm, mlp[3]))


def _copy(*layers) -> None:
    for to, given in layers:
        to.weight.copy_(given.weight)
        to.bias.copy_(given.bias)


def _ends(edges):
    return torch.stack([torch.as_tensor(edges.senders), torch.as_tensor(edges.receivers)])


class _Datastore:
    """What a network asks of its data."""

    def __init__(self, states: int, cells: int):
        self.states, self.num_grid_points = states, cells

    def get_num_data_vars(self, category):
        return self.states if category == "state" else 0

    def get_vars_names(self, category):
        return [f"state_{n}" for n in range(self.states)]

    def get_dataarray(self, **_):
        return None

    def get_xy_extent(self, category):
        return 0, 1, 0, 1

    def get_standardization_dataarray(self, category):
        import xarray as xr

        ones = xr.DataArray([1.0] * self.states, dims="state_feature")
        means = {f"state_{name}": 0 * ones for name in ("mean", "diff_mean_standardized")}
        return xr.Dataset(means | {f"state_{name}": ones for name in ("std", "diff_std_standardized")})
