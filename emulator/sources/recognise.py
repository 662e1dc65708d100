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
    "2m_temperature": "t2m tas trefht",
    "2m_dewpoint_temperature": "d2m tdps",
    "10m_u_component_of_wind": "u10 uas",
    "10m_v_component_of_wind": "v10 vas",
    "10m_wind_speed": "si10 sfcwind",
    "surface_pressure": "ps",
    "mean_sea_level_pressure": "psl prmsl",
    "temperature": "ta",
    "u_component_of_wind": "ua",
    "v_component_of_wind": "va",
    "specific_humidity": "hus",
    "relative_humidity": "hur",
    "vertical_velocity": "wap",
    "geopotential": "zg gh geopotential_height",
    "sea_ice_cover": "siconc",
    "geopotential_at_surface": "orog",
    "land_sea_mask": "sftlf",
    "total_column_water_vapour": "prw pwat",
    "mean_total_precipitation_rate": "avg_tprate pr tp total_precipitation",
    "mean_snowfall_rate": "avg_tsrwe prsn sf snowfall",
    "mean_evaporation_rate": "avg_ie e evaporation",
    "mean_vertically_integrated_moisture_divergence": "avg_vimdf vimd vertically_integrated_moisture_divergence",
    "mean_surface_net_short_wave_radiation_flux": "avg_snswrf ssr surface_net_solar_radiation",
    "mean_surface_net_long_wave_radiation_flux": "avg_snlwrf str surface_net_thermal_radiation",
    "mean_surface_sensible_heat_flux": "avg_ishf sshf surface_sensible_heat_flux",
    "mean_surface_latent_heat_flux": "avg_slhtf slhf surface_latent_heat_flux",
    "mean_top_net_short_wave_radiation_flux": "avg_tnswrf tsr top_net_solar_radiation",
    "mean_top_net_long_wave_radiation_flux": "avg_tnlwrf ttr top_net_thermal_radiation",
    "mean_top_downward_short_wave_radiation_flux": "avg_tdswrf tisr toa_incident_solar_radiation",
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
    **{(alias, VARIABLES[name].levels): name for name, some in ALIASES.items() for alias in some.split()},
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
    if canonical := _SHORT.get((short, levels)):
        standard = attributes.get("standard_name")
        sign = STANDARD_NAMES[standard][1] if standard in STANDARD_NAMES and "GRIB_shortName" not in attributes else 1
        return [Match(canonical, sign, interval_hours=hours), *_terms(standard)]
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
    matches = []
    name, sign = STANDARD_NAMES.get(standard, (_STANDARD.get((standard, levels)), 1))
    if name is not None and VARIABLES[name].levels == levels:
        matches.append(Match(name, sign))
    return matches + _terms(standard)


def _terms(standard) -> list[Match]:
    matches = []
    for net, (down, up) in TERMS.items():
        if standard in (down, up):
            matches.append(Match(net, 1 if standard == down else -1, "down" if standard == down else "up"))
    return matches
