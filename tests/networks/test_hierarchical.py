"""The hierarchical network is Neural-LAM's formula on a graph made by hand; its gradients; boundaries that are only heard."""

import numpy as np
import pytest
import torch
from test_graph import plain_interaction, plain_perceptron
from torch.testing import assert_close

from emulator.networks.hierarchical import HierarchicalNetwork, HierarchicalOptions
from emulator.networks.registry import NETWORKS, build, options
from emulator.parallel.space import ALONE
from emulator.planet.grid import Grid
from emulator.sphere.level_graph import LevelGraph, in_order

BOX = Grid.box(8, 9, (40, 60, 0, 30))
RING = Grid.points([62.0, 62, 62, 38, 38, 38], [0.0, 15, 30, 0, 15, 30], np.full(6, 1e-3))
CONFIG = dict(kind="hierarchical", width=16, rounds=2, levels=2, spacing=1.0)


def bounded(config, inputs, outputs, channels):
    """A network that is given a boundary at the ring."""
    kind = NETWORKS[config["kind"]]
    more = {"space": ALONE} if kind.bands else {}
    return kind.build(options(config), inputs, outputs, BOX, boundary=RING, boundary_channels=channels, **more)


def by_hand(seed=0):
    """Five cells and a place of a boundary, three levels of 4, 3 and 2 nodes."""
    rng = np.random.default_rng(seed)

    def edges(senders, receivers):
        return in_order(np.array(senders), np.array(receivers), rng.normal(size=(len(senders), 3)))

    return LevelGraph(
        cells=5,
        nodes=tuple(rng.normal(size=(count, 2)).astype(np.float32) for count in (4, 3, 2)),
        encode=edges([0, 1, 2, 3, 4, 4, 5], [0, 0, 1, 2, 3, 2, 3]),
        same=(edges([0, 1, 1, 2, 3], [1, 0, 2, 3, 0]), edges([0, 1, 2], [1, 2, 0]), edges([0, 1], [1, 0])),
        up=(edges([0, 1, 2, 3], [0, 0, 1, 2]), edges([0, 1, 2], [0, 1, 1])),
        down=(edges([0, 0, 1, 2], [0, 1, 2, 3]), edges([0, 1, 1], [0, 1, 2])),
        decode=edges([0, 1, 1, 2, 3, 3], [0, 1, 2, 2, 3, 4]),
        boundary=1,
    )


