"""Which cells of a stretched grid are fine: those of the region alone, whatever the globe's cells are like near its poles."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from emulator.ingestion.cutout import covered
from emulator.planet.grid import Grid
from emulator.sphere.icosphere import icosphere
from emulator.sphere.mesh import MeshOptions, build_graph
from emulator.sphere.stretched import fine_cells, spacings

BOX = Grid.box(30, 60, (20, 80, -80, 40))  # cells of 2 degrees


def regular(rows: int, poles: bool) -> Grid:
    latitude = np.linspace(90, -90, rows) if poles else 90 - (np.arange(rows) + 0.5) * 180 / rows
    count = 2 * (rows - poles)
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
    [Grid.gaussian(24), Grid.gaussian(40), regular(24, False), regular(37, True), octahedral(40), triangles(3)],
)
def test_the_cells_of_a_region_alone_are_fine(globe):
    grid = cut_out(BOX, globe)
    assert_array_equal(fine_cells(grid), np.arange(grid.area.size) < BOX.area.size)


@pytest.mark.parametrize("globe", [Grid.gaussian(24), regular(24, False), regular(25, True)])
def test_cells_of_regular_globes_are_as_far_apart_as_rows(globe):
    rows = np.radians(180 / (globe.shape[0] - globe.has_poles))
    assert_allclose(spacings(globe), rows, rtol=0.12)
    with pytest.raises(ValueError, match="Expected a stretched grid.*about as large"):
        fine_cells(globe)


@pytest.mark.parametrize("globe", [octahedral(40), triangles(4)])
def test_cells_of_other_globes_are_about_as_far_apart(globe):
    found = spacings(globe)
    assert_allclose(found, np.sqrt(4 * np.pi / globe.area.size), rtol=0.3)
    with pytest.raises(ValueError, match="Expected a stretched grid.*about as large"):
        fine_cells(globe)


def test_a_mesh_is_not_refined_at_the_poles_of_a_regular_globe():
    grid = cut_out(BOX, regular(36, False))
    nodes = build_graph(grid, MeshOptions(3, inside=5)).nodes[642:]
    assert nodes[:, 2].min() > 0 and len(nodes) > 100
