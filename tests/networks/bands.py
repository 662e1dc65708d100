"""Networks over several processes held against the same networks of one: outputs and all gradients."""

import torch
from together import together

from emulator.networks.registry import build
from emulator.parallel.space import ALONE

INPUTS, OUTPUTS, BATCH = 3, 2, 2
DOUBLE, SINGLE, HALF = torch.float64, torch.float32, torch.bfloat16
TOLERANCE = {DOUBLE: 1e-12, SINGLE: 1e-6, HALF: 0.05}


def results(space, cases):
    """Of every case, `(config, grid, dtype)`, the output and gradients, whole on every process; HALF: by autocast.

    A case may hold a signature of the channels too.
    """
    return [_result(space, *case) for case in cases]


def _result(space, config, grid, dtype, signature=None):
    net, given, y, upstream = _passed(space, config, grid, dtype, signature)
    # the loss is the sum of the processes' parts, and so are the gradients of the weights
    gradients = torch.autograd.grad((y * upstream).sum(), [*given, *net.parameters()])
    fields = dict(zip(("output", "input", "noise"), (y, *gradients[: len(given)]), strict=False))
    of_weights = dict(zip(dict(net.named_parameters()), gradients[len(given) :], strict=True))
    whole = {name: space.whole(field.detach(), grid.shape[0], 2) for name, field in fields.items()}
    return whole, {name: space.total(gradient) for name, gradient in of_weights.items()}


def _passed(space, config, grid, dtype, signature=None, off=None):
    """The network, what it was given, its output, and what that is multiplied by in the loss.

    `off`: a seed by which what it is given is moved up or down by the last bit of double precision.
    """
    torch.manual_seed(0)
    half, dtype = dtype is HALF, SINGLE if dtype is HALF else dtype
    net = build(config, INPUTS, OUTPUTS, grid, space, signature).to(dtype)
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=DOUBLE).to(dtype)

    with torch.no_grad():
        for parameter in net.parameters():  # what starts at one or zero is to matter too
            if parameter.ndim == 1 or not parameter.any():
                parameter += 0.2 * draw(*parameter.shape)
    noise, rows = net.options.noise, grid.shape[0]
    channels = [INPUTS, *([] if noise is None else [noise.count])]
    upstream = draw(BATCH, OUTPUTS, *grid.shape)[:, :, space.band(rows)]
    given = [draw(BATCH, count, *grid.shape)[:, :, space.band(rows)].clone().requires_grad_() for count in channels]
    if off is not None:
        signs = torch.Generator().manual_seed(off)
        moved = [
            x.detach() * (1 + 2.0**-52 * torch.randn(x.shape, generator=signs, dtype=DOUBLE).sign()) for x in given
        ]
        given = [x.requires_grad_() for x in moved]
    with torch.autocast("cpu", HALF, enabled=half):
        y = net(given[0], **({} if noise is None else {"noise": given[1]}))
    return net, given, y, upstream


def sizes_of_sums(case):
    """Of every weight the largest sum of absolute values of what its gradient is added up of, one term a row of the output.

    A sum of n terms in another order differs by about eps n^(1/2) of that, here 1e-15, however small the sum itself is.
    """
    net, _, y, upstream = _passed(ALONE, *case)
    names, weights = zip(*net.named_parameters(), strict=True)
    sums = [torch.zeros_like(weight) for weight in weights]
    for row in range(y.shape[2]):
        terms = torch.autograd.grad((y[:, :, row] * upstream[:, :, row]).sum(), weights, retain_graph=True)
        sums = [total + term.abs() for total, term in zip(sums, terms, strict=True)]
    return {name: float(total.max()) for name, total in zip(names, sums, strict=True)}


def changes_by_rounding(case):
    """Of every weight the largest change of its gradient, of one process, by the last bits of what the network is given.

    Gradients of a softmax over values that are nearly alike cancel before they are added up: those of Aurora's queries are
    2e-6 beside values' of 20, change by 1e-17 so, and by 7e-18 where four processes share the map.
    """
    config, grid, dtype, signature = (*case, None)[:4]
    gradients = []
    for off in (None, 0, 1, 2):
        net, _, y, upstream = _passed(ALONE, config, grid, dtype, signature, off)
        names, weights = zip(*net.named_parameters(), strict=True)
        gradients.append(torch.autograd.grad((y * upstream).sum(), weights))
    exact, *others = gradients
    return {name: max(float((other[n] - exact[n]).abs().max()) for other in others) for n, name in enumerate(names)}


def assert_equal_over_processes(size, cases):
    """In double precision every tensor by its largest value; in others by the norm, all weights together.

    Gradients that are nothing in exact arithmetic, as of a bias before a batch norm, have to be next to nothing. Of one whose
    terms cancel no more digits are right than the terms have: where it misses the bound, it is held to their size, or to
    three times what the last bits of inputs change it by, since every operation rounds and not the first alone.
    """
    expected = results(ALONE, cases)
    for each in together(size, results, cases):
        for case, (fields, weights), (true_fields, true_weights) in zip(cases, each, expected, strict=True):
            assert weights.keys() == true_weights.keys() and fields.keys() == true_fields.keys()
            # a number alone may happen to be zero, as that of a bias of all weights of a softmax
            assert all(value.any() for value in (true_fields | true_weights).values() if value.numel() > 1)
            if case[2] is DOUBLE:
                found, true, size_of = fields | weights, true_fields | true_weights, lambda x: x.abs().max()
            else:
                found, true = fields | {"weights": _joined(weights)}, true_fields | {"weights": _joined(true_weights)}
                size_of = torch.linalg.vector_norm
            least = 1e-12 * max(float(value.abs().max()) for value in true_weights.values())
            nothing = {name for name in true if true[name].abs().max() < least}
            assert all(found[name].abs().max() < least for name in nothing)
            errors = {n: float(size_of(found[n] - v) / size_of(v)) for n, v in true.items() if n not in nothing}
            wrong = {name: error for name, error in errors.items() if not error <= TOLERANCE[case[2]]}
            if case[2] is DOUBLE and wrong.keys() & weights.keys():
                sizes, changes = sizes_of_sums(case), changes_by_rounding(case)
                allowed = {name: max(1e-14 * sizes[name], 3 * changes[name]) for name in wrong.keys() & weights.keys()}
                wrong = {
                    name: error
                    for name, error in wrong.items()
                    if name in fields or not (found[name] - true[name]).abs().max() <= allowed[name]
                }
            assert not wrong, f"{case[0]} on {case[1].describe()}: {wrong}"


def _joined(tensors):
    return torch.cat([tensor.flatten() for tensor in tensors.values()])
