"""What a network needs, told before it is trained."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from emulator.kernels import library
from emulator.networks import cost as measured
from emulator.networks import generative
from emulator.networks.conditions import NOISE_TIME, scalar_count
from emulator.networks.cost import Cost, activations, measure, products
from emulator.networks.registry import build
from emulator.networks.signature import Signature
from emulator.networks.spectral import mix, mix_backward
from emulator.parallel.rates import count_products, most_held
from emulator.planet.grid import Grid
from emulator.sphere.products import to_cells, to_coefficients
from emulator.training.recipe import Phase


def test_activations_are_what_a_plain_network_keeps():
    """A linear layer keeps its input, a product both factors; parameters and the same tensor twice do not count."""
    x = torch.zeros(1, 6, 5, requires_grad=True)
    layer = nn.Linear(5, 7, bias=False)
    assert activations(layer, x) == x.nbytes
    assert activations(nn.Sequential(layer, nn.Sigmoid()), x) == x.nbytes + 6 * 7 * 4

    class Square(nn.Module):
        def forward(self, x):
            return x * x

    assert activations(Square(), x) == x.nbytes


def test_activations_scale_with_the_batch_and_fall_with_checkpointing():
    grid, x = Grid.gaussian(12), torch.randn(1, 3, 12, 24)
    torch.manual_seed(0)
    plain = build(dict(kind="sfno", embed_dim=16, blocks=4), 3, 2, grid)
    saving = build(dict(kind="sfno", embed_dim=16, blocks=4, checkpointing=True), 3, 2, grid)
    one, four = activations(plain, x), activations(plain, x.expand(4, -1, -1, -1).contiguous())
    assert 3.5 * one < four < 4.5 * one
    assert activations(saving, x) < 0.6 * one


@pytest.mark.parametrize("kind", ["sfno", "graph"])
def test_measured_cost_is_positive_and_leaves_the_network_as_it_was(kind):
    config = {
        "sfno": dict(kind="sfno", embed_dim=8, blocks=1),
        "graph": dict(kind="graph", width=8, rounds=1, refinement=1),
    }[kind]
    net = build(config, 3, 2, Grid.gaussian(8))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    cost = measure(net, 3, (8, 16))
    assert cost.parameters == sum(p.numel() for p in net.parameters())
    assert cost.activations > 3 * 8 * 16 * 4 and 0 < cost.seconds < 60
    assert all(p.grad is None for p in net.parameters())
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_memory_and_pace_of_a_phase_are_sums():
    cost = Cost(parameters=1_000_000, activations=2**20, seconds=0.5)
    assert cost.memory(4, 2) == 16_000_000 + 8 * 2**20
    told = cost.describe([Phase(10, 1, 4, 1.0), Phase(5, 2, 4, 1.0)])
    shared = dataclasses.replace(cost, processes=2)
    assert "1 MiB of activations a sample and step in each of 2 processes" in shared.describe([Phase(10, 1, 4, 1.0)])
    assert "1 MiB of activations" in told and "2 s (1 x 4), 4 s (2 x 4) per update" in told


def test_what_is_held_at_one_time_is_counted_backward_too():
    """4000 bytes each: the product is let go once its exponential is there, which then meets its gradient."""
    x = torch.zeros(1000, requires_grad=True)
    kept = []
    assert most_held(lambda: kept.append(torch.ones(1000))) == 4000
    assert most_held(lambda: (torch.ones(1000) + 1).sum()) == 8000
    assert 8000 <= most_held(lambda: (x * 2).exp().sum().backward()) < 8100
    assert torch.equal(x.grad, torch.full((1000,), 2.0))


def test_what_does_not_fit_is_not_tried(monkeypatch):
    monkeypatch.setattr(measured, "available_memory", lambda: 1000)
    cost = measure(nn.Linear(5, 5), 3, (4, 5))
    assert cost.activations == 0 and np.isnan(cost.seconds)
    assert "too large" in cost.describe([Phase(10, 1, 4, 1.0)])


@pytest.mark.parametrize("kind", ["flow_matching", "interpolant"])
def test_of_a_network_that_samples_one_call_is_measured_and_no_whole_sampler(kind):
    """An update of a training calls the network once, a sampler of four steps of second order eight times."""
    grid, space = Grid.gaussian(8), (8, 16)
    config = dict(kind="sfno", embed_dim=8, blocks=1, condition=["co2"])
    net, fields = (
        generative.build(config, dict(kind=kind, steps=4), Signature.plain(3, 2), grid),
        2 * (4 if kind == "interpolant" else 1),
    )
    calls = []
    net.network.register_forward_hook(lambda *given: calls.append(1))
    found = measure(net, 3, space, fields + 1, 1)
    assert len(calls) == 1 + measured.TRIES  # once for its memory
    calls.clear()
    counted = products(net, 3, space, fields + 1, 1)
    assert len(calls) == 1
    itself = net.network, 3 + 2, space, 0, 1 + scalar_count([NOISE_TIME])
    assert counted == products(*itself) > 0
    assert found.activations == measure(*itself).activations and found.parameters == sum(
        p.numel() for p in net.parameters()
    )
    calls.clear()
    with torch.no_grad():
        net(torch.randn(1, 3, *space), torch.zeros(1, 1), torch.randn(1, fields + 1, *space))
    assert len(calls) == 8


def test_products_are_counted_forward_and_backward_whoever_makes_them():
    """By hand for the linear layers; the transforms' and the filter's formulas by the products that stand in for kernels."""
    grid, space, wide = Grid.gaussian(12), (12, 24), 16
    bare = {"norm": "none", "pre_norm": "none", "inner_skip": "none", "big_skip": "none"}
    config = dict(kind="sfno", embed_dim=wide, blocks=1, mlp_ratio=0, encoder_layers=0, **bare)
    network = build(config, 5, 3, grid)
    linear = 2 * 288 * wide * (2 * 5 + 3 * 3)  # the input wants no gradient
    transform, weight = network.outer, network.blocks[0].filters[0].weight.detach()
    plan, fourier = list(transform.plan), transform.fourier
    x, c = torch.zeros(288, wide), torch.zeros(transform.plan.count, 1, wide)
    both = count_products(lambda: to_coefficients(x, transform.analysis_table, fourier, plan))
    both += count_products(lambda: to_cells(c[:, 0], transform.synthesis_table, fourier, plan))
    mixing = count_products(lambda: mix(c, weight, plan, False))
    mixing_back = count_products(lambda: mix_backward(c, c, weight, plan, False))
    assert mixing_back == 2 * mixing > 0 < both
    found = products(network, 5, space)
    assert found == linear + 2 * both + mixing + mixing_back
    with library.set_aside():
        assert found == products(network, 5, space)
