"""The kernels as other processors than x86 take them, compiled here without its instruction sets, against the package's."""

import copy
import ctypes
import itertools
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from emulator.kernels import compiled, library
from emulator.kernels.layers import row_norm_backward, row_norm_forward
from emulator.networks.attention import attention
from emulator.networks.registry import build
from emulator.networks.signature import Channel, Signature
from emulator.planet.grid import Grid
from emulator.sphere.transform import VectorTransform

pytestmark = pytest.mark.skipif(library.LIBRARY is None or shutil.which("cc") is None, reason="no C compiler")

SOURCE = Path(compiled.__file__).with_name("kernels.c")


@pytest.fixture(scope="module")
def portable(tmp_path_factory):
    """Calls a function with the portable kernels in place of the package's."""
    return compiled_with("PORTABLE", tmp_path_factory)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """The same with those of AVX2, where the processor has it, and otherwise the portable ones once more."""
    return compiled_with("NARROW", tmp_path_factory)


def compiled_with(flag, tmp_path_factory):
    made = tmp_path_factory.mktemp(flag) / "kernels.so"
    command = ["cc", "-O1", "-Wno-psabi", f"-D{flag}", "-fPIC", "-shared", SOURCE, "-o", made]
    subprocess.run(command, check=True)
    own = ctypes.CDLL(str(made))
    assert compiled.exported(own) == compiled.Layout.numbers()

    def call(function, *arguments):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(library, "LIBRARY", own)
            return function(*arguments)

    call.library = own
    return call


def assert_same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs, rtol=0, atol=1e-5 * float(1e-2 + theirs.abs().max()))


@pytest.mark.parametrize("channels", [1, 5, 12, 16, 50])
def test_transforms_are_the_same(portable, channels):
    """Numbers of channels that fill vectors of four, of sixteen, and neither."""
    transform = VectorTransform(33, 64, "equiangular", poles=True)
    wind = torch.randn(2, 33, 64, channels, generator=torch.Generator().manual_seed(channels))
    parts = transform.analysis(*wind)
    assert_same(portable(transform.analysis, *wind), parts)
    assert_same(portable(transform.synthesis, *parts), transform.synthesis(*parts))


@pytest.mark.parametrize(
    "config",
    [
        {"kind": "sfno", "embed_dim": 20, "blocks": 1, "stencil": 3, "position": "learned"},
        {"kind": "sfno", "embed_dim": 32, "blocks": 1, "scale_factor": 1.5, "norm": "none", "encoder_layers": 0},
        {"kind": "graph", "width": 48, "rounds": 1, "refinement": 1},
        {"kind": "vector_cnn", "width": 22, "vectors": 5, "blocks": 1, "position": "learned"},
        {
            "kind": "wxformer",
            "widths": (16, 32),
            "depths": (1, 1),
            "strides": (2, 2),
            "stencils": (2, 4),
            "far": (3, 2),
            "near": 3,
            "head_width": 8,
        },
        {"kind": "fuxi", "width": 72, "blocks": 2, "heads": 4, "window": 3, "patch": 1, "groups": 8},
        {"kind": "samudra", "widths": (40, 44), "dilations": (1, 2)},
    ],
    ids=["stencil", "whole vectors", "messages", "winds", "attention", "directions", "filters"],
)
def test_networks_and_their_gradients_are_the_same(portable, config):
    torch.manual_seed(0)
    names = "u_component_of_wind", "v_component_of_wind", "temperature"
    channels = [Channel(name, "state") for name in names]
    net = build(config, 3, 2, Grid.gaussian(16), signature=Signature(channels, channels[:2]))
    x, target = torch.randn(2, 3, 16, 32), torch.randn(2, 2, 16, 32)

    def update(net=net, x=x, target=target):
        given = x.clone().requires_grad_()
        y = net(given)
        return y.detach(), *torch.autograd.grad((y - target).square().mean(), [given, *net.parameters()])

    ours, theirs = portable(update), update()
    exact = update(copy.deepcopy(net).double(), x.double(), target.double())
    some = [float(tensor.abs().max()) > 1e-12 for tensor in exact]  # a bias before a norm has none, but for rounding
    assert sum(some) > len(some) / 2
    assert_same(itertools.compress(ours, some), itertools.compress(theirs, some))


