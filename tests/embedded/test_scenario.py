"""Scenarios of the embedded model: limits, courses in time against closed forms, what files are refused. No model runs."""

import numpy as np
import pytest
import xarray as xr

from emulator.embedded import speedy
from emulator.embedded.courses import SeaTemperatures, concentration
from emulator.embedded.options import Growth, Scenario, Slab, Swings
from emulator.embedded.swings import Offsets
from emulator.planet.grid import Grid

START = np.datetime64("2001-01-01", "ns")
DAY = np.timedelta64(1, "D")
GRID = Grid.gaussian(32)
SEA = np.ones(GRID.shape)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"co2": 0.5}, "co2 of at least 1 and at most 10000 ppmv, got 0.5"),
        ({"co2": {"start": 360, "yearly_rate": 2}}, "0.5"),
        ({"co2": {"yearly_rate": 0.01}}, "start"),
        ({"sst_offset": 11}, "sst_offset of at least -10 and at most 10 K, got 11"),
        ({"sst_offset": float("nan")}, "sst_offset of at least -10"),
        ({"sst_offset": {"values": [0, 11]}}, "values of at least -10 and at most 10, got"),
        ({"sst_offset": {"values": []}}, "values of length 1 or more"),
        ({"sst_offset": {"values": [0, 4], "days": 0}}, "days of at least 1, got 0"),
        ({"sst_offset": {"values": [0], "maps": 4}}, "maps of at least 0 and at most 3, got 4"),
        ({"sst_offset": {"values": [0, 4]}, "ocean": Slab(5, "control")}, "one sst_offset for a slab ocean"),
        ({"member": -1}, "member"),
        ({"physics": {"convection_hours": 1}}, "convection_hours"),
        ({"physics": {"cloud_albedo": 0.8}}, "cloud_albedo"),
        ({"physics": {"sea_exchange": 0.01}}, "sea_exchange"),
        ({"physics": {"clouds": 1}}, "clouds"),
    ],
)
def test_values_outside_their_limits_are_refused(section, words):
    with pytest.raises(ValueError, match=words):
        Scenario(**section)


def test_growth_is_compound():
    """By its own rate after every year of 365.25 days, and by its root after half of one."""
    times = START + np.array([0, 1461, 2922]) * DAY
    found = concentration(Growth(360, 0.01), START)(times)
    np.testing.assert_allclose(found, 360 * np.array([1, 1.01**4, 1.01**8]), rtol=1e-13)
    half = concentration(Growth(300, 0.44), START)(np.array([START + 4383 * np.timedelta64(1, "h")]))
    np.testing.assert_allclose(half, 360, rtol=1e-13)
    np.testing.assert_array_equal(concentration(1e3, START)(times), 1e3)


def test_growth_beyond_the_limits_is_refused_before_it_runs():
    settings = speedy.Settings(co2=Growth(5000, 0.5))
    speedy.check(settings, 365)
    with pytest.raises(ValueError, match="co2 between 1 and 10000 ppmv, got 1.* at 2003-"):
        speedy.check(settings, 1000)


def test_yearly_values_are_linear_between_their_times_and_end_with_them(tmp_path):
    path = tmp_path / "co2.csv"
    path.write_text("time,co2 [ppm]\n2000-07-01,370\n2001-07-01,374\n2002-07-01,372\n")
    times = np.array(["2000-12-30T12", "2001-07-01", "2001-12-30T12"], "datetime64[ns]")
    np.testing.assert_allclose(concentration(path, START)(times), [372, 374, 373], rtol=1e-12)
    settings = speedy.Settings(co2=path)
    speedy.check(settings, 546)  # to 1 July 2002
    with pytest.raises(ValueError, match=r"carbon_dioxide_mole_fraction .*2002-07-02.*co2\.csv"):
        speedy.check(settings, 547)
    path.write_text("time,methane [ppb]\n2000-07-01,1800\n2002-07-01,1800\n")
    with pytest.raises(ValueError, match=r"series of carbon_dioxide_mole_fraction \(co2\).*co2\.csv, got none"):
        speedy.check(settings, 1)


def test_swings_hold_their_values_and_pass_within_a_day():
    """Values at midnights, a line between two of them, and the first again after the last."""
    offsets = Offsets(Swings((0, 4, 1), days=10), START, GRID)
    for day, value in (
        (0, 0),
        (9, 0),
        (9.25, 1),
        (9.75, 3),
        (10, 4),
        (19.5, 2.5),
        (20, 1),
        (29.5, 0.5),
        (30, 0),
        (40, 4),
    ):
        np.testing.assert_array_equal(offsets.at(START + np.timedelta64(int(24 * day), "h")), value)


def test_swings_that_are_no_swings_are_refused():
    for given, words in [
        (dict(values=4), "sequence of values in turn as sst_offset.values, got 4"),
        (dict(values=(0, 4), days=2.5), "whole days of a turn as sst_offset.days, got 2.5"),
        (dict(values=(0,), maps=1, length_km=5000), "length_km of at least 500 and at most 3000, got 5000"),
    ]:
        with pytest.raises(ValueError, match=words):
            Swings(**given)


def test_a_scenario_of_swings_says_what_tells_it_from_others():
    assert Scenario(sst_offset=Swings((0, 4))).describe() == "sea temperature 0, +4 K in turns of 20 days"
    of_maps = Scenario(sst_offset={"values": [-1.5], "days": 5, "maps": 0.5, "seed": 7})
    assert of_maps.describe() == "sea temperature -1.5 K in turns of 5 days with maps of 0.5 K and 2000 km (seed 7)"


