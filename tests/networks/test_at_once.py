"""Messages of one set of edges and updates of nodes by compiled kernels, against torch's operations in double precision."""

import copy
import shutil

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from emulator.kernels import library
from emulator.networks.edge_index import EdgeIndex
from emulator.networks.messages import Messages, Update

pytestmark = pytest.mark.skipif(
    library.LIBRARY is None and shutil.which("cc") is None, reason="no C compiler: the kernels were not made"
)
SENDERS, RECEIVERS, BATCH = 30, 50, 2
KERNELS = {f"emulator_{name}" for name in ("messages", "maps")}


@pytest.fixture
def called(monkeypatch):
    """Kernels that ran, by name and whether backward: not, unnoticed, what they replace."""
    found, call = set(), library.call

    def noted(name, work, *tensors):
        if name in KERNELS:
            found.add((name, work.backward))
        return call(name, work, *tensors)

    monkeypatch.setattr(library, "call", noted)
    return found


def different(layer):
    """Norms begin with scales of one and no shifts."""
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn(parameter.shape)
    return layer


def of_messages(width, count, shared=False, update=True, seed=0):
    """A layer with its edges, and inputs: senders, receivers and edges."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    receivers = np.sort(rng.integers(0, RECEIVERS, count))
    index = EdgeIndex(rng.integers(0, SENDERS, count), receivers, SENDERS, RECEIVERS)
    inputs = [torch.randn(n, BATCH, width) for n in (SENDERS, RECEIVERS)]
    return different(Messages(index, width, update)), [*inputs, torch.randn(count, 1 if shared else BATCH, width)]


def of_update(width, nodes=RECEIVERS, seed=0):
    torch.manual_seed(seed)
    return different(Update(width)), [torch.randn(nodes, BATCH, width) for _ in range(2)]


def results(layer, inputs, upstream):
    """Outputs, and gradients of inputs and parameters of those that have an `upstream`, by their place."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    outputs = layer(*inputs)
    outputs = [y for y in (outputs if isinstance(outputs, tuple) else (outputs,)) if y is not None]
    loss = sum((outputs[n] * g.to(outputs[n].dtype)).sum() for n, g in upstream.items())
    gradients = torch.autograd.grad(loss, [*inputs, *layer.parameters()])
    return [*(y.detach() for y in outputs), *gradients]


def expect_double(layer, inputs, upstream):
    found = results(layer, inputs, upstream)
    expected = results(copy.deepcopy(layer).double(), [x.double() for x in inputs], upstream)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5 * (theirs.abs().max().item() if theirs.numel() else 0))


@pytest.mark.parametrize("width", [16, 80])
@pytest.mark.parametrize("count", [0, 5, 700])
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("used", ["sums", "edges", "both", "no update"])
def test_messages_are_those_of_torch(called, width, count, shared, used):
    """Also for nodes without edges and no edges at all; where one output alone goes on, and where edges stay as they were."""
    layer, inputs = of_messages(width, count, shared, used != "no update")
    upstream = {0: torch.randn(RECEIVERS, BATCH, width), 1: torch.randn(count, BATCH, width)}
    of = {"sums": (0,), "edges": (1,), "both": (0, 1), "no update": (0,)}[used]
    expect_double(layer, inputs, {n: upstream[n] for n in of})
    assert called == {(name, backward) for name in KERNELS for backward in (0, 1)}
    assert layer(*inputs)[1] is None if used == "no update" else layer(*inputs)[1].shape == (count, BATCH, width)


@pytest.mark.parametrize("width", [16, 80])
@pytest.mark.parametrize("nodes", [1, 50, 700])
def test_an_update_is_that_of_torch(called, width, nodes):
    layer, inputs = of_update(width, nodes)
    expect_double(layer, inputs, {0: torch.randn(nodes, BATCH, width)})
    assert called == {(name, backward) for name in KERNELS for backward in (0, 1)}


def test_what_the_kernels_do_not_take_is_left_to_torch(called):
    """A width that is no multiple of their lanes, and kernels set aside."""
    for width in (12, 16):
        (layer, inputs), (update, nodes) = of_messages(width, 40), of_update(width)
        with library.set_aside():
            layer(*inputs), update(*nodes)
        if width == 12:
            layer(*inputs), update(*nodes)
    assert not called


CASES = {
    "messages": lambda seed=0: (
        *of_messages(32, 1000, seed=seed),
        {0: torch.ones(RECEIVERS, BATCH, 32), 1: torch.ones(1)},
    ),
    "shared edges": lambda seed=0: (*of_messages(32, 1000, True, seed=seed), {0: torch.ones(1), 1: torch.ones(1)}),
    "update": lambda seed=0: (*of_update(32, 1000, seed), {0: torch.ones(1)}),
}


@pytest.mark.parametrize("case", CASES)
def test_bits_do_not_depend_on_the_number_of_threads(case):
    given, before, found = CASES[case](), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(results(*given))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, found[0], strict=True))


@pytest.mark.parametrize("case", CASES)
def test_a_second_pass_backward_is_refused(case):
    """The first one writes over what was kept."""
    layer, inputs, _ = CASES[case]()
    outputs = layer(*inputs)
    loss = sum(y.sum() for y in outputs) if isinstance(outputs, tuple) else outputs.sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("case", CASES)
def test_two_graphs_at_once_do_not_share_memory(case):
    """Passes backward in the order of those forward, both before any."""
    cases = [CASES[case](seed) for seed in (0, 1)]
    expected, outputs = [results(*each) for each in cases], []
    inputs = [[x.clone().requires_grad_() for x in tensors] for _, tensors, _ in cases]
    for (layer, *_), tensors in zip(cases, inputs, strict=True):
        found = layer(*tensors)
        outputs.append(found if isinstance(found, tuple) else (found,))
    for n, (layer, _, upstream) in enumerate(cases):
        loss = sum((outputs[n][k] * g).sum() for k, g in upstream.items())
        found = torch.autograd.grad(loss, [*inputs[n], *layer.parameters()])
        assert all(torch.equal(a, b) for a, b in zip([*outputs[n], *found], expected[n], strict=True))


@pytest.mark.parametrize("case", CASES)
def test_with_and_without_a_gradient_bits_are_the_same(case):
    layer, inputs, _ = CASES[case]()
    with torch.no_grad():
        without = layer(*inputs)
    found = layer(*inputs)
    pairs = zip(found, without, strict=True) if isinstance(found, tuple) else [(found, without)]
    assert all(torch.equal(a, b) for a, b in pairs)
