"""Networks over several processes held against the same networks of one: outputs and all gradients."""

import torch
from together import together

from emulator.networks.registry import build
from emulator.parallel.space import ALONE

INPUTS, OUTPUTS, BATCH = 3, 2, 2
DOUBLE, SINGLE = torch.float64, torch.float32


def results(space, cases):
    """Of every case, `(config, grid, dtype)`, the output and gradients, whole on every process."""
    return [_result(space, *case) for case in cases]


def _result(space, config, grid, dtype):
    torch.manual_seed(0)
    net = build(config, INPUTS, OUTPUTS, grid, space).to(dtype)
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=DOUBLE).to(dtype)

    with torch.no_grad():
        for name, parameter in net.named_parameters():  # what starts at one or zero is to matter too
            if parameter.ndim == 1 or "noise" in name:
                parameter += 0.2 * draw(*parameter.shape)
    noise, rows = net.options.noise, grid.shape[0]
    channels = [INPUTS, *([] if noise is None else [noise.count])]
    upstream = draw(BATCH, OUTPUTS, *grid.shape)[:, :, space.band(rows)]
    given = [draw(BATCH, count, *grid.shape)[:, :, space.band(rows)].clone().requires_grad_() for count in channels]
    y = net(*given)
    # the loss is the sum of the processes' parts, and so are the gradients of the weights
    gradients = torch.autograd.grad((y * upstream).sum(), [*given, *net.parameters()])
    fields = dict(zip(("output", "input", "noise"), (y, *gradients[: len(given)]), strict=False))
    of_weights = dict(zip(dict(net.named_parameters()), gradients[len(given) :], strict=True))
    whole = {name: space.whole(field.detach(), rows, 2) for name, field in fields.items()}
    return whole, {name: space.total(gradient) for name, gradient in of_weights.items()}


def assert_equal_over_processes(size, cases):
    """In double precision every tensor to 1e-12 of its largest value; in single to 1e-6 by the norm, weights together."""
    expected = results(ALONE, cases)
    for each in together(size, results, cases):
        for case, (fields, weights), (true_fields, true_weights) in zip(cases, each, expected, strict=True):
            found, true = fields | weights, true_fields | true_weights
            assert found.keys() == true.keys()
            assert all(value.abs().max() > 0 for value in true.values())
            if case[2] is DOUBLE:
                errors = {n: float((found[n] - true[n]).abs().max() / true[n].abs().max()) for n in true}
                wrong = {name: error for name, error in errors.items() if not error <= 1e-12}
            else:
                found, true = ({**f, "weights": _joined(w)} for f, w in ((fields, weights), (true_fields, true_weights)))
                errors = {n: float((found[n] - true[n]).norm() / true[n].norm()) for n in true}
                wrong = {name: error for name, error in errors.items() if not error <= 1e-6}
            assert not wrong, f"{case[0]} on {case[1].describe()}: {wrong}"


def _joined(tensors):
    return torch.cat([tensor.flatten() for tensor in tensors.values()])
