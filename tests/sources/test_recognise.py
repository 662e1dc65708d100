"""Names of sources: each of the naming schemes leads to the right canonical variable, or to none."""

import pytest

from emulator.planet.units import linear
from emulator.planet.variables import VARIABLES
from emulator.sources.recognise import NEAR_SURFACE, Match, recognise

WAVES = "significant_height_of_combined_wind_waves_and_swell"
LATENT = "mean_surface_latent_heat_flux"
TOP_SHORT_WAVE = "mean_top_net_short_wave_radiation_flux"


@pytest.mark.parametrize("name", VARIABLES)
def test_a_canonical_name_is_itself(name):
    assert recognise(name, {}, VARIABLES[name].vertical) == [Match(name)]


@pytest.mark.parametrize("name", [n for n, v in VARIABLES.items() if v.short])
def test_a_grib_short_name_is_exact(name):
    attributes = {"GRIB_shortName": VARIABLES[name].short, "standard_name": "air_temperature"}
    assert recognise("paramX", attributes, VARIABLES[name].vertical) == [Match(name)]


@pytest.mark.parametrize("name", [n for n, v in VARIABLES.items() if v.cmip])
def test_a_cmip_name_with_its_sign(name):
    entry = VARIABLES[name]
    sign = -1 if entry.cmip.startswith("-") else 1
    assert recognise(entry.cmip.removeprefix("-"), {}, entry.vertical) == [Match(name, sign)]


@pytest.mark.parametrize("name", [n for n, v in VARIABLES.items() if v.parameter])
def test_a_grib_number_is_exact(name):
    attributes = {"GRIB_shortName": "unknown", "GRIB_paramId": VARIABLES[name].parameter}
    assert recognise("paramX", attributes, VARIABLES[name].vertical) == [Match(name)]


@pytest.mark.parametrize("name", [n for n, v in VARIABLES.items() if v.standard_name])
def test_a_standard_name_leads_to_the_variable_that_has_it(name):
    entry = VARIABLES[name]
    height = NEAR_SURFACE.get(entry.standard_name)
    found, *terms = recognise("x", {"standard_name": entry.standard_name}, entry.vertical, height)
    assert VARIABLES[found.name].standard_name == entry.standard_name or found.sign == -1
    assert VARIABLES[found.name].vertical == entry.vertical and all(term.term for term in terms)
    shared = [
        v.name for v in VARIABLES.values() if (v.standard_name, v.vertical) == (entry.standard_name, entry.vertical)
    ]
    assert found.name == shared[0]


def test_no_name_in_sources_means_two_variables():
    seen = {}
    for entry in VARIABLES.values():
        for text in {entry.short, entry.cmip, *entry.also.split()} - {""}:
            key = text.removeprefix("-"), entry.vertical
            assert seen.setdefault(key, entry.name) == entry.name
            assert text == text.lower()


@pytest.mark.parametrize("name", [n for n, v in VARIABLES.items() if v.parameter])
def test_numbers_are_those_of_eccodes(name):
    """The number, the short name and the units that ECMWF's own tables have."""
    eccodes = pytest.importorskip("eccodes")
    entry = VARIABLES[name]
    for edition in (2, 1):
        message = eccodes.codes_grib_new_from_samples(f"regular_ll_sfc_grib{edition}")
        try:
            eccodes.codes_set(message, "paramId", entry.parameter)
        except eccodes.CodesInternalError:
            continue
        short, units = (eccodes.codes_get(message, key) for key in ("shortName", "units"))
        eccodes.codes_release(message)
        assert short == entry.short or short in entry.also.split() or short == entry.cmip
        assert linear(units, entry.units) is not None
        return
    pytest.fail(f"ecCodes knows no {entry.parameter}")


@pytest.mark.parametrize(
    ("name", "attributes", "levels", "height", "expected"),
    [
        ("z", {}, True, None, [Match("geopotential")]),
        ("z", {}, False, None, [Match("geopotential_at_surface")]),
        ("T", {}, True, None, [Match("temperature")]),
        ("t", {"GRIB_shortName": "t"}, False, None, []),  # the tropopause's temperature is not that at 2 m
        ("x", {"standard_name": "air_temperature"}, False, 2.0, [Match("2m_temperature")]),
        ("x", {"standard_name": "air_temperature"}, False, None, []),
        ("x", {"standard_name": "eastward_wind"}, False, 100.0, []),
        ("x", {"standard_name": "eastward_wind"}, True, None, [Match("u_component_of_wind")]),
        ("slhf", {}, False, None, [Match(LATENT)]),
        ("hfls", {"standard_name": "surface_upward_latent_heat_flux"}, False, None, [Match(LATENT, -1)]),
        (
            "evspsbl",
            {"standard_name": "water_evapotranspiration_flux"},
            False,
            None,
            [Match("mean_evaporation_rate", -1)],
        ),
        (
            "rlut",
            {"standard_name": "toa_outgoing_longwave_flux"},
            False,
            None,
            [Match("mean_top_net_long_wave_radiation_flux", -1)],
        ),
        (
            "rsut",
            {"standard_name": "toa_outgoing_shortwave_flux"},
            False,
            None,
            [Match("mean_top_upward_short_wave_radiation_flux"), Match(TOP_SHORT_WAVE, -1, "up")],
        ),
        (
            "rsdt",
            {"standard_name": "toa_incoming_shortwave_flux"},
            False,
            None,
            [Match("mean_top_downward_short_wave_radiation_flux"), Match(TOP_SHORT_WAVE, 1, "down")],
        ),
        (
            "total_precipitation_6hr",
            {},
            False,
            None,
            [Match("mean_total_precipitation_rate", interval_hours=6.0)],
        ),
        ("nonsense", {"standard_name": "sea_water_salinity"}, False, None, []),
        ("hfls", {}, False, None, [Match(LATENT, -1)]),
        ("LHTFLsfc", {}, False, None, [Match(LATENT, -1)]),
        ("hfls", {"standard_name": "surface_downward_latent_heat_flux"}, False, None, [Match(LATENT)]),
        ("vo", {}, "level", None, [Match("vorticity")]),
        ("vo", {}, "depth", None, [Match("northward_sea_water_velocity")]),
        ("uo", {"standard_name": "sea_water_x_velocity"}, "depth", None, [Match("eastward_sea_water_velocity")]),
        ("ts", {}, False, None, [Match("skin_temperature")]),
        ("ts", {"standard_name": "sea_surface_temperature"}, False, None, [Match("sea_surface_temperature")]),
        ("tsl", {"standard_name": "soil_temperature"}, "soil_layer", None, [Match("soil_temperature")]),
        ("x", {"standard_name": "soil_temperature"}, False, None, [Match("soil_temperature_level_1")]),
        ("unknown", {"GRIB_shortName": "unknown", "GRIB_paramId": 140229}, False, None, [Match(WAVES)]),
        ("unknown", {"GRIB_shortName": "unknown", "GRIB_paramId": 999}, False, None, []),
    ],
)
def test_other_schemes(name, attributes, levels, height, expected):
    assert recognise(name, attributes, levels, height) == expected
