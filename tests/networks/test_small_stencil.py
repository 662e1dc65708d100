"""Stencils of 3 x 3 cells by minimal filtering against torch's in double precision, and who is given which."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from emulator.kernels import library
from emulator.networks import small_stencil
from emulator.networks.small_stencil import convolved


@pytest.fixture
def few(monkeypatch):
    """Maps of few cells are filtered too."""
    monkeypatch.setattr(small_stencil, "CELLS", 1)


compiled = pytest.mark.skipif(library.LIBRARY is None, reason="the kernels were not made")
CASES = {  # batch, in, out, rows, columns, dilation
    "whole": (1, 64, 80, 12, 24, 1),
    "odd": (2, 71, 75, 7, 9, 1),
    "dilated": (2, 50, 101, 12, 16, 2),
    "further than it is wide": (1, 128, 40, 5, 3, 4),
    "one cell": (3, 80, 64, 1, 1, 1),
    "many patches": (3, 73, 72, 14, 22, 1),
}


def given(batch, inputs, outputs, rows, columns, dilation):
    torch.manual_seed(0)
    x = torch.randn(batch, inputs, rows + 2 * dilation, columns + 2 * dilation)
    weight = torch.randn(outputs, inputs, 3, 3) / (3 * inputs**0.5)
    return x.contiguous(memory_format=torch.channels_last), weight, torch.randn(outputs)


def with_gradients(function, tensors, dtype=torch.float32):
    tensors = [tensor.to(dtype).requires_grad_() for tensor in tensors]
    y = function(*tensors)
    return y.detach(), *torch.autograd.grad((y * torch.cos(torch.arange(y.numel())).view_as(y)).sum(), tensors)


def assert_near(found, exact, most=4e-6):
    assert_close(found.double(), exact, rtol=0, atol=most * float(1 + exact.abs().max()))


@compiled
@pytest.mark.parametrize("last", [True, False], ids=["channels last", "columns last"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_is_the_convolution_to_rounding(case, last, few, monkeypatch):
    (x, *weights), dilation = given(*case), case[-1]
    tensors = [x if last else x.contiguous(), *weights]
    exact = with_gradients(lambda *given: F.conv2d(*given, dilation=dilation), tensors, torch.float64)
    monkeypatch.setattr(F, "conv2d", None)
    found = with_gradients(lambda *given: convolved(*given, dilation), tensors)
    for ours, right in zip(found, exact, strict=True):
        assert_near(ours, right)
    assert all(map(torch.equal, found, with_gradients(lambda *given: convolved(*given, dilation), tensors)))


@compiled
def test_what_was_made_of_weights_serves_no_others(few):
    x, weight, bias = given(1, 80, 64, 6, 8, 1)
    exact = F.conv2d(x.double(), weight.double())
    with torch.no_grad():
        for factor in (1, 1, 2):
            weight.mul_(factor)
            assert_near(convolved(x, weight, None), factor * exact)
        assert_near(convolved(x, weight, bias), 2 * exact + bias.double()[:, None, None])


@compiled
@pytest.mark.parametrize("asked", [(True, False, False), (False, True, False), (False, False, True)])
def test_gradients_of_one_alone_are_those_of_all(asked, few):
    """As of a network whose weights are kept, or of a first layer."""
    tensors = given(2, 71, 75, 7, 9, 1)
    both = with_gradients(convolved, tensors)[1:]
    tensors = [tensor.requires_grad_(wanted) for tensor, wanted in zip(tensors, asked, strict=True)]
    y = convolved(*tensors)
    y.backward(torch.cos(torch.arange(y.numel())).view_as(y))
    for tensor, right, wanted in zip(tensors, both, asked, strict=True):
        assert torch.equal(tensor.grad, right) if wanted else tensor.grad is None


@compiled
def test_a_second_derivative_is_refused(few):
    x, weight, _ = (tensor.requires_grad_() for tensor in given(1, 80, 64, 4, 4, 1))
    (g,) = torch.autograd.grad(convolved(x, weight, None).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.sum().backward()


@compiled
def test_threads_change_nothing_but_rounding_of_products(few):
    tensors, threads = given(2, 64, 96, 10, 14, 1), torch.get_num_threads()
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        found.append(with_gradients(convolved, tensors))
    torch.set_num_threads(threads)
    for other in found[1:]:
        for ours, again in zip(found[0], other, strict=True):
            assert_close(ours, again, rtol=0, atol=1e-6 * float(ours.abs().max()))


def test_few_channels_or_cells_other_types_and_no_maps_are_torchs(monkeypatch):
    monkeypatch.setattr(small_stencil._Convolved, "apply", lambda *given: pytest.fail("the kernel was asked"))
    x, weight, bias = given(1, 50, 100, 16, 16, 1)
    convolved(x[:, :, :-1], weight, bias)
    convolved(x[:, :49], weight[:, :49].contiguous(), bias)
    convolved(x.double(), weight.double(), bias.double())
    assert convolved(x[:0], weight, bias).shape == (0, 100, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert convolved(x, weight, bias).dtype == torch.bfloat16
    with library.set_aside():
        convolved(x, weight, bias)
