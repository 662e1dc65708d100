"""The graph emulator: equal to a plain interaction network, indifferent to the order of nodes, cheap in memory."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from emulator.kernels import library
from emulator.networks.edge_index import EdgeIndex
from emulator.networks.graph import GraphNetwork, GraphOptions
from emulator.networks.messages import Interaction, Perceptron
from emulator.planet.grid import Grid
from emulator.sphere.mesh import Edges, MeshOptions, build_graph

SMALL = GraphOptions(width=16, rounds=3)
GRAPH = build_graph(Grid.gaussian(12), MeshOptions(1))


def network(options=SMALL, graph=GRAPH, seed=0):
    torch.manual_seed(seed)
    net = GraphNetwork(3, 2, graph, options)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn(parameter.shape)
    return net


def fields(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- a plain reference ----------------------------------------------------------------------------------------------


def plain_perceptron(layer, x):
    return layer.norm(layer.second(nn.functional.silu(layer.first(x))))


def plain_interaction(layer, index, senders, receivers, edges):
    """Battaglia et al. 2016, as written: concatenate, two layers, scatter."""
    edges = edges.expand(-1, senders.shape[1], -1)
    weight = torch.cat([layer.edge_first.weight, layer.sender_first.weight, layer.receiver_first.weight], 1)
    sender, receiver = index
    joined = torch.cat([edges, senders[sender], receivers[receiver]], -1)
    hidden = nn.functional.silu(joined @ weight.T + layer.receiver_first.bias)
    message = layer.edge_norm(nn.functional.linear(hidden, layer.edge_second.weight, layer.edge_second.bias))
    sums = torch.zeros_like(receivers).index_add(0, receiver, message)
    weight = torch.cat([layer.own_first.weight, layer.sum_first.weight], 1)
    hidden = nn.functional.silu(torch.cat([receivers, sums], -1) @ weight.T + layer.own_first.bias)
    update = layer.node_norm(nn.functional.linear(hidden, layer.node_second.weight, layer.node_second.bias))
    return receivers + update, edges + message


def plain_network(net, graph, x):
    cells = plain_perceptron(net.cell_in, x.flatten(2).permute(2, 0, 1))
    nodes = plain_perceptron(net.node_in, net.nodes)[:, None].expand(-1, len(x), -1)
    for part, edges in ((net.encode, graph.encode), (net.process, graph.process), (net.decode, graph.decode)):
        index = torch.as_tensor(edges.senders), torch.as_tensor(edges.receivers)
        e = plain_perceptron(part.embed, part.features)[:, None]
        for layer in part.rounds:
            if part is net.encode:
                nodes, e = plain_interaction(layer, index, cells, nodes, e)
            elif part is net.process:
                nodes, e = plain_interaction(layer, index, nodes, nodes, e)
            else:
                cells, e = plain_interaction(layer, index, nodes, cells, e)
    y = net.out(nn.functional.silu(net.hidden(cells)))
    return y.permute(1, 2, 0).reshape(len(x), -1, *x.shape[2:])


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_output_and_gradients_are_those_of_a_plain_reference(batch, checkpointing):
    net = network(dataclasses.replace(SMALL, checkpointing=checkpointing)).double()
    x, results = fields(batch, 3, 12, 24).double(), []
    upstream = fields(batch, 2, 12, 24, seed=2).double()
    for function in (net, lambda x: plain_network(net, GRAPH, x)):
        given = x.clone().requires_grad_()
        y = function(given)
        gradients = torch.autograd.grad((y * upstream).sum(), [given, *net.parameters()])
        results.append([y.detach(), *gradients])
    names = ["output", "input", *(name for name, _ in net.named_parameters())]
    for name, found, expected in zip(names, *results, strict=True):
        assert expected.abs().max() > 0, name
        assert_close(
            found, expected, rtol=1e-9, atol=1e-10 * expected.abs().max().item(), msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.slow
def test_a_compiled_network_is_one_graph_with_the_same_output_and_gradients():
    net, x, results = network(), fields(2, 3, 12, 24), []
    for function in (net, torch.compile(net, backend="aot_eager", fullgraph=True)):
        y = function(x)
        results.append([y.detach(), *torch.autograd.grad(y.square().sum(), list(net.parameters()))])
    for expected, found in zip(*results, strict=True):
        assert_close(found, expected, rtol=1e-3, atol=1e-5 * expected.abs().max().item())


def test_float32_is_the_same_to_rounding():
    net, x = network(), fields(2, 3, 12, 24)
    with torch.no_grad():
        assert_close(net(x), plain_network(net, GRAPH, x), rtol=1e-4, atol=1e-4)


def random_edges(count, senders, receivers, seed):
    rng = np.random.default_rng(seed)
    receiver = np.sort(rng.integers(0, receivers, count))
    return rng.integers(0, senders, count), receiver


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 30), senders=st.integers(1, 9), receivers=st.integers(1, 9), batch=st.integers(1, 3),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_sums_over_bags_are_gathers_and_scatters(count, senders, receivers, batch, seed):
    """Also for nodes without edges and several edges between the same nodes."""
    sender, receiver = random_edges(count, senders, receivers, seed)
    index = EdgeIndex(sender, receiver, senders, receivers)
    a, b = fields(senders, batch, 4, seed=seed), fields(receivers, batch, 4, seed=seed + 1)
    edges = fields(count, batch, 4, seed=seed + 2)
    sender, receiver = torch.as_tensor(sender), torch.as_tensor(receiver)
    assert_close(index.both_ends(a, b), a[sender] + b[receiver])
    assert_close(index.sum_to_receivers(edges), torch.zeros_like(b).index_add(0, receiver, edges))
    assert_close(index.sum_to_senders(edges), torch.zeros_like(a).index_add(0, sender, edges))


@pytest.mark.parametrize(("given", "update"), [(1, True), (2, True), (2, False)])
def test_gradients_of_a_round_are_those_of_differences(given, update):
    torch.manual_seed(0)
    sender, receiver = random_edges(7, 3, 4, 0)
    layer = Interaction(EdgeIndex(sender, receiver, 3, 4), 3, update).double()
    inputs = [fields(*s, seed=n).double().requires_grad_() for n, s in enumerate([(3, 2, 3), (4, 2, 3), (7, given, 3)])]

    def run(*given):
        nodes, edges = layer(*given)
        return (nodes, edges) if update else nodes

    assert torch.autograd.gradcheck(run, inputs)


# --- symmetries -----------------------------------------------------------------------------------------------------


def renamed(edges: Edges, senders, receivers) -> Edges:
    """The same edges after nodes were renamed: node n is now called names[n]; and sorted again."""
    receiver = receivers[edges.receivers]
    order = np.argsort(receiver, kind="stable")
    return Edges(senders[edges.senders][order], receiver[order], edges.features[order])


def test_the_order_of_mesh_nodes_does_not_matter():
    rng = np.random.default_rng(0)
    names = rng.permutation(len(GRAPH.nodes))
    cells = np.arange(GRAPH.cells)
    nodes = np.empty_like(GRAPH.nodes)
    nodes[names] = GRAPH.nodes
    other = dataclasses.replace(
        GRAPH,
        nodes=nodes,
        encode=renamed(GRAPH.encode, cells, names),
        process=renamed(GRAPH.process, names, names),
        decode=renamed(GRAPH.decode, names, cells),
    )
    net, turned = network(), network(graph=other)
    turned.load_state_dict(net.state_dict())
    x = fields(2, 3, 12, 24)
    with torch.no_grad():
        assert_close(turned(x), net(x), rtol=0, atol=2e-5)


def test_the_order_of_cells_is_that_of_the_output():
    rng = np.random.default_rng(0)
    grid = Grid.points(*rng.uniform((-90, 0), (90, 360), (300, 2)).T, np.ones(300))
    order = rng.permutation(300)
    shuffled = Grid.points(grid.latitude[order], grid.longitude[order], grid.area[order])
    net = network(graph=build_graph(grid, MeshOptions(1)))
    other = network(graph=build_graph(shuffled, MeshOptions(1)))
    other.load_state_dict(net.state_dict())
    x = fields(2, 3, 300)
    with torch.no_grad():
        assert_close(other(x[:, :, torch.as_tensor(order)]), net(x)[:, :, torch.as_tensor(order)], rtol=0, atol=2e-5)


def test_the_multi_mesh_carries_news_around_the_sphere_in_three_rounds():
    """The icosahedron's nodes are at most three edges apart, so a changed cell reaches the opposite side."""
    graph, heard = build_graph(Grid.gaussian(12), MeshOptions(1)), {}
    for rounds in (1, 5):
        net, x = network(dataclasses.replace(SMALL, rounds=rounds), graph), fields(1, 3, 12, 24)
        other = x.clone()
        other[0, :, 0, 0] += 3
        with torch.no_grad():
            heard[rounds] = ((net(x) - net(other)).abs().amax((0, 1)) > 0).float().mean().item()
    assert heard[1] < 0.9
    assert heard[5] > 0.99


