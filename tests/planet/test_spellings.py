"""Spellings of units in files: those of UDUNITS, pint, GRIB tables, CMIP and older tools, by the variable's dimension."""

# ruff: noqa: E501

import pytest

from emulator.planet.units import conversion
from emulator.planet.variables import VARIABLES, variable

T, P, WIND = "2m_dewpoint_temperature", "surface_pressure", "u_component_of_wind"
RAIN, HEAT, Q = "mean_total_precipitation_rate", "mean_surface_latent_heat_flux", "specific_humidity"

# variable, interval in hours, a number in the source, the same in the table's units: spellings separated by |
TABLE = [
    (T, None, 11.36, 284.51,
     "degC|deg C|deg_C|degree_C|degrees_C|degree C|degrees C|degreeC|degreesC|Degrees C|C|°C|℃|Celsius|celsius|degree_Celsius|"
     "degrees_Celsius|degree Celsius|degrees Celsius|degrees celsius|deg_Celsius|Degrees Celsius|centigrade|[degC]|(degC)|"
     "degrees_centigrade|DEGC|deg. C|ºC"),
    (T, None, 284.51, 284.51,
     "K|k|Kelvin|kelvin|Kelvins|KELVIN|degK|deg K|deg_K|degree_K|degrees_K|degrees K|degreeK|degreesK|°K|degree_Kelvin|"
     "degrees Kelvin|[K]|(K)"),
    (T, None, 50.0, 283.15, "degF|deg F|deg_F|degree_F|degrees_F|degrees F|F|°F|fahrenheit|Fahrenheit|degrees Fahrenheit"),
    (P, None, 101325.0, 101325.0,
     "Pa|pa|PA|pascal|Pascal|Pascals|pascals|PASCAL|N m-2|N/m2|N m**-2|newton m-2|Newton/m^2|newton meter-2|J m-3|kg m-1 s-2|"
     "kg/m/s2|kg m**-1 s**-2|[Pa]"),
    (P, None, 1013.25, 101325.0,
     "hPa|hpa|HPA|hPA|hectopascal|hectopascals|Hectopascals|hectoPascal|hectoPascals|mb|MB|mbar|mbars|millibar|millibars|"
     "Millibars|milliBar|100 Pa|1e2 Pa"),
    (P, None, 1.01325, 101325.0, "bar|1e5 Pa|10^5 Pa"),
    (P, None, 101.325, 101325.0, "kPa|kilopascal|kiloPascals"),
    (P, None, 760.0, 101325.0, "mmHg|torr"),
    (WIND, None, 12.5, 12.5,
     "m s-1|m/s|m s**-1|m s^-1|m*s-1|m.s-1|m·s-1|m s⁻¹|m*s**-1|M/S|meter/second|meters/second|meters per second|meter second-1|"
     "metre second-1|metres per second|m/sec|meter/sec|m sec-1|[m/s]|m per s|Meters/Second|METERS/SECOND"),
    (WIND, None, 45.0, 12.5, "km/h|km h-1|km hr-1|kilometers per hour|kilometer/hour"),
    (WIND, None, 1250.0, 12.5, "cm/s|cm s-1|0.01 m s-1|1e-2 m/s"),
    (WIND, None, 10.0, 10 * 1852 / 3600, "knot|knots|kt|kts|Knots"),
    (Q, None, 0.007, 0.007,
     "kg kg-1|kg/kg|kg kg**-1|kg kg^-1|kg.kg-1|KG/KG|1|g/g|g g-1|kilogram/kilogram|kg per kg|dimensionless|kg kg⁻¹||[kg/kg]"),
    (Q, None, 7.0, 0.007, "g kg-1|g/kg|gm/kg|g kg**-1|g kg^-1|1e-3|0.001|1e-3 kg kg-1|10^-3 kg/kg|gram/kilogram|1.e-3|mg/g"),
    ("sea_ice_cover", None, 0.25, 0.25,
     "1|(0 - 1)|(0-1)|0-1|0 - 1|fraction|Fraction|proportion|Proportion|none|None|unitless|dimensionless|~|-|[-]|frac|numeric|"
     "Numeric|ratio|1.0||m2 m-2|m2/m2"),
    ("sea_ice_cover", None, 25.0, 0.25, "%|percent|Percent|per cent|pct|percentage|0.01|1e-2|10^-2"),
    ("total_cloud_cover", None, 2.0, 0.25, "okta|oktas|1/8"),
    ("relative_humidity", None, 0.4, 40.0, "1|fraction|(0 - 1)"),
    ("relative_humidity", None, 40.0, 40.0, "%|percent|Percent|pct"),
    ("geopotential", None, 5e4, 5e4, "m2 s-2|m**2 s**-2|m^2 s^-2|m2/s2|m^2/s^2|J kg-1|J/kg|m²/s²|m² s⁻²|m2.s-2|(m2 s-2)"),
    ("geopotential", None, 5000.0, 5000 * 9.80665, "m|gpm|geopotential meter|geopotential metre|Meters|metres|meter|metre"),
    ("geopotential", None, 500.0, 5000 * 9.80665, "dam|gpdm|gpdam"),
    (RAIN, None, 1e-4, 1e-4,
     "kg m-2 s-1|kg m**-2 s**-1|kg m^-2 s^-1|kg/m2/s|kg/m^2/s|kg/(m2 s)|kg/(m^2*s)|kg/(m^2 s)|kg.m-2.s-1|kg m⁻² s⁻¹|mm/s|mm s-1|"
     "mm s**-1|kg m-2 sec-1|kilogram meter-2 second-1|KG/M2/S|mm of water equivalent s-1|kg/m**2/s|[kg m-2 s-1]"),
    (RAIN, None, 8.64, 1e-4,
     "mm/day|mm day-1|mm/d|mm d-1|mm per day|mm day^-1|mm/24h|mm (24 h)-1|kg m-2 day-1|kg/m2/day|kg m-2 d-1|millimeters/day|"
     "mm/(24 hour)|mm/DAY"),
    (RAIN, None, 0.36, 1e-4, "mm/h|mm/hr|mm h-1|mm hr-1|mm/hour|mm hour-1|mm h**-1|mm per hour|kg m-2 h-1|kg/m2/hr|mm hr^-1"),
    (RAIN, None, 2.16, 1e-4, "mm/6h|mm/6hr|mm/(6 h)|mm (6 h)-1|mm/6 hours"),
    (RAIN, None, 1e-7, 1e-4, "m/s|m s-1|m s**-1|m of water equivalent s-1|m of water equivalent per second"),
    (RAIN, 6.0, 2.16e-3, 1e-4,
     "m|meters|metre|m of water equivalent|m of water|m water equivalent|meters of water|metres of water equivalent|Mg m-2"),
    (RAIN, 6.0, 2.16, 1e-4, "mm|kg m-2|kg m**-2|kg/m2|kg/m^2|millimeter|millimeters|mm of water|mm of water equivalent|mm w.e.|MM"),
    (RAIN, 6.0, 2.16 / 25.4, 1e-4, "inch|inches|in"),
    (HEAT, None, -94.0, -94.0,
     "W m-2|W/m2|W/m^2|W m**-2|W m^-2|W.m-2|Watt m-2|watt m-2|watts/m2|Watts/m^2|W/m**2|J m-2 s-1|J m**-2 s**-1|J/m2/s|W m⁻²|"
     "W/m²|watts per square meter|Watts per square metre|watt meter-2|W/M2|[W/m2]|kg s-3"),
    (HEAT, 1.0, -94.0 * 3600, -94.0, "J m-2|J m**-2|J/m2|J/m^2|Joule/m2|joules m-2|W s m-2|J m^-2|J.m-2"),
    (HEAT, 1.0, -94.0, -94.0, "W h m-2|Wh/m2|W hr m-2"),
    (HEAT, 1.0, -94.0 * 3.6e-3, -94.0, "MJ m-2|MJ/m2|MJ m**-2"),
    (HEAT, None, -94.0 * 0.0864, -94.0, "MJ m-2 day-1|MJ/m2/day|MJ m-2 d-1"),
    ("mean_eastward_turbulent_surface_stress", None, 0.1, 0.1, "N m-2|N/m2|N m**-2|Pa|Newton m-2|N/m^2|N m^-2"),
    ("mean_eastward_turbulent_surface_stress", 1.0, 360.0, 0.1, "N m-2 s|N m**-2 s|Pa s|N/m2*s"),
    ("sea_surface_salinity", None, 35.0, 35.0,
     "psu|PSU|g kg-1|g/kg|0.001|1e-3|1.e-3|permil|‰|pss-78|PSS-78|practical salinity units|ppt|parts per thousand|g kg**-1"),
    ("vertical_velocity", None, -0.2, -0.2, "Pa s-1|Pa/s|Pa s**-1|pascal/second|Pascal s-1|pascals per second|Pa.s-1"),
    ("vertical_velocity", None, -2e-3, -0.2, "hPa/s|hPa s-1|mb/s|mb s-1|mbar s-1"),
    ("vorticity", None, 1e-5, 1e-5, "s-1|s**-1|1/s|s^-1|/s|sec-1|rad s-1|s⁻¹|Hz"),
    ("vorticity", None, 1.0, 1e-5, "1e-5 s-1|10^-5 s-1|1e-5/s|1.e-5 s-1"),
    ("potential_vorticity", None, 2e-6, 2e-6, "K m2 kg-1 s-1|K m**2 kg**-1 s**-1|K m^2/kg/s|m2 s-1 K kg-1|K m2/(kg s)"),
    ("potential_vorticity", None, 2.0, 2e-6, "PVU|pvu|1e-6 K m2 kg-1 s-1"),
    ("mean_wave_direction", None, 270.0, 270.0,
     "degree|degrees|deg|Degree true|degree true|degrees_true|degree_true|degrees true|°|Degrees|degrees (true)|DEGREES"),
    ("mean_wave_direction", None, 4.71238898038469, 270.0, "rad|radian|radians|Radians"),
    ("snow_depth", None, 300.0, 0.3, "kg m-2|kg m**-2|mm|mm of water equivalent|kg/m^2"),
    ("snow_depth", None, 0.3, 0.3, "m|m of water equivalent|m of water|m w.e."),
    ("total_column_water_vapour", None, 25.0, 25.0, "kg m-2|kg m**-2|kg/m^2|kg/m2|mm|KG/M2|[kg m-2]"),
    ("total_column_ozone", None, 300.0, 300 * 2.1415e-5, "DU|Dobson|dobson units|DOBSON"),
    ("carbon_dioxide_mole_fraction", None, 420.0, 4.2e-4,
     "ppm|ppmv|PPM|PPMV|umol mol-1|µmol/mol|micromol/mol|1e-6|1.e-6|1e-6 mol mol-1|µmol mol⁻¹|parts per million|micromole/mole"),
    ("carbon_dioxide_mole_fraction", None, 4.2e-4, 4.2e-4, "mol mol-1|mol/mol|mol mol**-1|1|mole/mole|mole mole-1"),
    ("methane_mole_fraction", None, 1900.0, 1.9e-6, "ppb|ppbv|nmol mol-1|1e-9|nmol/mol"),
    ("volumetric_soil_water_layer_1", None, 0.4, 0.4, "m3 m-3|m**3 m**-3|m^3 m^-3|m3/m3|m³/m³|1|cm3/cm3|m^3/m^3|Proportion"),
    ("volumetric_soil_water_layer_1", None, 40.0, 0.4, "%|percent"),
    ("boundary_layer_height", None, 800.0, 800.0, "m|meter|metre|meters|metres|Meters|METERS|M"),
    ("boundary_layer_height", None, 0.8, 800.0, "km|kilometer|kilometres|1000 m|1e3 m"),
    ("mean_wave_period", None, 9.0, 9.0, "s|sec|second|seconds|Seconds|secs|S"),
    ("soil_type", None, 3.0, 3.0, "1|~|(Code table 4.213)|Code table 4.213|(code table 4.234)|numeric|index"),
    ("convective_available_potential_energy", None, 900.0, 900.0, "J kg-1|J/kg|J kg**-1|J kg^-1|joule/kilogram|m2 s-2|m2/s2"),
    ("angle_of_sub_gridscale_orography", None, 1.0, 1.0, "radian|radians|rad"),
    ("snow_density", None, 250.0, 250.0, "kg m-3|kg m**-3|kg/m3|kg/m^3|g/L"),
]  # fmt: skip
CASES = [
    (name, hours, value, expected, units) for name, hours, value, expected, all_ in TABLE for units in all_.split("|")
]


