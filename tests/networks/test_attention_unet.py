"""The attention U-Net: around the sphere, gates between 0 and 1, and the size of the published one."""

import map_networks as shared
import pytest
import torch
from map_networks import fields, made

from emulator.networks.attention_unet import AttentionUNet, AttentionUNetOptions
from emulator.networks.registry import NetworkError, build
from emulator.planet.grid import Grid

SMALL = dict(kind="attention_unet", width=8, depth=2)


def test_parameters_are_those_of_the_published_network():
    """64 to 1024 channels; by formula, 3 x 3 convolutions with biases and two numbers a channel of every norm."""

    def convolution(a, b):
        return 9 * a * b + b + 2 * b

    def gate(c):
        return 2 * convolution(c, c // 2) + convolution(c // 2, 1)

    inputs, outputs, widths = 3 * 122 + 3, 2 * 122, [64, 128, 256, 512, 1024]
    down = sum(convolution(a, b) + convolution(b, b) for a, b in zip([inputs, *widths], widths, strict=False))
    pairs = list(zip(widths, widths[1:], strict=False))
    up = sum(convolution(b, a) + gate(a) + convolution(2 * a, a) + convolution(a, a) for a, b in pairs)
    with torch.device("meta"):
        network = AttentionUNet(inputs, outputs, 64, 128, options=AttentionUNetOptions(width=64, depth=4))
    assert sum(p.numel() for p in network.parameters()) == down + up + 64 * outputs + outputs


@pytest.mark.parametrize("grid", [Grid.gaussian(12), Grid.equiangular(13, 24, poles=True)], ids=lambda g: g.describe())
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_turning_about_the_axis_by_coarse_cells_commutes_with_the_network(grid, norm):
    shared.assert_turns(SMALL, grid, 4, norm=norm)


def test_gates_scale_what_comes_across_by_one_factor_a_cell():
    gate = made(SMALL, norm="none").gates[0]
    across, below = fields(2, 8, 12, 24), fields(2, 8, 12, 24, seed=2)
    with torch.no_grad():
        factor = gate(across, below) / across
        torch.testing.assert_close(factor, factor[:, :1].expand_as(factor), rtol=1e-4, atol=1e-5)
        assert 0 < factor.min() and factor.max() < 1 and factor.std() > 1e-3
        gate.attention[0].bias.fill_(-100)
        assert gate(across, below).abs().max() < 1e-30
        gate.attention[0].bias.fill_(100)
        assert torch.equal(gate(across, below), across)


def test_gradients_of_a_tiny_network():
    shared.assert_gradients(SMALL | dict(width=4, depth=1), Grid.gaussian(6))


def test_noise_and_conditions_start_without_effect():
    shared.assert_untouched_by_conditions(SMALL)


def test_checkpointing():
    shared.assert_checkpointing_changes_nothing_but_memory(SMALL)


def test_half_precision():
    shared.assert_half_precision_is_close(SMALL)


def test_dropout_is_for_training_alone():
    net, x = made(SMALL, dropout=0.5, norm="none"), fields(1, 3, 12, 24)
    assert torch.equal(net(x), net(x)) and not torch.equal(net.train()(x), net(x))


def test_output_starts_at_zero_where_asked():
    assert not made(SMALL, zero_output=True)(fields(1, 3, 12, 24)).any()


def test_a_region_and_what_does_not_fit():
    box = Grid.box(13, 18, (40, 66, -10, 26))
    assert made(SMALL, box)(fields(1, 3, 13, 18)).shape == (1, 2, 13, 18)
    with pytest.raises(NetworkError, match="multiple of 32 for 4 halvings, got 24"):
        build(SMALL | {"depth": 4}, 3, 2, shared.GRID)
