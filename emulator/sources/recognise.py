"""Which canonical variable a variable of a source is: by names, GRIB short name or number, or CF standard name.

Names stand in the variable table; what follows here is what standard names say besides. What a value is of its interval
and which sign a centre gives fluxes is in `emulator.sources.conventions`.
"""

import dataclasses
import re

from emulator.planet.variables import VARIABLES
from emulator.sources.conventions import (
    GRIB_NAMES,
    SNOW_ON_THE_GROUND,
    is_named_statistic,
    sign_towards_ours,
    time_method,
)


@dataclasses.dataclass(frozen=True)
class Match:
    """A canonical variable that a source's variable is, or is one term of.

    `sign` turns the source's sign into ECMWF's. With a `term`, the canonical variable is the sum of the terms "down" and
    "up". `interval_hours` is the accumulation that the source's name itself states. `logarithm`: the source has the natural
    logarithm.
    """

    name: str
    sign: int = 1
    term: str = ""
    interval_hours: float | None = None
    logarithm: bool = False


# CF standard names that the table does not have, with the sign towards ECMWF's. CF's evapotranspiration is upward.
STANDARD_NAMES = {
    "geopotential_height": ("geopotential", 1),
    "surface_altitude": ("geopotential_at_surface", 1),
    "lwe_precipitation_rate": ("mean_total_precipitation_rate", 1),
    "air_pressure_at_sea_level": ("mean_sea_level_pressure", 1),
    "water_evapotranspiration_flux": ("mean_evaporation_rate", -1),
    "water_evaporation_flux": ("mean_evaporation_rate", -1),
    "surface_upward_latent_heat_flux": ("mean_surface_latent_heat_flux", -1),
    "surface_upward_sensible_heat_flux": ("mean_surface_sensible_heat_flux", -1),
    "toa_outgoing_longwave_flux": ("mean_top_net_long_wave_radiation_flux", -1),
    "toa_outgoing_longwave_flux_assuming_clear_sky": ("mean_top_net_long_wave_radiation_flux_clear_sky", -1),
    "lwe_water_evaporation_rate": ("mean_evaporation_rate", -1),
    "surface_upward_water_vapor_flux_in_air": ("mean_evaporation_rate", -1),
    "lwe_snowfall_rate": ("mean_snowfall_rate", 1),
    "surface_net_upward_shortwave_flux": ("mean_surface_net_short_wave_radiation_flux", -1),
    "surface_net_upward_longwave_flux": ("mean_surface_net_long_wave_radiation_flux", -1),
    "toa_net_upward_shortwave_flux": ("mean_top_net_short_wave_radiation_flux", -1),
    "toa_net_upward_longwave_flux": ("mean_top_net_long_wave_radiation_flux", -1),
    "surface_upward_eastward_stress": ("mean_eastward_turbulent_surface_stress", -1),
    "surface_upward_northward_stress": ("mean_northward_turbulent_surface_stress", -1),
    "surface_upward_heat_flux_in_sea_water": ("mean_downward_heat_flux_into_sea_water", -1),
    "surface_snow_amount": ("snow_depth", 1),
    "volume_fraction_of_water_in_soil": ("volumetric_soil_water", 1),
    "moisture_content_of_soil_layer": ("soil_water_content", 1),
    "soil_moisture_content": ("total_soil_water_content", 1),
    "sea_water_practical_salinity": ("sea_water_salinity", 1),
    "sea_water_x_velocity": ("eastward_sea_water_velocity", 1),  # of grids of latitudes and longitudes
    "sea_water_y_velocity": ("northward_sea_water_velocity", 1),
    "sea_ice_x_velocity": ("eastward_sea_ice_velocity", 1),
    "sea_ice_y_velocity": ("northward_sea_ice_velocity", 1),
    "surface_downward_x_stress": ("mean_eastward_sea_surface_stress", 1),
    "surface_downward_y_stress": ("mean_northward_sea_surface_stress", 1),
    "downward_x_stress_at_sea_water_surface": ("mean_eastward_sea_surface_stress", 1),
    "downward_y_stress_at_sea_water_surface": ("mean_northward_sea_surface_stress", 1),
}
# Net fluxes that a source gives as two: standard name of the downward term, of the upward term.
TERMS = {
    "mean_top_net_short_wave_radiation_flux": ("toa_incoming_shortwave_flux", "toa_outgoing_shortwave_flux"),
    "mean_surface_net_short_wave_radiation_flux": (
        "surface_downwelling_shortwave_flux_in_air",
        "surface_upwelling_shortwave_flux_in_air",
    ),
    "mean_surface_net_long_wave_radiation_flux": (
        "surface_downwelling_longwave_flux_in_air",
        "surface_upwelling_longwave_flux_in_air",
    ),
}
# The parts of net fluxes that have names of their own; insolation is no part alone: it is a forcing besides.
PARTS = {
    "mean_top_net_short_wave_radiation_flux": ("mean_top_upward_short_wave_radiation_flux",),
    **{
        f"mean_surface_net_{band}_wave_radiation_flux": tuple(
            f"mean_surface_{way}_{band}_wave_radiation_flux" for way in ("downward", "upward")
        )
        for band in ("short", "long")
    },
}
# These standard names say nothing of a height: without levels they are near-surface values only where one is recorded.
NEAR_SURFACE = {
    "air_temperature": 2.0,
    "dew_point_temperature": 2.0,
    "eastward_wind": 10.0,
    "northward_wind": 10.0,
    "wind_speed": 10.0,
    "specific_humidity": 2.0,
    "relative_humidity": 2.0,
}
LOGARITHMS = {"lnsp": "surface_pressure"}
# What ECMWF has on the first model level although it is the surface's, by short names.
ON_THE_FIRST_LEVEL = ("z", "lnsp")
# Standard names of something else than what a short name says: departures, mixing ratios (as q), CMIP's o3, CF's modifiers.
OTHER_QUANTITY = re.compile(
    r"_anomaly\b|^humidity_mixing_ratio|^mole_fraction_of_ozone|\w (?:standard_error|number_of_observations|status_flag)\b"
)
# Other tools call something else so: here a standard name that the table knows says more.
AMBIGUOUS = frozenset("ts cp ro sd src cl cc so hs pv tsn".split())


