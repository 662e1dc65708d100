"""What every network on maps has to do, for its own small configuration of them."""

import torch
from torch.testing import assert_close

from emulator.networks.conditions import NoiseModulation
from emulator.networks.map_norms import BatchNorm
from emulator.networks.registry import build
from emulator.planet.grid import Grid

GRID = Grid.gaussian(12)
NOISE = dict(length_scales=(2000.0,), channels=2)


def made(config, grid=GRID, inputs=3, outputs=2, **more):
    """A network whose output depends on all of its weights, in evaluation."""
    torch.manual_seed(0)
    return build({**config, **more}, inputs, outputs, grid).eval()


def fields(*shape, seed=1, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def assert_turns(config, grid, cells, **more):
    """Turning fields about the axis by some cells commutes with the network, and its output differs from place to place."""
    net, x = made(config, grid, **more), fields(2, 3, *grid.shape)
    with torch.no_grad():
        y = net(x)
        assert y.shape == (2, 2, *grid.shape) and y.std() > 1e-3
        assert_close(net(x.roll(cells, -1)), y.roll(cells, -1), rtol=0, atol=1e-5)


def assert_gradients(config, grid, **more):
    """Of inputs and all weights, by differences in float64, with noise and a condition."""
    net = made(config, grid, inputs=1, outputs=1, noise=NOISE, condition=("co2",), **more).double().train()
    _wake(net)
    given = [fields(2, 1, *grid.shape, dtype=torch.float64), fields(2, 1, dtype=torch.float64, seed=2)]
    given.append(fields(2, 2, *grid.shape, dtype=torch.float64, seed=3))
    names = list(dict(net.named_parameters()))

    def run(x, condition, noise, *weights):
        return torch.func.functional_call(net, dict(zip(names, weights, strict=True)), (x, condition, noise))

    tensors = [tensor.requires_grad_() for tensor in (*given, *(p.detach() for p in net.parameters()))]
    assert torch.autograd.gradcheck(run, tensors, eps=1e-6, atol=1e-6, rtol=1e-4, fast_mode=True)
    gradients = torch.autograd.grad(run(*tensors).square().sum(), tensors)
    assert all(gradient.abs().max() > 0 for gradient in gradients)


def assert_untouched_by_conditions(config):
    """Untrained, a network with noise and a condition is the one without, bit for bit, and trained it is not."""
    plain, other = made(config), made(config, noise=NOISE, condition=("co2", "time_of_year"))
    x, condition, noise = fields(2, 3, *GRID.shape), fields(2, 3, seed=2), fields(2, 2, *GRID.shape, seed=3)
    with torch.no_grad():
        assert torch.equal(other(x, condition, noise), plain(x))
        _wake(other)
        assert (other(x, condition, noise) - other(x, condition + 1, noise)).abs().max() > 1e-4
        assert (other(x, condition, noise) - other(x, condition, noise + 1)).abs().max() > 1e-4


def assert_checkpointing_changes_nothing_but_memory(config):
    """The same gradients and the same running moments, from less that is stored."""
    x, results, stored = fields(2, 3, *GRID.shape), [], []
    for flag in (False, True):
        net, kept = made(config, checkpointing=flag).train(), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.nbytes) or t, lambda t: t):
            y = net(x)
        y.square().sum().backward()
        results.append([p.grad for p in net.parameters()] + [b for b in net.buffers() if b.is_floating_point()])
        stored.append(sum(kept))
    for found, expected in zip(*results, strict=True):
        assert_close(found, expected)
    assert stored[1] < 0.7 * stored[0]


def assert_half_precision_is_close(config):
    net, x = made(config), fields(2, 3, *GRID.shape)
    assert_autocast_is_near(net, x, 0.03)
    with torch.no_grad():
        assert net.double()(x.double()).dtype is torch.float64


def assert_autocast_is_near(net, x, share):
    """In bfloat16, to a share of the output's norm, and handed back in the input's precision."""
    with torch.no_grad():
        y = net(x)
        with torch.autocast("cpu", torch.bfloat16):
            half = net(x)
    assert half.dtype is torch.float32 and not torch.equal(half, y)
    assert (half - y).norm() < share * y.norm()


def assert_plain_gradients(net, x):
    """Of the input and all weights of a network in float64, by differences."""
    names, values = zip(*net.named_parameters(), strict=True)

    def output(x, *values):
        return torch.func.functional_call(net, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(output, (x.requires_grad_(), *values), fast_mode=True)


def _wake(net):
    """Norms and modulations as a training could have left them."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, NoiseModulation | BatchNorm):
                for weight in module.parameters(recurse=False):
                    weight += 0.3 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