def test_samples_of_a_batch_do_not_know_each_other():
    net, x = network(), fields(3, 3, 12, 24)
    with torch.no_grad():
        together = net(x)
        for n in range(3):
            assert_close(net(x[n : n + 1])[0], together[n], rtol=0, atol=2e-5)


# --- precision and memory -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2])
def test_bfloat16_stays_near_float32_and_learns_in_the_same_direction(batch):
    exact, half = network(), network(dataclasses.replace(SMALL, precision="bfloat16"))
    half.load_state_dict(exact.state_dict())
    x, results = fields(batch, 3, 12, 24), []
    for net in (exact, half):
        y = net(x)
        assert y.dtype == torch.float32
        y.square().mean().backward()
        results.append((y.detach(), torch.cat([p.grad.flatten() for p in net.parameters()])))
    (expected, slope), (found, other) = results
    error = (found - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert 1e-4 < error < 0.05
    assert torch.nn.functional.cosine_similarity(slope, other, dim=0) > 0.99


def stored(net, x):
    kept = {}
    own = {p.data_ptr() for p in [*net.parameters(), *net.buffers()]}

    def keep(t):
        if t.data_ptr() not in own:
            kept[t.data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        y = net(x)
    assert y.requires_grad
    return sum(kept.values())


def test_less_is_stored_than_by_the_plain_reference_and_less_still_with_checkpointing_or_bfloat16():
    x = fields(2, 3, 12, 24)
    plain = stored(_Plain(network()), x)
    ours = stored(network(), x)
    saving = stored(network(dataclasses.replace(SMALL, checkpointing=True)), x)
    half = stored(network(dataclasses.replace(SMALL, precision="bfloat16")), x)
    with library.set_aside():
        by_torch = stored(network(), x)
    assert ours <= by_torch < 0.6 * plain  # kernels compute norms again, torch's operations keep them
    assert saving < 0.6 * ours
    assert half < 0.9 * by_torch


class _Plain(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return plain_network(self.net, GRAPH, x)


# --- options and errors ---------------------------------------------------------------------------------------------


def test_output_starts_at_zero_where_asked():
    torch.manual_seed(0)
    net = GraphNetwork(3, 2, GRAPH, dataclasses.replace(SMALL, zero_output=True))
    assert not net(fields(1, 3, 12, 24)).any()


def test_places_are_no_part_of_a_checkpoint():
    assert all(isinstance(t, nn.Parameter) or t.is_floating_point() for t in network().state_dict().values())
    assert set(network().state_dict()) == {name for name, _ in network().named_parameters()}


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"width": 0}, "Expected width of at least 1, got 0"),
        ({"rounds": 0}, "Expected rounds of at least 1, got 0"),
        ({"precision": "float16"}, "Expected precision among"),
    ],
)
def test_impossible_options_are_refused(chosen, message):
    with pytest.raises(ValueError, match=message):
        GraphOptions(**chosen)


def test_inputs_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"Expected an input of shape \('batch', 3, \*space\) with 288 cells"):
        network()(torch.zeros(1, 3, 12, 23))


def test_edges_out_of_order_or_without_a_node_are_refused():
    with pytest.raises(ValueError, match="in the order of their receivers"):
        EdgeIndex([0, 0], [1, 0], 1, 2)
    with pytest.raises(ValueError, match="Expected senders from 0 to 1, got 0 to 2"):
        EdgeIndex([0, 2], [0, 0], 2, 1)


def test_a_perceptron_normalises_its_output():
    torch.manual_seed(0)
    y = Perceptron(5, 32)(fields(7, 2, 5))
    assert_close(y.mean(-1), torch.zeros(7, 2), rtol=0, atol=1e-5)
    assert_close(y.var(-1, correction=0), torch.ones(7, 2), rtol=1e-3, atol=0)
