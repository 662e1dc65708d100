"""Units: closed forms of every kind of conversion, and refusal of what does not convert."""

import pytest

from emulator.planet import units
from emulator.planet.units import conversion, linear
from emulator.planet.variables import variable


@pytest.mark.parametrize(
    ("units", "name", "hours", "value", "expected"),
    [
        ("degC", "temperature", None, 15.0, 288.15),
        ("degF", "2m_temperature", None, 32.0, 273.15),
        ("m**2 s**-2", "geopotential", None, 5.0, 5.0),
        ("gpm", "geopotential", None, 5000.0, 5000 * 9.80665),
        ("m", "geopotential_at_surface", None, 100.0, 980.665),
        ("millibars", "surface_pressure", None, 1013.25, 101325.0),
        ("mb", "mean_sea_level_pressure", None, 1000.0, 1e5),
        ("g/kg", "specific_humidity", None, 7.0, 7e-3),
        ("1", "specific_humidity", None, 7e-3, 7e-3),
        ("1", "relative_humidity", None, 0.4, 40.0),
        ("%", "sea_ice_cover", None, 25.0, 0.25),
        ("(0 - 1)", "sea_ice_cover", None, 0.25, 0.25),
        ("mm/day", "mean_total_precipitation_rate", None, 86.4, 1e-3),
        ("mm s-1", "mean_total_precipitation_rate", None, 1e-3, 1e-3),
        ("m", "mean_total_precipitation_rate", 6.0, 2.16e-3, 1e-4),
        ("m of water equivalent", "mean_evaporation_rate", 1.0, -3.6e-5, -1e-5),
        ("kg m**-2", "mean_total_precipitation_rate", 1.0, 3.6, 1e-3),
        ("J m**-2", "mean_surface_latent_heat_flux", 1.0, -3.6e5, -100.0),
        ("m of water equivalent", "snow_depth", None, 0.3, 0.3),
        ("kg m-2", "snow_depth", None, 300.0, 0.3),
        ("0.001", "sea_water_salinity", None, 35.0, 35.0),
        ("psu", "sea_water_salinity", None, 35.0, 35.0),
        ("1e-3", "specific_humidity", None, 7.0, 7e-3),
        ("1.e-6", "carbon_dioxide_mole_fraction", None, 420.0, 4.2e-4),
        ("ppm", "carbon_dioxide_mole_fraction", None, 420.0, 4.2e-4),
        ("ppb", "methane_mole_fraction", None, 1900.0, 1.9e-6),
        ("umol mol-1", "carbon_dioxide_mole_fraction", None, 420.0, 4.2e-4),
        ("Pa s", "mean_eastward_turbulent_surface_stress", 1.0, 360.0, 0.1),
        ("Degree true", "mean_wave_direction", None, 270.0, 270.0),
        ("%", "snow_cover", None, 50.0, 0.5),
        ("m3 m-3", "volumetric_soil_water_layer_1", None, 0.4, 0.4),
        ("W m^-2", "mean_top_net_long_wave_radiation_flux", None, -240.0, -240.0),
    ],
)
def test_conversion(units, name, hours, value, expected):
    scale, offset = conversion(units, variable(name), hours and hours * 3600)
    assert scale * value + offset == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("units", "name", "message"),
    [
        ("K", "geopotential", "convert to 'm2 s-2', got 'K'"),
        ("mol mol-1", "ozone_mass_mixing_ratio", "got 'mol mol-1'"),  # both are without dimension
        ("kg kg-1", "carbon_dioxide_mole_fraction", "got 'kg kg-1'"),
        ("1e-6", "sea_surface_height", "convert to 'm', got '1e-6'"),
        ("m", "temperature", "got 'm'"),
        ("m", "mean_surface_latent_heat_flux", "got 'm'"),
        ("parsecks", "temperature", "units that pint knows"),
        ("m", "mean_total_precipitation_rate", "Expected interval_hours for mean_total_precipitation_rate"),
        ("J m-2", "mean_surface_latent_heat_flux", "interval_hours"),
    ],
)
def test_units_that_do_not_convert(units, name, message):
    with pytest.raises(ValueError, match=message):
        conversion(units, variable(name))


def test_the_way_back_is_the_inverse():
    for source, target in (("degC", "K"), ("hPa", "Pa"), ("g/kg", "1")):
        (scale, offset), (back, shift) = linear(source, target), linear(target, source)
        assert back * (scale * 3.7 + offset) + shift == pytest.approx(3.7, rel=1e-12)


def test_what_is_known_without_pint_is_what_pint_says(monkeypatch):
    known = dict(units.COMMON)
    monkeypatch.setattr(units, "COMMON", {})
    assert {pair: linear(*pair) for pair in known} == known


def test_powers_in_either_spelling():
    assert linear("m**2 s**-2", "m2 s-2") == linear("m2 s-2", "m^2 s^-2") == (1.0, 0.0)
