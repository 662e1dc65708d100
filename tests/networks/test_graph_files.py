"""Graph files of Neural-LAM: cells found whatever their order, both kinds of networks made of them, and refusals."""

import importlib.util

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.testing import assert_close

from emulator.networks.graph import expect_no_boundary
from emulator.networks.graph_files import read_flat, read_graph
from emulator.networks.registry import build
from emulator.planet.grid import Grid
from emulator.sphere.mesh import GraphError

MERCATOR = {"grid_mapping_name": "mercator", "longitude_of_projection_origin": 10.0, "earth_radius": 6371e3}
GRID = Grid.projected(np.arange(8) * 1e4, np.arange(6)[::-1] * 1e4, MERCATOR)
BOX = Grid.box(6, 8, (50, 56, -4, 4))
LARGE = Grid.projected(np.arange(30) * 1e4, np.arange(27)[::-1] * 1e4, MERCATOR)


def write(folder, grid, levels, legacy=False, order=None):
    """A graph as Neural-LAM and weather-model-graphs write it, cells by column from the south; places of the nodes."""
    x, y = (grid.x, grid.y) if grid.kind == "projected" else (grid.longitude, grid.latitude)
    cells = np.array([(a, b) for a in x for b in y[::-1]])
    cells = cells if order is None else cells[order]
    low, width = cells.min(0), np.ptp(cells, axis=0)
    nodes = [
        np.array([low + width * ((i + 0.5) / n, (j + 0.5) / n) for i in range(n) for j in range(n)])
        for n in (4, 2)[:levels]
    ]

    def edges(senders, receivers, count):
        away = np.linalg.norm(senders[:, None] - receivers, axis=-1)
        if count is None:
            ends = np.array(np.nonzero((away > 0) & (away < 1.5 * np.sort(np.unique(away.round(6)))[1])))
        elif count == 0:  # all within reach
            ends = np.array(np.nonzero(away <= 0.75 * np.hypot(*(width / 4))))
        else:
            near = np.argsort(away, axis=0)[:count]
            ends = np.stack([near.ravel(), np.tile(np.arange(len(receivers)), count)])
        apart = senders[ends[0]] - receivers[ends[1]]
        return ends, np.concatenate([np.linalg.norm(apart, axis=1)[:, None], apart], 1)

    found = {"g2m": edges(cells, nodes[0], 0), "m2g": edges(nodes[0], cells, 4)}
    same, up = (
        [edges(each, each, None) for each in nodes],
        [edges(a, b, 4) for a, b in zip(nodes, nodes[1:], strict=False)],
    )
    many = {"m2m": same, "mesh_up": up, "mesh_down": [(ends[::-1], f * [1, -1, -1]) for ends, f in up]}
    total, scale = sum(map(len, nodes)), np.abs(cells).max() if legacy else 1.0
    starts = np.cumsum([0, *map(len, nodes)])
    if legacy:
        found["g2m"][0][0] += total
        found["m2g"][0][1] += total
        many = {
            kind: [(ends + np.array([[starts[n + s]], [starts[n + r]]]), f) for n, (ends, f) in enumerate(each)]
            for (kind, each), (s, r) in zip(many.items(), ((0, 0), (0, 1), (1, 0)), strict=True)
        }
    folder.mkdir(exist_ok=True)
    if not legacy:
        (folder / "metainfo.yaml").write_text("spec_version: 0.1.0\n")
    for kind, (ends, features) in found.items():
        torch.save(torch.as_tensor(ends.copy()), folder / f"{kind}_edge_index.pt")
        torch.save(torch.as_tensor(features, dtype=torch.float32), folder / f"{kind}_features.pt")
    for kind, each in many.items():
        torch.save([torch.as_tensor(ends.copy()) for ends, _ in each], folder / f"{kind}_edge_index.pt")
        torch.save([torch.as_tensor(f, dtype=torch.float32) for _, f in each], folder / f"{kind}_features.pt")
    torch.save([torch.as_tensor(each / scale, dtype=torch.float32) for each in nodes], folder / "mesh_features.pt")
    return cells, nodes


@pytest.mark.parametrize("grid", [GRID, BOX], ids=["projected", "box"])
@pytest.mark.parametrize("legacy", [False, True])
def test_edges_lead_from_and_to_the_cells_at_their_places(tmp_path, grid, legacy):
    shuffled = np.random.default_rng(0).permutation(48)
    _, nodes = write(tmp_path, grid, 2, legacy, shuffled)
    graph = read_graph(tmp_path, grid)
    if grid.kind == "projected":
        x, y = np.meshgrid(grid.x, grid.y)
    else:
        y, x = grid.mesh()
    cells = np.stack([x.ravel(), y.ravel()], 1)
    ends = graph.same[1].senders, graph.same[1].receivers
    longest = np.linalg.norm(nodes[1][ends[0]] - nodes[1][ends[1]], axis=1).max()
    for edges, senders, receivers in (
        (graph.encode, cells, nodes[0]), (graph.decode, nodes[0], cells), (graph.same[0], nodes[0], nodes[0]),
        (graph.same[1], nodes[1], nodes[1]), (graph.up[0], nodes[0], nodes[1]), (graph.down[0], nodes[1], nodes[0]),
    ):  # fmt: skip
        apart = (senders[edges.senders] - receivers[edges.receivers]) / longest
        np.testing.assert_allclose(edges.features[:, 1:], apart, rtol=0, atol=1e-5)
        assert (np.diff(edges.receivers) >= 0).all()
    scale = np.abs(cells).max() if legacy else np.ptp(cells, axis=0).max()
    np.testing.assert_allclose(graph.nodes[0], nodes[0] / scale, rtol=1e-6)


