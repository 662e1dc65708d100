"""An SFNO whose states several processes hold together is that of one process: outputs, and gradients of everything."""

import dataclasses
import functools

import pytest
import torch
from small_sfno import SMALL, awaken, fields, network
from together import together

from emulator.kernels import library
from emulator.networks.conditions import NoiseOptions, noise_count, scalar_count
from emulator.networks.registry import NetworkError, build
from emulator.parallel.space import ALONE
from emulator.planet.grid import Grid

POLES = {"shape": (13, 24), "grid": "equiangular", "poles": True}
UNEVEN = {"shape": (18, 36)}
NOISE = NoiseOptions(length_scales=(1000.0,), channels=2)
CASES = [
    ({}, POLES),
    ({}, UNEVEN),
    ({"filter": "real", "norm": "area_instance"}, POLES),
    ({"filter": "diagonal", "norm": "layer", "pre_norm": "branch"}, UNEVEN),
    ({"filter": "low_rank", "rank": 4, "norm": "none", "pre_norm": "none"}, POLES),
    ({"spectral_layers": 2, "position": "harmonics"}, UNEVEN),
    ({"stencil": 3, "position": "learned"}, POLES),
    ({"stencil": 5, "mlp_ratio": 1}, UNEVEN),
    ({"stencil": 3, "scale_factor": 1.5, "noise": NOISE}, UNEVEN),
    ({"scale_factor": 1.4, "norm": "area_instance", "spectral_layers": 2}, POLES),
    ({"noise": NOISE, "condition": ("time_of_year", "co2"), "checkpointing": True}, POLES),
    ({"truncation": 1.0, "big_skip": "add", "inner_skip": "none", "mlp_ratio": 0}, UNEVEN),
    ({"drop_path": 0.5, "activation": False, "outer_skip": "linear"}, UNEVEN),
]
TORCH = (0, 6, 9)  # cases that are also tried without the compiled kernels
HALF = ({"stencil": 3, "mlp_precision": "bfloat16", "filter_precision": "bfloat16"}, UNEVEN)


def outcome(chosen, grid, kind, space=ALONE):
    """Output, gradient of the input and by name of the weights, each of the process's rows or part."""
    if kind == "torch":
        with library.set_aside():
            return outcome(chosen, grid, "compiled", space)
    options = dataclasses.replace(SMALL, blocks=2, **chosen)
    dtype = torch.float64 if kind == "float64" else torch.float32
    net = awaken(network(options, space=space, **grid)).to(dtype)
    band, shape = net.outer.band, grid["shape"]
    x = fields(2, 3, *shape).to(dtype)[..., band, :].clone().requires_grad_()
    condition = fields(2, scalar_count(options.condition)).to(dtype) if options.condition else None
    noise = fields(2, noise_count(NOISE), *shape, seed=4).to(dtype)[..., band, :] if options.noise else None
    torch.manual_seed(3)
    y = net(x, condition, noise)
    (y * fields(2, 2, *shape, seed=5).to(dtype)[..., band, :]).sum().backward()
    return y.detach(), x.grad, {name: p.grad for name, p in net.named_parameters()}


def kinds(n):
    return ("float64", "compiled", "torch") if n in TORCH else ("float64", "compiled")


def in_bands(space):
    found = {(n, kind): outcome(*case, kind, space) for n, case in enumerate(CASES) for kind in kinds(n)}
    return found | {"half": outcome(*HALF, "compiled", space)}


@functools.cache
def results(size):
    return together(size, in_bands, timeout=500)


def whole(parts):
    """Output, gradient of the input and of all weights in one row, from those of the processes or of one."""
    y, x_grad, grads = zip(*parts, strict=True)
    by_weight = [sum(part[name] for part in grads).flatten() for name in grads[0]]
    return torch.cat(y, -2), torch.cat(x_grad, -2), torch.cat(by_weight)


def distances(found, expected):
    pairs = zip(found, expected, strict=True)
    return [float((a.double() - b.double()).norm() / b.double().norm()) for a, b in pairs]


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("n", range(len(CASES)), ids=[",".join(case) or "default" for case, _ in CASES])
def test_outputs_and_gradients_are_those_of_one_process(n, size):
    exact = whole([outcome(*CASES[n], "float64")])
    assert max(distances(whole([found[n, "float64"] for found in results(size)]), exact)) <= 1e-12
    for kind in kinds(n)[1:]:
        alone = whole([outcome(*CASES[n], kind)])
        found = distances(whole([found[n, kind] for found in results(size)]), alone)
        # where a single process's rounding is more than that, no order of sums is nearer
        allowed = [max(1e-6, 2 * own) for own in distances(alone, exact)]
        assert all(a <= b for a, b in zip(found, allowed, strict=True)), (kind, found, allowed)
        assert max(allowed) <= 3e-5


@pytest.mark.parametrize("size", [2, 4])
def test_products_of_bfloat16_in_bands_differ_by_their_rounding(size):
    alone = whole([outcome(*HALF, "compiled")])
    assert max(distances(whole([found["half"] for found in results(size)]), alone)) <= 0.02


def built(space):
    grid = Grid.gaussian(12)
    net = build({"kind": "sfno", "embed_dim": 4, "blocks": 1}, 2, 1, grid, space)
    return tuple(net(torch.zeros(1, 2, *grid.shape)[..., space.band(12), :]).shape), list(net.state_dict())


def test_a_configuration_builds_it_with_the_weights_of_one_process():
    alone = built(ALONE)
    for shape, names in together(2, built):
        assert shape == (1, 1, 6, 24) and names == alone[1]


def refused(space):
    try:
        build({"kind": "sfno"}, 2, 1, Grid.gaussian(6), space)
    except NetworkError as error:
        return str(error)


def test_more_processes_than_degrees_are_refused():
    assert "Expected at least 7 degrees for 4 processes" in together(4, refused)[0]
