"""The graph network of bands of cells is that of the whole grid, and each process has its share of the edges."""

import numpy as np
import pytest
from bands import DOUBLE, HALF, SINGLE, assert_equal_over_processes

from emulator.networks.parts import part_of
from emulator.networks.registry import NetworkError, build
from emulator.parallel.space import Space
from emulator.planet.grid import Grid
from emulator.sphere.mesh import MeshOptions, build_graph

CONFIG = dict(kind="graph", width=16, rounds=3, refinement=1)
NOISE = dict(length_scales=(2000.0,), channels=2)
GRIDS = {
    "gaussian": Grid.gaussian(12),
    "uneven": Grid.gaussian(11, 20),
    "poles": Grid.equiangular(13, 20, poles=True),
    "box": Grid.box(13, 18, (40, 66, -10, 26)),
}
OPTIONS = [
    ("gaussian", {}),
    ("gaussian", dict(multi=False, rounds=1)),
    ("uneven", dict(noise=NOISE, checkpointing=True, rounds=5)),
    ("poles", dict(refinement=2, radius=1.1)),
    ("box", dict(refinement=3)),
]
CASES = [(CONFIG | options, GRIDS[grid], DOUBLE) for grid, options in OPTIONS]
# in single precision by compiled kernels, and by torch where the width is none of theirs
CASES += [
    (CONFIG | options, GRIDS[grid], SINGLE)
    for grid, options in OPTIONS + [("poles", dict(width=12)), ("uneven", dict(checkpointing=True, rounds=8))]
]
CASES += [(CONFIG | dict(precision="bfloat16"), GRIDS["uneven"], HALF)]


@pytest.mark.parametrize("size", [2, 4])
def test_outputs_and_gradients_are_those_of_one_process(size):
    assert_equal_over_processes(size, CASES)
