"""WXFormer: it goes on around the sphere and over the poles, with either decoder, and its weights can be limited."""

import dataclasses

import pytest
import torch
from map_networks import assert_autocast_is_near, assert_plain_gradients, fields
from safetensors.torch import load, save
from torch.testing import assert_close

from emulator.networks.edges import Edges
from emulator.networks.map_layers import MapConv, Surroundings, cells_of_channels
from emulator.networks.registry import NetworkError, build
from emulator.networks.spectral_norm import LargestOne
from emulator.networks.wxformer import WXFormer, WXFormerOptions
from emulator.planet.grid import Grid

SMALL = WXFormerOptions(
    widths=(8, 16), depths=(1, 1), strides=(2, 2), stencils=(2, 4), far=(2, 3), near=3, head_width=4
)
TWO = {"widths": [16, 16], "depths": [1, 1], "strides": [2, 2], "far": [2, 2]}
GLOBE, POLES, REGION = Edges(), Edges(poles=True), Edges(round=False, open=True)
DECODERS = pytest.mark.parametrize("decoder", ["shuffle", "transposed"])


def network(shape=(12, 24), edges=GLOBE, **options):
    torch.manual_seed(0)
    return WXFormer(3, 2, shape, edges, dataclasses.replace(SMALL, **options))


@DECODERS
@pytest.mark.parametrize(
    ("shape", "edges", "options"),
    [
        ((12, 24), GLOBE, {}),
        ((13, 24), POLES, {}),
        ((19, 36), POLES, {"strides": (3, 2), "stencils": (3, 5)}),
        ((9, 11), REGION, {}),
        ((9, 12), Edges(open=True), {"widths": (8,), "depths": (2,), "strides": (2,), "far": (4,)}),
    ],
    ids=lambda value: str(value),
)
def test_rows_that_strides_do_not_divide_are_added_up_and_taken_off(shape, edges, options, decoder):
    net = network(shape, edges, decoder=decoder, **options)
    x = fields(2, 3, *shape)
    y = net(x)
    assert y.shape == (2, 2, *shape) and y.isfinite().all() and y.is_contiguous()
    other = x.clone()
    other[:, :, -1, -1] += 1
    assert (net(other) - y).abs().amax((0, 1))[-1, -1] > 1e-4


@DECODERS
@pytest.mark.parametrize(("shape", "edges"), [((12, 24), GLOBE), ((13, 24), POLES)])
def test_turning_about_the_axis_by_whole_windows_commutes_with_the_network(shape, edges, decoder):
    net, x = network(shape, edges, decoder=decoder), fields(2, 3, *shape)
    with torch.no_grad():
        y = net(x)  # windows of three cells of four each
        assert_close(net(x.roll(12, -1)), y.roll(12, -1), rtol=0, atol=1e-5)
        assert (net(x.roll(2, -1)) - y.roll(2, -1)).abs().max() > 1e-3


def test_distant_cells_alone_know_no_place():
    """Without windows of neighbours every turn by a cell of the coarsest map commutes."""
    net, x = network(near=1), fields(1, 3, 12, 24)
    assert_close(net(x.roll(4, -1)), net(x).roll(4, -1), rtol=0, atol=1e-5)


def test_a_cell_is_heard_across_the_date_line_and_the_pole():
    net, x = network(far=(1, 1), near=1), fields(1, 3, 12, 24)
    other = x.clone()
    other[0, :, 0, 0] += 1
    with torch.no_grad():
        heard = (net(x) - net(other)).abs().amax(1)[0]
    assert heard[0, 23] > 1e-4 and heard[0, 12] > 1e-4


