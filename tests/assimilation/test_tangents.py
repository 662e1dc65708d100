"""Tangents and adjoints of networks, whose layers have gradients of their own that are not all differentiable."""

import pytest
import torch
from torch.testing import assert_close

from emulator.assimilation.linear import linearised
from emulator.networks.registry import build
from emulator.planet.grid import Grid

NETWORKS = {
    "unet": dict(width=6, depth=1),
    "fuxi": dict(width=8, blocks=2, heads=2, window=3, groups=2),
    # of windows that are filled up, and attention whose bias is no weight
    "aurora": dict(embed_dim=16, depths=[1, 1], up_depths=[1, 1], heads=[2, 4], window=(2, 3, 5)),
    # of stencils that are products, where kernels are not set aside
    "wxformer": dict(widths=(16, 32), depths=(2, 1), strides=(2, 2), stencils=(2, 8), far=(3, 2), near=3, head_width=8),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_tangents_of_networks_are_those_of_differences(kind):
    torch.manual_seed(0)
    network = build(dict(kind=kind, **NETWORKS[kind]), 2, 2, Grid.gaussian(16)).double()
    x, v = torch.randn(2, 1, 2, 16, 32, dtype=torch.float64)
    about, step = linearised(network, x), 1e-5
    with torch.no_grad():
        difference = (network(x + step * v) - network(x - step * v)) / (2 * step)
    assert_close(about.tangent(v), difference, rtol=0, atol=1e-7 * float(difference.abs().max()))
    w = torch.randn_like(about.value)
    assert_close((about.tangent(v) * w).sum(), (about.adjoint(w) * v).sum(), rtol=1e-9, atol=0)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return 2 * g


@pytest.mark.parametrize("function", [Once.apply, lambda x: x.square() + Once.apply(x), lambda x: 0 * Once.apply(x)])
def test_functions_that_are_differentiable_once_are_refused(function):
    with pytest.raises(ValueError, match="can be differentiated"):
        linearised(function, torch.ones(3))
