"""The compiled kernels of the spherical transform against torch's products, which the other tests hold to an oracle."""

import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.kernels import compiled, library
from emulator.kernels import transform as native
from emulator.kernels.layers import gelu_backward
from emulator.networks.norms import InstanceNorm
from emulator.networks.spectral import SpectralFilter, mix, mix_backward
from emulator.sphere.transform import SphericalTransform, VectorTransform

pytestmark = pytest.mark.skipif(
    library.LIBRARY is None and shutil.which("cc") is None, reason="no C compiler: the kernels were not made"
)


def test_kernels_are_there_where_a_compiler_is():
    assert library.LIBRARY is not None


def test_both_sides_count_with_the_same_numbers():
    assert compiled.exported(compiled.LIBRARY) == compiled.Layout.numbers()


def test_a_library_that_counts_otherwise_stays_unused(monkeypatch):
    """As one that was compiled before a place among the sums moved."""
    monkeypatch.setattr(compiled.Layout, "MEASURED", compiled.Layout.MEASURED + 1)
    with pytest.warns(RuntimeWarning, match="install the package again"):
        assert compiled._load() is None


def test_a_library_of_another_version_is_refused_before_it_reads_anything():
    other = library.task("gelu", "x gradient to more", "", "count")
    with pytest.raises(RuntimeError, match="install the package again"):
        library.call("emulator_gelu_backward", other())
    with pytest.raises(RuntimeError, match="install the package again"):
        library.call("emulator_to_come", other())


@pytest.fixture
def without(monkeypatch):
    """Calls a function as if nothing had been compiled."""

    def call(function, *arguments):
        with monkeypatch.context() as patched:
            patched.setattr(library, "LIBRARY", None)
            return function(*arguments)

    return call


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


sizes = st.tuples(
    st.integers(3, 40),
    st.sampled_from([4, 6, 8, 9, 10, 12, 15, 16, 20, 24, 25, 30, 32, 36, 45, 48, 64, 72, 128, 192, 200, 240]),
    st.integers(1, 40),
    st.floats(0, 1),
)


@settings(max_examples=60, deadline=None)
@given(sizes)
def test_every_size_agrees_with_the_products_both_ways(size):
    nlat, nlon, channels, share = size
    lmax = 1 + int(share * (min(nlat, nlon // 2 + 1) - 1))
    transform = SphericalTransform(nlat, nlon, "gaussian", lmax=lmax)
    field = torch.randn(nlat, nlon, channels, generator=torch.Generator().manual_seed(nlat * nlon))
    found = [transform.analysis(field), transform.analyse(transform.arrange(field))]
    found += [transform.synthesis(found[0]), transform.synthesise(found[1])]
    with library.set_aside():
        expected = [transform.analysis(field), transform.analyse(transform.arrange(field))]
        expected += [transform.synthesis(expected[0]), transform.synthesise(expected[1])]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert relative(ours, theirs) < 3e-6


def test_winds_agree_with_the_products(without):
    transform = VectorTransform(33, 64, "equiangular", poles=True)
    u, v = torch.randn(2, 33, 64, 5)
    for ours, theirs in zip(transform.analysis(u, v), without(transform.analysis, u, v), strict=True):
        assert relative(ours, theirs) < 2e-6
    parts = transform.analysis(u, v)
    for ours, theirs in zip(transform.synthesis(*parts), without(transform.synthesis, *parts), strict=True):
        assert relative(ours, theirs) < 2e-6


def test_gradients_are_the_products(without):
    transform = SphericalTransform(20, 40, "gaussian")
    field = torch.randn(20, 40, 3, requires_grad=True)
    weights = torch.randn(20, 40, 3)

    def gradient():
        loss = (transform.synthesis(transform.analysis(field) * 0.7) * weights).sum()
        return torch.autograd.grad(loss, field)[0]

    assert relative(gradient(), without(gradient)) < 2e-6


@pytest.mark.parametrize("channels", [1, 16, 50])
def test_bits_do_not_depend_on_the_number_of_threads(channels):
    transform = SphericalTransform(45, 90, "gaussian")
    field = torch.randn(45, 90, channels)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            coefficients = transform.analysis(field)
            results.append((coefficients, transform.synthesis(coefficients)))
    finally:
        torch.set_num_threads(before)
    for coefficients, back in results[1:]:
        assert torch.equal(coefficients, results[0][0])
        assert torch.equal(back, results[0][1])


def test_channels_do_not_depend_on_their_neighbours():
    transform = SphericalTransform(24, 48, "gaussian")
    field = torch.randn(24, 48, 37)
    together = transform.analysis(field)
    for channel in (0, 15, 16, 36):
        alone = transform.analysis(field[..., channel : channel + 1].contiguous())
        assert relative(together[..., channel : channel + 1], alone) < 1e-6


def test_factors_are_those_of_the_length():
    for length in range(1, 400):
        found = native.factors(length)
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        assert (found is None) == (rest > 1)
        assert found is None or torch.tensor(found).prod() == length


def test_lengths_that_the_kernels_do_not_know_and_other_types_are_left_to_torch():
    assert not native.serves(torch.zeros(1), 14)
    assert not native.serves(torch.zeros(1, dtype=torch.float64), 16)
    assert not native.serves(torch.zeros(1, device="meta"), 16)
    transform = SphericalTransform(8, 14, "gaussian", lmax=6)
    smooth = transform.synthesis(transform.analysis(torch.randn(8, 14, 2)))
    assert relative(transform.synthesis(transform.analysis(smooth)), smooth) < 2e-6


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 50), st.integers(1, 3), st.integers(1, 40))
def test_mixing_and_its_gradients_are_the_products(lmax, batch, channels):
    plan = SphericalTransform(lmax, 2 * lmax, "gaussian", lmax=lmax).plan
    transform = SphericalTransform(lmax, 2 * lmax, "gaussian", lmax=lmax)
    torch.manual_seed(lmax)
    mixing = SpectralFilter(plan, channels)
    field = torch.randn(lmax, 2 * lmax, batch, channels)
    weights = transform.arrange(torch.randn(field.shape))

    def results():
        at = transform.arrange(field).requires_grad_()
        filtered = transform.synthesise(mixing(transform.analyse(at)))
        return filtered.detach(), *torch.autograd.grad((filtered * weights).sum(), (at, mixing.weight))

    found = results()
    with library.set_aside():
        expected = results()
    for ours, theirs in zip(found, expected, strict=True):
        assert relative(ours, theirs) < 5e-6


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(1, 3), st.integers(1, 70), st.integers(1, 70))
def test_mixing_into_another_number_of_channels_is_that_of_float64(lmax, batch, inputs, outputs):
    transform = SphericalTransform(lmax, 2 * lmax, "gaussian", lmax=lmax)
    plan = list(transform.plan)
    torch.manual_seed(lmax)
    c, g = (
        transform.analyse(transform.arrange(torch.randn(lmax, 2 * lmax, batch, channels)))
        for channels in (inputs, outputs)
    )
    weight = torch.randn(lmax, inputs, 2, outputs)
    found = mix(c, weight, plan, False), *mix_backward(g, c, weight, plan, False)
    c, g, weight = c.double(), g.double(), weight.double()
    expected = mix(c, weight, plan, False), *mix_backward(g, c, weight, plan, False)
    for ours, theirs in zip(found, expected, strict=True):
        assert relative(ours, theirs) < 1e-6


