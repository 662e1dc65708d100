"""Names of earth2studio and what they stand for."""

import numpy as np
import pytest
from small_planet import small_planet

from emulator.bridges.lexicon import LexiconError, name_in, of_store
from emulator.planet.variables import VARIABLES


def on_pressure_levels():
    planet = small_planet(times=4, nlat=4).drop_vars(["half_level_a", "half_level_b"])
    levels = planet.assign_coords(level=("level", [50.0, 300.0, 500.0, 1000.0]))
    return levels.assign_attrs(vertical_coordinate="pressure", time_step_seconds=21600.0)


def test_levels_are_hpa_on_pressure_levels_and_numbers_from_the_top_on_others():
    pressure = of_store(on_pressure_levels())
    assert {"t50", "t300", "u500", "v1000", "q500", "sp", "z", "lsm", "sst", "tp06", "e06", "msshf"} <= set(pressure)
    sigma = of_store(small_planet(times=4, nlat=4).assign_attrs(time_step_seconds=21600.0))
    assert {"t0k", "t3k", "q2k", "sp"} <= set(sigma) and not {"t4k", "t50"} & set(sigma)
    assert (sigma["t2k"].variable, sigma["t2k"].level) == ("temperature", 2)


@pytest.mark.parametrize(("hours", "text"), [(1, "tp01"), (6, "tp06"), (12, "tp12"), (24, "tp24"), (3, "mtpr")])
def test_precipitation_is_a_length_of_water_over_the_step_where_that_has_a_name(hours, text):
    times = np.datetime64("2001-01-01", "ns") + np.arange(4) * np.timedelta64(hours, "h")
    planet = on_pressure_levels().assign_coords(time=times).assign_attrs(time_step_seconds=hours * 3600.0)
    name = next(n for n in of_store(planet).values() if n.variable == "mean_total_precipitation_rate")
    # 1 mm of water over the step, in metres, from its mass
    rate = 1.0 / (hours * 3600)
    assert name.text == text
    assert np.isclose(rate * name.factor, 1e-3 if text != "mtpr" else rate, rtol=1e-12)
    assert name_in(planet, text, hours * 3600.0) == name


def test_every_name_of_a_store_stands_for_the_field_that_has_it():
    for planet in (on_pressure_levels(), small_planet(times=4, nlat=4).assign_attrs(time_step_seconds=21600.0)):
        for text, name in of_store(planet).items():
            assert name_in(planet, text, 21600.0) == name


def test_no_two_variables_of_the_table_have_one_name():
    planet = on_pressure_levels()
    fields = {n: planet.surface_pressure for n, v in VARIABLES.items() if v.vertical is None}
    fields |= {n: planet.temperature for n, v in VARIABLES.items() if v.vertical == "level"}
    dataset = planet[["temperature"]].assign(fields)
    names = of_store(dataset)
    surface = sum(v.vertical is None for v in VARIABLES.values())
    assert len(names) == surface + 4 * sum(v.vertical == "level" for v in VARIABLES.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("warmth", "a name of earth2studio's lexicon that the variable table has a field for, got 'warmth'"),
        ("t850", r"a level that the analysis has for t850 \(temperature\)"),
        ("t0k", "a level that the analysis has for t0k"),
        ("tp24", "amounts over the step of 6 h, got tp24"),
    ],
)
def test_a_name_that_is_none_of_ours_is_a_sentence(text, message):
    with pytest.raises(LexiconError, match=message):
        name_in(on_pressure_levels(), text, 21600.0)
