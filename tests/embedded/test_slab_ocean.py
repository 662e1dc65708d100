"""SPEEDY's slab: closed forms under imposed fluxes, what its control gives, and which controls are refused. No model runs."""

import dataclasses
import json

import numpy as np
import pytest
import xarray as xr

from emulator.embedded import control, speedy
from emulator.embedded.fluxes import SURFACE
from emulator.embedded.options import Scenario, Slab
from emulator.embedded.simulation import RECORD, SimulationOptions
from emulator.embedded.slab import OverSlab
from emulator.planet import slab
from emulator.planet.constants import ERA5
from emulator.planet.grid import Grid
from emulator.planet.vertical import Levels

GRID = Grid.gaussian(4)
DAY = np.timedelta64(1, "D")
START = np.datetime64("2001-01-30", "ns")
SEAS = np.array([[0.0] * 7 + [0.5], [0.2] * 7 + [1.0], [0.0] * 8, [0.0] * 8])  # shares of land


class Imposed:
    """An atmosphere that gives the same flux every day, over seas whose prescribed temperature rises by 0.1 K a day."""

    title, provenance, grid, levels, constants = "imposed", None, GRID, Levels.sigma(np.array([0.0, 1.0])), ERA5
    settings = speedy.Settings(start=START.astype("datetime64[D]").item())

    def __init__(self, flux, ice=0.0):
        self.flux, self.ice, self.felt, self.static = flux, ice, [], {"land_sea_mask": SEAS.astype(np.float32)}

    def initial_state(self):
        return np.zeros((), int)

    def day_of(self, state):
        return START + int(state) * DAY

    def sea_temperature(self, moment):
        return np.full(GRID.shape, 290.0) + 0.1 * ((moment - START) / DAY)

    def advance_day(self, state, sea):
        self.felt.append(sea)
        quarter = np.full((4, *GRID.shape), self.flux / 4, np.float32) * np.array([0.0, 1, 1, 2])[:, None, None]
        fields = dict.fromkeys(SURFACE, quarter.astype(np.float32))
        ice = self.ice(int(state)) if callable(self.ice) else np.broadcast_to(np.float32(self.ice), (4, *GRID.shape))
        fields["sea_ice_cover"] = ice.astype(np.float32)
        return state + 1, fields | {"sea_surface_temperature": np.repeat(sea[None], 4, 0).astype(np.float32)}


def run(flux, star, days, depth=50.0, ice=0.0, **options):
    model = OverSlab(
        Imposed(flux, ice), Slab(depth, "control", **options), lambda: np.full((12, *GRID.shape), float(star))
    )
    state, fields = model.initial_state(), []
    for _ in range(days):
        state, day = model.advance_day(state)
        fields.append(day)
    return model, state, {name: np.concatenate([day[name] for day in fields]) for name in fields[0]}


def test_a_flux_beyond_the_controls_warms_by_flux_times_time_over_heat_capacity():
    """At F = F* the sea follows its prescribed course; 30 W m-2 more warm it by 30 t / (rho c h), and land not at all."""
    _, state, _ = run(100.0, 100.0, 5)
    np.testing.assert_allclose(state.temperature, 290.5, rtol=0, atol=1e-6)
    _, state, fields = run(130.0, 100.0, 5)
    sea = SEAS < 0.5
    warmer = state.temperature - 290.5
    np.testing.assert_allclose(warmer[sea], 5 * 86400 * 30 / (1025 * 3991.86795711963 * 50), rtol=1e-5)
    np.testing.assert_allclose(warmer[~sea], 0, rtol=0, atol=1e-12)
    assert not sea.all()
    np.testing.assert_array_equal(fields["slab_ocean_depth"], np.float32(50))
    np.testing.assert_array_equal(fields["ocean_heat_flux_convergence"][:, ~sea], 0)


def test_heat_is_booked_day_by_day_and_the_days_last_time_holds_what_it_led_to():
    model, _, fields = run(-40.0, 10.0, 4, depth=10.0)
    sea, seconds = SEAS < 0.5, 86400.0
    ends = fields["sea_surface_temperature"][3::4].astype(np.float64)
    flux = sum(fields[name].astype(np.float64) for name in SURFACE)
    given = (flux + fields["ocean_heat_flux_convergence"]).reshape(4, 4, *GRID.shape).mean(axis=1)
    stored = slab.heat_capacity(10.0) * np.diff(ends, axis=0) / seconds
    rounding = slab.heat_capacity(10.0) * np.spacing(np.float32(290)) / seconds
    np.testing.assert_allclose(stored[:, sea], given[1:, sea], rtol=0, atol=rounding)
    for day, felt in enumerate(model._model.felt[1:]):
        np.testing.assert_allclose(felt, ends[day], rtol=0, atol=2e-5)
        np.testing.assert_array_equal(fields["sea_surface_temperature"][4 * day + 4], felt.astype(np.float32))


