"""Rounds of messages by compiled kernels against torch's operations in double precision, which have tests of their own."""

import copy
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from emulator.kernels import library
from emulator.networks.edge_index import EdgeIndex
from emulator.networks.messages import Interaction, Perceptron, exchange

pytestmark = pytest.mark.skipif(
    library.LIBRARY is None and shutil.which("cc") is None, reason="no C compiler: the kernels were not made"
)


def made(width, rounds, update, count, senders, receivers, seed):
    """Layers, whose parameters are all different, and random edges; several rounds are between the same nodes."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    senders = receivers if rounds > 1 else senders
    receiver = np.sort(rng.integers(0, receivers, count))
    index = EdgeIndex(rng.integers(0, senders, count), receiver, senders, receivers)
    layers = torch.nn.ModuleList(Interaction(index, width, n < rounds - 1 or update) for n in range(rounds))
    with torch.no_grad():
        for parameter in layers.parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn(parameter.shape)
    return layers, senders


def results(layers, inputs, upstream):
    """Outputs and the gradients of inputs and parameters."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    outputs = [y for y in exchange(layers, *inputs) if y is not None]
    loss = sum((y * g[: y.shape[0]].to(y.dtype)).sum() for y, g in zip(outputs, upstream, strict=False))
    gradients = torch.autograd.grad(loss, [*inputs, *layers.parameters()])
    return [*(y.detach() for y in outputs), *gradients]


@settings(max_examples=30, deadline=None)
@given(
    width=st.sampled_from([16, 48, 80, 128]), rounds=st.integers(1, 3), update=st.booleans(), batch=st.integers(1, 3),
    shared=st.booleans(), count=st.integers(1, 900), senders=st.integers(1, 30), receivers=st.integers(1, 50),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_rounds_are_those_of_torch(width, rounds, update, batch, shared, count, senders, receivers, seed):
    """Also for nodes without edges, for batches that share their edges, and where there are several parts of the rows."""
    layers, senders = made(width, rounds, update, count, senders, receivers, seed)
    generator = torch.Generator().manual_seed(seed)
    shapes = (senders, batch, width), (receivers, batch, width), (count, 1 if shared else batch, width)
    inputs = [torch.randn(shape, generator=generator) for shape in shapes]
    upstream = [torch.randn(rows, batch, width, generator=generator) for rows in (receivers, count)]
    found = results(layers, inputs, upstream)
    expected = results(copy.deepcopy(layers).double(), [x.double() for x in inputs], upstream)
    summed = count * batch / min(senders, receivers)  # rows of a node; errors grow as the root of their number
    rounding = 3e-5 * max(1.0, summed / 300) ** 0.5
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours.double(), theirs, rtol=1e-4, atol=rounding * max(1.0, theirs.abs().max().item()))


@pytest.mark.parametrize("inputs", [1, 3, 40, 64])
@pytest.mark.parametrize("rows", [1, 7, 1500])
def test_a_perceptron_is_that_of_torch(inputs, rows):
    torch.manual_seed(inputs)
    ours = Perceptron(inputs, 32)
    theirs, x, g = copy.deepcopy(ours).double(), torch.randn(rows, 2, inputs), torch.randn(rows, 2, 32)
    found, expected = [], []
    for layer, at, upstream, to in ((ours, x, g, found), (theirs, x.double(), g.double(), expected)):
        at = at.clone().requires_grad_()
        y = layer(at)
        to += [y.detach(), *torch.autograd.grad((y * upstream).sum(), [at, *layer.parameters()])]
    for a, b in zip(found, expected, strict=True):
        assert_close(a.double(), b, rtol=1e-4, atol=3e-5 * max(1.0, b.abs().max().item()))


def a_case(seed=0, width=32, count=1000):
    layers, _ = made(width, 3, False, count, 40, 40, seed)
    inputs = [torch.randn(40, 2, width), torch.randn(40, 2, width), torch.randn(count, 2, width)]
    return layers, inputs, [torch.randn(40, 2, width)]


