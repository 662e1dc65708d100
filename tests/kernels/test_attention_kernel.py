"""The compiled attention of windows and its gradients against torch's, and torch's in double precision."""

import struct

import pytest
import torch
from torch.testing import assert_close

from emulator.kernels import attention as native
from emulator.kernels import library
from emulator.kernels.perceptron import pack, wide
from emulator.networks import attention as networks
from emulator.networks.attention import attention, by_torch, spread

pytestmark = pytest.mark.skipif(library.LIBRARY is None, reason="the kernels were not made")


@pytest.fixture
def calls(monkeypatch):
    """Names of the kernel's two functions, as often as they are called."""
    made = []
    for name in ("forward", "backward"):
        function = getattr(native, name)
        monkeypatch.setattr(
            native, name, lambda *given, name=name, function=function: made.append(name) or function(*given)
        )
    return made


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_gradients(function, tensors, bias, dtype=torch.float32):
    """The result for copies of the tensors in another type, and their gradients by a weighted sum of it."""
    tensors = [tensor.to(dtype).requires_grad_() for tensor in tensors]
    bias = None if bias is None else bias.detach().to(dtype).requires_grad_(bias.requires_grad)
    y = function(tensors, bias)
    wanted = [*tensors, *([bias] if bias is not None and bias.requires_grad else [])]
    return y.detach(), *torch.autograd.grad((y * torch.cos(torch.arange(y.numel())).view_as(y)).sum(), wanted)


def reference(tensors, bias):
    return by_torch(*(part for x in tensors for part in x.unbind(3)), bias, 0.3)


def compiled(tensors, bias):
    return attention(*tensors, bias=bias, scale=0.3)