def woken(net):
    """All parameters different from what they start as."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return net


def formula(net, graph, x, boundary):
    """Oskarsson et al. (2023), as written there: a level after the other, or all edges at once."""
    cells, around = (
        plain_perceptron(layer, v.permute(2, 0, 1)) for layer, v in ((net.cell_in, x), (net.boundary_in, boundary))
    )
    process, batch = net.process, len(x)
    sets = {(kind, n): each for kind in ("same", "up", "down") for n, each in enumerate(getattr(graph, kind))}
    index = {key: (torch.as_tensor(each.senders), torch.as_tensor(each.receivers)) for key, each in sets.items()}

    def embedded(layer, features):
        return plain_perceptron(layer, torch.as_tensor(features).to(x))[:, None].expand(-1, batch, -1)

    edges = {key: embedded(process.edges[f"{key[0]}_{key[1]}"].embed, each.features) for key, each in sets.items()}
    layers = [net.node_in, *(each.embed for each in process.nodes)]
    nodes = [embedded(layer, features) for layer, features in zip(layers, graph.nodes, strict=True)]

    def outer(part, edges, senders, receivers):
        e = plain_perceptron(part.embed, torch.as_tensor(edges.features).to(x))[:, None]
        ends = torch.as_tensor(edges.senders), torch.as_tensor(edges.receivers)
        return plain_interaction(part.rounds[0], ends, senders, receivers, e)[0]

    nodes[0] = outer(net.encode, graph.encode, torch.cat([cells, around]), nodes[0])
    cells = cells + plain_perceptron(net.cell_update, cells)
    steps = iter(process.steps)

    def pass_along(kind, n):
        sender, receiver = {"same": (n, n), "up": (n, n + 1), "down": (n + 1, n)}[kind]
        key = kind, n
        nodes[receiver], edges[key] = plain_interaction(
            next(steps).layer, index[key], nodes[sender], nodes[receiver], edges[key]
        )

    top = len(nodes) - 1
    for n in range(top):
        pass_along("up", n)
    for _ in range(net.options.rounds):
        if net.options.sweeps == "sequential":
            pass_along("same", top)
            for n in reversed(range(top)):
                pass_along("down", n), pass_along("same", n)
            pass_along("same", 0)
            for n in range(top):
                pass_along("up", n), pass_along("same", n + 1)
            continue
        step, sums, old = next(steps), [torch.zeros_like(n) for n in nodes], list(nodes)
        for (kind, n), ends in index.items():
            sender, receiver = {"same": (n, n), "up": (n, n + 1), "down": (n + 1, n)}[kind]
            layer, state = step.messages[f"{kind}_{n}"], edges[kind, n]
            weight = torch.cat([layer.edge_first.weight, layer.sender_first.weight, layer.receiver_first.weight], 1)
            h = (
                torch.cat([state, old[sender][ends[0]], old[receiver][ends[1]]], -1) @ weight.T
                + layer.receiver_first.bias
            )
            message = layer.edge_norm(layer.edge_second(torch.nn.functional.silu(h)))
            edges[kind, n] = state + message
            sums[receiver] = sums[receiver].index_add(0, ends[1], message)
        for n, layer in enumerate(step.updates):
            weight = torch.cat([layer.own_first.weight, layer.sum_first.weight], 1)
            h = torch.cat([old[n], sums[n]], -1) @ weight.T + layer.own_first.bias
            nodes[n] = old[n] + layer.node_norm(layer.node_second(torch.nn.functional.silu(h)))
    for n in reversed(range(top)):
        pass_along("down", n)
    cells = outer(net.decode, graph.decode, nodes[0], cells)
    return net.out(torch.nn.functional.silu(net.hidden(cells))).permute(1, 2, 0)


@pytest.mark.parametrize("sweeps", ["sequential", "parallel"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_output_and_gradients_are_those_of_the_formula(sweeps, checkpointing, dtype):
    design = HierarchicalOptions(sweeps=sweeps, width=16, rounds=2, checkpointing=checkpointing)
    torch.manual_seed(0)
    graph = by_hand()
    net = woken(HierarchicalNetwork(3, 2, graph, design, 4)).double()
    x, boundary = torch.randn(2, 3, 5, dtype=torch.float64), torch.randn(2, 4, 1, dtype=torch.float64)
    expected = formula(net, graph, x, boundary)
    upstream = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * upstream).sum(), net.parameters())
    net = net.to(dtype)
    found = net(x.to(dtype), boundary=boundary.to(dtype))
    (found * upstream.to(dtype)).sum().backward()
    close = dict(rtol=1e-9, atol=1e-11) if dtype is torch.float64 else dict(rtol=1e-3, atol=2e-4)
    assert_close(found.double(), expected, **close)
    for parameter, gradient in zip(net.parameters(), wanted, strict=True):
        assert gradient.abs().max() > 0
        assert_close(parameter.grad.double(), gradient, **close)


@pytest.mark.slow
@pytest.mark.parametrize("sweeps", ["sequential", "parallel"])
def test_gradients_are_those_of_differences(sweeps):
    torch.manual_seed(0)
    net = woken(HierarchicalNetwork(2, 1, by_hand(), HierarchicalOptions(sweeps=sweeps, width=4, rounds=1), 1)).double()
    names, values = zip(*net.named_parameters(), strict=True)

    def output(x, boundary, *values):
        return torch.func.functional_call(net, dict(zip(names, values, strict=True)), (x,), {"boundary": boundary})

    given = [torch.randn(2, n, m, dtype=torch.float64).requires_grad_() for n, m in ((2, 5), (1, 1))]
    assert torch.autograd.gradcheck(output, (*given, *values), fast_mode=True)


@pytest.mark.parametrize(
    "config",
    [CONFIG, CONFIG | dict(mesh="icosahedral", refinement=4), dict(kind="graph", width=16, rounds=2, refinement=4),
     dict(kind="graph", width=16, rounds=2, square=dict(levels=2, spacing=1.0))],
)  # fmt: skip
def test_a_boundary_is_heard_within_reach_and_is_no_part_of_the_output(config):
    torch.manual_seed(0)
    net = woken(bounded(config, 3, 2, 5))
    x, boundary = torch.randn(2, 3, 8, 9), torch.randn(2, 5, 6)
    other = boundary.clone()
    other[:, :, 0] += 1  # the place in the north-west
    with torch.no_grad():
        y, moved = net(x, boundary=boundary), net(x, boundary=other)
    assert y.shape == (2, 2, 8, 9)
    heard = (y - moved).abs().amax((0, 1))
    assert heard[0, 0] > 1e-3
    with pytest.raises(ValueError, match=r"a boundary of \(2, 5, 6\).*got none"):
        net(x)
    with pytest.raises(ValueError, match="no boundary, got"):
        build(config, 3, 2, BOX)(x, boundary=boundary)


def test_one_round_on_one_level_carries_a_boundary_no_farther_than_its_edges():
    config = dict(kind="hierarchical", width=16, rounds=1, levels=1, spacing=1.0)
    net = woken(bounded(config, 1, 1, 1))
    x, boundary = torch.randn(1, 1, 8, 9), torch.zeros(1, 1, 6)
    other = boundary.clone()
    other[..., 0] = 1
    with torch.no_grad():
        heard = (net(x, boundary=boundary) - net(x, boundary=other)).abs()[0, 0]
    assert heard[0, 0] > 1e-4 and (heard[-1] == 0).all() and (heard[:, -1] == 0).all()


def test_noise_and_conditions_start_as_nothing_and_change_the_output_later():
    more = dict(noise=dict(length_scales=(2000.0,), channels=2), condition=("co2",))
    x, noise, condition = torch.randn(2, 3, 8, 9), torch.randn(2, 2, 8, 9), torch.randn(2, 1)
    nets = []
    for config in (CONFIG, CONFIG | more):
        torch.manual_seed(0)
        nets.append(build(config, 3, 2, BOX))
    nets[1].load_state_dict(nets[0].state_dict(), strict=False)
    with torch.no_grad():
        assert torch.equal(nets[0](x), nets[1](x, noise, condition))
        for modulation in (nets[1].noise, *nets[1].condition):
            for parameter in modulation.parameters():
                parameter += 0.3 * torch.randn(parameter.shape)
        assert not torch.equal(nets[1](x, noise, condition), nets[1](x, noise + 1, condition))
        assert not torch.equal(nets[1](x, noise, condition), nets[1](x, noise, condition + 1))
