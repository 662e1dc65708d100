"""Every observation that cannot be used is counted with its reason, and no other is."""

import numpy as np
import pytest
from small_planet import small_planet

from emulator.assimilation import quality
from emulator.assimilation.geometry import Geometry
from emulator.assimilation.observations import Observations
from emulator.planet.grid import Grid

NAMES = ["temperature", "surface_pressure"]
START = np.datetime64("2001-01-01T00", "ns")
GOOD = {
    "operator": "point", "variable": "temperature", "time": START, "latitude": 10.0, "longitude": 20.0, "level": 0.5,
    "value": 270.0, "error": 1.0, "station": "A", "system": "temp", "elevation": np.nan,
}  # fmt: skip


def table(*changes):
    rows = [GOOD | {"longitude": 20.0 + n} | change for n, change in enumerate(changes)]
    return Observations(**{name: np.array([row[name] for row in rows]) for name in GOOD})


@pytest.fixture(scope="module")
def geometry():
    return Geometry.of(small_planet(times=2, nlat=12), NAMES)


BAD = {
    quality.NO_NUMBER: [{"value": np.nan}, {"time": np.datetime64("NaT", "ns")}],
    quality.NO_OPERATOR: [{"operator": "points"}],
    quality.NO_VARIABLE: [
        {"variable": "salinity"},
        {"operator": "column", "variable": "surface_pressure"},
        {"operator": "radiance", "variable": "surface_pressure"},
    ],
    quality.NO_ERROR: [{"error": -1.0}, {"error": 0.0}, {"error": np.nan}, {"error": np.inf}],
    quality.OUTSIDE_GRID: [{"latitude": 91.0}, {"longitude": np.nan}, {"level": 500.0}, {"level": np.nan}],
    quality.BELOW_GROUND: [{"elevation": -1000.0}],
    quality.DUPLICATE: [{"longitude": 20.0}, {"longitude": 380.0, "value": 280.0}],
    quality.GROSS: [{"value": 2000.0}, {"value": -5.0}],
}


def test_each_bad_row_is_rejected_for_its_reason_and_the_good_ones_stay(geometry):
    expected = ["", "", *(reason for reason, rows in BAD.items() for _ in rows)]
    found = quality.screen(table({}, {"elevation": 5.0}, *(row for rows in BAD.values() for row in rows)), geometry)
    assert found.tolist() == expected
    count = quality.counts(found)
    assert count == {reason: len(BAD[reason]) for reason in quality.REASONS}
    assert len(quality.screen(table({}).where([]), geometry)) == 0


def test_rows_of_other_widths_are_no_duplicates(geometry):
    rows = table({"operator": "column"}, *3 * [{"operator": "column", "longitude": 20.0}])
    found = quality.screen(rows.replace(width=np.array([0.5, 1.0, 0.5, np.nan])), geometry)
    assert found.tolist() == ["", "", quality.DUPLICATE, ""]


def test_places_outside_a_region_and_where_a_field_does_not_exist(geometry):
    box = Geometry(Grid.box(8, 8, (0, 40, 10, 50)), geometry.channels, geometry.at, geometry.levels)
    found = quality.screen(table({}, {"longitude": 80.0}, {"latitude": -20.0}, {"longitude": 10.2}), box)
    assert found.tolist() == ["", quality.OUTSIDE_GRID, quality.OUTSIDE_GRID, ""]
    exists = np.ones((geometry.channels.count, *geometry.grid.shape), bool)
    exists[:, :, :12] = False
    half = Geometry(geometry.grid, geometry.channels, geometry.at, geometry.levels, exists=exists)
    found = quality.screen(table({"longitude": 60.0}, {"longitude": 300.0}), half)
    assert found.tolist() == [quality.OUTSIDE_GRID, ""]


def test_gross_errors_are_found_against_the_background(geometry):
    """In units of what a departure is expected to be: of the spread where it is known, else as departures themselves are."""
    rng = np.random.default_rng(0)
    many = table(*({"station": str(n)} for n in range(400)))
    background = many.value - rng.normal(scale=5.0, size=400)  # a poor one everywhere
    wrong = np.arange(0, 400, 40)
    value = many.value.copy()
    value[wrong] += 60.0
    many = many.replace(value=value)
    found = quality.screen_background(many, background)
    assert np.flatnonzero(found == quality.GROSS).tolist() == wrong.tolist()
    spread = quality.screen_background(many, background, np.full(400, 0.1))
    assert (spread == quality.GROSS).mean() > 0.25  # the same departures from a background that says it is good
    nothing = quality.screen_background(many, np.full(400, np.nan))
    assert set(nothing) == {quality.NO_NUMBER}
    few = table({"value": 271.0}, {"value": 269.5}, {"value": 270.2}, {"value": 340.0})
    assert quality.screen_background(few, np.full(4, 270.0)).tolist() == ["", "", "", quality.GROSS]


def test_pressure_levels_below_the_ground_of_the_background():
    rows = table({"level": 900.0}, {"level": 990.0})
    found = quality.screen_background(rows, rows.value, surface_pressure=np.full(2, 95000.0))
    assert found.tolist() == ["", quality.BELOW_GROUND]
