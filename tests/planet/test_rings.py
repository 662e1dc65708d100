"""Areas of grids whose cells lie in rings: they fill the sphere and integrate what each grid integrates exactly."""

import numpy as np
import pytest

from emulator.planet.grid import Grid
from emulator.planet.rings import ring_areas


def healpix(side):
    """Centres in the ring scheme, from the formulas of Gorski et al. (2005), degrees."""
    latitude, longitude = [], []
    for ring in range(1, 4 * side):
        polar = min(ring, 4 * side - ring)
        count = 4 * min(polar, side)
        z = 1 - polar**2 / (3 * side**2) if polar < side else (4 / 3 - 2 * ring / (3 * side))
        z = -abs(z) if ring > 2 * side and polar < side else z
        shift = 0.5 if polar < side or (ring - side) % 2 == 0 else 0.0
        latitude += [np.degrees(np.arcsin(z))] * count
        longitude += list((np.arange(count) + shift) * 360 / count)
    return np.array(latitude), np.array(longitude)


def octahedral(rows):
    nodes = Grid.gaussian(rows).latitude
    count = [20 + 4 * min(n, rows - 1 - n) for n in range(rows)]
    return np.repeat(nodes, count), np.concatenate([np.arange(c) * 360 / c for c in count])


@pytest.mark.parametrize("side", [1, 2, 4, 8])
def test_cells_of_healpix_are_equal(side):
    latitude, _ = healpix(side)
    area = ring_areas(np.random.default_rng(0).permutation(latitude))
    np.testing.assert_allclose(area, 1 / (12 * side**2), rtol=1e-12)


@pytest.mark.parametrize("rows", [4, 16, 96])
def test_a_reduced_gaussian_grid_integrates_polynomials(rows):
    """Gauss-Legendre quadrature is exact to degree 2 rows - 1, and files round latitudes to a thousandth of a degree."""
    latitude, _ = octahedral(rows)
    order = np.random.default_rng(0).permutation(len(latitude))
    area = ring_areas(latitude[order])
    np.testing.assert_allclose(area.sum(), 1, rtol=1e-12)
    height = np.sin(np.radians(latitude[order]))
    for power in (2, 4, 6):
        np.testing.assert_allclose((area * height**power).sum(), 1 / (power + 1), rtol=1e-11)
    np.testing.assert_allclose(ring_areas(np.round(latitude[order], 3)), area, rtol=1e-12)


def test_other_points_are_not_guessed():
    chance = np.random.default_rng(0)
    assert ring_areas(chance.uniform(-90, 90, 48)) is None
    assert ring_areas(healpix(2)[0][:-1]) is None
    assert ring_areas(np.repeat(np.linspace(85, -85, 18), 36)) is None