CASES = {  # windows, queries, keys, samples, heads, channels, parts of tensors, bias
    "near": ((5, 9, 9, 2, 2, 16), (3,), (1, 1, 9, 9)),
    "heads": ((3, 36, 36, 1, 4, 32), (1, 1, 1), (1, 4, 36, 36)),
    "over a pole": ((2, 18, 36, 2, 4, 32), (1, 2), (1, 4, 18, 36)),
    "whole vectors": ((4, 144, 144, 1, 2, 16), (3,), None),
    "a few levels": ((40, 3, 8, 1, 8, 8), (1, 2), None),
    "queries that are the same for all": ((37, 8, 3, 1, 8, 16), (1, 2), None),
    "as many keys as are few": ((5, 2, 15, 2, 3, 20), (1, 2), (1, 1, 1, 15)),
    "odd sizes": ((7, 5, 17, 3, 2, 20), (1, 1, 1), (1, 2, 5, 17)),
    "one key": ((7, 1, 1, 1, 3, 5), (3,), (1, 3, 1, 1)),
    "one row of biases": ((5, 6, 9, 2, 2, 16), (1, 2), (1, 1, 1, 9)),
    "one row for each head": ((3, 6, 17, 2, 4, 5), (1, 2), (1, 4, 1, 17)),
    "more than a vector of windows": ((70, 4, 4, 2, 1, 8), (3,), (1, 1, 4, 4)),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("learned", [True, False], ids=["learned", "given"])
def test_it_is_torchs_attention_to_rounding(case, learned, calls):
    (windows, queries, keys, samples, heads, channels), parts, bias = case
    tensors = [
        drawn(windows, keys if n or len(parts) == 1 else queries, samples, part, heads, channels, seed=n)
        for n, part in enumerate(parts)
    ]
    bias = None if bias is None else drawn(*bias, seed=9).requires_grad_(learned)
    found = with_gradients(compiled, tensors, bias)
    assert calls == ["forward", "backward"]
    theirs = with_gradients(reference, tensors, bias)
    assert len(calls) == 2
    exact = with_gradients(reference, tensors, bias, torch.float64)
    assert len(found) == len(exact)
    for ours, other, right in zip(found, theirs, exact, strict=True):
        allowed = 2e-6 * float(right.abs().max() + 1e-2)
        assert_close(ours.double(), right, rtol=0, atol=allowed)
        assert_close(ours, other, rtol=0, atol=2 * allowed)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_attention_by_directions_is_torchs_to_rounding(case, calls):
    """Gradients of every head's scale too, and rows of any length, of zero as well."""
    (windows, queries, keys, samples, heads, channels), parts, bias = case
    rows = [(windows, keys if n or len(parts) == 1 else queries, samples, part, heads) for n, part in enumerate(parts)]
    tensors = [drawn(*row, channels, seed=n) * drawn(*row, 1, seed=n + 20).exp() for n, row in enumerate(rows)]
    tensors[0][0, 0, 0, 0] = 0  # queries
    bias = None if bias is None else drawn(*bias, seed=9).requires_grad_()
    steepness = torch.linspace(1, 9, heads)

    def found(function, dtype):
        made = with_gradients(
            lambda given, bias: function(given[1:], bias, given[0]), [steepness, *tensors], bias, dtype
        )
        made[2][0, 0, 0, 0] *= 1e-12  # what their lengths are taken for
        return made

    def by_kernel(given, bias, scale):
        return attention(*given, bias=bias, scale=scale)

    def by_directions(given, bias, scale):
        q, k, v = (part for x in given for part in x.unbind(3))
        q, k = (torch.nn.functional.normalize(x, dim=-1) for x in (q, k))
        return by_torch(q * scale[:, None], k, v, bias, 1.0)

    for ours, right in zip(found(by_kernel, torch.float32), found(by_directions, torch.float64), strict=True):
        assert_close(ours.double(), right, rtol=0, atol=4e-6 * float(right.abs().max() + 1e-2))
    assert calls == ["forward", "backward"]


def test_biases_take_turns_and_who_is_kept_apart_does_not_matter(calls):
    """Windows of two samples one after the other, of which each second one is cut in two."""
    x = drawn(4, 6, 1, 3, 2, 16)
    group = torch.tensor([[0] * 6, [0, 0, 1, 1, 1, 1]])
    bias = torch.zeros(2, 1, 6, 6).where((group[:, :, None] == group[:, None])[:, None], -torch.inf)
    found = attention(x, bias=bias)
    changed = x.clone()
    changed[1, 2:, :, 1:] += 1e3
    again = attention(changed, bias=bias)
    assert torch.equal(again[1, :2], found[1, :2]) and not torch.equal(again[1, 2:], found[1, 2:])
    assert_close(found, reference_of(x, bias), rtol=0, atol=2e-6)
    assert torch.equal(found[2:], attention(x[2:], bias=bias))
    assert calls == 3 * ["forward"]


def test_a_window_of_few_tokens_is_the_same_alone_and_among_others(calls):
    """Heads of windows share vectors; 7 windows of 3 heads leave the last one partly empty."""
    query, both = drawn(7, 5, 2, 1, 3, 10).requires_grad_(), drawn(7, 4, 2, 2, 3, 10, seed=1).requires_grad_()

    def found(some):
        y = attention(query[some], both[some])
        return y.detach(), *(x[some] for x in torch.autograd.grad(y.sin().sum(), [query, both]))

    together = found(slice(None))
    for n in range(7):
        alone = found(slice(n, n + 1))
        assert all(torch.equal(a[0], b[n]) for a, b in zip(alone, together, strict=True))
    assert calls == 8 * ["forward", "backward"]


def reference_of(x, bias):
    with library.set_aside():
        return attention(x, bias=bias)


# quiet and signalling ones of either sign, with no, some and all bits of their payload
NOT_NUMBERS = [
    0x7FC00000,
    0xFFC00000,
    0x7F800001,
    0xFF800001,
    0x7FFFFFFF,
    0xFFFFFFFF,
    0x7FD55555,
    0x7FC40000,
    0x7FE00001,
]


@pytest.mark.parametrize("bits", NOT_NUMBERS, ids=hex)
@pytest.mark.parametrize("part", range(3), ids="qkv")
def test_what_is_not_finite_is_seen(bits, part, calls):
    x = drawn(2, 4, 1, 3, 1, 16)
    x.view(torch.int32)[0, 1, 0, part, 0, 3] = struct.unpack("i", struct.pack("I", bits))[0]
    found = attention(x.requires_grad_())
    # of a query its own row, of a key all that ask it, of a value one channel of them
    expected = torch.zeros(4, 16, dtype=torch.bool)
    expected[1 if part == 0 else slice(None), 3 if part == 2 else slice(None)] = True
    assert torch.equal(found[0, :, 0].isnan(), expected) and found[1].isfinite().all()
    (gradient,) = torch.autograd.grad(found.sum(), x)
    assert gradient[0].isnan().any() and gradient[1].isfinite().all() and calls == ["forward", "backward"]


def test_sums_do_not_depend_on_threads():
    x, bias, threads = drawn(50, 9, 2, 3, 2, 16), drawn(1, 2, 9, 9, seed=1).requires_grad_(), torch.get_num_threads()
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        found.append(with_gradients(compiled, [x], bias))
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize(
    "shape", [(1, 2, 5, 6), (1, 2, 6, 5), (1, 3, 6, 6), (3, 2, 6, 6), (1, 2, 6, 1), (0, 2, 6, 6), (2, 6, 6)], ids=str
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_biases_of_other_shapes_are_refused(shape, dtype):
    with pytest.raises(ValueError, match="Expected a bias .* divides 4 windows, 1 or 2 heads.* 6 keys"):
        attention(drawn(4, 6, 1, 3, 2, 8).to(dtype), bias=torch.zeros(shape, dtype=dtype))


@pytest.mark.parametrize(
    "other", [(3, 6, 1, 2, 2, 8), (4, 6, 2, 2, 2, 8), (4, 6, 1, 2, 1, 8), (4, 6, 1, 2, 2, 7)], ids=str
)
def test_keys_and_values_of_other_queries_are_refused(other):
    with pytest.raises(ValueError, match="Expected keys and values"):
        attention(drawn(4, 6, 1, 1, 2, 8), drawn(*other))


def test_other_numbers_of_parts_and_no_keys_are_refused():
    with pytest.raises(ValueError, match="queries, keys and values .* 2 parts"):
        attention(drawn(4, 6, 1, 2, 2, 8))
    with pytest.raises(ValueError, match="Expected keys and values"):
        attention(drawn(4, 6, 1, 1, 2, 8), drawn(4, 6, 1, 1, 2, 8), drawn(4, 5, 1, 1, 2, 8))
    with pytest.raises(ValueError, match="at least one"):
        attention(drawn(4, 6, 1, 1, 2, 8), drawn(4, 0, 1, 2, 2, 8))


def test_spread_tables_lie_in_rows_and_their_gradients_are_sums():
    """In half precision too, where 600 ones added one by one would stay at 256."""
    offset = torch.arange(1200).remainder(2)
    for heads, dtype in ((1, torch.bfloat16), (3, torch.bfloat16), (3, torch.float32)):
        table = torch.ones(2, heads, dtype=dtype, requires_grad=True)
        bias = spread(table, offset, 30)
        assert bias.shape == (heads, 30, 40) and bias.is_contiguous()
        (gradient,) = torch.autograd.grad(bias.sum(), table)
        assert gradient.dtype == dtype and torch.equal(gradient, torch.full_like(table, 600))


def test_gradients_in_double_precision():
    x = drawn(2, 3, 2, 3, 2, 4).double().requires_grad_()
    table, offset = drawn(4, 2, seed=1).double().requires_grad_(), torch.tensor([0, 1, 2, 1, 3, 0, 0, 2, 2])
    assert torch.autograd.gradcheck(
        lambda x, table: attention(x, bias=spread(table, offset, 3)[None], scale=0.7), (x, table)
    )
    assert torch.autograd.gradgradcheck(lambda table: spread(table, offset, 3).square(), table)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_no_windows_give_nothing(dtype):
    """As processes have them that a map has no windows for."""
    x, bias = drawn(0, 3, 1, 3, 2, 4).to(dtype).requires_grad_(), torch.zeros(2, 1, 3, 3, dtype=dtype)
    found = attention(x, bias=bias)
    assert found.shape == (0, 3, 1, 8) and torch.autograd.grad(found.sum(), x)[0].shape == x.shape


def test_larger_windows_and_other_types_are_torchs(monkeypatch):
    monkeypatch.setattr(networks._Compiled, "apply", lambda *given: pytest.fail("the kernel was asked"))
    attention(drawn(1, native.MOST_TOKENS + 1, 1, 3, 1, 2))
    attention(drawn(1, native.MOST_TOKENS + 1, 1, 1, 1, 2), drawn(1, 3, 1, 2, 1, 2))
    attention(drawn(1, 3, 1, 3, 1, 2).double())
    turned = drawn(1, 3, 1, 3, 2, 2).transpose(-1, -2)
    attention(turned)
    attention(drawn(2, 3, 1, 3, 1, 2), bias=drawn(2, 1, 3, 3).requires_grad_())  # of each window a gradient


@pytest.mark.parametrize(("taps", "depth", "width"), [(1, 64, 192), (9, 20, 32), (1, 17, 48), (2, 40, 50)])
def test_weights_in_the_order_of_the_kernels_are_the_same_numbers(taps, depth, width):
    """However they lie: as layers have them, with inputs last, and the other way round."""
    expected = torch.zeros(taps * depth, wide(width))
    for steps in ((2, 1, 0), (0, 1, 2), (0, 2, 1)):
        sizes = [0] * 3
        for place, size in zip(steps, (taps, depth, width), strict=True):
            sizes[place] = size
        weight = drawn(*sizes).permute(*steps)
        expected[:, :width] = weight.reshape(taps * depth, width)
        assert torch.equal(pack(weight, False), expected)
