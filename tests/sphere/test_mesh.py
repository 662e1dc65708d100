"""The icosahedral graph: counts, cover of the sphere, reach, frames, and its file."""

import dataclasses
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from emulator.planet.cell_areas import unit_vectors
from emulator.planet.grid import Grid
from emulator.sphere.mesh import (
    GraphError,
    MeshGraph,
    MeshOptions,
    build_graph,
    containing_face,
    graph_key,
    graph_of,
    icosphere,
    local_frame,
    mesh_edges,
    within,
)


def some_points(count, seed=0):
    points = np.random.default_rng(seed).normal(size=(count, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def spiral(count):
    """A point grid of nearly equal cells (Fibonacci)."""
    n = np.arange(count) + 0.5
    return Grid.points(np.degrees(np.arcsin(1 - 2 * n / count)), n * 137.50776405 % 360, np.ones(count))


GRIDS = {
    "gaussian": Grid.gaussian(24),
    "with poles": Grid.equiangular(19, poles=True),
    "points": spiral(700),
}


@pytest.mark.parametrize("n", range(6))
def test_nodes_triangles_and_edges_of_a_refinement(n):
    nodes, faces = icosphere(n)
    edges = mesh_edges(faces)
    assert len(nodes) == 10 * 4**n + 2 and len(faces) == 20 * 4**n and edges.shape[1] == 60 * 4**n
    assert_allclose(np.linalg.norm(nodes, axis=1), 1, rtol=0, atol=1e-15)
    directed = {tuple(edge) for edge in edges.T.tolist()}
    assert len(directed) == edges.shape[1]
    assert all((b, a) in directed for a, b in directed)
    neighbours = np.bincount(edges[0])
    assert sorted(neighbours)[:12] == [5] * 12 and (np.sort(neighbours)[12:] == 6).all()
    lengths = np.linalg.norm(nodes[edges[0]] - nodes[edges[1]], axis=1)
    assert lengths.max() / lengths.min() < 1.4
    if n:
        coarse = icosphere(n - 1)[0]
        assert_array_equal(nodes[: len(coarse)], coarse)


@pytest.mark.parametrize("n", range(5))
def test_triangles_cover_the_sphere_once(n):
    """Their solid angles (van Oosterom and Strackee 1983), all of one sense, sum to 4 pi; children tile their parents."""
    nodes, faces = icosphere(n)

    def angles(faces):
        a, b, c = nodes[faces].transpose(1, 0, 2)
        volume = np.einsum("fi,fi->f", a, np.cross(b, c))
        return 2 * np.arctan2(volume, 1 + (a * b).sum(1) + (b * c).sum(1) + (c * a).sum(1))

    area = angles(faces)
    assert (area > 0).all()
    assert_allclose(area.sum(), 4 * np.pi, rtol=1e-12)
    if n:
        assert_allclose(area.reshape(-1, 4).sum(1), angles(icosphere(n - 1)[1]), rtol=1e-9)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(0, 5), seed=st.integers(0, 1000))
def test_every_point_lies_in_the_triangle_that_is_found(n, seed):
    """It is a combination of the three corners with no negative weight."""
    points = np.concatenate([some_points(50, seed), icosphere(min(n, 2))[0]])
    nodes, faces = icosphere(n)
    corners = nodes[faces[containing_face(points, n)]]
    weights = np.linalg.solve(corners.transpose(0, 2, 1), points[:, :, None])[..., 0]
    assert (weights > -1e-12).all()


@settings(max_examples=30, deadline=None)
@given(n=st.integers(0, 3), radius=st.floats(0.02, 1.9), seed=st.integers(0, 1000))
def test_pairs_within_a_radius_are_those_of_a_full_search(n, radius, seed):
    points, nodes = np.concatenate([some_points(40, seed), np.eye(3), -np.eye(3)]), icosphere(n)[0]
    expected = np.linalg.norm(points[:, None] - nodes, axis=2) < radius
    point, node = within(points, nodes, radius)
    found = np.zeros_like(expected)
    found[point, node] = True
    assert len(point) == expected.sum()
    assert_array_equal(found, expected)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("multi", [True, False])
def test_the_graph_reaches_every_cell_and_every_node(grid, multi):
    graph = build_graph(grid, MeshOptions(2, multi, 0.6))
    cells = int(np.prod(grid.shape))
    assert graph.cells == cells
    # from every cell to a node, and from three nodes to every cell
    assert_array_equal(np.unique(graph.encode.senders), np.arange(cells))
    assert_array_equal(np.unique(graph.encode.receivers), np.arange(162))
    assert_array_equal(graph.decode.receivers, np.repeat(np.arange(cells), 3))
    assert_array_equal(np.unique(graph.decode.senders), np.arange(162))
    assert len(graph.process) == (60 + 240 + 960 if multi else 960)
    for edges in (graph.encode, graph.process, graph.decode):
        assert (np.diff(edges.receivers) >= 0).all()
        assert len({*zip(edges.senders.tolist(), edges.receivers.tolist(), strict=True)}) == len(edges)


def test_graphcast_has_as_many_edges_as_published():
    """Lam et al. 2023: 40 962 nodes and 327 660 edges of the multi-mesh of six refinements."""
    assert len(icosphere(6)[0]) == 40962
    assert sum(mesh_edges(icosphere(n)[1]).shape[1] for n in range(7)) == 327660


@pytest.mark.parametrize("n", range(5))
def test_the_smallest_radius_allowed_reaches_every_point(n):
    """A triangle's points are nearest to a corner within its circumradius."""
    nodes, faces = icosphere(n)
    a, b, c = nodes[faces].transpose(1, 0, 2)
    sides = [np.linalg.norm(x - y, axis=1) for x, y in ((a, b), (b, c), (c, a))]
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    circumradius = np.prod(sides, 0) / (4 * area)
    # the farthest point lies above the circumcentre, on the sphere
    height = np.sqrt(1 - circumradius**2)
    chord = np.sqrt(circumradius**2 + (1 - height) ** 2)
    reach = chord.max() / np.max(sides)
    assert reach < (0.65 if n == 0 else 0.6)
    assert n < 2 or reach < 0.58


def test_features_are_displacements_in_the_receivers_frame():
    graph = build_graph(GRIDS["gaussian"], MeshOptions(2))
    points = unit_vectors(*(a.ravel() for a in GRIDS["gaussian"].mesh()))
    for edges, senders, receivers in (
        (graph.encode, points, graph.nodes),
        (graph.process, graph.nodes, graph.nodes),
        (graph.decode, graph.nodes, points),
    ):
        displacement = senders[edges.senders] - receivers[edges.receivers]
        length = np.linalg.norm(displacement, axis=1)
        assert_allclose(edges.features[:, 0], length / length.max(), atol=1e-6)
        assert_allclose(np.linalg.norm(edges.features[:, 1:], axis=1), edges.features[:, 0], atol=1e-6)
        # a chord of length d falls d^2 / 2 below the receiver's tangent plane
        assert_allclose(edges.features[:, 1] * length.max(), -(length**2) / 2, atol=1e-6)
        north = senders[edges.senders][:, 2] - receivers[edges.receivers][:, 2]
        low = abs(receivers[edges.receivers][:, 2]) < 0.1
        assert np.corrcoef(edges.features[low, 3], north[low])[0, 1] > 0.99


def test_features_do_not_change_when_the_sphere_turns_about_its_axis():
    turned = Grid.points(*(lambda g: (g.latitude, (g.longitude + 72) % 360, g.area))(GRIDS["points"]))
    first, second = (build_graph(grid, MeshOptions(2)) for grid in (GRIDS["points"], turned))

    for kind in ("encode", "decode"):
        a, b = getattr(first, kind), getattr(second, kind)
        # the frame of a pole is that of longitude 0, whatever turns
        poles = (0, 11) if kind == "encode" else ()
        kept = [e.features[~np.isin(e.receivers, poles)] for e in (a, b)]
        assert len(kept[0]) > 1000
        assert_allclose(np.sort(kept[0], 0), np.sort(kept[1], 0), atol=1e-5)


def test_frames_are_orthonormal_and_right_handed_also_at_the_poles():
    points = np.concatenate([some_points(50), [[0, 0, 1.0], [0, 0, -1.0]]])
    frame = local_frame(points)
    assert_allclose(frame @ frame.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (52, 3, 3)), atol=1e-12)
    assert_allclose(np.linalg.det(frame), 1, atol=1e-12)
    assert_allclose(frame[50, 1], [0, 1, 0], atol=1e-12)