@pytest.mark.skipif(library.LIBRARY is None or not library.knows_half(), reason="no products of bfloat16")
@pytest.mark.parametrize(("lmax", "batch", "channels"), [(5, 1, 16), (33, 2, 48), (50, 3, 64)])
def test_mixing_in_half_precision_differs_by_its_rounding(lmax, batch, channels):
    transform = SphericalTransform(lmax, 2 * lmax, "gaussian", lmax=lmax)
    torch.manual_seed(lmax)
    mixing = SpectralFilter(transform.plan, channels)
    coefficients = transform.analyse(transform.arrange(torch.randn(lmax, 2 * lmax, batch, channels)))
    direction = transform.analyse(transform.arrange(torch.randn(lmax, 2 * lmax, batch, channels)))
    outcomes = []
    for mixing.half in (False, True):
        at = coefficients.clone().requires_grad_()
        mixed = mixing(at)
        outcomes.append((mixed, *torch.autograd.grad(mixed, (at, mixing.weight), direction)))
    for full, half in zip(*outcomes, strict=True):
        assert 1e-4 < (half - full).norm() / full.norm() < 4e-3  # each number is rounded to 2^-9 of itself


def test_gradient_of_gelu_is_that_of_the_error_function():
    x = torch.cat([torch.linspace(-14, 14, 20001), torch.tensor([0.0, -0.0, 1e-30, -1e-30, 90.0, -90.0, 1e4, -1e4])])
    exact = x.double().requires_grad_()
    torch.nn.functional.gelu(exact).sum().backward()
    found = gelu_backward(torch.full_like(x, 2.0), x)
    assert float((found - 2 * exact.grad).abs().max()) < 1e-6


@pytest.mark.parametrize("columns", [1, 16, 70])
def test_gradient_of_the_instance_norm_is_torchs(columns):
    torch.manual_seed(columns)
    x = (torch.randn(1003, columns) * 3 + 5).requires_grad_()
    scale, shift, g = (
        torch.randn(columns).requires_grad_(),
        torch.randn(columns).requires_grad_(),
        torch.randn(1003, columns),
    )
    found = torch.autograd.grad(InstanceNorm.apply(x, scale, shift, 1e-6), (x, scale, shift), g)
    exact = [tensor.detach().double().requires_grad_() for tensor in (x, scale, shift)]
    expected = torch.autograd.grad(InstanceNorm.apply(*exact, 1e-6), exact, g.double())
    for ours, theirs in zip(found, expected, strict=True):
        assert relative(ours, theirs) < 1e-5
