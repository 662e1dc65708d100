import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from emulator.planet.cell_areas import ring_areas
from emulator.planet.grid import Grid

GRIDS = {
    "gaussian": Grid.gaussian(48),
    "odd gaussian": Grid.gaussian(31, 64),
    "poles": Grid.equiangular(33, poles=True),
    "no poles": Grid.equiangular(32),
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_areas_cover_the_sphere(grid):
    assert grid.is_global()
    assert grid.area.shape == grid.shape and (grid.area > 0).all()
    np.testing.assert_allclose(grid.area.sum(), 1, rtol=1e-13)


@hypothesis.given(st.integers(4, 80), st.integers(0, 20))
def test_gaussian_weights_integrate_polynomials_exactly(nlat, degree):
    grid = Grid.gaussian(nlat)
    power = 2 * min(degree, nlat - 1)
    mean = grid.mean(np.sin(np.radians(grid.mesh()[0])) ** power)
    np.testing.assert_allclose(mean, 1 / (power + 1), rtol=1e-11)


@hypothesis.given(st.integers(3, 60), st.booleans())
def test_equiangular_areas_are_differences_of_sines(nlat, poles):
    grid = Grid.equiangular(nlat, poles=poles)
    half = np.radians(180 / (nlat - poles) / 2)
    latitude = np.radians(grid.latitude)
    upper, lower = np.minimum(latitude + half, np.pi / 2), np.maximum(latitude - half, -np.pi / 2)
    np.testing.assert_allclose(grid.area.sum(1), (np.sin(upper) - np.sin(lower)) / 2, rtol=1e-10)


def test_the_pole_row_has_weight():
    grid = Grid.equiangular(181, poles=True)
    # A cap of half a degree: (1 - cos 0.5 deg) / 2 of the sphere, where cos(latitude) gives nothing.
    np.testing.assert_allclose(grid.area[0].sum(), (1 - np.cos(np.radians(0.5))) / 2, rtol=1e-9)


def test_kinds_are_recognised():
    assert [grid.kind for grid in GRIDS.values()] == ["gaussian", "gaussian", "equiangular", "equiangular"]
    assert Grid.from_coordinates([80, 30, 10, -70], [0, 90, 180, 270]).kind == "regular"
    rounded = Grid.gaussian(48).latitude.round(3)
    assert Grid.from_coordinates(rounded, np.arange(96) * 3.75).kind == "gaussian"


def test_a_region_is_not_global():
    assert not Grid.from_coordinates(np.arange(60, 30, -1.0), np.arange(0, 40, 1.0)).is_global()
    assert not Grid.from_coordinates(np.arange(89.5, -90, -1.0), np.arange(0, 180, 1.0)).is_global()


@pytest.mark.parametrize(
    "latitude, longitude, message",
    [
        ([-80, -10, 10, 80], [0, 90, 180, 270], "decreasing latitudes .north to south., got -80"),
        ([80, 10, 10, -80], [0, 90, 180, 270], "strictly decreasing"),
        ([80, 10, -10, -80], [0, 270, 180, 90], "strictly increasing longitudes"),
        ([80, 10, -10, -80], [-180, -90, 0, 90], r"longitudes in \[0, 360\), got -180 to 90"),
        ([80, 10, -10, -80], [0, 120, 240, 360], r"longitudes in \[0, 360\)"),
        ([95, 10, -10, -80], [0, 90, 180, 270], "within -90 to 90"),
        ([80, np.nan, -10, -80], [0, 90, 180, 270], "finite"),
        ([[80, 10], [-10, -80]], [0, 90], "vectors"),
    ],
)
def test_another_order_is_refused(latitude, longitude, message):
    with pytest.raises(ValueError, match=message):
        Grid.from_coordinates(latitude, longitude)


def test_points_need_positive_areas():
    grid = Grid.points([10, -10], [350, -10], [2.0, 6.0])
    np.testing.assert_allclose(grid.mean([1.0, 0.0]), 0.25)
    assert grid.longitude[1] == 350 and grid.dims == ("cell",)
    with pytest.raises(ValueError, match="positive"):
        Grid.points([10, -10], [0, 90], [1.0, 0.0])
    with pytest.raises(ValueError, match="one shape"):
        Grid.points([10, -10], [0, 90, 20], [1.0, 1.0])


def test_same_as_allows_rounded_coordinates():
    grid = Grid.gaussian(48)
    assert grid.same_as(Grid.from_coordinates(grid.latitude.round(3), grid.longitude))
    assert not grid.same_as(Grid.equiangular(48))


# --- cells in rings: they fill the sphere and integrate what each grid integrates exactly -------------------------------


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
