"""A convolution of a large stencil as products is the convolution."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from emulator.kernels import library
from emulator.networks import map_layers
from emulator.networks.edges import Edges
from emulator.networks.map_layers import FEW, MapConv, Surroundings
from emulator.networks.wide_stencil import convolved

CASES = [((2, 3, 12, 16), 4, 8, 2), ((1, 5, 22, 30), 3, 16, 2), ((2, 3, 15, 18), 4, 9, 3), ((1, 2, 8, 12), 2, 8, 4)]


def drawn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("shape", "outputs", "size", "stride"), CASES, ids=str)
def test_it_and_its_gradients_are_those_of_the_convolution(shape, outputs, size, stride):
    tensors = drawn(*shape), drawn(outputs, shape[1], size, size, seed=1), drawn(outputs, seed=2)
    for given in (tensors, (tensors[0].contiguous(memory_format=torch.channels_last), *tensors[1:])):
        given = [tensor.clone().requires_grad_() for tensor in given]
        found, expected = convolved(*given, stride), F.conv2d(*given, stride)
        assert_close(found, expected, rtol=0, atol=1e-11)
        weight = drawn(*expected.shape, seed=3)
        pairs = (torch.autograd.grad(y, given, weight) for y in (found, expected))
        for ours, theirs in zip(*pairs, strict=True):
            assert_close(ours, theirs, rtol=0, atol=1e-11)


def test_gradients_of_one_of_both_are_the_same():
    x, weight, upstream = drawn(1, 2, 12, 16), drawn(3, 2, 8, 8, seed=1), drawn(1, 3, 3, 5, seed=2)
    for n in range(2):
        given = [tensor.clone().requires_grad_(n == m) for m, tensor in enumerate((x, weight))]
        pair = (
            torch.autograd.grad(y, given[n], upstream) for y in (convolved(*given, None, 2), F.conv2d(*given, None, 2))
        )
        assert_close(*(gradient for (gradient,) in pair), rtol=0, atol=1e-11)


@pytest.mark.parametrize(("outputs", "by_products"), [(4, True), (FEW - 1, True), (FEW, False)])
def test_maps_take_it_for_few_outputs_and_convolutions_of_half_precision_do_not(outputs, by_products, monkeypatch):
    asked = []
    monkeypatch.setattr(map_layers.wide_stencil, "convolved", lambda *given: asked.append(1) or convolved(*given))
    torch.manual_seed(0)
    layer = MapConv(3, outputs, 8, Surroundings(Edges(poles=False)), 2)
    x = torch.randn(1, 3, 12, 16)
    expected = F.conv2d(layer.around(x, 3).double(), layer.weight.double(), layer.bias.double(), 2)
    assert_close(layer(x).double(), expected, rtol=0, atol=1e-5)
    assert len(asked) == by_products
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    with library.set_aside():
        assert_close(layer(x).double(), expected, rtol=0, atol=1e-5)
    assert len(asked) == by_products
