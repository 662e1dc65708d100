import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from emulator.planet.cell_areas import covers_sphere
from emulator.planet.coordinates import contiguous
from emulator.planet.grid import Grid
from emulator.planet.projection import from_sphere, mapping_from, to_sphere
from emulator.sphere.regrid import Regridder

RADIUS = 6371e3
SPHERE = {"earth_radius": RADIUS}
LAMBERT = SPHERE | {
    "grid_mapping_name": "lambert_conformal_conic",
    "standard_parallel": np.array([63.3, 63.3]),
    "longitude_of_central_meridian": 15.0,
    "latitude_of_projection_origin": 63.3,
}
EQUAL_AREA = SPHERE | {
    "grid_mapping_name": "lambert_azimuthal_equal_area",
    "longitude_of_projection_origin": 10.0,
    "latitude_of_projection_origin": 52.0,
}
POLAR = SPHERE | {
    "grid_mapping_name": "polar_stereographic",
    "latitude_of_projection_origin": 90.0,
    "straight_vertical_longitude_from_pole": -45.0,
    "standard_parallel": 90.0,
}
MERCATOR = SPHERE | {
    "grid_mapping_name": "mercator",
    "longitude_of_projection_origin": 10.0,
    "standard_parallel": 0.0,
}
TRANSVERSE = SPHERE | {
    "grid_mapping_name": "transverse_mercator",
    "latitude_of_projection_origin": 0.0,
    "longitude_of_central_meridian": 9.0,
    "scale_factor_at_central_meridian": 1.0,
    "false_easting": 0.0,
    "false_northing": 0.0,
}
ROTATED = {
    "grid_mapping_name": "rotated_latitude_longitude",
    "grid_north_pole_latitude": 39.25,
    "grid_north_pole_longitude": -162.0,
}
MAPS = {"lambert": LAMBERT, "equal area": EQUAL_AREA, "polar": POLAR, "mercator": MERCATOR, "transverse": TRANSVERSE}


def metres(count, spacing, middle=0.0):
    return middle + (np.arange(count) - (count - 1) / 2) * spacing


@hypothesis.given(
    st.floats(-180, 179), st.floats(1, 300), st.floats(-80, 70), st.floats(1, 10), st.integers(2, 9), st.integers(2, 9)
)
def test_a_box_has_the_area_of_the_zone_between_its_edges(west, width, south, height, rows, columns):
    hypothesis.assume(width * (1 + 1 / columns) < 350)  # wider is all round, but for a column
    grid = Grid.box(rows, columns, (south, south + height, west, west + width))
    exact = (np.sin(np.radians(south + height)) - np.sin(np.radians(south))) / 2 * width / 360
    assert grid.kind == "box" and not grid.is_global()
    np.testing.assert_allclose(grid.cell_area.sum(), exact, rtol=1e-9)
    np.testing.assert_allclose(grid.area.sum(), 1, rtol=1e-12)
    np.testing.assert_allclose(grid.mean(np.full(grid.shape, 3.0)), 3.0, rtol=1e-12)


@pytest.mark.parametrize("at", [0, 7, 35])
def test_columns_of_uneven_width_weigh_by_their_width(at):
    """Two columns of half the width anywhere, also at Greenwich: the mean is the trapezoidal rule of the whole circle."""
    longitude = np.sort(np.concatenate([np.arange(0.0, 360, 10), [10.0 * at + 5]]))
    latitude = np.linspace(90, -90, 19)
    grid = Grid.from_coordinates(latitude, longitude)
    gaps = np.diff(np.concatenate([longitude[-1:] - 360, longitude, longitude[:1] + 360]))
    expected = (gaps[1:] + gaps[:-1]) / 720
    np.testing.assert_allclose(grid.area.sum(axis=0), expected, rtol=1e-12)
    np.testing.assert_allclose(grid.cell_area.sum(), 1, rtol=1e-12)
    field = 101_325 + 500 * np.cos(np.radians(longitude)) + 0 * latitude[:, None]
    even = Grid.equiangular(19, 36, poles=True)
    np.testing.assert_allclose(grid.mean(field), (field[0] * expected).sum(), rtol=1e-12)
    for method in ("conservative", "bilinear"):
        on_even = Regridder(grid, even, method)(field)
        np.testing.assert_allclose(on_even[:, 0], field[0, 0] if method == "bilinear" else on_even[0, 0], rtol=1e-6)
        tolerance = 1e-12 if method == "conservative" else 1e-4
        np.testing.assert_allclose(even.mean(on_even), grid.mean(field), rtol=tolerance)


