"""Networks on regions: a border that nothing comes across, neighbours across Greenwich, and refusals that say what fits."""

import dataclasses
import functools
import json

import numpy as np
import pytest
import torch
from learning import assert_learns
from tiny_networks import TINY
from torch.testing import assert_close

from emulator.data.border import Border
from emulator.networks.edges import pad_region
from emulator.networks.fourier import expand, wavelengths
from emulator.networks.framed import FramedInputs, widened
from emulator.networks.latent_levels import LEVELS
from emulator.networks.map_norms import GroupNorm
from emulator.networks.registry import NetworkError, build
from emulator.networks.signature import Channel, Signature
from emulator.networks.unet import UNet, UNetOptions
from emulator.planet.grid import Grid

LAMBERT = {
    "grid_mapping_name": "lambert_conformal_conic",
    "standard_parallel": [60.0, 60.0],
    "longitude_of_central_meridian": 10.0,
    "latitude_of_projection_origin": 60.0,
    "earth_radius": 6371e3,
}
NORDIC = np.random.default_rng(0)
REGIONS = {
    "box": Grid.box(13, 18, (40, 66, -10, 26)),
    "zone": Grid.box(12, 24, (10, 70, 0, 360)),
    "projected": Grid.projected(np.arange(17) * 1e5 - 8e5, np.arange(14)[::-1] * 1e5 - 7e5, LAMBERT),
    "region_points": Grid.points(NORDIC.uniform(54, 72, 200), NORDIC.uniform(4, 32, 200), np.full(200, 1e-4)),
}
CONFIGS = TINY | {"graph": TINY["graph"] | dict(refinement=3)}


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("kind", ["unet", "graph", "fuxi", "wxformer", "aurora"])
def test_they_learn_on_regions(kind, region):
    grid = REGIONS[region]
    if kind != "graph" and region == "region_points":
        with pytest.raises(NetworkError, match=f"200 points of a region.*'{kind}'.*graph"):
            build(CONFIGS[kind], 3, 2, grid)
        return
    torch.manual_seed(0)
    assert_learns(build(CONFIGS[kind], 3, 2, grid), grid)


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("kind", ["sfno", "torch_harmonics"])
def test_spectral_networks_refuse_and_say_what_fits(kind, region):
    with pytest.raises(NetworkError) as refused:
        build(CONFIGS[kind], 3, 2, REGIONS[region])
    text = str(refused.value)
    assert REGIONS[region].describe() in text and kind in text and "graph" in text.split(";")[-1]
    assert ("unet" in text.split(";")[-1]) == (region != "region_points")


@pytest.mark.parametrize("round", [False, True])
def test_padding_repeats_the_border_or_goes_round(round):
    x = torch.arange(12.0).view(1, 1, 3, 4)
    wide = pad_region(x, 1, round)
    assert wide.shape == (1, 1, 5, 6)
    assert_close(wide[..., 1:-1, 1:-1], x)
    assert_close(wide[0, 0, 0, 1:-1], x[0, 0, 0])
    assert_close(wide[0, 0, -1, 1:-1], x[0, 0, -1])
    west, east = (x[0, 0, :, -1], x[0, 0, :, 0]) if round else (x[0, 0, :, 0], x[0, 0, :, -1])
    assert_close(wide[0, 0, 1:-1, 0], west)
    assert_close(wide[0, 0, 1:-1, -1], east)


def test_a_constant_state_stays_constant_up_to_the_border():
    """Repeated cells add no border of their own, as zeros would."""
    torch.manual_seed(0)
    net = UNet(2, 1, 13, 18, options=UNetOptions(width=6, depth=2), region="open")
    with torch.no_grad():
        y = net(torch.ones(1, 2, 13, 18))
    assert_close(y, y[..., :1, :1].expand_as(y), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("region", "heard_across"), [("open", False), ("round", True)])
def test_the_first_column_is_heard_at_the_last_only_where_rows_go_round(region, heard_across):
    torch.manual_seed(0)
    net = UNet(3, 2, 16, 64, options=UNetOptions(width=6, depth=1), region=region)
    # the group norms look at all cells; only what passes from cell to cell is asked for here
    for module in net.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.forward = lambda x: x
    x = torch.randn(1, 3, 16, 64)
    other = x.clone()
    other[..., 0] += 1
    with torch.no_grad():
        heard = (net(x) - net(other)).abs().amax((0, 1, 2))
    assert heard[1] > 1e-3
    assert (heard[-1] > 1e-3) == heard_across


