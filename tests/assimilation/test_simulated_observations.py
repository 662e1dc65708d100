"""Simulated observations: errors as asked for, and the same reports of a time whatever else is asked for."""

import numpy as np
import pytest
import torch
from small_planet import small_planet

from emulator.assimilation.geometry import Geometry
from emulator.assimilation.observations import Observations
from emulator.assimilation.operators import equivalents
from emulator.assimilation.options import ObserveOptions
from emulator.assimilation.simulate import simulated
from emulator.assimilation.tracks import INCLINATION, swath

STATIONS = {
    "name": "synop",
    "kind": "stations",
    "share": 0.2,
    "errors": {"surface_pressure": 100.0, "temperature": 1.0},
}
PROFILES = {
    "name": "temp",
    "kind": "profiles",
    "share": 0.05,
    "errors": {"temperature": 1.5, "u_component_of_wind": 3.0},
}
SWATH = {"name": "sounder", "kind": "swath", "share": 0.5, "errors": {"temperature": 0.3}, "levels": [0.3, 0.6]}


@pytest.fixture(scope="module")
def planet():
    return small_planet(times=8, nlat=12)


def observe(planet, asked, times=None) -> Observations:
    return Observations.concat(list(simulated(planet, asked, times)))


def options(*networks, **more):
    return ObserveOptions.of({"networks": list(networks), "seed": 3, **more})


def departures(planet, found: Observations) -> np.ndarray:
    """Observed minus the state's own equivalents."""
    names = sorted(set(found.variable.tolist()))
    geometry, result = Geometry.of(planet, names), np.zeros(len(found))
    for time in np.unique(found.time):
        here = found.time == time
        now = planet.sel(time=time)
        fields = {n: torch.as_tensor(now[n].values.astype(np.float64))[None] for n in names}
        result[here] = (
            found.value[here] - equivalents(geometry, found.where(here))(geometry.channels.pack(fields))[0].numpy()
        )
    return result


def test_errors_and_biases_are_those_asked_for(planet):
    """Two-sided: within four standard errors of the mean and of the standard deviation, each kind by itself."""
    biased = PROFILES | {"share": 0.5, "biases": {"temperature": -0.7}}
    found = observe(planet, options(STATIONS, biased, SWATH))
    departure = departures(planet, found)
    asked = {
        ("synop", "surface_pressure"): (0, 100),
        ("synop", "temperature"): (0, 1),
        ("temp", "temperature"): (-0.7, 1.5),
    }
    asked |= {("temp", "u_component_of_wind"): (0, 3), ("sounder", "temperature"): (0, 0.3)}
    for (system, name), (bias, error) in asked.items():
        here = (found.system == system) & (found.variable == name)
        count = here.sum()
        assert count > 300
        np.testing.assert_allclose(departure[here].mean(), bias, atol=4 * error / count**0.5, rtol=0)
        np.testing.assert_allclose(departure[here].std(), error, rtol=4 / (2 * count) ** 0.5)
        np.testing.assert_array_equal(found.error[here], error)
    at = np.abs(np.corrcoef(departure[:-1], departure[1:])[0, 1])
    assert at < 0.05


def test_a_time_has_the_same_reports_whatever_else_is_asked_for(planet):
    asked = options(STATIONS | {"missing": 0.2, "delay_hours": 2.0}, PROFILES, SWATH, cut_off_hours=3.0)
    times = planet["time"].values
    whole = observe(planet.chunk({"time": 3, "latitude": 5}), asked)
    apart = Observations.concat([observe(planet, asked, times[n]) for n in (3, 0, 1, 2, 4, 5, 6, 7)])
    apart = apart.where(np.argsort(apart.time, kind="stable"))
    for name, column in whole.columns().items():
        np.testing.assert_array_equal(getattr(apart, name), column, err_msg=name)
    alone = observe(planet, options(SWATH), times[2])
    together = whole.where((whole.system == "sounder") & (whole.time == times[2]))
    np.testing.assert_array_equal(alone.value, together.value)
    other = observe(planet, ObserveOptions.of({"networks": [SWATH], "seed": 4}), times[2])
    assert not np.isin(other.value, alone.value).any()


