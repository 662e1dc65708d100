"""The spherical CNN of vectors of bands of rows is that of the whole grid."""

import pytest
from bands import DOUBLE, SINGLE, assert_equal_over_processes

from emulator.networks.signature import Channel, Signature
from emulator.planet.grid import Grid

CONFIG = dict(kind="vector_cnn", width=6, vectors=2, blocks=2)
NOISE = dict(length_scales=(2000.0,), channels=2)
NAMES = "temperature", "u_component_of_wind", "v_component_of_wind"
ALL = tuple(Channel(name, "state") for name in NAMES)
WIND = Signature(ALL, ALL[1:])
GRIDS = {"uneven": Grid.gaussian(18, 36), "poles": Grid.equiangular(17, 32, poles=True)}
CASES = [
    (CONFIG | dict(scale_factor=1.5, noise=NOISE), GRIDS["uneven"], DOUBLE),
    (CONFIG | dict(position="harmonics", checkpointing=True, knots=3), GRIDS["poles"], DOUBLE, WIND),
    (CONFIG, GRIDS["uneven"], SINGLE, WIND),
]


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_outputs_and_gradients_are_those_of_one_process(size):
    assert_equal_over_processes(size, CASES)
