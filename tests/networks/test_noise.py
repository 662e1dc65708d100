"""Networks that are conditioned on noise: untrained they are the networks without it, trained they use it where it is."""

import pytest
import torch
from tiny_networks import TINY

from emulator.networks import registry
from emulator.networks.conditions import NoiseModulation, NoiseOptions
from emulator.networks.sfno import SFNO, SFNOOptions
from emulator.planet.grid import Grid

GRID = Grid.gaussian(12)
NOISE = NoiseOptions(channels=2)
CONFIGS = {name: config for name, config in TINY.items() if name != "torch_harmonics"} | {
    "coarse sfno": TINY["sfno"] | dict(blocks=3, scale_factor=1.5),
    # rows of a batch meet in batch norm
    "samudra": TINY["samudra"] | dict(norm="whole"),
    "attention_unet": TINY["attention_unet"] | dict(norm="whole"),
    "vector_cnn": TINY["vector_cnn"] | dict(scale_factor=1.5),
}


def made(config, noise=NOISE, seed=0, **more):
    torch.manual_seed(seed)
    return registry.build({**config, "noise": noise, **more}, 3, 2, GRID)


def awake(network):
    """With weights that a training could have left."""
    for module in network.modules():
        if isinstance(module, NoiseModulation):
            torch.nn.init.normal_(module.weight, std=0.3)
    return network


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_an_untrained_conditioning_leaves_the_network_as_it_was_bit_for_bit(config):
    plain, stochastic = made(config, None), made(config)
    own, others = dict(stochastic.named_parameters()), dict(plain.named_parameters())
    new = {name: p for name, p in own.items() if name not in others}
    assert new and all("noise" in name and not p.any() for name, p in new.items())
    assert all(torch.equal(own[name], p) for name, p in others.items())
    torch.manual_seed(1)
    x, noise = torch.randn(2, 3, *GRID.shape), torch.randn(2, NOISE.count, *GRID.shape)
    assert torch.equal(stochastic(x, noise=noise), plain(x))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_members_differ_by_their_noise_alone_and_rows_do_not_meet(config):
    network = awake(made(config))
    torch.manual_seed(1)
    x = torch.randn(1, 3, *GRID.shape).expand(3, -1, -1, -1)
    noise = torch.randn(2, NOISE.count, *GRID.shape)[[0, 1, 0]]
    y = network(x, noise=noise)
    assert (y[0] - y[1]).abs().max() > 1e-2
    torch.testing.assert_close(y[0], y[2])
    torch.testing.assert_close(network(x[:1], noise=noise[1:2])[0], y[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_gradients_reach_the_conditioning_from_its_start(config):
    network = made(config)
    torch.manual_seed(1)
    noise = torch.randn(2, NOISE.count, *GRID.shape)
    network(torch.randn(2, 3, *GRID.shape), noise=noise).square().mean().backward()
    for module in network.modules():
        if isinstance(module, NoiseModulation):
            assert module.weight.grad.abs().max() > 0


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_other_noise_is_refused(config):
    x = torch.randn(2, 3, *GRID.shape)
    with pytest.raises(ValueError, match=r"noise of shape \(2, 4, 12, 24\), got None"):
        made(config)(x)
    with pytest.raises(ValueError, match=r"noise of shape \(2, 4, 12, 24\), got \(1, 4, 12, 24\)"):
        made(config)(x, noise=torch.zeros(1, 4, *GRID.shape))
    with pytest.raises(ValueError, match=r"noise of shape None, got \(2, 4, 12, 24\)"):
        made(config, None)(x, noise=torch.zeros(2, 4, *GRID.shape))


def test_the_conditioning_is_pointwise():
    """In a network of one block noise comes in after the filter, so that a cell's noise changes this cell alone."""
    network = awake(made(dict(kind="sfno", embed_dim=8, blocks=1)))
    torch.manual_seed(1)
    x, noise = torch.randn(1, 3, *GRID.shape), torch.randn(1, NOISE.count, *GRID.shape)
    changed = noise.clone()
    changed[:, :, 4, 7] += 1
    difference = (network(x, noise=changed) - network(x, noise=noise)).abs().amax((0, 1))
    assert difference[4, 7] > 1e-3
    difference[4, 7] = 0
    assert difference.max() < 1e-6


@pytest.mark.parametrize("name", ["sfno", "coarse sfno"])
def test_a_turn_about_the_axis_of_input_and_noise_turns_the_output(name):
    network = awake(made(CONFIGS[name]))
    torch.manual_seed(1)
    x, noise = torch.randn(1, 3, *GRID.shape), torch.randn(1, NOISE.count, *GRID.shape)
    turned = network(x.roll(3, -1), noise=noise.roll(3, -1))
    torch.testing.assert_close(turned, network(x, noise=noise).roll(3, -1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_blocks_that_are_computed_again_give_the_same_gradient(name):
    torch.manual_seed(1)
    x, noise = torch.randn(2, 3, *GRID.shape), torch.randn(2, NOISE.count, *GRID.shape)
    gradients = []
    for again in (False, True):
        network = awake(made(CONFIGS[name], checkpointing=again, seed=3))
        network(x, noise=noise).square().sum().backward()
        gradients.append([p.grad for p in network.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["graph", "unet", "fuxi", "wxformer"])
def test_an_untrained_condition_changes_no_bit_and_a_trained_one_tells_samples_apart(name):
    config, names = CONFIGS[name], ("time_of_year", "co2")
    plain, conditioned = made(config, None), made(config, None, condition=names)
    new = set(conditioned.state_dict()) - set(plain.state_dict())
    assert new and all("condition" in key for key in new) and set(plain.state_dict()) < set(conditioned.state_dict())
    torch.manual_seed(1)
    x = torch.randn(1, 3, *GRID.shape).expand(3, -1, -1, -1)
    condition = torch.randn(2, 3)[[0, 1, 0]]
    assert torch.equal(conditioned(x, condition=condition), plain(x))
    conditioned(x, condition=condition).square().mean().backward()
    assert all(p.grad.abs().max() > 0 for key, p in conditioned.named_parameters() if key in new)
    y = awake(conditioned)(x, condition=condition)
    assert (y[0] - y[1]).abs().max() > 1e-2
    torch.testing.assert_close(y[0], y[2])
    with pytest.raises(ValueError, match=r"condition of shape \(3, 3\), got None"):
        conditioned(x)
    with pytest.raises(ValueError, match=r"condition of shape None, got \(3, 3\)"):
        plain(x, condition=condition)


def test_scalars_and_noise_go_together():
    torch.manual_seed(0)
    options = SFNOOptions(embed_dim=8, blocks=2, condition=("co2",), noise=NoiseOptions((500.0,), 2))
    network = awake(SFNO(3, 2, 12, 24, options=options))
    for block in network.blocks:
        torch.nn.init.normal_(block.norm.modulation.weight)
    x, noise = torch.randn(1, 3, 12, 24), torch.randn(1, 2, 12, 24)
    found = [network(x, torch.full((1, 1), value), noise) for value in (0.0, 1.0)]
    assert (found[0] - found[1]).abs().max() > 1e-2
