"""Aurora's network: any variables and levels, around the sphere; its windows; what it is told of place, time and step."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from emulator.networks.aurora import Aurora, AuroraOptions
from emulator.networks.edges import SPHERE, Edges
from emulator.networks.fourier import expand, harmonics, wavelengths
from emulator.networks.latent_levels import LEADS, YEAR, patch_codes
from emulator.networks.registry import NetworkError, build
from emulator.networks.signature import Channel, Signature
from emulator.networks.swin3d import Merging, Splitting, SwinDesign, Tokens, make_stages, run_stages
from emulator.networks.windows3d import Windows
from emulator.planet.grid import Grid
from emulator.planet.insolation import CLOCK_FEATURES, clock_features

GRID = Grid.gaussian(12)
SMALL = AuroraOptions(embed_dim=16, depths=(2, 2), up_depths=(2, 2), heads=(2, 4))
LEVELS = (100.0, 500.0, 850.0)


def state(levels=LEVELS, time=0, names=("u", "t"), surface=("ps", "2m")):
    """Variables, each on all levels, with a field without levels between them."""
    found = [Channel(name, "state", n, at, time) for name in names[:1] for n, at in enumerate(levels)]
    found += [Channel(name, "state", time=time) for name in surface]
    return found + [Channel(name, "state", n, at, time) for name in names[1:] for n, at in enumerate(levels)]


def signature(inputs=None, outputs=None, length=False, hours=6.0):
    inputs = inputs or [*state(time=-1), *state()]
    inputs = [*inputs, *(Channel(name, "clock") for name in CLOCK_FEATURES), Channel("orography", "static")]
    inputs += [Channel("step_length", "length")] * length
    return Signature(tuple(inputs), tuple(outputs or [*state(), Channel("rain", "diagnostic")]), hours)


def made(told=None, options=SMALL, grid=GRID, seed=0, **more):
    """A network with weights that a training could have left."""
    torch.manual_seed(seed)
    net = Aurora(told or signature(), grid, dataclasses.replace(options, **more))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return net


def fields(net, batch=2, seed=1):
    return torch.randn(batch, net.in_channels, *net.shape, generator=torch.Generator().manual_seed(seed))


def test_patches_of_a_box_have_the_codes_of_the_same_cells_on_the_globe_and_those_of_a_map_their_size():
    globe, patch, width = Grid.equiangular(24, 48), 2, 16
    latitude, longitude = globe.latitude[4:14], np.arange(-15.0, 40.0, 7.5)  # across Greenwich
    box = Grid.from_coordinates(latitude, longitude)
    none = ((0, 0), (0, 0))
    rows, columns = slice(2, 7), np.arange(-1, 3)  # patches
    for found, whole in zip(patch_codes(box, patch, none, width), patch_codes(globe, patch, none, width), strict=True):
        same = whole.unflatten(0, (12, 24))[rows][:, columns].flatten(0, 1)
        assert_close(found, same, rtol=0, atol=1e-7)
    x = np.arange(8) * 5e4
    area = Grid.projected(x, -x, {
        "grid_mapping_name": "lambert_azimuthal_equal_area", "latitude_of_projection_origin": 50.0,
        "longitude_of_projection_origin": 0.0, "earth_radius": 6371e3,
    })  # fmt: skip
    sizes = expand(torch.full((16,), 100.0, dtype=torch.float64), wavelengths(1.0, 4e4, 8, "cpu"))
    assert_close(patch_codes(area, patch, none, width)[1], sizes, rtol=0, atol=0.1)


REGION, ZONE = Edges(round=False, open=True), Edges(open=True)


@pytest.mark.parametrize("edges", [SPHERE, REGION, ZONE], ids=["globe", "region", "zone"])
@pytest.mark.parametrize(("shape", "window", "shifted"), [
    ((4, 6, 12), (2, 3, 4), True), ((4, 5, 7), (2, 2, 3), False), ((4, 5, 7), (2, 2, 3), True), ((1, 3, 6), (2, 6, 12), True),
])  # fmt: skip
def test_tokens_hear_those_near_them_around_the_circle_and_no_others(shape, window, shifted, edges):
    windows = Windows(shape, window, shifted, edges=edges)
    tokens = torch.arange(shape[0] * shape[1] * shape[2])[None, :, None]
    found = windows.split(tokens)[0, :, 0].view(-1, windows.tokens)
    assert_close(windows.join(windows.split(tokens)), tokens, rtol=0, atol=0)
    level, row, column = np.unravel_index(found.numpy(), shape)
    silence = torch.zeros(len(found), windows.tokens, windows.tokens)
    hears = (silence if windows.barrier is None else windows.barrier[:, 0]).numpy() == 0
    read = np.zeros(found.numel(), bool)
    read[windows.place.numpy()] = True  # by somebody
    size = np.minimum(window, shape)
    far = [where[:, :, None] - where[:, None] for where in (level, row, column)]
    near = (np.abs(far[0]) < size[0]) & (np.abs(far[1]) < size[1])
    if edges.round:
        near &= (far[2] % shape[2] < size[2]) | (-far[2] % shape[2] < size[2])
    else:
        near &= np.abs(far[2]) < size[2]
    assert near[hears & read.reshape(found.shape)[:, :, None]].all()
    divides = all(n % w == 0 for n, w in zip(shape, size, strict=True))
    assert divides == (found.numel() == tokens.numel())
    if divides and not shifted:
        assert windows.barrier is None
    elif shape[0] > 1:  # halves of a window that do not hear each other, and no token that hears nobody
        assert not hears.all() and hears[:, range(windows.tokens), range(windows.tokens)].all()


@pytest.mark.parametrize("edges", [SPHERE, REGION], ids=["globe", "region"])
@pytest.mark.parametrize("shape", [(4, 6, 12), (4, 5, 7)])
def test_gradients_of_windows_are_those_of_copies(shape, edges):
    windows = Windows(shape, (2, 2, 3), True, edges=edges)
    x = torch.randn(2, shape[0] * shape[1] * shape[2], 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(len(windows.source), 3, dtype=torch.float64)
    weight[windows.filled] = 0
    weight[windows.again] = torch.randn(len(windows.again), 3, dtype=torch.float64)
    (ours,) = torch.autograd.grad((windows.split(x) * weight).sum(), x)
    (copied,) = torch.autograd.grad((x.index_select(1, windows.source) * weight).sum(), x)
    assert_close(ours, copied)
    y = torch.randn(2, len(windows.source), 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(windows.join, y, fast_mode=True)
    for function, given in ((windows.split, x), (windows.join, y)):
        assert torch.autograd.gradgradcheck(function, given, fast_mode=True)


@pytest.mark.parametrize("shape", [(2, 4, 6), (2, 5, 7)])
def test_merging_takes_what_lies_around_and_splitting_gives_the_shape_back(shape):
    levels, rows, columns = shape
    x = torch.randn(2, levels * rows * columns, 3)
    merging = Merging(3, Tokens.of(shape))
    four = merging.gathered(x)
    maps = x.unflatten(1, shape)
    assert_close(four[:, :, 1, 2, 1], maps[:, :, 2, 5])
    assert_close(four[:, :, 1, 2, 2], maps[:, :, 3, 4])
    if rows % 2:
        assert_close(four[:, :, -1, 0, 2], maps[:, :, -1, -(columns // 2)])  # half a turn on
        assert_close(four[:, :, 0, -1, 1], maps[:, :, 0, 0])
    assert Splitting(3, Tokens.of(shape))(merging(x)).shape == x.shape
    on_a_region = Merging(3, Tokens.of(shape, edges=REGION)).gathered(x)
    assert_close(on_a_region[:, :, -1, -1, 3], maps[:, :, -1, -1])
    assert torch.autograd.gradcheck(lambda x: merging.gathered(x), x[:1].double().requires_grad_())


@pytest.mark.parametrize("count", [2, 3])
def test_before_it_is_trained_the_u_net_is_its_way_down_and_up_with_the_published_skips(count):
    """Blocks give nothing yet. Of three stages the finest is skipped to and joined, of two it is joined alone."""
    shape, design = (2, 4, 8), SwinDesign((2, 2, 4), 5)
    stages = make_stages(8, shape, ((1,) * count, (1,) * count), (2,) * count, design)
    x = torch.randn(2, 64, 8)
    coarse = stages.merge[0](x)
    if count == 3:
        coarse = stages.split[1](stages.merge[1](coarse))
    expected = stages.split[0](coarse) + (x if count == 3 else 0)
    assert_close(run_stages(stages, x, torch.randn(2, 5)), torch.cat([expected, x], -1), rtol=0, atol=0)


@pytest.mark.parametrize(
    "grid", [Grid.equiangular(13, 24, poles=True), Grid.gaussian(15, 40)], ids=lambda g: g.describe()
)
def test_rows_that_patches_do_not_divide_are_filled_up_by_those_beyond_the_poles(grid):
    net = made(grid=grid)
    x = fields(net)
    whole = net.whole(x)
    assert whole.shape[2] % 2 == 0 and net(x).shape == (2, net.out_channels, *grid.shape)
    assert_close(whole[:, :, -1], x[:, :, -2 if grid.has_poles else -1].roll(grid.shape[1] // 2, -1))


def test_a_grid_of_a_degree_fits():
    net = made(
        grid=Grid.equiangular(181, 360, poles=True),
        patch=4,
        embed_dim=8,
        depths=(1, 1, 1),
        up_depths=(1, 1, 1),
        heads=(1, 1, 1),
    )
    with torch.no_grad():
        assert net(fields(net, 1)).shape == (1, net.out_channels, 181, 360)


def test_gradients_are_those_of_differences():
    """With rows and columns that windows and patches do not divide, and all kinds of conditioning."""
    told = signature(
        [*state((300.0, 700.0), names=("u",), surface=("ps",))], state((300.0, 700.0), names=("u",), surface=("ps",))
    )
    small = AuroraOptions.of(
        dict(
            embed_dim=4, depths=[2, 1], up_depths=[1, 1], heads=[1, 2], window=[1, 2, 3], latent_levels=2, mlp_ratio=2.0
        )
        | dict(perceiver_heads=2, condition=["co2"], noise={"length_scales": [0.0], "channels": 1})
    )
    net = made(told, small, Grid.gaussian(9, 16)).double()
    x, condition, noise = fields(net, 1).double(), torch.randn(1, 1).double(), torch.randn(1, 1, 9, 16).double()
    arguments = [tensor.requires_grad_() for tensor in (x, condition, noise, net.encoder.surface.weights["ps"])]
    assert torch.autograd.gradcheck(lambda *given: net(*given[:3]), arguments, fast_mode=True)


def test_turning_by_whole_windows_commutes_with_the_network_where_it_is_not_told_the_longitude():
    net = made(grid=Grid.gaussian(12, 48), window=(2, 3, 6))
    x = fields(net)
    clock = [n for n, c in enumerate(signature().inputs) if c.role == "clock"]
    x[:, clock] = x[:, clock, :1, :1]  # the time is the same everywhere
    with torch.no_grad():
        y, turned = net(x), net(x.roll(24, -1))
        assert (turned - y.roll(24, -1)).abs().max() > 1e-2
        net.encoder.place.weight[:, net.options.embed_dim // 2 :] = 0  # of longitude
        y = net(x)
        assert_close(net(x.roll(24, -1)), y.roll(24, -1), rtol=0, atol=1e-5)
        assert (net(x.roll(2, -1)) - y.roll(2, -1)).abs().max() > 1e-3  # windows are where they are
        # where windows take in whole rows, by whatever is a whole patch on all stages
        wide = made(window=(2, 3, 12))
        wide.encoder.place.weight[:, wide.options.embed_dim // 2 :] = 0
        x = x[..., ::2].contiguous()
        assert_close(wide(x.roll(4, -1)), wide(x).roll(4, -1), rtol=0, atol=1e-5)


def test_a_variable_that_is_left_out_is_one_that_the_network_had_never_seen():
    """Another one on a level of its own, one with and one without levels."""
    sparse = [Channel("ozone", "state", 0, 5.0), Channel("ozone", "state", 1, 500.0)]
    whole = signature([*state(), *sparse])
    less = signature(state(names=("u",), surface=("ps",)))
    net = made(whole)
    part = made(less)
    own = part.state_dict()
    part.load_state_dict({name: net.state_dict()[name] for name in own})
    known = [channel in less.inputs for channel in whole.inputs]
    x = fields(net)
    present = torch.tensor(known).expand(len(x), -1)
    filled = torch.where(present[..., None, None], x, float("nan"))
    with torch.no_grad():
        y = part(x[:, known])
        assert_close(net(filled, present=present), y)
        assert (net(x) - y).abs().max() > 1e-2
        mixed = net(x, present=torch.stack([present[0], torch.ones_like(present[0])]))
        assert_close(mixed, torch.stack([y[0], net(x)[1]]))
        nothing = torch.zeros_like(present)
        assert net(x, present=nothing).isfinite().all()  # of no level at all
    with pytest.raises(ValueError, match=r"present of shape \(2, .*got \(3,"):
        net(x, present=torch.ones(3, 1, dtype=torch.bool))


def test_no_weight_depends_on_the_levels_and_those_asked_for_are_found_between_them():
    net, more = made(), made(signature(outputs=state((50.0, *LEVELS, 925.0))))
    assert {n: p.shape for n, p in net.named_parameters() if "rain" not in n} == {
        n: p.shape for n, p in more.named_parameters()
    }
    more.load_state_dict({name: net.state_dict()[name] for name in more.state_dict()})
    x, labels = fields(net), [(c.name, c.at) for c in more_outputs()]
    with torch.no_grad():
        y, wide = net(x), more(x)
    for n, channel in enumerate(signature().outputs[:-1]):
        assert_close(wide[:, labels.index((channel.name, channel.at))], y[:, n])
    other = made(signature([*state((200.0, 600.0), time=-1), *state((200.0, 600.0))]))
    other.load_state_dict(net.state_dict())


def more_outputs():
    return state((50.0, *LEVELS, 925.0))


def test_a_shorter_history_uses_the_weights_of_the_newest_states():
    net, short = made(), made(signature(state()))
    weights = net.state_dict()
    for name in weights:
        if ".weights." in name and name.startswith("encoder") and "orography" not in name:
            weights[name] = weights[name][:, : short.state_dict()[name].shape[1]]
    short.load_state_dict(weights)
    x = fields(net)
    x[:, : len(state())] = 0  # the older state
    with torch.no_grad():
        assert_close(short(x[:, len(state()) :]), net(x))


def test_the_length_of_the_step_is_told_in_hours():
    told, fixed = made(signature(length=True)), made(signature(hours=24.0))
    fixed.load_state_dict(told.state_dict())
    x = fields(fixed)
    with torch.no_grad():
        y = told(torch.cat([x, torch.full((2, 1, *GRID.shape), 2.0)], 1))
        assert_close(y, fixed(x))
        assert (told(torch.cat([x, torch.zeros(2, 1, *GRID.shape)], 1)) - y).abs().max() > 1e-3
    lead = expand(torch.tensor([24.0]), wavelengths(*LEADS, 8))
    assert_close(told._lead(torch.cat([x, torch.full((2, 1, *GRID.shape), 2.0)], 1))[:1], lead.float())


def test_the_time_is_that_of_the_day_of_the_year():
    net = made()
    latitude, longitude = np.radians(GRID.latitude)[:, None], GRID.longitude[None]
    days, hours = [1, 32, 200, 365], [0, 6, 18, 12]
    x = torch.zeros(4, net.in_channels, *GRID.shape)
    first = [channel.role for channel in signature().inputs].index("clock")
    x[:, first : first + 5] = torch.from_numpy(clock_features(days, hours, 6.0, latitude, longitude))
    since = torch.tensor([(day - 1) * 24.0 + hour for day, hour in zip(days, hours, strict=True)])
    lengths = harmonics(1.0, YEAR, 8)
    assert_close(net._time(x), expand(since, lengths).float(), rtol=0, atol=5e-3)
    assert_close(expand(since, lengths), expand(since + YEAR, lengths), rtol=0, atol=1e-9)
    assert lengths[0] == pytest.approx(1, rel=1e-3) and lengths[-1] == pytest.approx(YEAR)


def test_scalars_change_no_bit_until_they_are_learned():
    torch.manual_seed(0)
    plain = Aurora(signature(), GRID, SMALL)
    torch.manual_seed(0)
    net = Aurora(signature(), GRID, dataclasses.replace(SMALL, condition=("time_of_year",)))
    for one in (plain, net):
        for module in one.modules():
            if hasattr(module, "modulation"):
                torch.nn.init.constant_(module.modulation.weight, 0.1)
    x, condition = fields(net), torch.randn(2, 2)
    assert torch.equal(net(x, condition), plain(x))
    torch.nn.init.normal_(net.condition.weight)
    assert (net(x, condition) - net(x, -condition)).abs().max() > 1e-4
    with pytest.raises(ValueError, match=r"condition of shape \(2, 2\), got None"):
        net(x)


def test_computing_blocks_again_changes_no_gradient_and_no_parameter_is_left_without():
    gradients = []
    for checkpointing in (False, True):
        net = made(checkpointing=checkpointing)
        net(fields(net)).square().mean().backward()
        gradients.append([parameter.grad for parameter in net.parameters()])
    assert all(g is not None and g.abs().max() > 0 for g in gradients[0])
    assert_close(*gradients)


def test_half_and_double_precision_are_close():
    net = made()
    x = fields(net)
    with torch.no_grad():
        y = net(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = net(x)
        assert half.dtype == torch.float32 and 0 < (half - y).abs().max() < 0.05 * y.abs().max()
        double = net.double()(x.double())
    assert double.dtype == torch.float64
    assert_close(double.float(), y, rtol=1e-3, atol=2e-4)


def test_branches_are_left_out_in_training_alone_and_an_output_may_start_at_zero():
    net = made(drop_path=0.9)
    x = fields(net)
    with torch.no_grad():
        assert not torch.equal(net(x), net(x))
        assert torch.equal(net.eval()(x), net(x))
        assert not Aurora(signature(), GRID, dataclasses.replace(SMALL, zero_output=True))(x).any()


def test_surface_fields_alone_need_no_latent_levels():
    net = build(dict(kind="aurora"), 3, 2, GRID)
    assert net.encoder.latents == 1 and not any("perceiver" in name for name, _ in net.named_parameters())
    only = made(signature(outputs=[Channel("flux", "diagnostic", 0, 500.0)]), SMALL)
    assert only(fields(only)).shape == (2, 1, *GRID.shape)


@pytest.mark.parametrize(
    ("options", "shape", "told", "message"),
    [
        (dict(patch=5), (12, 24), None, "longitudes in a multiple of 5 .* got 24"),
        (dict(latent_levels=5), (12, 24), signature(), "latent levels in a multiple of the window's 2, got 5"),
        (dict(heads=[5, 2]), (12, 24), None, "width in a multiple of 5 heads, got 16"),
        (dict(perceiver_heads=3), (12, 24), None, "multiple of 4 and of 3 heads, got 16"),
        (dict(window=[2, 6]), (12, 24), None, r"window of length 3 or more, got \(2, 6\)"),
        (dict(window=[2, 6, 12, 1]), (12, 24), None, "levels, rows and columns as window"),
        (dict(heads=[2, 4, 8]), (12, 24), None, "as many down as up"),
        (dict(patch=12), (12, 24), None, "1 halvings of the patches, got 1 x 2"),
        ({}, (12, 24), Signature((Channel("u", "state", 0, 1.0),), (Channel("u", "state", 0, 1.0),)), "without levels"),
    ],
)
def test_what_does_not_fit_is_refused(options, shape, told, message):
    config = dict(kind="aurora", embed_dim=16, depths=[1, 1], up_depths=[1, 1], heads=[2, 4]) | options
    told = told or Signature.plain(3, 2)
    with pytest.raises(NetworkError, match=message):
        build(config, len(told.inputs), len(told.outputs), Grid.gaussian(*shape), signature=told)
