"""Square meshes in a region's plane, and hierarchies: closed counts, cover of the cells, nested levels, reach."""

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from emulator.planet.grid import Grid
from emulator.sphere.icosphere import icosphere
from emulator.sphere.level_graph import icosahedral_levels
from emulator.sphere.mesh import MeshOptions, build_graph
from emulator.sphere.plane import places, spacing
from emulator.sphere.square_mesh import SquareOptions, square_graph, square_levels
from emulator.sphere.stretched import fine_cells

LAMBERT = {
    "grid_mapping_name": "lambert_conformal_conic",
    "standard_parallel": [60.0, 60.0],
    "longitude_of_central_meridian": 10.0,
    "latitude_of_projection_origin": 60.0,
    "earth_radius": 6371e3,
}
NORDIC = np.random.default_rng(0).uniform((54, 4), (72, 32), (200, 2)).T
REGIONS = {
    "box": Grid.box(20, 30, (30, 70, -20, 40)),
    "zone": Grid.box(18, 36, (20, 80, 0, 360)),
    "projected": Grid.projected(np.arange(27) * 1e5 - 13e5, np.arange(24)[::-1] * 1e5 - 12e5, LAMBERT),
    "region_points": Grid.points(*NORDIC, np.full(200, 1e-4)),
}
TWO = SquareOptions(levels=2, spacing=1.5)


def edges_between_neighbours(nx, ny):
    return 2 * (nx * (ny - 1) + ny * (nx - 1) + 2 * (nx - 1) * (ny - 1))


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("radius", [0.5, 0.51, 1.2])
def test_every_cell_sends_and_receives_and_every_level_has_as_many_nodes_and_edges_as_counted(region, radius):
    grid, options = REGIONS[region], dataclasses.replace(TWO, radius=radius)
    graph, cells = square_levels(grid, options), grid.area.size
    (plane,) = places(grid)
    unit = spacing(grid, plane) * options.spacing * 3
    top = np.maximum(2, np.round(np.ptp(plane, axis=0) / unit).astype(int))
    for level, count in enumerate((3 * top, top)):
        assert len(graph.nodes[level]) == np.prod(count)
        assert len(graph.same[level]) == edges_between_neighbours(*count)
    assert len(graph.up[0]) == len(graph.down[0]) == np.prod(3 * top)
    assert len(graph.decode) == 4 * cells
    assert_array_equal(np.unique(graph.encode.senders), np.arange(cells))
    assert_array_equal(np.bincount(graph.decode.receivers, minlength=cells), np.full(cells, 4))
    for edges in (graph.encode, *graph.same, *graph.up, *graph.down, graph.decode):
        assert (np.diff(edges.receivers) >= 0).all() and edges.features.dtype == np.float32
        assert_allclose(np.hypot(*edges.features[:, 1:].T), edges.features[:, 0], rtol=0, atol=1e-6)
    assert np.max([each.features[:, 0].max() for each in graph.same]) == pytest.approx(1, abs=1e-6)


def test_levels_nest_and_nodes_send_to_the_one_that_they_are_nearest_to():
    graph = square_levels(REGIONS["projected"], SquareOptions(levels=3, spacing=1.0))
    for lower, upper, up, down in zip(graph.nodes, graph.nodes[1:], graph.up, graph.down, strict=False):
        assert_array_equal(np.bincount(up.receivers), np.full(len(upper), 9))
        away = np.linalg.norm(lower[:, None] - upper, axis=-1)
        assert_array_equal(up.receivers[np.argsort(up.senders)], away.argmin(1))
        assert_array_equal(np.sort(up.senders), np.arange(len(lower)))
        assert away.min(0).max() < 1e-6
        assert {*zip(up.senders, up.receivers, strict=True)} == {*zip(down.receivers, down.senders, strict=True)}


def test_the_merged_mesh_has_the_edges_of_all_levels_between_nodes_at_their_places():
    grid, options = REGIONS["projected"], SquareOptions(levels=3, spacing=1.0)
    levels, flat = square_levels(grid, options), square_graph(grid, options)
    assert len(flat.process) == sum(map(len, levels.same))
    nodes = flat.nodes.astype(np.float64)
    displacement = nodes[flat.process.senders] - nodes[flat.process.receivers]
    unit = (displacement[:, 0] @ flat.process.features[:, 1]) / (displacement[:, 0] @ displacement[:, 0])
    assert_allclose(unit * displacement, flat.process.features[:, 1:], rtol=0, atol=1e-5)
    pairs = {*zip(flat.process.senders.tolist(), flat.process.receivers.tolist(), strict=True)}
    assert len(pairs) == len(flat.process)


def test_reach_is_that_of_a_full_search():
    grid, options = REGIONS["region_points"], SquareOptions(levels=1, spacing=1.0, radius=1.3)
    graph, (plane,) = square_levels(grid, options), places(grid)
    nodes = graph.nodes[0].astype(np.float64) * np.ptp(plane, axis=0).max() + plane.min(0) + np.ptp(plane, axis=0) / 2
    steps = [np.diff(np.unique(np.round(nodes[:, axis], 6))).max() for axis in (0, 1)]
    away = np.linalg.norm(plane[:, None] - nodes, axis=-1)
    expected = {*zip(*np.nonzero(away <= 1.3 * np.hypot(*steps)), strict=True)}
    assert {*zip(graph.encode.senders, graph.encode.receivers, strict=True)} == expected


