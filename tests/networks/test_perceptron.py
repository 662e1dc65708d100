"""Linear layers as one compiled operation, against the same layers in float64."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.kernels import library
from emulator.networks.layers import MLP, Linear, perceptron, serves
from emulator.networks.stencil import StencilMLP, neighbours
from emulator.sphere.transform import SphericalTransform

one = torch.zeros(1)
pytestmark = pytest.mark.skipif(not serves(one, one, False), reason="no compiled kernels")
halves = [
    False,
    pytest.param(True, marks=pytest.mark.skipif(not serves(one, one, True), reason="no products of bfloat16")),
]


def results(function, x, *weights):
    """The result and the gradients of everything for a direction without negative numbers."""
    wanted = [x, *(w for w in weights if w is not None)]
    for tensor in wanted:
        tensor.requires_grad_()
    y = function(x, *weights)
    direction = torch.rand(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    return [y, *torch.autograd.grad(y, wanted, direction)]


def layers(x, first, first_bias, second=None, second_bias=None):
    y = F.linear(x, first, first_bias)
    return y if second is None else F.linear(F.gelu(y), second, second_bias)


def test_gelu_is_that_of_the_error_function():
    x = torch.cat([torch.linspace(-14, 14, 20001), torch.tensor([0.0, -0.0, 1e-30, -1e-30, 90.0, -90.0, 1e4, -1e4])])
    one = torch.ones(1, 1)
    found = perceptron(x[:, None, None], one, None, one, None)[:, 0, 0].double()
    exact = F.gelu(x.double())
    assert float(((found - exact).abs() / x.abs().clamp(min=1)).max()) < 3e-7
    assert bool(perceptron(torch.full((1, 1, 1), torch.nan), one, None, one, None).isnan())


def near(found, expected, limit):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == torch.float32
        # GELU is good to 3e-7 of 1, which is all of it far below zero
        assert (ours - theirs).norm() <= limit * theirs.norm() + 3e-6 * theirs.numel() ** 0.5


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 3),
    st.integers(1, 70),
    st.integers(0, 130),
    st.integers(1, 70),
    st.booleans(),
    st.booleans(),
)
def test_every_size_gives_the_layers_and_their_gradients(cells, batch, inputs, hidden, outputs, first, second):
    generator = torch.Generator().manual_seed(cells * inputs)

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    weights = [random(hidden or outputs, inputs), random(hidden or outputs) if first else None]
    if hidden:
        weights += [random(outputs, hidden), random(outputs) if second else None]
    x = random(cells, batch, inputs)

    def expected():
        return results(layers, *(None if w is None else w.double() for w in (x.detach(), *weights)))

    near(results(perceptron, x.detach(), *weights), expected(), 1e-5)
    if serves(x, x, True):  # where nothing cancels, errors are those of the numbers that are rounded
        x, weights = x.abs(), [None if w is None else w.detach().abs() for w in weights]
        near(results(lambda *w: perceptron(*w, half=True), x.detach(), *weights), expected(), 0.01)


@pytest.mark.parametrize("half", halves)
def test_neither_threads_nor_the_rest_of_the_batch_change_a_bit_of_a_result(half):
    torch.manual_seed(0)
    x, first, second = torch.randn(700, 6, 40), torch.randn(48, 40), torch.randn(33, 48)

    def run(x):
        return results(lambda x, a, b: perceptron(x, a, None, b, None, half=half), x.detach(), first, second)

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = run(x)
        torch.set_num_threads(3)
        together = run(x)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    assert torch.equal(run(x[:, 2:4].contiguous())[0], alone[0][:, 2:4])


@pytest.mark.parametrize("half", halves)
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("poles", [False, True])
def test_a_stencil_gives_the_convolution_of_the_padded_map(size, poles, half):
    torch.manual_seed(0)
    transform = SphericalTransform(15, 28, "equiangular", poles)
    net = StencilMLP(transform, (7, 18, 5), size, "bfloat16" if half else "float32")
    x = torch.randn(15 * 28, 3, 7)

    def both(x, *weights):
        return net(x)

    found = results(both, x, *net.parameters())
    with library.set_aside():
        net.precision = net.last.precision = "float32"
        expected = results(both, x.detach(), *net.parameters())
    near(found, expected, 0.02 if half else 2e-6)


@pytest.mark.parametrize("size", [3, 7])
@pytest.mark.parametrize("poles", [False, True])
def test_who_takes_a_cell_in_is_whom_it_takes_in_the_other_way(size, poles):
    table = neighbours(SphericalTransform(9, 18, "equiangular", poles), size)
    ahead = {(tap, int(taken), by) for tap, row in enumerate(table.source) for by, taken in enumerate(row)}
    back = [(tap, taken, int(by)) for tap, row in enumerate(table.back) for taken, by in enumerate(row) if by >= 0]
    for taps, targets, sources in table.more:
        back += [
            (tap, int(taken), int(by))
            for tap, row in zip(taps, sources, strict=True)
            for taken, by in zip(targets, row, strict=True)
        ]
    assert len(back) == len(set(back)) and set(back) == ahead


@pytest.mark.parametrize("outputs", [16, 5])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("hidden", [0, 20])
def test_a_residual_is_added(hidden, bias, outputs):
    torch.manual_seed(0)
    x, residual = torch.randn(70, 2, 9), torch.randn(70, 2, outputs)
    weights = [torch.randn(20, 9), torch.randn(20), torch.randn(outputs, 20)] if hidden else [torch.randn(outputs, 9)]
    weights += [torch.randn(outputs) if bias else None]

    def ours(x, residual, *weights):
        return perceptron(x, *weights, residual=residual)

    def theirs(x, residual, *weights):
        return residual + layers(x, *weights)

    doubles = (None if w is None else w.double() for w in (x, residual, *weights))
    near(results(ours, x, residual, *weights), results(theirs, *doubles), 1e-6)


def test_a_number_that_is_none_stays_in_its_row():
    x, weight = torch.randn(100, 1, 32), torch.randn(16, 32)
    x[17, 0, 3] = torch.nan
    for half in (False, True) if serves(x, x, True) else (False,):
        lost = perceptron(x, weight, None, torch.randn(8, 16), half=half).isnan()
        assert lost[17].all() and lost.sum() == 8


def test_weights_that_are_none_are_seen_in_half_precision_too():
    if serves(one, one, True):
        weight = torch.full((16, 32), torch.nan)
        assert perceptron(torch.randn(3, 32), weight, None, half=True).isnan().all()


def test_autocast_asks_for_products_of_bfloat16():
    mlp, x = MLP((32, 48, 16)), torch.randn(50, 1, 32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = mlp(x)
    outside = mlp(x)
    assert 1e-4 < (inside - outside).norm() / outside.norm() < 0.02


@pytest.mark.parametrize("net", [MLP((16, 32, 16)), Linear(16, 20)], ids=["two", "one"])
def test_of_no_rows_gradients_are_zero_and_they_lie_as_weights_do(net):
    for rows in (0, 3):
        found = torch.autograd.grad(net(torch.ones(rows, 2, 16)).sum(), [*net.parameters()])
        assert all(gradient.is_contiguous() and gradient.any() == (rows > 0) for gradient in found)


def test_weights_of_another_type_are_left_to_torch():
    mlp, x = MLP((32, 48, 16)).bfloat16(), torch.randn(50, 1, 32)
    with pytest.raises(RuntimeError, match="dtype"):
        mlp(x)


def test_an_mlp_is_the_same_with_and_without_the_library():
    mlp, x = MLP((9, 20, 4)), torch.randn(2, 50, 9)
    found = mlp(x)
    with library.set_aside():
        torch.testing.assert_close(found, mlp(x), rtol=0, atol=1e-5)


def test_a_layer_of_half_precision_hands_on_half_precision():
    """The graph network's second layers take the type of what they are given."""
    layer, x = Linear(32, 48, precision="bfloat16"), torch.randn(50, 1, 32)
    found = layer(x)
    with library.set_aside():
        assert found.dtype == layer(x).dtype == torch.bfloat16