def test_maps_of_swings_are_drawn_by_turn_smooth_and_of_mean_zero():
    """Standard deviation and correlation of 400 turns against the numbers that they are asked by; each turn by itself."""
    swings = Swings((2.0,), days=1, maps=0.5, length_km=2000, seed=3)
    offsets, shift = Offsets(swings, START, GRID), np.timedelta64(1, "D")
    maps = np.stack([offsets.at(START + turn * shift) for turn in range(400)]) - 2
    np.testing.assert_allclose([GRID.mean(each) for each in maps], 0, atol=1e-6)
    assert np.sqrt(np.mean(maps**2)) == pytest.approx(0.5, rel=0.03)
    row = maps[:, 15]  # near the equator, cells of 626 km; 3.2 of them are 2000 km
    apart = [np.mean(row * np.roll(row, cells, axis=-1)) / np.mean(row**2) for cells in (3, 4)]
    assert apart[0] > np.exp(-0.5) > apart[1]
    again = Offsets(swings, START, GRID).at(START + 399 * shift)
    np.testing.assert_array_equal(again, maps[399] + 2)
    other = Offsets(Swings((2.0,), days=1, maps=0.5, seed=4), START, GRID).at(START)
    assert np.abs(other - 2 - maps[0]).max() > 0.1


def seas(path, values, times, units="K", latitude=None, name="sst"):
    """A file of sea temperatures `(time, latitude, longitude)` on a regular grid."""
    values = np.asarray(values)
    latitude = np.linspace(90, -90, 2 * values.shape[1] + 1)[1::2] if latitude is None else latitude
    longitude = (np.arange(values.shape[2]) + 0.5) * 360 / values.shape[2]
    coords = {"time": times, "latitude": latitude, "longitude": longitude}
    data = xr.DataArray(values, coords, ("time", "latitude", "longitude"), name, {"units": units})
    data["latitude"].attrs, data["longitude"].attrs = {"units": "degrees_north"}, {"units": "degrees_east"}
    data.to_dataset().to_netcdf(path)
    return path


MONTHS = np.array(["2001-02-01", "2001-01-01", "2001-03-01"], "datetime64[ns]")  # not in order


def test_sea_temperatures_are_linear_in_time_and_regridded(tmp_path):
    """A field linear in time and of one value, in degrees Celsius; then one that depends on place: its mean is kept."""
    values = np.array([3.0, 1.0, 2.0])[:, None, None] * np.ones((3, 36, 72))
    found = SeaTemperatures(seas(tmp_path / "a.nc", values, MONTHS, "degC", name="tos")).on(GRID, SEA)
    middle = np.datetime64("2001-01-16T12", "ns")
    np.testing.assert_allclose(found.at(middle), 273.15 + 2, rtol=1e-6)
    np.testing.assert_allclose(found.at(MONTHS[0]), 273.15 + 3, rtol=1e-6)
    np.testing.assert_allclose(found.at(MONTHS[2]), 273.15 + 2, rtol=1e-6)
    for moment in ("2000-12-31", "2001-03-02"):
        with pytest.raises(ValueError, match="from .* in .*a.nc, got 2001-01-01T00 to 2001-03-01T00"):
            found.at(np.datetime64(moment, "ns"))
    place = 280 + np.random.default_rng(0).uniform(-9, 9, (1, 36, 72)) + np.zeros((3, 1, 1))
    file = seas(tmp_path / "b.nc", place, MONTHS)
    mean = Grid.from_coordinates(*(xr.open_dataset(file)[name].values for name in ("latitude", "longitude")))
    assert GRID.mean(SeaTemperatures(file).on(GRID, SEA).at(middle)) == pytest.approx(mean.mean(place[0]), abs=1e-4)


def test_cells_without_a_value_take_that_of_the_nearest(tmp_path):
    """The east is land in the file; its western coast takes the values of the sea west of it, row by row."""
    values = np.broadcast_to(np.linspace(300, 275, 32)[:, None], (3, 32, 64)).copy()
    values[:, :, 32:] = np.nan
    file = seas(tmp_path / "a.nc", values, MONTHS, latitude=GRID.latitude)
    found = SeaTemperatures(file).on(GRID, SEA).at(MONTHS[0])
    assert np.isfinite(found).all()
    rows = slice(8, 24)
    np.testing.assert_allclose(found[rows, 31], values[0, rows, 31], rtol=1e-6)
    np.testing.assert_allclose(found[rows, 34], values[0, rows, 31], rtol=1e-6)
    mostly_there = np.ones(GRID.shape)
    mostly_there[:, :40] = 0
    with pytest.raises(ValueError, match="half of the model's sea .*a.nc, got 0%"):
        SeaTemperatures(file).on(GRID, mostly_there)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"units": "K", "low": 20.0}, "between 220 and 320 K .*got 20 .*its units others"),
        ({"name": "sea_ice_cover", "units": "1"}, r"sea_surface_temperature \(sst, tos\) once, .*got sea_ice_cover"),
        ({"latitude": np.linspace(40, 0, 12)}, "covers the latitudes"),
    ],
)
def test_files_without_sea_temperatures_of_the_globe_are_refused(tmp_path, changes, words):
    values = np.full((3, 12, 24), changes.pop("low", 290.0))
    with pytest.raises(ValueError, match=words):
        SeaTemperatures(seas(tmp_path / "a.nc", values, MONTHS, **changes)).on(GRID, SEA)