def test_a_region_is_described_by_its_own_ends():
    """Of 350 to 2 degrees east, not 0 to 358."""
    _, longitude = contiguous(np.array([350.0, 352, 354, 356, 358, 0, 2]))
    assert "longitude -10 to 2)" in Grid.from_coordinates(np.arange(60.0, 40, -2), longitude).describe()


def test_boxes_side_by_side_make_up_the_globe():
    boxes = [Grid.box(6, 8, (s, s + 60, w, w + 90)) for s in (-90, -30, 30) for w in (-135, -45, 45, 135)]
    np.testing.assert_allclose(sum(box.share for box in boxes), 1, rtol=1e-12)
    globe = Grid.equiangular(18, 32)
    np.testing.assert_allclose(boxes[-1].cell_area, globe.area[:6, 12:20], rtol=1e-9)


def test_longitudes_across_greenwich_are_contiguous():
    sorted_east = np.sort(np.arange(-10, 20, 0.25) % 360)
    order, values = contiguous(sorted_east)
    np.testing.assert_array_equal(values, np.arange(-10, 20, 0.25))
    np.testing.assert_array_equal(sorted_east[order], values % 360)
    grid = Grid.from_coordinates(np.arange(60, 30, -0.25), values)
    assert not grid.is_split and not grid.goes_round
    np.testing.assert_allclose(grid.area / grid.area[:, :1], 1)  # no cell with a hole beside it
    np.testing.assert_array_equal(contiguous(values)[1], values)


@pytest.mark.parametrize(
    "longitude, expected",
    [
        (np.arange(0, 360, 30), np.arange(0, 360, 30)),
        (np.arange(-180, 180, 30), np.arange(0, 360, 30)),
        (np.arange(190, 230, 10), np.arange(190, 230, 10)),
        (np.arange(-170, -130, 10), np.arange(190, 230, 10)),
        (np.arange(170, 210, 10) % 360, np.arange(170, 210, 10)),
        ((np.arange(100, 380, 10) % 360)[::-1], np.arange(100, 380, 10)),
        (np.array([350.0, 0, 10]), np.array([-10.0, 0, 10])),
    ],
)
def test_longitudes_in_order(longitude, expected):
    order, values = contiguous(longitude.astype(float))
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_allclose((longitude[order] - values) % 360, 0)
    Grid.from_coordinates([60.0, 50, 40], values)  # takes them


def test_values_that_are_in_order_keep_their_bits():
    longitude = np.arange(-10.1, 20, 0.1)
    assert contiguous(longitude)[1].tobytes() == longitude.tobytes()


def test_a_box_in_two_parts_is_known_and_has_its_areas():
    split = Grid.from_coordinates([60.0, 50, 40], np.sort(np.arange(-40, 50, 10) % 360.0))
    whole = Grid.from_coordinates([60.0, 50, 40], np.arange(-40.0, 50, 10))
    assert split.is_split and not whole.is_split
    np.testing.assert_allclose(np.sort(split.cell_area, axis=1), np.sort(whole.cell_area, axis=1), rtol=1e-12)


@pytest.mark.parametrize(
    "longitude", [[-200.0, -190, -180], [-170.0, -160, -150], [350.0, 360, 370], [-10.0, 200, 355]]
)
def test_boxes_in_another_order_are_refused(longitude):
    with pytest.raises(ValueError, match="longitudes in .0, 360.*Greenwich"):
        Grid.from_coordinates([60.0, 50, 40], longitude)


def test_a_zone_goes_round_and_is_no_globe():
    zone = Grid.from_coordinates(np.arange(60, 19, -10.0), np.arange(0, 360, 15.0))
    assert zone.goes_round and zone.kind == "box" and not zone.is_global()
    np.testing.assert_allclose(zone.share, (np.sin(np.radians(65)) - np.sin(np.radians(15))) / 2, rtol=1e-12)


def test_all_gaussian_rows_of_a_sector_are_no_globe():
    globe = Grid.gaussian(16)
    sector = Grid.from_coordinates(globe.latitude, globe.longitude[:10])
    assert not sector.is_global()
    np.testing.assert_allclose(sector.cell_area, globe.area[:, :10], rtol=1e-9)