def test_the_plane_keeps_areas_and_distances_near_the_middle():
    side = np.linspace(-0.01, 0.01, 3)
    for north, east in ((40.0, 100.0), (70.0, -30.0)):
        turned = side / np.cos(np.radians(north))
        grid = Grid.points(np.repeat(north + side, 3), np.tile(east + turned, 3), np.full(9, 1e-9))
        (plane,) = places(grid)
        assert_allclose(plane[8] - plane[0], np.radians([0.02, 0.02]), rtol=1e-3)
    box = REGIONS["zone"]
    lower, right = (
        places(box, Grid.box(18, 36, edges))[1] for edges in ((19.99, 79.99, 0, 360), (20, 80, 0.01, 360.01))
    )
    at = places(box)[0]
    area = np.abs(np.linalg.det(np.stack([lower - at, right - at], -1)))
    latitude = np.radians(box.mesh()[0].ravel())
    assert_allclose(area, np.radians(0.01) ** 2 * np.cos(latitude), rtol=1e-3)


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("mesh", ["square", "icosahedral"])
def test_places_of_a_boundary_send_and_never_receive(region, mesh):
    grid = REGIONS[region]
    around = Grid.points(*np.random.default_rng(1).uniform((25, -25), (84, 45), (150, 2)).T, np.full(150, 1e-4))
    make = {
        "square": lambda boundary: square_levels(grid, TWO, boundary),
        "icosahedral": lambda boundary: icosahedral_levels(grid, MeshOptions(3), 2, boundary),
    }[mesh]
    graph, alone = make(around), make(None)
    assert graph.boundary == 150 and alone.boundary == 0
    assert_array_equal(np.unique(graph.encode.senders), np.arange(grid.area.size + 150))
    assert_array_equal(np.unique(graph.decode.receivers), np.arange(grid.area.size))


@pytest.mark.parametrize(("refinement", "levels"), [(2, 3), (3, 2), (1, 1)])
def test_a_node_of_the_icosahedron_sends_up_to_its_place_or_the_ends_of_its_edge(refinement, levels):
    graph = icosahedral_levels(Grid.gaussian(12), MeshOptions(refinement), levels)
    counts = [10 * 4**n + 2 for n in range(refinement, refinement - levels, -1)]
    assert [len(nodes) for nodes in graph.nodes] == counts
    assert [len(edges) for edges in graph.same] == [60 * 4**n for n in range(refinement, refinement - levels, -1)]
    assert [len(e) for e in graph.up] == [2 * a - b for a, b in zip(counts, counts[1:], strict=False)]
    for fine, up in zip(graph.nodes, graph.up, strict=False):
        middle = np.zeros_like(fine)
        np.add.at(middle, up.senders, fine[up.receivers])  # coarse nodes are the first of the fine ones
        middle /= np.linalg.norm(middle, axis=1, keepdims=True)
        assert_allclose(middle, fine, rtol=0, atol=1e-6)


def test_a_mesh_is_finer_around_the_fine_cells_of_a_stretched_grid_alone():
    coarse, fine = Grid.gaussian(12), Grid.box(24, 24, (30, 60, 0, 40))
    inside = [(30 < a < 60) & (0 < b < 40) for a, b in zip(*map(np.ravel, coarse.mesh()), strict=True)]
    kept = ~np.array(inside)
    latitude, longitude = (
        np.concatenate([a.ravel(), b.ravel()[kept]]) for a, b in zip(fine.mesh(), coarse.mesh(), strict=True)
    )
    area = np.concatenate([fine.cell_area.ravel(), coarse.area.ravel()[kept]])
    grid = Grid.points(latitude, longitude, area)
    assert grid.is_global() and fine_cells(grid)[:576].all() and not fine_cells(grid)[576:].any()
    plain, graph = build_graph(grid, MeshOptions(2)), build_graph(grid, MeshOptions(2, inside=4))
    assert len(plain.nodes) == 162 < len(graph.nodes) < 500
    assert_array_equal(graph.nodes[:162], plain.nodes)
    away = np.arccos(np.clip(graph.nodes[162:] @ [0.66, 0.24, 0.71], -1, 1))
    assert np.degrees(away).max() < 40
    for ends, count in ((graph.encode.senders, grid.area.size), (graph.decode.receivers, grid.area.size)):
        assert_array_equal(np.unique(ends), np.arange(count))
    shortest = np.linalg.norm(np.subtract(*icosphere(4)[0][icosphere(4)[1][0, :2]]))
    lengths = np.linalg.norm(graph.nodes[graph.process.senders] - graph.nodes[graph.process.receivers], axis=1)
    assert lengths.min() < 1.1 * shortest and lengths.max() > 1  # edges of every refinement
    with pytest.raises(ValueError, match="stretched grid.*about as large"):
        build_graph(coarse, MeshOptions(2, inside=3))


def test_refusals():
    with pytest.raises(ValueError, match="at least 27 cells across for 3 levels.*got 25.2; lower `levels`"):
        square_levels(REGIONS["box"], SquareOptions())
    with pytest.raises(ValueError, match="within 100 degrees of its middle"):
        square_levels(Grid.gaussian(12), TWO)
    with pytest.raises(ValueError, match="at most 2 levels"):
        icosahedral_levels(Grid.gaussian(12), MeshOptions(1), 3)