def test_before_it_is_let_go_the_sea_is_the_prescribed_one():
    _, state, _ = run(200.0, 0.0, 3, prescribed_days=3)
    np.testing.assert_allclose(state.temperature, 290.3, rtol=0, atol=1e-6)
    _, state, _ = run(200.0, 0.0, 4, prescribed_days=3)
    np.testing.assert_allclose(state.temperature[2:] - 290.4, slab.warming(200.0, 0.0, 50.0, 86400.0), rtol=1e-4)


def test_a_frozen_sea_has_its_prescribed_temperature():
    """Of rows with 0, 0.49, 0.5 and 1 of ice the last two follow the course; `under_ice` steps them as the others."""
    ice, sea = np.repeat([[0.0], [0.49], [0.5], [1.0]], 8, axis=1), SEAS < 0.5
    _, state, fields = run(130.0, 100.0, 5, ice=ice)
    warmer = state.temperature - 290.5
    free = sea & (ice < 0.5)
    np.testing.assert_allclose(warmer[free], slab.warming(30.0, 0.0, 50.0, 5 * 86400.0), rtol=1e-5)
    np.testing.assert_allclose(warmer[~free], 0, rtol=0, atol=1e-12)
    brought = fields["ocean_heat_flux_convergence"]  # the same with ice and without
    np.testing.assert_allclose(brought[:, sea], slab.heat_capacity(50.0) * 0.1 / 86400 - 100, rtol=1e-5)
    _, state, _ = run(130.0, 100.0, 5, ice=ice, under_ice=True)
    np.testing.assert_allclose(state.temperature[sea] - 290.5, warmer[free][0], rtol=1e-5)


def test_a_sea_that_freezes_and_thaws_begins_anew_from_its_prescribed_temperature():
    """Ice at the end of the third day alone, of the four times of which the others tell the opposite."""

    def ice(day):
        return np.full((4, *GRID.shape), float(day != 2)) * np.array([1, 1, 1, 0.0])[:, None, None] + np.array(
            [0, 0, 0, float(day == 2)]
        ).reshape(4, 1, 1)

    _, state, fields = run(130.0, 100.0, 5, ice=ice)
    sea, ends = SEAS < 0.5, fields["sea_surface_temperature"][3::4].astype(np.float64)
    course = 290 + 0.1 * np.arange(1, 6)
    days = np.array([1, 2, 0, 1, 2])  # of warming since the prescribed temperature
    expected = course + days * slab.warming(30.0, 0.0, 50.0, 86400.0)
    np.testing.assert_allclose(ends[:, sea], np.broadcast_to(expected[:, None], ends[:, sea].shape), rtol=0, atol=5e-5)
    np.testing.assert_allclose(state.temperature[sea], expected[-1], rtol=0, atol=1e-5)


def test_a_sea_that_boils_is_reported():
    with pytest.raises(FloatingPointError, match="left 220 to 320 K at 2001-02-"):
        run(1e4, 0.0, 30, depth=10.0)


def finished(folder, flux, days=365, **record):
    """A folder that looks like a finished simulation, its flux a function of the day of the year from 0."""
    folder.mkdir()
    asked = SimulationOptions(folder, days=days, spin_up_days=31, chunk_days=100)
    settings = {"truncation": 21, "time_step_minutes": 30} | record
    (folder / RECORD).write_text(json.dumps(dataclasses.replace(asked, settings=settings).record()))
    for first, path in asked.chunks().items():
        count = min(100, 31 + days - first)
        times = np.datetime64("2001-01-01", "ns") + (first * 24 + 12 * np.arange(1, 2 * count + 1)) * np.timedelta64(
            1, "h"
        )
        of_day = np.repeat(flux((first + np.arange(count)) % 365), 2)[:, None, None] + np.array(GRID.latitude)[:, None]
        values = np.broadcast_to(of_day / 4, (2 * count, *GRID.shape)).astype(np.float32)
        coords = {"time": times, "latitude": GRID.latitude, "longitude": GRID.longitude}
        xr.Dataset({name: (("time", "latitude", "longitude"), values) for name in SURFACE}, coords).to_netcdf(path)
    return folder