@pytest.mark.parametrize("mapping", MAPS.values(), ids=MAPS)
def test_projected_areas_follow_the_map_factor(mapping):
    """The cells' areas by their corners against `dx dy / (R k)^2` with k by differences of the projection itself."""
    middle = {"polar_stereographic": 2e6, "mercator": 4e6, "transverse_mercator": 6e6}.get(
        mapping["grid_mapping_name"], 0.0
    )
    spacing = 2e4
    grid = Grid.projected(metres(30, spacing, 1e5), metres(20, spacing, middle)[::-1], mapping)
    step = 1e-4
    mapping = grid.mapping
    around = [from_sphere(mapping, grid.latitude + dy, grid.longitude + dx) for dy, dx in ((0, step), (0, -step))]
    around += [from_sphere(mapping, grid.latitude + dy, grid.longitude + dx) for dy, dx in ((step, 0), (-step, 0))]
    per_degree = [np.subtract(a, b) / (2 * step) for a, b in (around[:2], around[2:])]  # (x, y) by longitude, latitude
    jacobian = np.abs(per_degree[0][0] * per_degree[1][1] - per_degree[0][1] * per_degree[1][0])
    exact = spacing**2 / jacobian * np.radians(1) ** 2 * np.cos(np.radians(grid.latitude)) / (4 * np.pi)
    np.testing.assert_allclose(grid.cell_area, exact, rtol=2e-5)


def test_equal_area_cells_are_equal_and_right():
    grid = Grid.projected(metres(40, 5e4), metres(30, 5e4)[::-1], EQUAL_AREA)
    np.testing.assert_allclose(grid.cell_area, 5e4**2 / (4 * np.pi * RADIUS**2), rtol=1e-4)
    np.testing.assert_allclose(grid.share, 30 * 40 * 5e4**2 / (4 * np.pi * RADIUS**2), rtol=1e-4)


def test_a_map_over_the_pole_has_the_area_of_its_cap():
    """Cells within a circle about the pole add up to the cap inside it, wherever longitudes turn."""
    spacing = 2e4
    grid = Grid.projected(metres(200, spacing), metres(200, spacing)[::-1], POLAR)
    inside = grid.latitude > 80
    cap = (1 - np.sin(np.radians(80))) / 2
    np.testing.assert_allclose(grid.cell_area[inside].sum(), cap, rtol=5e-3)  # but for its ragged edge
    assert grid.mean((grid.latitude > 80).astype(float)) == pytest.approx(cap / grid.share, rel=5e-3)


def test_a_rotated_box_is_a_box():
    x, y = np.arange(-20, 10, 0.5), np.arange(15, -20, -0.5)
    grid = Grid.projected(x, y, ROTATED)
    box = Grid.from_coordinates(y, contiguous(x)[1])
    np.testing.assert_allclose(grid.cell_area, box.cell_area, rtol=1e-12)
    # the rotated pole itself, and a place where both poles' meridians meet
    latitude, longitude = to_sphere(ROTATED, np.array([0.0]), np.array([90.0]))
    np.testing.assert_allclose([latitude[0], longitude[0]], [39.25, 198.0], atol=1e-9)


def test_places_go_to_the_map_and_back():
    for mapping in map(mapping_from, MAPS.values()):
        x, y = from_sphere(mapping, np.array([55.0, 60.0]), np.array([5.0, 359.0]))
        latitude, longitude = to_sphere(mapping, x, y)
        np.testing.assert_allclose(latitude, [55, 60], atol=1e-9)
        np.testing.assert_allclose(longitude, [5, 359], atol=1e-9)


def test_mappings_survive_json_and_unknown_ones_are_refused():
    assert mapping_from(LAMBERT)["standard_parallel"] == [63.3, 63.3]
    with pytest.raises(ValueError, match="grid mapping.*van_der_grinten"):
        mapping_from({"grid_mapping_name": "van_der_grinten"})
    with pytest.raises(ValueError, match="decreasing values of y"):
        Grid.projected(metres(3, 1e3), metres(3, 1e3), LAMBERT)


@pytest.mark.parametrize("seed", range(3))
def test_points_of_a_region_are_no_globe(seed):
    chance = np.random.default_rng(seed)
    nordic = Grid.points(chance.uniform(54, 72, 200), chance.uniform(4, 32, 200), np.full(200, 1e-4))
    assert nordic.kind == "region_points" and not nordic.is_global()
    np.testing.assert_allclose([nordic.share, nordic.area.sum()], [0.02, 1], rtol=1e-12)
    assert "200 points of a region, 2 % of the sphere" in nordic.describe()


def test_reduced_grids_are_globes_and_without_a_part_they_are_not():
    nlat = 16
    nodes, weights = np.polynomial.legendre.leggauss(nlat)
    count = 20 + 4 * np.minimum(np.arange(nlat), np.arange(nlat)[::-1])
    latitude = np.repeat(np.degrees(np.arcsin(nodes)), count)
    longitude = np.concatenate([np.arange(n) * 360 / n for n in count])
    area = np.repeat(weights / count, count)
    assert Grid.points(latitude, longitude, area).kind == "points"
    for part in (latitude < 60, latitude > -60, np.abs(latitude) < 60, longitude < 330):
        assert not covers_sphere(latitude[part], longitude[part], area[part])
