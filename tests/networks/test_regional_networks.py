"""Networks on regions: a border that nothing comes across, neighbours across Greenwich, and refusals that say what fits."""

import numpy as np
import pytest
import torch
from learning import assert_learns
from tiny_networks import TINY
from torch.testing import assert_close

from emulator.networks.edges import pad_region
from emulator.networks.registry import NetworkError, build
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
@pytest.mark.parametrize("kind", ["unet", "graph", "fuxi", "wxformer"])
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


@pytest.mark.parametrize("kind", ["unet", "fuxi", "wxformer"])
def test_a_box_in_two_parts_is_refused_by_networks_of_maps(kind):
    split = Grid.from_coordinates(np.arange(60.0, 28, -2), np.sort(np.arange(-20.0, 20, 2) % 360))
    with pytest.raises(NetworkError, match="two parts across Greenwich"):
        build(CONFIGS[kind], 3, 2, split)
