"""Objectives and samplers on Gaussian data, for which the best network, the loss and the samples have closed forms."""

import itertools
import math

import pytest
import torch
from torch.testing import assert_close

from emulator.generative.objectives import EDM, FlowMatching, Interpolant, objective, spread_over

MEAN, STD = 0.3, 0.7
ALL = [
    FlowMatching(),
    FlowMatching(levels="logit_normal"),
    Interpolant(noise_level=0.8),
    EDM(data_std=STD),
    EDM(data_std=1.0),
    EDM(data_std=STD, path="angle"),
    EDM(data_std=1.0, path="angle"),
]


def best(kind):
    """The network of least loss for targets of independent values with MEAN and STD."""
    variance = STD**2

    def flow(x, time, condition):
        t = spread_over(time, x)
        return MEAN + (t * variance - (1 - t)) / (t**2 * variance + (1 - t) ** 2) * (x - t * MEAN)

    def interpolant(x, time, condition):
        s, noise = spread_over(time, x), kind.noise_level**2
        slope = (variance - noise * (1 - s)) / (s * variance + noise * (1 - s) ** 2)
        return MEAN + slope * (x - s * MEAN)

    def edm(x, time, condition):
        sigma, data = spread_over(torch.exp(4 * time), x), kind.data_std
        total = torch.sqrt(sigma**2 + data**2)
        noisy = x * total
        denoised = (sigma**2 * MEAN + variance * noisy) / (sigma**2 + variance)
        return (denoised - (data / total) ** 2 * noisy) * total / (sigma * data)

    return {"flow_matching": flow, "interpolant": interpolant, "edm": edm}[kind.kind]


def moments(kind, steps):
    """Mean and standard deviation of all samples, exactly: with the best network a sample is linear in its noise."""
    draws = kind.draws(steps)
    noise = torch.zeros(draws, draws + 1, 1, 1, dtype=torch.float64)
    noise[range(draws), range(1, draws + 1)] = 1.0
    sample = kind.integrate(best(kind), noise, None, steps).flatten()
    return float(sample[0]), float((sample[1:] - sample[0]).square().sum().sqrt())


@pytest.mark.parametrize("kind", ALL, ids=str)
def test_samplers_end_at_the_mean_and_the_spread_of_the_data(kind):
    expected = MEAN, STD
    if kind.kind == "edm":  # which begins with noise that has not quite forgotten the data
        whole = math.hypot(STD, kind.largest)
        begun = kind.largest if kind.path == "size" else math.hypot(kind.data_std, kind.largest)
        expected = MEAN * (1 - STD / whole), STD * begun / whole
    assert moments(kind, 400) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("kind", [FlowMatching, Interpolant, EDM, "along the angle"])
def test_samplers_converge_in_the_order_that_they_claim(kind, order):
    options = {"smallest": 0.05, "largest": 5.0, "rho": 1.0} if kind is EDM else {}
    if kind == "along the angle":
        kind, options = EDM, {"path": "angle", "smallest": 1e-6}
    exact = moments(kind(order=2, **options), 4096)
    errors = [math.dist(moments(kind(order=order, **options), steps), exact) for steps in (64, 128, 256)]
    found = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert found == pytest.approx([order] * 2, abs=0.25)


@pytest.mark.parametrize("kind", ALL, ids=str)
def test_the_loss_is_least_at_the_best_network(kind):
    generator = torch.Generator().manual_seed(3)
    target = MEAN + STD * torch.randn(4000, 1, 4, 4, generator=generator, dtype=torch.float64)
    level, noise = torch.rand(4000, generator=generator), torch.randn(target.shape, generator=generator).double()

    def loss(network):
        return float(kind.error(network, target, None, level, noise).mean())

    exact = best(kind)
    least = loss(exact)
    for a, b in ((0.05, 0.0), (-0.05, 0.0), (0.0, 0.05), (0.0, -0.05)):
        changed = loss(lambda x, t, c, a=a, b=b: exact(x, t, c) * (1 + a) + b)
        assert changed > least
    # a parabola about the least value: what a constant adds is its square, times EDM's weight, which is 1 in its units
    assert loss(lambda x, t, c: exact(x, t, c) + 0.5) - least == pytest.approx(0.25, abs=0.02)