# windows, queries, keys, samples, heads, channels, and the shape of a bias
WINDOWS = {
    "a bias of each window": (6, 5, 7, 2, 2, 8, (3, 2, 5, 7)),
    "whole vectors": (3, 16, 32, 1, 2, 16, (1, 2, 16, 32)),
    "odd sizes": (4, 6, 17, 2, 3, 5, (1, 3, 6, 17)),
    "one row": (5, 6, 9, 1, 2, 12, (1, 2, 1, 9)),
    "one query": (5, 1, 9, 1, 2, 12, (1, 1, 1, 9)),
    "one key": (4, 3, 1, 2, 1, 4, None),
    "few keys": (9, 8, 3, 1, 8, 16, None),
    "few keys of odd sizes": (3, 5, 15, 2, 3, 20, None),
}


@pytest.mark.parametrize("name", ["portable", "narrow"])
@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_attention_and_its_gradients_are_the_same(name, window, request):
    windows, queries, keys, samples, heads, channels, shape = window
    generator = torch.Generator().manual_seed(0)
    tensors = [
        torch.randn(windows, tokens, samples, parts, heads, channels, generator=generator, requires_grad=True)
        for tokens, parts in ((queries, 1), (keys, 2))
    ]
    learned = shape is not None and shape[0] == 1
    bias = None if shape is None else torch.randn(shape, generator=generator, requires_grad=learned)

    def update():
        y = attention(*tensors, bias=bias)
        assert type(y.grad_fn).__name__ == "_CompiledBackward"
        weighted = (y * torch.cos(torch.arange(y.numel())).view_as(y)).sum()
        return y.detach(), *torch.autograd.grad(weighted, [*tensors, *([bias] if learned else [])])

    assert_same(request.getfixturevalue(name)(update), update())


@pytest.mark.parametrize("name", ["portable", "narrow"])
def test_norms_of_rows_and_their_gradients_are_the_same(name, request):
    x, onto, modulation = torch.randn(2, 70, 32), torch.randn(2, 70, 32), torch.randn(2, 64)

    def update():
        y, moments = row_norm_forward(x, modulation, onto, 1e-5)
        return y, moments, *row_norm_backward(onto, x, modulation, moments)

    assert_same(request.getfixturevalue(name)(update), update())


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7F800001, 0x7FD55555, 0x7FFFFFFF])
@pytest.mark.parametrize("name", ["portable", "narrow"])
def test_attention_keeps_what_is_not_a_number(name, bits, request):
    x = torch.ones(2, 5, 1, 3, 1, 8)
    x.view(torch.int32)[0, 1, 0, 1, 0, 3] = bits
    found = request.getfixturevalue(name)(attention, x)
    assert found[0].isnan().all() and found[1].isfinite().all()


@pytest.mark.parametrize("size", [2, 4])
def test_bytes_are_put_in_the_same_order(portable, size):
    numbers = np.random.default_rng(size).integers(0, 256, (101, size), dtype=np.uint8)
    shuffled, found = np.ascontiguousarray(numbers.T), np.empty(101 * size, np.uint32).view(np.uint8)[: 101 * size]
    pointers = (ctypes.c_void_p(array.ctypes.data) for array in (shuffled, found))
    portable.library.emulator_unshuffle(*pointers, ctypes.c_long(101), ctypes.c_long(size))
    assert np.array_equal(found.reshape(101, size), numbers)


def test_products_of_bfloat16_are_left_to_processors_that_have_them(portable):
    assert not portable.library.emulator_has_half()