def test_bits_do_not_depend_on_the_number_of_threads():
    case, before, found = a_case(), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(results(*case))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, found[0], strict=True))


def test_the_kernels_are_what_runs(monkeypatch):
    """And not, unnoticed, what they replace."""
    called = []
    call = library.call
    monkeypatch.setattr(library, "call", lambda name, work: (called.append((name, work.backward)), call(name, work)))
    results(*a_case())
    assert set(called) == {(f"emulator_{name}", backward) for name in ("messages", "maps") for backward in (0, 1)}
    called.clear()
    with library.set_aside():
        results(*a_case())
    assert not called


@pytest.mark.parametrize("value", [1e4, -1e4])
def test_large_hidden_values_stay_finite(value):
    layer = Perceptron(1, 16)
    with torch.no_grad():
        layer.first.weight.fill_(1.0)
    x = torch.tensor([[value]])
    y = layer(x)
    with library.set_aside():
        assert_close(layer(x), y, rtol=1e-4, atol=1e-4)
    assert all(g.isfinite().all() for g in torch.autograd.grad(y.sum(), list(layer.parameters())))


def test_what_is_not_a_number_stays_so():
    x = torch.tensor([[1.0], [float("nan")]])
    y = Perceptron(1, 16)(x)
    assert y[0].isfinite().all()
    assert y[1].isnan().all()


# --- what is kept, and memory that is used again -------------------------------------------------------------------


def kept_floats(function, known):
    """Floats that are kept for the gradient of `function()` besides the tensors that are `known`."""
    places, found = {x.untyped_storage().data_ptr() for x in known}, {}

    def note(x):
        storage = x.untyped_storage()
        if storage.data_ptr() not in places:
            found[storage.data_ptr()] = x.numel()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        y = function()
    return sum(found.values()), y


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_hidden_values_alone_are_kept_of_the_edges(rounds, shared):
    """One row for every edge and round, and one more for edges that were updated; of nodes three, less the last update."""
    layers, _ = made(32, rounds, False, 1000, 40, 40, 0)
    inputs = [torch.randn(n, b, 32) for n, b in ((40, 2), (40, 2), (1000, 1 if shared else 2))]
    floats, _ = kept_floats(lambda: exchange(layers, *inputs), [*inputs, *layers.parameters()])
    assert floats == 2 * 32 * (1000 * (rounds + (rounds > 1)) + 40 * (3 * rounds - 1))


def test_of_a_perceptron_nothing_is_kept():
    layer, x = Perceptron(3, 32), torch.randn(1500, 3)
    assert kept_floats(lambda: layer(x), [x, *layer.parameters()])[0] == 0


def test_a_perceptron_goes_back_twice():
    """Nothing that it keeps is written over."""
    layer, x = Perceptron(3, 32), torch.randn(1500, 3, requires_grad=True)
    loss = layer(x).square().sum()
    of = [x, *layer.parameters()]
    first, second = (torch.autograd.grad(loss, of, retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_second_pass_backward_is_refused():
    """The first one writes over what was kept."""
    layers, inputs, upstream = a_case()
    y = exchange(layers, *inputs)[0]
    y.backward(upstream[0], retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward(upstream[0])


def test_two_graphs_at_once_do_not_share_memory():
    cases = [a_case(0), a_case(1)]
    expected = [results(*case) for case in cases]
    outputs, inputs = [], []
    for layers, tensors, _ in cases:
        inputs.append([x.clone().requires_grad_() for x in tensors])
        outputs.append(exchange(layers, *inputs[-1])[0])
    for n in (0, 1):
        layers, _, upstream = cases[n]
        found = torch.autograd.grad((outputs[n] * upstream[0]).sum(), [*inputs[n], *layers.parameters()])
        for a, b in zip([outputs[n], *found], expected[n], strict=True):
            assert torch.equal(a, b)


def test_rounds_with_and_without_a_gradient_have_the_same_bits():
    layers, inputs, _ = a_case()
    with torch.no_grad():
        without = exchange(layers, *inputs)[0]
    assert torch.equal(exchange(layers, *inputs)[0], without)