@pytest.mark.parametrize("kind", ["unet", "fuxi", "wxformer", "aurora"])
def test_a_box_in_two_parts_is_refused_by_networks_of_maps(kind):
    split = Grid.from_coordinates(np.arange(60.0, 28, -2), np.sort(np.arange(-20.0, 20, 2) % 360))
    with pytest.raises(NetworkError, match="two parts across Greenwich"):
        build(CONFIGS[kind], 3, 2, split)


# Windowed transformers whose layers reach a few cells, and no group of distant ones all over the map.
NEAR = {
    "fuxi": TINY["fuxi"],
    "wxformer": TINY["wxformer"] | dict(far=(1, 1), near=2),
    "aurora": TINY["aurora"] | dict(window=(2, 2, 2), depths=[2, 2], up_depths=[2, 2]),
}
STATE = (Channel("t", "state", 0, 300.0), Channel("t", "state", 1, 700.0), Channel("ps", "state"))
SIGNATURE = Signature((*STATE, Channel("orography", "static")), STATE, 6.0)
BORDER = Border(("t", "ps"), (2, 0), 2)


def framed(config, grid):
    """A network with a boundary whose weights a training could have left, and its inputs."""
    torch.manual_seed(0)
    net = build(config, 4, 3, grid, signature=SIGNATURE, border=BORDER).eval()
    for name, parameter in net.named_parameters():
        if "modulation" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    for module in net.modules():  # which look at all cells; only what passes from cell to cell is asked for here
        if isinstance(module, torch.nn.GroupNorm | GroupNorm):
            module.forward = lambda x, *more: x
    return net, torch.randn(1, 4, *grid.shape), torch.randn(1, 2 * BORDER.count, len(BORDER.frame(grid).index))


@pytest.mark.parametrize(("region", "heard_across"), [("box", False), ("zone", True)])
@pytest.mark.parametrize("kind", NEAR)
def test_windows_of_a_limited_area_reach_neither_around_the_globe_nor_over_a_pole(kind, region, heard_across):
    """The first column, with the boundary beside it, is heard near it, and not in the other half of the domain: neither at
    the last column nor half a turn on, where what lies beyond a pole would be."""
    grid = {"box": Grid.box(12, 132, (20, 68, -120, 144)), "zone": Grid.box(12, 136, (20, 68, 0, 360))}[region]
    net, x, boundary = framed(NEAR[kind], grid)
    points = BORDER.frame(grid).points.longitude
    east = (points - points[0]) % 360
    other, beside = x.clone(), boundary.clone()
    other[..., 0] += 3
    if region == "box":
        beside[..., east < 7] += 3
    with torch.no_grad():
        heard = (net(x, boundary) - net(other, beside)).abs().amax((0, 1, 2))
    assert heard[1] > 1e-3
    assert (heard[-1] > 1e-3) == heard_across
    far = slice(60, 76) if heard_across else slice(66, None)  # where rows go round the last columns are near again
    assert heard[far].max() < 1e-5


@pytest.mark.parametrize("kind", [*NEAR, "unet", "column"])
def test_what_the_state_is_outside_does_not_stand_for_the_state_inside(kind):
    """Networks that treat channels by variable and level know both apart."""
    config = dict(kind="column", width=8, design="recurrence") if kind == "column" else NEAR.get(kind, TINY[kind])
    net, x, boundary = framed(config, REGIONS["box"])
    warmer = x.clone()
    warmer[:, 0, 6, 9] += 1
    with torch.no_grad():
        assert (net(warmer, boundary) - net(x, boundary))[:, :, 6, 9].abs().max() > 1e-4