def test_a_mesh_finer_than_the_grid_is_told_about(caplog):
    with caplog.at_level(logging.WARNING, "emulator"):
        build_graph(Grid.gaussian(8), MeshOptions(4))
    assert "mesh nodes receive from no cell" in caplog.text


def test_the_file_gives_the_same_graph_and_is_used_again(tmp_path):
    path, grid = tmp_path / "sub" / "graph.npz", GRIDS["points"]
    built = graph_of(grid, MeshOptions(2), path)
    before = path.stat().st_mtime_ns
    again = graph_of(grid, MeshOptions(2), path)
    assert path.stat().st_mtime_ns == before
    assert [p.name for p in path.parent.iterdir()] == ["graph.npz"]
    assert again.cells == built.cells and again.key == built.key
    assert_array_equal(again.nodes, built.nodes)
    for kind in ("encode", "process", "decode"):
        for field in dataclasses.fields(built.encode):
            first, second = (getattr(getattr(g, kind), field.name) for g in (built, again))
            assert first.dtype == second.dtype
            assert_array_equal(first, second)


def test_a_file_of_another_grid_or_other_options_is_refused(tmp_path):
    path = tmp_path / "graph.npz"
    graph_of(GRIDS["points"], MeshOptions(2), path)
    with pytest.raises(GraphError, match="remove the file to have it built anew"):
        graph_of(GRIDS["gaussian"], MeshOptions(2), path)
    with pytest.raises(GraphError, match="it has the key"):
        graph_of(GRIDS["points"], MeshOptions(2, multi=False), path)
    keys = {
        graph_key(g, o) for g in GRIDS.values() for o in (MeshOptions(2), MeshOptions(3), MeshOptions(2, radius=0.7))
    }
    assert len(keys) == 9


