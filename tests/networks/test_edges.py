"""Maps go on beyond their edges alike by every way of computing it, forward and backward."""

import pytest
import torch
from torch.testing import assert_close

from emulator.networks.edges import Edges, pad_region, pad_sphere, padded


@pytest.mark.parametrize("edges", [Edges(), Edges(poles=True), Edges(open=True)], ids=["globe", "poles", "zone"])
@pytest.mark.parametrize("margin", [1, 3, 6])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_a_map_goes_on_as_its_definition_says_and_gradients_come_back(edges, margin, memory):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 7, 12).contiguous(memory_format=memory).requires_grad_()
    found = padded(x, margin, edges)
    expected = pad_region(x, margin, edges.round) if edges.open else pad_sphere(x, margin, edges.poles)
    assert torch.equal(found, expected) and found.is_contiguous(memory_format=memory)
    weight = torch.randn_like(expected)
    for way in (found, expected):
        (way * weight).sum().backward()
        weight = weight.neg()
    assert_close(x.grad, torch.zeros_like(x), rtol=0, atol=1e-5)
