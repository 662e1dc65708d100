"""Names of sources: each of the naming schemes leads to the right canonical variable, or to none."""

import pytest

from emulator.planet.variables import VARIABLES
from emulator.sources.recognise import Match, recognise

LATENT = "mean_surface_latent_heat_flux"
TOP_SHORT_WAVE = "mean_top_net_short_wave_radiation_flux"


@pytest.mark.parametrize("name", VARIABLES)
def test_a_canonical_name_is_itself(name):
    assert recognise(name, {}, VARIABLES[name].levels) == [Match(name)]


@pytest.mark.parametrize("name", [n for n, v in VARIABLES.items() if v.short])
def test_a_grib_short_name_is_exact(name):
    attributes = {"GRIB_shortName": VARIABLES[name].short, "standard_name": "air_temperature"}
    assert recognise("paramX", attributes, VARIABLES[name].levels) == [Match(name)]


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
        ("rsut", {"standard_name": "toa_outgoing_shortwave_flux"}, False, None, [Match(TOP_SHORT_WAVE, -1, "up")]),
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
    ],
)
def test_other_schemes(name, attributes, levels, height, expected):
    assert recognise(name, attributes, levels, height) == expected