def test_the_order_of_the_cells_in_the_files_changes_nothing(tmp_path):
    outputs = []
    for n, order in enumerate((None, np.random.default_rng(1).permutation(48))):
        write(tmp_path / str(n), GRID, 2, order=order)
        torch.manual_seed(0)
        net = build(dict(kind="hierarchical", width=16, rounds=1, graph_files=str(tmp_path / str(n))), 2, 1, GRID)
        x = torch.randn(1, 2, 6, 8, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            outputs.append(net(x))
    assert_close(*outputs, rtol=0, atol=1e-5)
    assert outputs[0].std() > 1e-3


def test_a_flat_graph_is_one_of_the_graph_network(tmp_path):
    write(tmp_path, GRID, 1)
    net = build(dict(kind="graph", width=8, rounds=1, graph_files=str(tmp_path)), 2, 1, GRID)
    assert net(torch.randn(2, 2, 6, 8)).shape == (2, 1, 6, 8)
    around = Grid.points(*(np.ravel(a) for a in BOX.mesh()), np.full(48, 1e-5))
    with pytest.raises(ValueError, match="no graph_files for a boundary at 48 points"):
        expect_no_boundary(around)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "m2g_features.pt").unlink(), "got no m2g_features.pt there"),
        (lambda f: (f / "m2g_features.pt").write_bytes(b"no tensor"), "m2g_features.pt, it cannot be read"),
        (lambda f: (f / "metainfo.yaml").write_text("spec_version: 9.9"), "version 0.1.0, got 9.9"),
        (lambda f: torch.save(torch.zeros(3), f / "mesh_features.pt"), "a list of a tensor for each level"),
        (lambda f: torch.save(torch.load(f / "m2g_edge_index.pt")[:, :40], f / "m2g_edge_index.pt"), "none to"),
        (lambda f: torch.save(torch.load(f / "g2m_edge_index.pt") + 9, f / "g2m_edge_index.pt"), "of another grid"),
    ],
)
def test_files_that_are_damaged_are_refused(tmp_path, harm, message):
    write(tmp_path, GRID, 2)
    harm(tmp_path)
    with pytest.raises(GraphError, match=message):
        read_graph(tmp_path, GRID)


def test_graphs_of_other_grids_and_kinds_are_refused(tmp_path):
    write(tmp_path, GRID, 2)
    moved = Grid.projected(GRID.x + 3e3, GRID.y, MERCATOR)
    with pytest.raises(GraphError, match="cells lie elsewhere, up to 3000"):
        read_graph(tmp_path, moved)
    with pytest.raises(GraphError, match="got none from .* 6 of 54|of another grid|none to 6 of 54|none from"):
        read_graph(tmp_path, Grid.projected(np.arange(9) * 1e4, GRID.y, MERCATOR))
    with pytest.raises(GraphError, match="one level in .*got 2.*kind: hierarchical"):
        read_flat(tmp_path, GRID)
    with pytest.raises(ValueError, match="one of file, square and graph_files"):
        build(dict(kind="graph", graph_files=str(tmp_path), square={}), 2, 1, GRID)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("weather_model_graphs") is None, reason="weather-model-graphs is not installed"
)
@pytest.mark.parametrize("kind", ["hierarchical", "graphcast", "keisler"])
@pytest.mark.parametrize("grid", [LARGE, Grid.box(27, 30, (40, 67, -10, 20))], ids=["projected", "box"])
def test_graphs_of_weather_model_graphs(tmp_path, kind, grid):
    import weather_model_graphs as wmg

    x, y = (grid.x, grid.y) if grid.kind == "projected" else (grid.longitude, grid.latitude)
    coords = np.random.default_rng(0).permutation([(a, b) for a in x for b in y])
    create = {"hierarchical": wmg.create.archetype.create_oskarsson_hierarchical_graph,
              "graphcast": wmg.create.archetype.create_graphcast_graph,
              "keisler": wmg.create.archetype.create_keisler_graph}[kind]  # fmt: skip
    graph = create(coords=coords, mesh_node_distance=abs(x[1] - x[0]), return_components=True)
    wmg.save.to_torch_tensors_on_disk(graph, str(tmp_path), hierarchical=kind == "hierarchical")
    read = read_graph(tmp_path, grid)
    assert len(read.nodes) == (2 if kind == "hierarchical" else 1)
    cells = np.stack([a.ravel() for a in np.meshgrid(x, y)], 1)
    span = np.ptp(cells, axis=0).max()
    written = np.array([data["pos"] for _, data in graph["m2g"].nodes(data=True) if data["type"] == "mesh"])
    away = np.linalg.norm(read.nodes[0][:, None] * span - written, axis=-1)
    assert away.shape[0] == away.shape[1] and max(away.min(0).max(), away.min(1).max()) < 1e-5 * span
    # cells are where the edges from their nodes lead, in one unit for all edges
    for edges, sign in ((read.encode, 1), (read.decode, -1)):
        ends = (edges.senders, edges.receivers)[::sign]
        apart = cells[ends[0]] - read.nodes[0][ends[1]] * span
        unit = np.linalg.norm(apart, axis=1).max() / edges.features[:, 0].max()
        assert_allclose(sign * edges.features[:, 1:] * unit, apart, rtol=0, atol=1e-4 * span)
    name = "hierarchical" if kind == "hierarchical" else "graph"
    net = build(dict(kind=name, width=16, rounds=1, graph_files=str(tmp_path)), 2, 1, grid)
    assert net(torch.randn(1, 2, *grid.shape)).std() > 0
