"""FuXi: it goes on around the sphere and over the poles, takes any number of input times, and any rows."""

import dataclasses

import pytest
import torch
from map_networks import assert_autocast_is_near, assert_plain_gradients, fields
from torch.testing import assert_close

from emulator.networks.edges import Edges
from emulator.networks.fuxi import FuXi, FuXiOptions
from emulator.networks.registry import NetworkError, build
from emulator.planet.grid import Grid

SMALL = FuXiOptions(width=8, blocks=3, heads=2, window=2, groups=2)
GLOBE, POLES, REGION = Edges(), Edges(poles=True), Edges(round=False, open=True)


def network(shape=(12, 24), edges=GLOBE, **options):
    torch.manual_seed(0)
    return FuXi(3, 2, shape, edges, dataclasses.replace(SMALL, **options))


@pytest.mark.parametrize(
    ("shape", "edges", "options"),
    [
        ((12, 24), GLOBE, {}),
        ((13, 24), POLES, {}),
        ((19, 36), POLES, {"patch": 3, "window": 3}),
        ((9, 11), REGION, {"window": 3}),
        ((9, 12), Edges(open=True), {}),
    ],
    ids=lambda value: str(value),
)
def test_rows_that_patches_do_not_divide_are_added_up_and_taken_off(shape, edges, options):
    net = network(shape, edges, **options)
    x = fields(2, 3, *shape)
    y = net(x)
    assert y.shape == (2, 2, *shape) and y.isfinite().all() and y.is_contiguous()
    # the last row and column are heard, and hear
    other = x.clone()
    other[:, :, -1, -1] += 1
    assert ((net(other) - y).abs().amax((0, 1))[-1, -1]) > 1e-4


@pytest.mark.parametrize(("shape", "edges"), [((12, 24), GLOBE), ((13, 24), POLES)])
def test_turning_about_the_axis_by_whole_windows_commutes_with_the_network(shape, edges):
    net, x = network(shape, edges).eval(), fields(2, 3, *shape)
    with torch.no_grad():
        y = net(x)
        # a window is of two cells of the inner grid, which are of four cells each
        assert_close(net(x.roll(8, -1)), y.roll(8, -1), rtol=0, atol=1e-5)
        assert (net(x.roll(2, -1)) - y.roll(2, -1)).abs().max() > 1e-3


def test_a_cell_is_heard_across_the_date_line_and_the_pole():
    net, x = network(), fields(1, 3, 12, 24)
    other = x.clone()
    other[0, :, 0, 0] += 1
    with torch.no_grad():
        heard = (net(x) - net(other)).abs().amax(1)[0]
    assert heard[0, 23] > 1e-4 and heard[0, 12] > 1e-4


def test_the_embedding_is_that_of_a_cube_of_all_input_times():
    """A convolution over times, rows and columns whose stencil and stride are all times and a patch (Chen et al. 2023)."""
    times, variables = 2, 3
    cube = torch.nn.Conv3d(variables, 8, (times, 2, 2), (times, 2, 2)).double()
    torch.manual_seed(0)
    net = FuXi(times * variables, variables, (12, 24), GLOBE, SMALL).double()
    with torch.no_grad():
        net.embed.weight.copy_(cube.weight.transpose(1, 2).flatten(1, 2))
        net.embed.bias.copy_(cube.bias)
    states = torch.randn(2, times, variables, 12, 24, dtype=torch.float64)
    assert_close(net.embed(states.flatten(1, 2)), cube(states.transpose(1, 2)).squeeze(2))


def test_biases_by_distance_follow_their_weights():
    net, x = network().eval(), fields(1, 3, 12, 24)
    with torch.no_grad():
        before = net(x)
        assert torch.equal(net(x), before)
        net.blocks[1].attention.distance[0].bias.data += 0.5
        after = net(x)
    assert not torch.equal(after, before)
    assert_close(net(x).detach(), after)


def test_biases_of_half_precision_are_not_kept():
    net, x = network().eval(), fields(1, 3, 12, 24)
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            net(x)
        assert_close(net(x), net.train()(x), rtol=0, atol=0)
        biases = [block.attention._biases() for block in net.blocks]
    for block, kept in zip(net.blocks, biases, strict=True):
        for ours, right in zip(kept, block.attention._made(), strict=True):
            assert_close(ours, right.detach(), rtol=0, atol=0)


def test_gradients_are_right():
    net = FuXi(1, 1, (4, 8), Edges(), FuXiOptions(width=2, blocks=2, heads=1, window=2, groups=1, patch=1)).double()
    assert_plain_gradients(net, fields(1, 1, 4, 8, dtype=torch.float64))


def test_autocast_is_near_and_hands_back_the_type_of_the_input():
    assert_autocast_is_near(network(), fields(1, 3, 12, 24), 0.05)


def test_branches_are_left_out_while_training_alone():
    net, x = network(drop_path=0.9), fields(4, 3, 12, 24)
    assert torch.equal(net.eval()(x), network()(x))
    assert not torch.equal(net.train()(x), network()(x))


def test_output_starts_at_zero_where_asked():
    assert not network(zero_output=True)(fields(1, 3, 12, 24)).any()


def test_the_published_size_has_the_parameters_of_its_parts():
    """Chen et al. (2023): 1536 channels, 48 blocks, patches of 4, two states of 70 fields; 8 heads as in miles-credit."""
    width, blocks, heads, patch, fields_ = 1536, 48, 8, 4, 70
    options = FuXiOptions(width=width, blocks=blocks, heads=heads, patch=patch, window=9)
    with torch.device("meta"):
        net = FuXi(2 * fields_, fields_, (720, 1440), Edges(), options)
    stack = 2 * (9 * width**2 + width + 2 * width)
    block = 12 * width**2 + (2 + 1 + 4 + 1 + 4) * width + heads + 3 * 512 + 512 * heads
    expected = (
        2 * fields_ * patch**2 * width + width + 2 * width  # cubes and their norm
        + 9 * width**2 + width + stack  # down
        + blocks * block
        + 8 * width**2 + width + stack  # up
        + (width + 1) * fields_ * patch**2
    )  # fmt: skip
    assert sum(p.numel() for p in net.parameters()) == expected == 1_490_340_832


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"heads": 3}, "heads that divide a width of 128, got 3"),
        ({"groups": 48}, "groups that divide a width of 128, got 48"),
        ({"patch": 4}, "longitudes in a multiple of 16 for patches of 8 cells, got 24"),
    ],
)
def test_what_does_not_fit_is_refused(config, told):
    with pytest.raises(NetworkError, match=told):
        build({"kind": "fuxi", **config}, 3, 2, Grid.gaussian(12))


def test_other_inputs_are_refused():
    with pytest.raises(ValueError, match=r"Expected an input of shape \('batch', 3, 12, 24\), got \(1, 2, 12, 24\)"):
        network()(torch.zeros(1, 2, 12, 24))