def test_networks_have_the_asked_places_levels_and_times(planet):
    found = observe(planet, options(STATIONS | {"every_hours": 12}, PROFILES, SWATH))
    cells, levels = planet["latitude"].size * planet["longitude"].size, planet["level"].values
    synop = found.where(found.system == "synop")
    assert set(synop.time.astype("datetime64[h]").astype(int) % 12) == {0} and len(np.unique(synop.time)) == 4
    assert len(set(synop.station.tolist())) == round(0.2 * cells)
    assert set(synop.level[synop.variable == "temperature"]) == {levels[-1]}  # the lowest
    stays = [synop.latitude[(synop.station == "synop7") & (synop.time == t)] for t in np.unique(synop.time)]
    np.testing.assert_array_equal(np.concatenate(stays), stays[0][0])
    temp = found.where((found.system == "temp") & (found.variable == "temperature"))
    assert set(temp.level) == set(levels) and len(temp) == 8 * len(levels) * round(0.05 * cells)
    sounder = found.where(found.system == "sounder")
    assert set(sounder.operator) == {"radiance"} and set(sounder.level) == {0.3, 0.6}
    north = np.sin(np.radians(synop.latitude))  # alike per area: uniform in the sine of latitude
    np.testing.assert_allclose([north.mean(), north.std()], [0, 3**-0.5], atol=0.12)


def test_gaps_and_the_cut_off_leave_out_the_asked_share(planet):
    whole = observe(planet, options(STATIONS | {"share": 1.0}))
    gaps = observe(planet, options(STATIONS | {"share": 1.0, "missing": 0.3}))
    late = observe(planet, options(STATIONS | {"share": 1.0, "delay_hours": 2.0}, cut_off_hours=3.0))
    reports = len(whole) // 2
    for found, share in ((gaps, 0.7), (late, 1 - np.exp(-1.5))):
        kept = len(found) / len(whole)
        np.testing.assert_allclose(kept, share, atol=4 * (share * (1 - share) / reports) ** 0.5)
    assert len(observe(planet, options(STATIONS | {"share": 1.0, "delay_hours": 2.0}))) == len(whole)
    found = observe(planet, options(STATIONS | {"share": 1.0, "gross": 0.1}))
    wrong = np.abs(departures(planet, found) / found.error) > 5
    np.testing.assert_allclose(wrong.mean(), 0.1, atol=4 * (0.09 / len(found)) ** 0.5)


def test_an_orbiter_sees_the_planet_within_a_day_and_what_it_sees_does_not_depend_on_windows():
    start = np.datetime64("2001-01-01T00", "ns")
    hours = [start + np.timedelta64(h, "h") for h in range(0, 25, 6)]
    day = np.stack(swath(hours[0], hours[-1], 300e3, 6.371e6))
    quarters = np.concatenate(
        [np.stack(swath(a, b, 300e3, 6.371e6)) for a, b in zip(hours, hours[1:], strict=False)], 1
    )
    np.testing.assert_allclose(quarters, day, rtol=0, atol=1e-9)
    boxes = set(zip((day[0] // 20).tolist(), (day[1] // 40).tolist(), strict=True))
    assert len(boxes) == 10 * 9  # every box of 20 by 40 degrees
    narrow = swath(hours[0], hours[-1], 2.1e6, 6.371e6)[0]  # one place a line: the ground track
    assert np.abs(narrow).max() == pytest.approx(180 - INCLINATION, abs=1.0)


def test_what_the_nature_run_lacks_is_said_in_a_sentence(planet):
    bad = {
        "variables of the store, it has no salinity": [STATIONS | {"errors": {"salinity": 1.0}}],
        "an observation operator among column, point, radiance, got 'points'": [STATIONS | {"operator": "points"}],
        "levels of temperature within 0 to 1, got 500": [SWATH | {"levels": [500.0]}],
        "radiances of temperature, got u_component": [SWATH | {"errors": {"u_component_of_wind": 1.0}}],
    }
    for message, networks in bad.items():
        with pytest.raises(ValueError, match=message):
            observe(planet, options(*networks))
    with pytest.raises(ValueError, match="times of the nature run, 2001-01-01T00.* got 1999-01-01"):
        observe(planet, options(STATIONS), np.datetime64("1999-01-01"))
    for message, changed in {
        "errors above 0": {"errors": {"temperature": -1.0}},
        "errors of the variables that synop observes, got none": {"errors": {}},
        "biases among the variables of synop, got geopotential": {"biases": {"geopotential": 1.0}},
        "share of above 0 and at most 1|share above 0 and at most 1": {"share": 1.5},
        "kind among stations, profiles, swath, got 'ships'": {"kind": "ships"},
    }.items():
        with pytest.raises(ValueError, match=message):
            options(STATIONS | changed)
    with pytest.raises(ValueError, match="networks with names of their own, got synop, synop"):
        options(STATIONS, STATIONS)
