"""The U-Net of bands of rows is that of the whole grid."""

import numpy as np
import pytest
import torch
from bands import assert_equal_over_processes

from emulator.planet.grid import Grid

CONFIG = dict(kind="unet", width=6, depth=2)
NOISE = dict(length_scales=(2000.0,), channels=2)
GRIDS = {
    "gaussian": Grid.gaussian(16, 32),
    "uneven": Grid.gaussian(22, 48),
    "poles": Grid.equiangular(17, 32, poles=True),
}
CASES = [
    (2, "gaussian", {}),
    (2, "uneven", dict(blocks=2, checkpointing=True)),
    (2, "poles", dict(depth=3)),
    (4, "gaussian", dict(depth=1, noise=NOISE)),
    (4, "uneven", dict(noise=NOISE, checkpointing=True)),
    (4, "poles", {}),
]


@pytest.mark.parametrize(("size", "grid", "options"), CASES)
def test_outputs_and_gradients_are_those_of_one_process(size, grid, options):
    assert_equal_over_processes(size, CONFIG | options, GRIDS[grid])


@pytest.mark.parametrize("size", [2, 4])
def test_in_single_precision_to_its_rounding(size):
    assert_equal_over_processes(size, CONFIG, GRIDS["poles"], torch.float32)