@pytest.mark.parametrize("kind", NEAR)
def test_gradients_of_a_limited_area_reach_the_state_and_both_times_of_its_boundary(kind):
    net, x, boundary = framed(NEAR[kind], REGIONS["projected"])
    net = net.double()
    given = x.double().requires_grad_(), boundary.double().requires_grad_()
    assert torch.autograd.gradcheck(net, given, fast_mode=True, atol=1e-5)
    gradients = torch.autograd.grad(net(*given).square().sum(), given)
    assert all(gradient.abs().amax((0, 2)).min() > 0 for gradient in (gradients[0].flatten(2), gradients[1]))


def test_driving_variables_on_other_levels_are_told_at_both_ends_of_a_step_and_stand_for_no_level_of_the_state():
    """Three levels where the state has two, and a variable that it lacks; the surface pressure is the state's."""
    border = Border(("t", "ps", "q"), (3, 0, 0), 2)
    grid = REGIONS["box"]
    seen = []
    net = build(TINY["unet"], 4, 3, grid, signature=SIGNATURE, border=border)
    net.network.register_forward_hook(lambda module, given, made: seen.append(given[0]))
    x, place = torch.randn(1, 4, *grid.shape), border.frame(grid).index
    boundary = torch.randn(1, 10, len(place))
    net(x, boundary)
    whole = seen[0].flatten(2)[0, :, place]
    assert len(whole) == 4 + 5 + 4 + 1
    assert_close(whole[2], boundary[0, 3])  # surface pressure at the start
    assert_close(whole[4:9], boundary[0, 5:])
    assert_close(whole[9:13], boundary[0, [0, 1, 2, 4]])
    replicated = torch.nn.functional.pad(x, (2, 2, 2, 2), mode="replicate").flatten(2)[0][:, place]
    assert_close(whole[[0, 1, 3]], replicated[[0, 1, 3]])


ELSEWHERE = Border(
    ("t", "ps"), (2, 0), 2, at=((500.0, 850.0), ())
)  # as many levels as the state has, at 300 and 700 hPa


def test_as_many_driving_levels_elsewhere_stand_for_none_of_the_state_and_aurora_is_told_where_they_lie():
    alike = dataclasses.replace(ELSEWHERE, at=((300.0, 700.1), ()))
    assert FramedInputs.of(SIGNATURE, ELSEWHERE).state == (-1, -1, 2)
    assert FramedInputs.of(SIGNATURE, alike).state == FramedInputs.of(SIGNATURE, BORDER).state == (0, 1, 2)
    assert [c.at for c in widened(SIGNATURE, ELSEWHERE).inputs[4:]] == [500.0, 850.0, None, 500.0, 850.0, None]
    three = dataclasses.replace(ELSEWHERE, levels=(3, 0), at=((200.0, 300.0, 925.0), ()))
    for border, levels in ((BORDER, [300, 700]), (ELSEWHERE, [300, 500, 700, 850]), (three, [200, 300, 700, 925])):
        net = build(NEAR["aurora"], 4, 3, REGIONS["box"], signature=SIGNATURE, border=border)
        codes = net.network.encoder.level_codes
        expected = expand(torch.tensor(levels), wavelengths(*LEVELS, codes.shape[1] // 2, "cpu"))
        assert_close(codes, expected.float())


@pytest.mark.parametrize(("kind", "border", "words"), [
    ("column", BORDER, "took the state outside for that of the domain"),
    ("unet", Border(("t", "ps"), (3, 0), 2), "which the state lacks, or has on other levels"),
    ("unet", Border(("t", "q"), (2, 0), 2), "which the state lacks, or has on other levels"),
    ("unet", BORDER, None),
])  # fmt: skip
def test_networks_of_older_versions_that_would_be_given_other_channels_now_are_refused(kind, border, words):
    values = {n: v for n, v in dataclasses.asdict(border).items() if n not in ("at", "version")}  # as those wrote it
    config = dict(kind="column", width=8, design="recurrence") if kind == "column" else TINY[kind]
    made = functools.partial(build, config, 4, 3, REGIONS["box"], signature=SIGNATURE)
    new = made(border=Border.from_json(json.loads(json.dumps(dataclasses.asdict(border)))))
    if words is None:
        assert made(border=Border.from_json(values)).network.in_channels == new.network.in_channels
        return
    with pytest.raises(NetworkError, match=f"boundary of version 2, got one of version 1, .*{words}.*train anew"):
        made(border=Border.from_json(values))
