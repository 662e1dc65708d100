"""Which canonical variable a variable of a source is: by name, GRIB short name, CDS and CMIP names or CF standard name."""

import dataclasses

from emulator.planet.variables import VARIABLES


@dataclasses.dataclass(frozen=True)
class Match:
    """A canonical variable that a source's variable is, or is one term of.

    `sign` turns the source's sign into ECMWF's. With a `term`, the canonical variable is the sum of the terms "down" and
    "up". `interval_hours` is the accumulation that the source's name itself states.
    """

    name: str
    sign: int = 1
    term: str = ""
    interval_hours: float | None = None


# Short names of CDS downloads, cfgrib, ARCO-ERA5 and CMIP beside the table's own (GRIB) ones. Accumulations stand with the
# mean rate that they become.
ALIASES = {
    "t2m": "2m_temperature",
    "tas": "2m_temperature",
    "trefht": "2m_temperature",
    "d2m": "2m_dewpoint_temperature",
    "tdps": "2m_dewpoint_temperature",
    "u10": "10m_u_component_of_wind",
    "v10": "10m_v_component_of_wind",
    "si10": "10m_wind_speed",
    "sfcwind": "10m_wind_speed",
    "uas": "10m_u_component_of_wind",
    "vas": "10m_v_component_of_wind",
    "ps": "surface_pressure",
    "psl": "mean_sea_level_pressure",
    "prmsl": "mean_sea_level_pressure",
    "ta": "temperature",
    "ua": "u_component_of_wind",
    "va": "v_component_of_wind",
    "hus": "specific_humidity",
    "hur": "relative_humidity",
    "wap": "vertical_velocity",
    "zg": "geopotential",
    "gh": "geopotential",
    "geopotential_height": "geopotential",
    "siconc": "sea_ice_cover",
    "orog": "geopotential_at_surface",
    "sftlf": "land_sea_mask",
    "prw": "total_column_water_vapour",
    "pwat": "total_column_water_vapour",
    "avg_tprate": "mean_total_precipitation_rate",
    "pr": "mean_total_precipitation_rate",
    "tp": "mean_total_precipitation_rate",
    "total_precipitation": "mean_total_precipitation_rate",
    "avg_tsrwe": "mean_snowfall_rate",
    "prsn": "mean_snowfall_rate",
    "sf": "mean_snowfall_rate",
    "snowfall": "mean_snowfall_rate",
    "avg_ie": "mean_evaporation_rate",
    "e": "mean_evaporation_rate",
    "evaporation": "mean_evaporation_rate",
    "avg_vimdf": "mean_vertically_integrated_moisture_divergence",
    "vimd": "mean_vertically_integrated_moisture_divergence",
    "vertically_integrated_moisture_divergence": "mean_vertically_integrated_moisture_divergence",
    "avg_snswrf": "mean_surface_net_short_wave_radiation_flux",
    "ssr": "mean_surface_net_short_wave_radiation_flux",
    "surface_net_solar_radiation": "mean_surface_net_short_wave_radiation_flux",
    "avg_snlwrf": "mean_surface_net_long_wave_radiation_flux",
    "str": "mean_surface_net_long_wave_radiation_flux",
    "surface_net_thermal_radiation": "mean_surface_net_long_wave_radiation_flux",
    "avg_ishf": "mean_surface_sensible_heat_flux",
    "sshf": "mean_surface_sensible_heat_flux",
    "surface_sensible_heat_flux": "mean_surface_sensible_heat_flux",
    "avg_slhtf": "mean_surface_latent_heat_flux",
    "slhf": "mean_surface_latent_heat_flux",
    "surface_latent_heat_flux": "mean_surface_latent_heat_flux",
    "avg_tnswrf": "mean_top_net_short_wave_radiation_flux",
    "tsr": "mean_top_net_short_wave_radiation_flux",
    "top_net_solar_radiation": "mean_top_net_short_wave_radiation_flux",
    "avg_tnlwrf": "mean_top_net_long_wave_radiation_flux",
    "ttr": "mean_top_net_long_wave_radiation_flux",
    "top_net_thermal_radiation": "mean_top_net_long_wave_radiation_flux",
    "avg_tdswrf": "mean_top_downward_short_wave_radiation_flux",
    "tisr": "mean_top_downward_short_wave_radiation_flux",
    "toa_incident_solar_radiation": "mean_top_downward_short_wave_radiation_flux",
}

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
# These standard names say nothing of a height: without levels they are near-surface values only where one is recorded.
NEAR_SURFACE = {
    "air_temperature": 2.0,
    "dew_point_temperature": 2.0,
    "eastward_wind": 10.0,
    "northward_wind": 10.0,
    "wind_speed": 10.0,
}

_SHORT = {
    **{(v.short, v.levels): v.name for v in VARIABLES.values() if v.short},
    **{(alias, VARIABLES[name].levels): name for alias, name in ALIASES.items()},
}
_STANDARD = {(v.standard_name, v.levels): v.name for v in VARIABLES.values()}


def recognise(name: str, attributes: dict, levels: bool, height: float | None = None) -> list[Match]:
    """The canonical variables that a source's variable is or belongs to; empty when there is none.

    Args:
      name: its name in the source.
      attributes: of the variable; `GRIB_shortName` and `standard_name` are used.
      levels: whether it lies on atmospheric levels.
      height: its height above ground in metres where the source records one.
    """
    if name in VARIABLES and VARIABLES[name].levels == levels:
        return [Match(name)]
    bare, hours = _without_interval(name)
    short = attributes.get("GRIB_shortName", bare.lower())
    if found := _SHORT.get((short, levels)):
        standard = attributes.get("standard_name")
        sign = STANDARD_NAMES[standard][1] if standard in STANDARD_NAMES and "GRIB_shortName" not in attributes else 1
        return [Match(found, sign, interval_hours=hours), *_terms(standard)]
    if "GRIB_shortName" in attributes:  # a short name is exact; the standard name says less, e.g. nothing of the height
        return []
    return _by_standard_name(attributes.get("standard_name"), levels, height)


def _without_interval(name: str) -> tuple[str, float | None]:
    """WeatherBench 2 writes the interval of an accumulation into its name: `total_precipitation_6hr`."""
    head, _, tail = name.rpartition("_")
    if head and tail.endswith("hr") and tail[:-2].isdigit():
        return head, float(tail[:-2])
    return name, None


def _by_standard_name(standard, levels, height) -> list[Match]:
    if standard is None or (not levels and standard in NEAR_SURFACE and height != NEAR_SURFACE[standard]):
        return []
    found = []
    name, sign = STANDARD_NAMES.get(standard, (_STANDARD.get((standard, levels)), 1))
    if name is not None and VARIABLES[name].levels == levels:
        found.append(Match(name, sign))
    return found + _terms(standard)


def _terms(standard) -> list[Match]:
    found = []
    for net, (down, up) in TERMS.items():
        if standard in (down, up):
            found.append(Match(net, 1 if standard == down else -1, "down" if standard == down else "up"))
    return found
