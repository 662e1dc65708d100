"""Which cells of a stretched grid are fine: those of the region alone, whatever the globe's cells are like near its poles."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from emulator.ingestion.cutout import covered
from emulator.planet.grid import Grid
from emulator.sphere import mesh
from emulator.sphere.icosphere import icosphere
from emulator.sphere.mesh import MeshOptions, build_graph
from emulator.sphere.stretched import fine_cells, sides

BOX = Grid.box(30, 60, (20, 80, -80, 40))  # cells of 2 degrees


def regular(rows: int, poles: bool, wide: float = 1.0) -> Grid:
    """`wide`: of cells at the equator, over their height."""
    latitude = np.linspace(90, -90, rows) if poles else 90 - (np.arange(rows) + 0.5) * 180 / rows
    count = round(2 * (rows - poles) / wide)
    return Grid.from_coordinates(latitude, np.arange(count) * 360 / count)


def octahedral(rows: int) -> Grid:
    """Rows of 20 cells next to the poles and four more in each further one."""
    sine, weights = np.polynomial.legendre.leggauss(rows)
    counts = 20 + 4 * np.minimum(np.arange(rows), rows - 1 - np.arange(rows))
    latitude = np.degrees(np.arcsin(sine[::-1]))
    longitude = np.concatenate([np.arange(n) * 360 / n for n in counts])
    return Grid.points(np.repeat(latitude, counts), longitude, np.repeat(weights / counts, counts))


def triangles(refinement: int) -> Grid:
    """The centres of an icosahedron's faces."""
    nodes, faces = icosphere(refinement)
    corners = nodes[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    x, y, z = (corners.mean(1) / np.linalg.norm(corners.mean(1), axis=1, keepdims=True)).T
    return Grid.points(np.degrees(np.arcsin(z)), np.degrees(np.arctan2(y, x)) % 360, area)


def cut_out(region: Grid, globe: Grid) -> Grid:
    outside = ~covered(region, globe)
    latitude, longitude = (
        np.concatenate([a.ravel(), b.ravel()[outside]]) for a, b in zip(region.mesh(), globe.mesh(), strict=True)
    )
    return Grid.points(
        latitude, longitude % 360, np.concatenate([region.cell_area.ravel(), globe.cell_area.ravel()[outside]])
    )


@pytest.mark.parametrize(
    "globe",
    [
        Grid.gaussian(24),
        Grid.gaussian(40),
        regular(24, False),
        regular(37, True),
        octahedral(40),
        triangles(3),
        regular(48, False, 2.0),
        octahedral(64),
    ],
)
def test_the_cells_of_a_region_alone_are_fine(globe):
    grid = cut_out(BOX, globe)
    assert_array_equal(fine_cells(grid), np.arange(grid.area.size) < BOX.area.size)


@pytest.mark.parametrize("globe", [Grid.gaussian(24), regular(24, False), regular(25, True)])
def test_cells_of_regular_globes_are_as_far_apart_as_rows(globe):
    rows = np.radians(180 / (globe.shape[0] - globe.has_poles))
    assert_allclose(sides(globe)[1], rows, rtol=0.12)
    with pytest.raises(ValueError, match="Expected a stretched grid.*about as large"):
        fine_cells(globe)


@pytest.mark.parametrize("globe", [octahedral(40), triangles(4)])
def test_cells_of_other_globes_are_about_as_far_apart(globe):
    assert_allclose(sides(globe)[1], np.sqrt(4 * np.pi / globe.area.size), rtol=0.3)
    with pytest.raises(ValueError, match="Expected a stretched grid.*about as large"):
        fine_cells(globe)


@pytest.mark.parametrize(
    "globe",
    [octahedral(128), octahedral(256), regular(48, False, 2.0), regular(49, True, 2.0), regular(24, False, 0.5)],
    ids=["128 octahedral rows", "256 octahedral rows", "2:1", "2:1 with poles", "1:2"],
)
def test_cells_of_other_shapes_here_and_there_are_not_of_two_kinds(globe):
    with pytest.raises(ValueError, match="Expected a stretched grid.*about as large"):
        fine_cells(globe)


def with_small(grid: Grid, near: np.ndarray, share: float) -> Grid:
    """Beside each of some cells another one that takes that share of its area."""
    (latitude, longitude), area = map(np.ravel, grid.mesh()), grid.cell_area.ravel().copy()
    small = area[near] * share
    area[near] -= small
    more = latitude[near] + 0.02, longitude[near] + 0.02, small
    return Grid.points(*(np.concatenate(pair) for pair in zip((latitude, longitude, area), more, strict=True)))


@pytest.mark.parametrize("globe", [Grid.gaussian(24), regular(37, True), octahedral(40)])
@pytest.mark.parametrize("near", [[700], [2500], range(60)], ids=["a station", "one far away", "a seam"])
def test_a_few_small_cells_do_not_set_what_is_fine(globe, near):
    grid = with_small(cut_out(BOX, globe), np.array(near), 1e-3)
    count = grid.area.size - len(near)
    assert_array_equal(fine_cells(grid)[:count], np.arange(count) < BOX.area.size)


def test_small_cells_alone_make_no_region():
    with pytest.raises(ValueError, match="Expected a stretched grid.*about as large"):
        fine_cells(with_small(Grid.gaussian(24), np.array([300, 500, 520]), 1e-3))


def test_fine_cells_are_looked_for_once(monkeypatch):
    """A search for neighbours of all cells."""
    calls = []
    monkeypatch.setattr(mesh, "fine_cells", lambda grid: calls.append(grid) or fine_cells(grid))
    build_graph(cut_out(BOX, Grid.gaussian(12)), MeshOptions(2, inside=4))
    assert len(calls) == 1
    build_graph(Grid.gaussian(12), MeshOptions(2))
    assert len(calls) == 1


def test_a_mesh_is_not_refined_at_the_poles_of_a_regular_globe():
    grid = cut_out(BOX, regular(36, False))
    nodes = build_graph(grid, MeshOptions(3, inside=5)).nodes[642:]
    assert nodes[:, 2].min() > 0 and len(nodes) > 100
