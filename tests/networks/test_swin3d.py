"""Norms of Swin blocks, by the compiled kernel against torch's own operations in float64."""

import copy

import pytest
import torch

from emulator.kernels import library
from emulator.networks.swin3d import AdaptiveNorm


@pytest.mark.parametrize(("batch", "rows", "width"), [(1, 300, 16), (3, 257, 48), (2, 5, 64), (2, 7, 20)])
def test_norm_onto_is_torchs(batch, rows, width):
    """Results and all gradients; 20 channels are no whole vectors and go to torch."""
    generator = torch.Generator().manual_seed(0)
    norm = AdaptiveNorm(width, 8)
    for weight in norm.parameters():
        torch.nn.init.normal_(weight, generator=generator)
    x = 3 + 2 * torch.randn(batch, rows, width, generator=generator)
    onto, g = (torch.randn(batch, rows, width, generator=generator) for _ in range(2))
    context = torch.randn(batch, 8, generator=generator)

    def gradients(norm, *tensors):
        tensors = [tensor.clone().requires_grad_() for tensor in tensors]
        y = norm(*tensors)
        return [y, *torch.autograd.grad(y, [*tensors, *norm.parameters()], g.to(y.dtype))]

    found = gradients(norm, x, context, onto)
    expected = gradients(copy.deepcopy(norm).double(), x.double(), context.double(), onto.double())
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=2e-6 * float(b.detach().abs().max()))


@pytest.mark.skipif(library.LIBRARY is None, reason="no compiled kernels")
def test_norm_onto_is_the_same_on_more_threads():
    x, onto, context = torch.randn(2, 700, 32), torch.randn(2, 700, 32), torch.randn(2, 8)
    norm, threads, found = AdaptiveNorm(32, 8), torch.get_num_threads(), []
    torch.nn.init.normal_(norm.modulation.weight)
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            taken = x.clone().requires_grad_()
            y = norm(taken, context, onto)
            found.append([y, *torch.autograd.grad(y.square().sum(), [taken, norm.modulation.bias])])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
