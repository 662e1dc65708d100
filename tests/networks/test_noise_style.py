"""Numbers that make all the noise of a step stronger or weaker."""

import pytest
import torch
from tiny_networks import TINY

from emulator.model.noise import NetworkNoise
from emulator.networks import registry
from emulator.networks.conditions import NoiseModulation, NoiseOptions, NoiseStyle
from emulator.planet.grid import Grid

GRID = Grid.gaussian(12)
NOISE = NoiseOptions(channels=2, style=3)


def made(kind):
    torch.manual_seed(0)
    return registry.build({**TINY[kind], "noise": NOISE}, 3, 2, GRID)


def test_a_style_multiplies_fields_by_the_exponential_of_its_numbers():
    style = NoiseStyle(NOISE)
    drawn = torch.randn(2, 7, *GRID.shape)
    drawn[:, 4:] = torch.tensor([[0.5, -1.0, 0.0], [0.0, 2.0, 1.0]])[:, :, None, None]
    assert torch.equal(style(drawn), drawn[:, :4])
    with torch.no_grad():
        style.weight[1, 1] = 0.3
    expected = drawn[:, :4].clone()
    expected[0, 1] *= torch.exp(torch.tensor(-0.3))
    expected[1, 1] *= torch.exp(torch.tensor(0.6))
    torch.testing.assert_close(style(drawn), expected)


@pytest.mark.parametrize("kind", ["sfno", "graph", "unet"])
def test_networks_learn_it_and_are_given_fields_and_numbers(kind):
    network = made(kind)
    for module in network.modules():
        if isinstance(module, NoiseModulation):
            torch.nn.init.normal_(module.weight, std=0.3)
    x, noise = torch.randn(2, 3, *GRID.shape), torch.randn(2, NOISE.count, *GRID.shape)
    network(x, noise=noise).square().mean().backward()
    assert network.noise_style.weight.grad.abs().max() > 0
    with pytest.raises(ValueError, match=r"noise of shape \(2, 7, 12, 24\), got \(2, 4, 12, 24\)"):
        network(x, noise=noise[:, :4])


def test_numbers_are_the_same_everywhere_and_of_unit_variance_and_the_fields_are_as_without():
    with_style, without = (NetworkNoise(GRID, [2000.0, 500.0], 2, 0.0, style=n) for n in (3, 0))
    drawn = with_style.rows((1, n) for n in range(1, 400))
    torch.testing.assert_close(drawn[:5, :4], without.rows((1, n) for n in range(1, 6)))
    numbers = drawn[:, 4:]
    torch.testing.assert_close(numbers, numbers[..., :1, :1].expand_as(numbers), rtol=1e-4, atol=1e-5)
    assert abs(float(numbers[..., 0, 0].var()) - 1) < 0.15
    louder = with_style.rows([(1, 1)], 2.0)
    torch.testing.assert_close(louder[:, :4], 2 * drawn[:1, :4])
    assert torch.equal(louder[:, 4:], drawn[:1, 4:])