@pytest.mark.parametrize(("name", "hours", "value", "expected", "units"), CASES)
def test_a_spelling_is_what_it_says(name, hours, value, expected, units):
    scale, offset = conversion(units, variable(name), hours and hours * 3600)
    assert scale * value + offset == pytest.approx(expected, rel=2e-4 if units in ("mmHg", "torr") else 1e-9)


@pytest.mark.parametrize("name", VARIABLES)
def test_the_tables_own_units_in_all_their_forms(name):
    units = VARIABLES[name].units
    powers = {units, units.replace("-", "**-"), units.replace("-", "^-"), f" {units} ", f"[{units}]"}
    for text in powers:
        assert conversion(text, variable(name)) == pytest.approx((1.0, 0.0))


@pytest.mark.parametrize(
    ("name", "units"),
    [
        *[(T, text) for text in "degrees|degree|deg|°|radian|degrees_north|1|%|m|Pa|C m|degrees C m-1|J|".split("|")],
        *[("sea_ice_cover", text) for text in "degree|radian|degrees_north|K|m|degC|sr m".split("|")],
        *[("mean_wave_direction", text) for text in "1|%|degC|K|deg C|m".split("|")],
        *[(WIND, text) for text in "m|s|Pa s-1|ms-1|degrees|m s-2|m2 s-2|%".split("|")],
        *[(P, text) for text in "K|degC|m|kg m-2|W m-2|Pa s-1|mol".split("|")],
        *[(Q, text) for text in "ppmv|mol mol-1|g m-3|K|degree".split("|")],
        *[(HEAT, text) for text in "K|W|W m-1|degrees|mm|kg m-2 s-1".split("|")],
        *[(RAIN, text) for text in "W m-2|K|%|degree|kg m-3".split("|")],
    ],
)
def test_units_of_another_dimension_are_refused(name, units):
    with pytest.raises(ValueError, match="units"):
        conversion(units, variable(name), 3600.0)