@pytest.mark.parametrize(("size", "stride"), [(10, 2), (16, 2), (20, 2), (9, 3), (15, 3), (11, 1)])
def test_wide_stencils_are_plain_convolutions(size, stride):
    torch.manual_seed(0)
    around = Surroundings(GLOBE)
    convolution = MapConv(3, 2, size, around, stride).double()
    x = torch.randn(2, 3, 12, 24, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    wide, weight, bias = around(x, (size - stride) // 2), convolution.weight, convolution.bias
    assert_close(convolution(x), torch.nn.functional.conv2d(wide, weight, bias, stride))


def test_cells_made_of_channels_are_alike_at_the_start():
    y = torch.nn.Sequential(*cells_of_channels(3, 2, 2, Surroundings(GLOBE)))(fields(1, 3, 4, 8))
    assert y.shape == (1, 2, 8, 16)
    assert_close(y, y[..., ::2, ::2].repeat_interleave(2, -1).repeat_interleave(2, -2))


@DECODERS
def test_gradients_are_right(decoder):
    options = WXFormerOptions((4,), (1,), (2,), (2, 4), near=2, far=(2,), head_width=4, decoder=decoder)
    torch.manual_seed(0)
    net = WXFormer(1, 1, (4, 8), GLOBE, options).double()
    assert_plain_gradients(net, fields(1, 1, 4, 8, dtype=torch.float64))


def test_autocast_is_near_and_hands_back_the_type_of_the_input():
    assert_autocast_is_near(network(), fields(1, 3, 12, 24), 0.05)


@DECODERS
def test_output_starts_at_zero_where_asked(decoder):
    assert not network(zero_output=True, decoder=decoder)(fields(1, 3, 12, 24)).any()


def updated(net, updates):
    optimizer = torch.optim.SGD(net.parameters(), 0.05)
    for n in range(updates):
        optimizer.zero_grad()
        net(fields(2, 3, 12, 24, seed=n)).square().mean().backward()
        optimizer.step()
    return net


@DECODERS
def test_no_weight_stretches_where_they_are_limited(decoder):
    net = updated(network(spectral_norm=True, decoder=decoder), 20)
    limited = [m for m in net.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d | torch.nn.ConvTranspose2d)]
    assert len(limited) == sum(isinstance(m, LargestOne) for m in net.modules()) > 20
    for module in limited:
        axis = 1 if isinstance(module, torch.nn.ConvTranspose2d) else 0
        largest = torch.linalg.svdvals(module.weight.detach().movedim(axis, 0).flatten(1))[0]
        assert_close(largest, torch.tensor(1.0), rtol=0, atol=0.02)


def test_limits_follow_the_weights_once_and_go_on_from_what_was_kept():
    whole, first, second = (network(spectral_norm=True) for _ in range(3))
    updated(first, 2)
    second.load_state_dict(load(save(first.state_dict())))
    x = fields(1, 3, 12, 24)
    same = [second(x) for _ in range(2)]
    assert torch.equal(*same)
    second.load_state_dict(first.state_dict())
    second.eval()(x)  # a validation between changes nothing
    updated(updated(whole, 2), 1)
    updated(second.train(), 1)
    for name, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name


def test_limited_blocks_that_are_computed_again_give_the_same_gradient():
    x, gradients = fields(2, 3, 12, 24), []
    for again in (False, True):
        net = network(spectral_norm=True, checkpointing=again)
        (net(x) + net(x.flip(0)).flip(0)).square().mean().backward()
        gradients.append([p.grad for p in net.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert_close(one, other)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"depths": [1, 1]}, r"depths for 3 widths, got \(1, 1\)"),
        ({"head_width": 24}, "widths in multiples of the first and of a head_width of 24"),
        ({"widths": [32, 48, 128]}, r"widths in multiples of the first and .* got \(32, 48, 128\)"),
        ({"spectral_norm": True, "zero_output": True}, "zero_output or spectral_norm, got both"),
        ({"strides": [2, 2, 4]}, "longitudes in a multiple of 32 for patches of 16 cells, got 24"),
        ({"strides": [2, 2, 1]}, "strides of at least 2"),
        ({"strides": [3, 2, 2]}, "larger than the stride 3 by an even number, got 4"),
        (TWO | {"stencils": [4, 64]}, r"stencils within 12 x 24 cells, got \(4, 64\)"),
    ],
)
def test_what_does_not_fit_is_refused(config, told):
    with pytest.raises(NetworkError, match=told):
        build({"kind": "wxformer", **config}, 3, 2, Grid.gaussian(12))


def test_other_inputs_are_refused():
    with pytest.raises(ValueError, match=r"Expected an input of shape \('batch', 3, 12, 24\), got \(1, 2, 12, 24\)"):
        network()(torch.zeros(1, 2, 12, 24))
