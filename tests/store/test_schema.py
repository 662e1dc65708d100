"""What a store says of its fields: attributes first, the variable table where they are silent."""

import dataclasses

import numpy as np
import pytest
import xarray as xr

from emulator.planet.variables import VARIABLES
from emulator.store.schema import entry, time_cell


def stored(name, dims=("time", "latitude", "longitude"), **attributes) -> xr.Dataset:
    return xr.Dataset({name: (dims, np.zeros([2] * len(dims)), attributes)})


def test_without_attributes_it_is_the_table_s_entry():
    for name, dims in (("surface_pressure", ()), ("temperature", ("level",)), ("mean_snowfall_rate", ())):
        assert entry(stored(name, ("time", *dims, "latitude", "longitude")), name) == VARIABLES[name]
    assert entry(stored("land_sea_mask", ("latitude", "longitude")), "land_sea_mask") == VARIABLES["land_sea_mask"]


def test_attributes_come_before_the_table():
    given = {"units": "Pa", "role": "forcing", "cell_methods": "time: mean (interval: 6 hours)", "minimum": 1.0}
    given |= {
        "long_name": "pressure at the ground",
        "short_name": "ps",
        "domain": "land",
        "standard_name": "a",
        "sign": "up",
    }
    own = {"role": "forcing", "cell": "mean", "minimum": 1.0, "long_name": "pressure at the ground", "short": "ps"}
    own |= {"domain": "land", "standard_name": "a", "sign": "up"}
    found = entry(stored("surface_pressure", **given), "surface_pressure")
    assert found == dataclasses.replace(VARIABLES["surface_pressure"], **own)


def test_bounds_are_not_those_of_the_table_in_other_units():
    found = entry(stored("surface_pressure", units="hPa"), "surface_pressure")
    assert (found.units, found.minimum, found.maximum) == ("hPa", None, None)
    same = entry(stored("geopotential", ("time", "level", "latitude", "longitude"), units="m**2 s**-2"), "geopotential")
    assert same == dataclasses.replace(VARIABLES["geopotential"], units="m**2 s**-2")


@pytest.mark.parametrize("dim", ["level", "height", "depth", "soil_layer"])
def test_a_field_of_no_table_is_known_by_its_own_words(dim):
    found = entry(stored("plankton", ("time", dim, "latitude", "longitude"), units="kg m-3"), "plankton")
    assert (found.units, found.vertical, found.levels, found.cell) == ("kg m-3", dim, True, "point")
    fixed = entry(stored("roughness", ("latitude", "longitude"), units="m"), "roughness")
    assert (fixed.role, fixed.cell, fixed.levels, fixed.domain) == ("static", "fixed", False, "all")


def test_units_are_known_or_refused():
    with pytest.raises(ValueError, match="units of plankton, got none"):
        entry(stored("plankton"), "plankton")


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("time: mean", "mean"),
        ("area: mean time: point", "point"),
        ("time: maximum within days", "maximum"),
        ("area: mean", None),
        ("", None),
    ],
)
def test_the_cell_method_along_time(text, cell):
    assert time_cell({"cell_methods": text}) == cell
