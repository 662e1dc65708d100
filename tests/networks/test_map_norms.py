"""Batch norm: torch's own by one process, that of the whole batch by several, and no part of what is computed again."""

import pytest
import torch
from together import together
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from emulator.networks.map_norms import BatchNorm, map_norm
from emulator.networks.remembered import moving, remembered, unmoved

DTYPES = [torch.float32, torch.float64]


def maps(dtype=torch.float64, last=True):
    x = 2 + 3 * torch.randn(4, 6, 5, 8, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def results(norm, x, upstream):
    """Output, gradients, running moments, and the output in evaluation."""
    x = x.detach().requires_grad_()
    y = norm.train()(x)
    gradients = torch.autograd.grad((y * upstream).sum(), (x, norm.weight, norm.bias))
    return [y.detach(), *gradients, norm.running_mean, norm.running_var, norm.eval()(x).detach()]


def made(dtype, kind=BatchNorm):
    norm = kind(6).to(dtype)
    with torch.no_grad():
        norm.weight += torch.arange(6) / 3
        norm.bias -= torch.arange(6) / 5
    return norm


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("last", [True, False])
def test_alone_it_is_torchs(dtype, last):
    x, upstream = maps(dtype, last), maps(dtype).flip(0)
    tolerance = 2e-5 if dtype is torch.float32 else 1e-12
    pairs = zip(results(made(dtype), x, upstream), results(made(dtype, torch.nn.BatchNorm2d), x, upstream), strict=True)
    for found, expected in pairs:
        assert found.dtype is dtype
        assert_close(found, expected, rtol=tolerance, atol=tolerance)


def parts(space, dtype):
    """Of this process's samples."""
    own = slice(space.rank * 4 // space.size, (space.rank + 1) * 4 // space.size)
    return results(made(dtype), maps(dtype)[own], maps(dtype).flip(0)[own])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_over_processes_it_is_that_of_the_whole_batch(dtype):
    """Gradients of the weights are the processes' parts, whose mean a training takes; running moments are the same bits."""
    expected = results(made(dtype), maps(dtype), maps(dtype).flip(0))
    each = together(2, parts, dtype)
    tolerance = 2e-5 if dtype is torch.float32 else 1e-12
    joined = [torch.cat(pair) if n in (0, 1, 6) else sum(pair) for n, pair in enumerate(zip(*each, strict=True))]
    for n in (4, 5):
        assert torch.equal(each[0][n], each[1][n])
        joined[n] = each[0][n]
    for found, whole in zip(joined, expected, strict=True):
        assert_close(found, whole, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_computing_again_leaves_the_running_moments_alone(dtype):
    x, kept = maps(dtype).requires_grad_(), []
    for run in (lambda norm: norm(x), lambda norm: checkpoint(norm, x, use_reentrant=False)):
        norm = made(dtype)
        run(norm).square().sum().backward()
        kept.append([norm.running_mean, norm.running_var, norm.weight.grad])
    for found, expected in zip(*kept, strict=True):
        assert torch.equal(found, expected)


def test_what_is_remembered_is_averaged_and_comes_back_after_a_look():
    net = torch.nn.Sequential(torch.nn.Conv2d(6, 6, 1), BatchNorm(6))
    assert set(moving(net)) - set(dict(net.named_parameters())) == {"1.running_mean", "1.running_var"}
    assert set(remembered(net[1])) == {"running_mean", "running_var"}
    x = maps(torch.float32)
    with unmoved(net):
        net(x)
        assert net[1].running_mean.any()
    assert not net[1].running_mean.any() and (net[1].running_var == 1).all()


def test_norms_of_a_sample_do_not_depend_on_others():
    x = maps()
    for kind in ("instance", "whole", "none"):
        norm = map_norm(kind, 6).double()
        assert_close(norm(x)[1:2], norm(x[1:2]), rtol=1e-12, atol=1e-12)
    assert_close(
        map_norm("instance", 6).double()(x).var((2, 3), correction=0), torch.ones(4, 6).double(), rtol=1e-4, atol=0
    )
    assert_close(
        map_norm("whole", 6).double()(x).var((1, 2, 3), correction=0), torch.ones(4).double(), rtol=1e-4, atol=0
    )