def _by_name() -> dict[tuple[str, str | None], tuple[str, int]]:
    """(name in a source, vertical dimension) -> canonical name, sign."""
    found: dict[tuple[str, str | None], tuple[str, int]] = {}
    for entry in VARIABLES.values():
        for text in (entry.short, entry.cmip, *entry.also.split()):
            if text:
                sign = -1 if text.startswith("-") else 1
                found.setdefault((text.removeprefix("-"), entry.vertical), (entry.name, sign))
    return found


_NAMES = _by_name()
_PARAMETERS = {(v.parameter, v.vertical): v.name for v in VARIABLES.values() if v.parameter}
# Of entries that share a standard name (the layers of the soil, winds at several heights) the first one is meant.
_STANDARD = {(v.standard_name, v.vertical): v.name for v in reversed(VARIABLES.values()) if v.standard_name}


def recognise(name: str, attributes: dict, vertical: str | bool | None, height: float | None = None) -> list[Match]:
    """The canonical variables that a source's variable is or belongs to; empty when there is none.

    A maximum, a minimum or another statistic of a quantity is another variable, and an amount at an instant no accumulation.

    Args:
      name: its name in the source.
      attributes: of the variable; `GRIB_shortName`, `GRIB_paramId` and `standard_name` are used, `cell_methods` or
        `GRIB_stepType`, and for signs `positive` or `GRIB_centre`.
      vertical: the dimension of stores that its vertical axis is, None without one; true for "level", false for none.
      height: its height above ground in metres where the source records one.
    """
    if isinstance(vertical, bool):
        vertical = "level" if vertical else None
    method = time_method(attributes)
    if method not in (None, "point", "mean", "sum") or OTHER_QUANTITY.search(str(attributes.get("standard_name", ""))):
        return []
    found = []
    for match in _named(name, attributes, vertical, height):
        entry = VARIABLES[match.name]
        if method == "sum" and entry.cell == "point":
            continue
        if (
            match.name in SNOW_ON_THE_GROUND
            and method == "point"
            and attributes.get("units") in SNOW_ON_THE_GROUND[match.name]
        ):
            match = Match("snow_depth")
        sign = match.sign if match.term else sign_towards_ours(entry, match.sign, attributes)
        found.append(dataclasses.replace(match, sign=sign))
    return found


def _named(name: str, attributes: dict, vertical: str | None, height: float | None) -> list[Match]:
    if name in VARIABLES and VARIABLES[name].vertical == vertical:
        return [Match(name)]
    bare, hours = _without_interval(name)
    if vertical is None and (of := LOGARITHMS.get(attributes.get("GRIB_shortName", bare.lower()))):
        return [Match(of, logarithm=True)]
    standard, grib = attributes.get("standard_name"), "GRIB_shortName" in attributes
    if bare.lower() in AMBIGUOUS and not grib and (matches := _by_standard_name(standard, vertical, height)):
        return matches
    short = attributes.get("GRIB_shortName", bare.lower())
    if grib and vertical is None and short in GRIB_NAMES:
        return [Match(GRIB_NAMES[short])]
    if found := _NAMES.get((short, vertical)):
        canonical, sign = found
        if not grib and standard in STANDARD_NAMES:
            sign = STANDARD_NAMES[standard][1]
        elif not grib and standard == VARIABLES[canonical].standard_name is not None:
            sign = 1
        return [Match(canonical, sign, interval_hours=hours), *_terms(standard)]
    if (number := attributes.get("GRIB_paramId")) is not None and (
        canonical := _PARAMETERS.get((int(number), vertical))
    ):
        return [Match(canonical, interval_hours=hours)]
    if grib:  # a short name is exact; the standard name says less, e.g. nothing of the height
        return []
    if is_named_statistic(name, attributes):
        return []
    return _by_standard_name(standard, vertical, height)


def _without_interval(name: str) -> tuple[str, float | None]:
    """WeatherBench 2 writes the interval of an accumulation into its name: `total_precipitation_6hr`."""
    head, _, tail = name.rpartition("_")
    if head and tail.endswith("hr") and tail[:-2].isdigit():
        return head, float(tail[:-2])
    return name, None


def _by_standard_name(standard, vertical, height) -> list[Match]:
    if standard is None or (vertical is None and standard in NEAR_SURFACE and height != NEAR_SURFACE[standard]):
        return []
    matches = []
    name, sign = STANDARD_NAMES.get(standard, (_STANDARD.get((standard, vertical)), 1))
    if name is not None and VARIABLES[name].vertical == vertical:
        matches.append(Match(name, sign))
    return matches + _terms(standard)


def _terms(standard) -> list[Match]:
    matches = []
    for net, (down, up) in TERMS.items():
        if standard in (down, up):
            matches.append(Match(net, 1 if standard == down else -1, "down" if standard == down else "up"))
    return matches