def test_a_damaged_file_is_refused_in_one_sentence(tmp_path):
    path = tmp_path / "graph.npz"
    with pytest.raises(GraphError, match="got nothing there"):
        MeshGraph.load(path)
    path.write_bytes(b"not a zip")
    with pytest.raises(GraphError, match="cannot be read"):
        MeshGraph.load(path)
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))  # a single array, which opens as no archive
    with pytest.raises(GraphError, match="cannot be read"):
        MeshGraph.load(path)
    graph = build_graph(GRIDS["points"], MeshOptions(1))
    graph.save(path)
    stored = dict(np.load(path))
    np.savez(path, **(stored | {"nodes": stored["nodes"] * 1.001}))
    with pytest.raises(GraphError, match="its hash differs"):
        MeshGraph.load(path)
    np.savez(path, **(stored | {"schema": "graph-0"}))
    with pytest.raises(GraphError, match="Expected a graph of schema graph-1 .* got 'graph-0'"):
        MeshGraph.load(path)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(GraphError):
        MeshGraph.load(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"refinement": 9}, "refinement from 0 to 8, got 9"), ({"radius": 0.3}, "radius from 0.58 to 4")],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MeshOptions(**options)


def test_the_triangles_of_icon_become_a_graph(shared_data):
    """A real point grid: the 20 480 triangles of ICON's R02B04, themselves a refined icosahedron."""
    import xarray as xr

    path = next((shared_data / "climate").glob("tas_Amon_ICON*"))
    with xr.open_dataset(path) as dataset:
        latitude, longitude = (np.asarray(dataset[name].values) for name in ("latitude", "longitude"))
    grid = Grid.points(latitude, longitude, np.ones(len(latitude)))
    graph = build_graph(grid, MeshOptions(4))
    assert graph.cells == 20480
    assert_array_equal(np.unique(graph.encode.senders), np.arange(20480))
    assert_array_equal(np.unique(graph.encode.receivers), np.arange(2562))


def test_the_mesh_of_a_region_is_its_part_of_the_globes():
    """Cells of a box far from its border are joined as on the globe, across Greenwich too, and none is left alone."""
    options = MeshOptions(3)
    globe = Grid.equiangular(60, 120)
    box = Grid.from_coordinates(globe.latitude[5:35], np.arange(-39.0, 51, 3))
    whole, part = build_graph(globe, options), build_graph(box, options)
    assert len(part.nodes) < 0.4 * len(whole.nodes)
    number = {tuple(node): n for n, node in enumerate(whole.nodes)}
    back = np.array([number[tuple(node)] for node in part.nodes])
    rows, columns = np.meshgrid(np.arange(5, 35), np.arange(-39, 51, 3) % 360 // 3, indexing="ij")
    cells = (rows * 120 + columns).ravel()

    def pairs(edges, senders, receivers):
        return set(zip(senders[edges.senders].tolist(), receivers[edges.receivers].tolist(), strict=True))

    every = np.arange(max(whole.cells, len(whole.nodes)))
    same = pairs(whole.decode, every, every), pairs(part.decode, back, cells)
    assert {pair for pair in same[0] if pair[1] in set(cells.tolist())} == same[1]
    sent = pairs(whole.encode, every, every), pairs(part.encode, cells, back)
    assert {pair for pair in sent[0] if pair[0] in set(cells.tolist())} == sent[1]
    between = pairs(whole.process, every, every), pairs(part.process, back, back)
    assert {pair for pair in between[0] if set(pair) <= set(back.tolist())} == between[1]
    reached = np.unique(part.decode.senders)
    assert len(np.setdiff1d(np.arange(len(part.nodes)), reached))  # there is a margin
    assert graph_key(box, options) != graph_key(globe, options)
