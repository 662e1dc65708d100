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
PLACES = np.random.default_rng(0)
NOISE = dict(length_scales=(2000.0,), channels=2)
GRIDS = {
    "gaussian": Grid.gaussian(12),
    "uneven": Grid.gaussian(11, 20),
    "poles": Grid.equiangular(13, 20, poles=True),
    "box": Grid.box(13, 18, (40, 66, -10, 26)),
    "points": Grid.points(*PLACES.uniform((-90, 0), (90, 360), (301, 2)).T, np.ones(301)),
}
OPTIONS = [
    ("gaussian", {}),
    ("gaussian", dict(multi=False, rounds=1)),
    ("uneven", dict(noise=NOISE, checkpointing=True, rounds=5)),
    ("poles", dict(refinement=2, radius=1.1)),
    ("box", dict(refinement=3)),
    ("points", {}),
]
CASES = [(CONFIG | options, GRIDS[grid], DOUBLE) for grid, options in OPTIONS]
# in single precision by compiled kernels, and by torch where the width is none of theirs
CASES += [
    (CONFIG | options, GRIDS[grid], SINGLE)
    for grid, options in OPTIONS + [("poles", dict(width=12)), ("uneven", dict(checkpointing=True, rounds=8))]
]
CASES += [(CONFIG | dict(precision="bfloat16"), GRIDS["uneven"], HALF)]


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_outputs_and_gradients_are_those_of_one_process(size):
    assert_equal_over_processes(size, CASES)


def shares(graph, size, rows, rounds):
    for rank in range(size):
        space = Space()
        space.size, space.rank = size, rank
        yield part_of(graph, space, rows, rounds)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("multi", [False, True])
def test_every_edge_is_with_one_process_and_all_have_as_many(size, multi):
    rounds, graph = 6, build_graph(Grid.gaussian(32), MeshOptions(3, multi))
    parts = list(shares(graph, size, 32, rounds))
    assert sum(part.cells for part in parts) == graph.cells
    np.testing.assert_array_equal(
        np.concatenate([part.nodes for part in parts])[:, 2], np.sort(graph.nodes[:, 2])[::-1]
    )
    for kind in ("encode", "process", "decode"):
        features = np.concatenate([getattr(part, kind).features for part in parts])
        whole = getattr(graph, kind).features
        np.testing.assert_array_equal(features[np.lexsort(features.T)], whole[np.lexsort(whole.T)])
    work = [rounds * len(part.process.index) + len(part.encode.index) + len(part.decode.index) for part in parts]
    assert 1 / size <= max(work) / sum(work) <= 1.03 / size
    fetched = [len(part.process.index.fetch.place) for part in parts]
    sides = [1 + (0 < rank < size - 1) for rank in range(size)]
    # a circle around the sphere meets 5 * 2^n nodes and more, so that what is fetched grows as the root of all
    assert all(0 < count <= 12 * 2**3 * side for count, side in zip(fetched, sides, strict=True))


def test_more_processes_than_the_mesh_has_nodes_are_refused():
    space = Space()
    space.size = 13
    with pytest.raises(NetworkError, match="Expected mesh nodes for each of 13 processes, got 12; raise `refinement`"):
        build(CONFIG | dict(refinement=0), 3, 2, Grid.gaussian(16), space)