def test_the_course_of_the_controls_flux_has_its_monthly_means(tmp_path):
    """A year with a seasonal cycle: the means of the course are those of the days, and it lies near them all the time."""

    def flux(day):
        return 20 + 100 * np.cos(2 * np.pi * (day - 170) / 365)

    nodes = control.flux_of(finished(tmp_path / "a", flux), GRID)
    days = np.datetime64("2003-01-01") + np.arange(365)
    got = np.stack([control.course(nodes, day) for day in days])
    expected = flux(np.arange(365))[:, None] + np.array(GRID.latitude)
    np.testing.assert_allclose(got[..., 0], expected, rtol=0, atol=6)
    month = days.astype("datetime64[M]")
    for one in np.unique(month):
        np.testing.assert_allclose(got[month == one, :, 0].mean(0), expected[month == one].mean(0), rtol=0, atol=1e-3)
    leap = control.course(nodes, np.datetime64("2004-02-29"))
    np.testing.assert_array_equal(leap, control.course(nodes, np.datetime64("2004-02-28")))


def test_a_short_control_serves_the_months_that_it_has(tmp_path):
    nodes = control.flux_of(finished(tmp_path / "a", lambda day: np.full(len(day), 7.0), days=40), GRID)
    assert [bool(np.isfinite(node).all()) for node in nodes] == [month in (1, 2) for month in range(12)]
    got = control.course(nodes, np.datetime64("2001-03-31"))
    np.testing.assert_allclose(got[:, 0], 7 + np.array(GRID.latitude), rtol=1e-5)
    with pytest.raises(ValueError, match=r"ocean.control on .*got another grid in .*a/speedy_20010201.nc"):
        control.flux_of(tmp_path / "a", Grid.gaussian(6))


def test_what_is_no_control_is_refused_by_name(tmp_path):
    folder = finished(tmp_path / "a", lambda day: 0.0 * day, days=40, physics={"cloud_albedo": 0.4})
    path = folder / RECORD

    def check(days=40, **scenario):
        speedy.check(speedy.Settings(truncation=21, ocean={"depth": 50, "control": str(folder)}, **scenario), days)

    with pytest.raises(ValueError, match=r"with physics = None, .* got {'cloud_albedo': 0.4} in .*a"):
        check()
    there = json.loads(path.read_text())
    del there["physics"]
    for changes, words in [
        ({"truncation": 31}, "with truncation = 21, .*got 31"),
        ({"sst_offset": 2.0}, "with sst_offset = 0.0, .*got 2.0"),
        ({"model": "veros"}, "speedy over prescribed seas as ocean.control, got a simulation of veros"),
        ({"ocean": {"depth": 50}}, "got one over a slab in"),
        ({"days": 400}, r"finished simulation as ocean.control, .*speedy_20010512.nc is not there yet"),
        ({"start": "then"}, r"folder of a simulation as ocean.control, got none \(simulation.json\)"),
    ]:
        path.write_text(json.dumps(there | changes))
        with pytest.raises(ValueError, match=words):
            check()
    path.write_text(json.dumps(there))
    with pytest.raises(ValueError, match="none of month 1 in .*a: make the control a year long"):
        check()
    path.write_text(json.dumps(there | {"start": "2000-12-10"}))
    with pytest.raises(ValueError, match="not there yet"):
        check()
    chunk = next(iter(folder.glob("*.nc")))
    chunk.unlink()
    xr.Dataset({SURFACE[0]: ("time", [1.0])}).to_netcdf(chunk)
    path.write_text(json.dumps(there))
    with pytest.raises(ValueError, match=f"{SURFACE[1]}, {SURFACE[2]}, {SURFACE[3]} in the chunks of ocean.control"):
        check()


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"control": "x"}, "depth"),
        ({"depth": 50}, "control"),
        ({"depth": 0.1, "control": "x"}, "depth"),
        ({"depth": 50, "control": "x", "kind": "full"}, "full"),
        ({"depth": 50, "control": "x", "heat": 1}, "heat"),
    ],
)
def test_a_slab_that_says_too_little_or_too_much_is_refused(section, words):
    with pytest.raises(ValueError, match=words):
        Scenario(ocean=section)
    assert Scenario(ocean={"depth": 50, "control": "x"}).describe() == "slab ocean of 50 m"