def test_the_loss_of_diffusion_at_the_best_network_is_known():
    """Its weight makes the target of the network one of unit variance, of which noise of any size leaves the same share."""
    kind = EDM(data_std=STD)
    generator = torch.Generator().manual_seed(1)
    target = MEAN + STD * torch.randn(2000, 1, 8, 8, generator=generator, dtype=torch.float64)
    assert float(kind.loss(best(kind), target, None, generator).mean()) == pytest.approx(1.0, rel=0.02)


def test_along_the_angle_a_gaussian_keeps_its_spread_in_a_single_step():
    """By the noise's size eight steps of second order make its variance a third too large, whatever the network."""
    noise = torch.randn(1, 2, 3, 4, 5, generator=torch.Generator().manual_seed(4))

    def nothing(x, time, condition):
        return torch.zeros_like(x)

    for order in (1, 2):
        kind = EDM(data_std=STD, order=order, path="angle")
        assert_close(kind.integrate(nothing, noise, None, 1), STD * noise[0])
    by_size = EDM(largest=20.0).integrate(nothing, noise, None, 8) / noise[0]
    assert_close(by_size, torch.full_like(by_size, math.sqrt(1.368)), rtol=1e-3, atol=0)


def test_both_paths_of_diffusion_lead_to_the_same_sample():
    """Of targets that are -1 or 1: the best denoiser is tanh(x / sigma^2), and samples end at either."""
    noise = torch.linspace(-2, 2, 40, dtype=torch.float64).view(1, 40, 1, 1)

    def best_of_two(x, time, condition):
        sigma = spread_over(torch.exp(4 * time), x)
        total = torch.sqrt(sigma**2 + 1)
        noisy = x * total
        return (torch.tanh(noisy / sigma**2) - noisy / total**2) * total / sigma

    made = [EDM(path=path).integrate(best_of_two, noise, None, 2000) for path in ("size", "angle")]
    assert_close(made[1], made[0], rtol=0, atol=5e-3)
    assert_close(made[1].abs(), torch.ones_like(made[1]), rtol=0, atol=5e-3)


@pytest.mark.parametrize("kind", ALL, ids=str)
def test_from_a_start_the_difference_is_learned_and_sampled(kind):
    start = torch.full((3, 2, 4, 5), 7.0)
    target = start + torch.randn(start.shape, generator=torch.Generator().manual_seed(0))
    near = kind.loss(best(kind), target, None, torch.Generator().manual_seed(1), start=start)
    assert_close(near, kind.loss(best(kind), target - start, None, torch.Generator().manual_seed(1)), rtol=1e-4, atol=0)
    sample = kind.sample(best(kind), start.shape, None, torch.Generator().manual_seed(2), 4, start=start)
    plain = kind.sample(best(kind), start.shape, None, torch.Generator().manual_seed(2), 4)
    assert_close(sample, start + plain)


def test_weights_of_mean_one_leave_a_uniform_error_as_it_is():
    weights = torch.tensor([0.5, 1.5]).view(2, 1, 1)
    target = torch.zeros(1, 2, 3, 3)
    noise = torch.ones_like(target)
    level = torch.full((1,), 0.5)
    loss = FlowMatching().error(lambda x, t, c: torch.zeros_like(x), target, None, level, noise, weights=weights)
    assert_close(loss, torch.ones(1))
    far = FlowMatching().error(
        lambda x, t, c: torch.stack([0 * x[:, 0], -x[:, 1] * 2], 1), target, None, level, noise, weights=weights
    )
    assert_close(far, torch.full((1,), 0.25))  # only the first channel is wrong


def test_what_cannot_be_sampled_is_refused():
    with pytest.raises(ValueError, match="Expected 3 fields of noise for 3 steps, got 1"):
        Interpolant().integrate(best(Interpolant()), torch.zeros(1, 1, 1, 1, 1), None, 3)
    with pytest.raises(ValueError, match="Expected a generative objective among edm, flow_matching, interpolant"):
        objective({"kind": "gan"})
    assert objective({"kind": "edm", "steps": 3}) == EDM(steps=3)
