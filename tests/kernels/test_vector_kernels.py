"""Kernels of layers of vectors beside scalars, and their gradients, against torch's, which others hold to physics."""

import pytest
import torch

from emulator.kernels import library
from emulator.networks.spectral import mix, mix_backward
from emulator.networks.vectors import SpectralNorm, along, gated, joined, lengths, parted
from emulator.sphere.transform import SphericalTransform

pytestmark = pytest.mark.skipif(library.LIBRARY is None, reason="no compiled kernels")
VECTORS = [1, 3, 16, 24, 37]  # fewer than a register's, whole registers, and some more


def agree(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6 * float(theirs.abs().max()))


def results(function, *given):
    """What it makes with gradients and without, and the gradients of all that it is given."""
    given = [tensor.clone().requires_grad_() for tensor in given]
    made = function(*given)
    made = made if isinstance(made, tuple) else (made,)
    weights = [torch.randn(y.shape, generator=torch.Generator().manual_seed(n)) for n, y in enumerate(made)]
    gradients = torch.autograd.grad(made, given, weights)
    with torch.no_grad():
        alone = function(*given)
    return [*made, *gradients, *(alone if isinstance(alone, tuple) else (alone,))]


def compared(function, *given):
    found = results(function, *given)
    with library.set_aside():
        expected = results(function, *given)
    agree(found, expected)


@pytest.mark.parametrize("vectors", VECTORS)
def test_inner_products_and_gates(vectors):
    torch.manual_seed(vectors)
    x, other = torch.randn(2, 300, 2, 2 * vectors) * torch.logspace(-3, 3, 300)[:, None, None]
    compared(along, x, other)
    compared(lengths, x)
    made = 8 * torch.randn(300, 2, 5 + vectors)
    compared(gated, torch.randn(300, 2, 5), x, made, other)


def test_gates_of_numbers_beyond_the_exponential():
    made = torch.tensor([[-1e4, -100.0, -87.0, 0.0, 87.0, 100.0, 1e4]])[:, None]
    with torch.no_grad():
        _, w = gated(torch.empty(1, 1, 0), torch.zeros(1, 1, 14), made, torch.ones(1, 1, 14))
    expected = 2 * torch.sigmoid(made.double())[0, 0]
    torch.testing.assert_close(w[0, 0, :7].double(), expected, rtol=1e-6, atol=1e-36)


@pytest.mark.parametrize("vectors", VECTORS)
def test_the_norm_of_coefficients(vectors):
    torch.manual_seed(vectors)
    norm = SpectralNorm(SphericalTransform(24, 48).plan, 5, vectors)
    torch.nn.init.normal_(norm.weight)
    rows = len(norm.shares)
    given = torch.randn(rows, 3, 5), 1e3 * torch.randn(rows, 3, 2 * vectors)
    compared(norm, *given)

    def of_weights():
        loss = (norm(*given) * torch.arange(rows)[:, None, None].remainder(7)).sum()
        return torch.autograd.grad(loss, norm.weight)

    found = of_weights()
    with library.set_aside():
        agree(found, of_weights())


def test_the_norm_with_a_condition():
    norm = SpectralNorm(SphericalTransform(12, 24).plan, 3, 2, condition_dim=1)
    torch.nn.init.normal_(norm.modulation.weight)
    rows = len(norm.shares)
    compared(norm, torch.randn(rows, 2, 3), torch.randn(rows, 2, 4), torch.tensor([[0.3], [-2.0]]))


@pytest.mark.parametrize("width", [16, 80])
def test_real_weights_mix_as_the_products_do(width):
    transform = SphericalTransform(33, 64)
    plan, below = list(transform.plan), torch.arange(transform.lmax)[:, None] >= torch.arange(transform.lmax)
    made = torch.randn(2, transform.lmax, transform.lmax, 2, 3, width) * below[..., None, None, None]
    c, g = (transform.pack(part) for part in made)
    weight = torch.randn(transform.lmax, width, width)

    def both():
        return mix(c, weight, plan, False), *mix_backward(g, c, weight, plan, False)

    found = both()
    with library.set_aside():
        agree(found, both())


@torch.no_grad()
def test_pieces_are_joined_and_parted():
    x, maps = torch.randn(40, 3, 11), torch.randn(3, 7, 4, 5)
    assert torch.equal(joined([x[..., 4:], x[..., :0], x[..., :4]], 2), torch.cat([x[..., 4:], x[..., :4]], 2))
    assert torch.equal(joined([maps[:, 5:], maps[:, 1:3]], 1), torch.cat([maps[:, 5:], maps[:, 1:3]], 1))
    one = x[:, :1]  # a batch of one, whose rows lie apart
    assert torch.equal(joined([one[..., 2:], one[..., :2]], 2), torch.cat([one[..., 2:], one[..., :2]], 2))
    first, rest = parted(x, 4)
    assert torch.equal(first, x[..., :4]) and torch.equal(rest, x[..., 4:])
    assert first.is_contiguous() and rest.is_contiguous()


def test_bits_do_not_depend_on_the_number_of_threads():
    norm = SpectralNorm(SphericalTransform(32, 64).plan, 8, 6)
    rows, before, found = len(norm.shares), torch.get_num_threads(), []
    a, b = torch.randn(rows, 2, 8), torch.randn(rows, 2, 12)
    (w, turned), s, made = torch.randn(2, 900, 2, 12), torch.randn(900, 2, 8), torch.randn(900, 2, 14)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append([*results(norm, a, b), *results(gated, s, w, made, turned), *results(along, w, turned)])
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(others, found[0], strict=True))


@torch.no_grad()
def test_maps_that_do_not_lie_in_one_piece_are_joined_too():
    maps = torch.randn(3, 4, 5, 7)
    turned = maps.permute(0, 3, 1, 2), maps.transpose(2, 3), torch.randn(1, 7, 4, 5).expand(3, -1, -1, -1)
    for x in turned:
        assert torch.equal(joined([x[:, 2:], x[:, :1]], 1), torch.cat([x[:, 2:], x[:, :1]], 1))
    rows = torch.randn(6, 8, 11)[::2, ::4]
    assert torch.equal(parted(rows, 4)[1], rows[..., 4:])
