"""A network over several processes held against the same network of one: outputs and all gradients."""

import torch
from together import together

from emulator.networks.registry import build
from emulator.parallel.space import ALONE

LARGEST_ERROR = {torch.float64: 1e-12, torch.float32: 1e-6}  # relative to the largest value of a tensor
INPUTS, OUTPUTS = 3, 2


def results(space, config, grid, dtype, batch=2):
    """Outputs and gradients, whole on every process: of fields by cell, of weights by name."""
    torch.manual_seed(0)
    net = build(config, INPUTS, OUTPUTS, grid, space).to(dtype)
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    with torch.no_grad():
        for parameter in net.parameters():  # norms and modulations too are to matter
            parameter += 0.2 * draw(*parameter.shape)
    noise = net.options.noise
    rows, band = grid.shape[0], space.band(grid.shape[0])
    x, upstream = (draw(batch, channels, *grid.shape)[:, :, band] for channels in (INPUTS, OUTPUTS))
    given = [x] if noise is None else [x, draw(batch, noise.count, *grid.shape)[:, :, band]]
    given = [tensor.clone().requires_grad_() for tensor in given]
    y = net(*given)
    # the loss is the sum of the processes' parts, and so are the gradients of the weights
    gradients = torch.autograd.grad((y * upstream).sum(), [*given, *net.parameters()])
    fields = {"output": y, "input": gradients[0]} | ({} if noise is None else {"noise": gradients[1]})
    out = {name: space.whole(field, rows, 2) for name, field in fields.items()}
    names = [name for name, _ in net.named_parameters()]
    for name, gradient in zip(names, gradients[len(given) :], strict=True):
        out[name] = space.total(gradient)
    return out


def errors(found, expected):
    """Of each tensor the largest difference over the largest value."""
    return {name: float((found[name] - value).abs().max() / value.abs().max()) for name, value in expected.items()}


def assert_equal_over_processes(size, config, grid, dtype=torch.float64):
    expected = results(ALONE, config, grid, dtype)
    for name, value in expected.items():
        assert value.abs().max() > 0, name
    for found in together(size, results, config, grid, dtype):
        assert found.keys() == expected.keys()
        wrong = {name: error for name, error in errors(found, expected).items() if not error <= LARGEST_ERROR[dtype]}
        assert not wrong
