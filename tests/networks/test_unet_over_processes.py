"""The U-Net of bands of rows is that of the whole grid."""

import pytest
from bands import DOUBLE, HALF, SINGLE, assert_equal_over_processes
from together import together

from emulator.networks.cost import products
from emulator.networks.registry import NetworkError, build
from emulator.parallel.space import ALONE, Space
from emulator.planet.grid import Grid

CONFIG = dict(kind="unet", width=6, depth=2)
NOISE = dict(length_scales=(2000.0,), channels=2)
GRIDS = {
    "gaussian": Grid.gaussian(16, 32),
    "uneven": Grid.gaussian(22, 48),  # 22, 11 and 6 rows
    "poles": Grid.equiangular(17, 32, poles=True),
    "box": Grid.box(13, 18, (40, 66, -10, 26)),
    "zone": Grid.box(15, 24, (10, 70, 0, 360)),
}
OPTIONS = [
    ("gaussian", dict(depth=1, noise=NOISE)),
    ("gaussian", dict(blocks=2, checkpointing=True)),
    ("uneven", dict(noise=NOISE, checkpointing=True)),
    ("poles", {}),
    ("poles", dict(depth=1, blocks=2)),
    ("box", {}),
    ("zone", {}),
]
CASES = [(CONFIG | options, GRIDS[grid], DOUBLE) for grid, options in OPTIONS]
CASES += [(CONFIG, GRIDS[grid], SINGLE) for grid in ("uneven", "poles")]
CASES += [(CONFIG, GRIDS["uneven"], HALF)]


# bands of one and two rows: what lies beyond a pole is with another process
THIN = [(CONFIG | dict(depth=1), Grid.equiangular(7, 16, poles=True), DOUBLE)]


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_outputs_and_gradients_are_those_of_one_process(size):
    assert_equal_over_processes(size, CASES + THIN)


def counted(space):
    network = build(CONFIG, 3, 2, GRIDS["gaussian"], space)
    return products(network, 3, (len(range(*space.band(16).indices(16))), 32))


def test_products_of_bands_are_counted():
    whole, parts = counted(ALONE), together(2, counted)
    assert all(0.4 * whole < part < 0.7 * whole for part in parts)


def test_a_level_with_fewer_rows_than_processes_is_refused():
    space = Space()
    space.size = 4
    with pytest.raises(NetworkError, match="a row for each of 4 processes after 2 halvings of 12 rows, got 3"):
        build(CONFIG, 3, 2, Grid.gaussian(12), space)
