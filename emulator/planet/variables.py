"""The variable table: what each canonical name means, so that units, signs and time cells are checked and never guessed.

Names are ERA5's long names as in WeatherBench 2 and ARCO-ERA5. Fluxes are mean rates over the step that ends at `time`,
ECMWF sign: downward positive, so evaporation and surface heat losses are negative.
"""

import dataclasses
import re
from typing import Literal

Role = Literal["prognostic", "forcing", "diagnostic", "static"]


@dataclasses.dataclass(frozen=True)
class Variable:
    """One canonical variable.

    `cell` is the CF time cell method: "point" (a snapshot at `time`), "mean" (over the step that ends at `time`) or
    "fixed". `minimum` and `maximum` are physical bounds that no valid value may cross. `role` is the usual role.
    """

    name: str
    units: str
    role: Role
    levels: bool = False
    cell: Literal["point", "mean", "fixed"] = "point"
    standard_name: str | None = None
    short: str = ""
    minimum: float | None = None
    maximum: float | None = None
    sign: str | None = None


def _flux(name, short, standard_name, sign="downward positive", units="W m-2", minimum=None):
    return Variable(name, units, "diagnostic", False, "mean", standard_name, short, minimum, None, sign)


_TABLE = (
    Variable("geopotential", "m2 s-2", "prognostic", True, standard_name="geopotential", short="z"),
    Variable(
        "temperature", "K", "prognostic", True, standard_name="air_temperature", short="t", minimum=50, maximum=400
    ),
    Variable(
        "u_component_of_wind",
        "m s-1",
        "prognostic",
        True,
        standard_name="eastward_wind",
        short="u",
        minimum=-400,
        maximum=400,
    ),
    Variable(
        "v_component_of_wind",
        "m s-1",
        "prognostic",
        True,
        standard_name="northward_wind",
        short="v",
        minimum=-400,
        maximum=400,
    ),
    Variable(
        "specific_humidity",
        "kg kg-1",
        "prognostic",
        True,
        standard_name="specific_humidity",
        short="q",
        minimum=-1e-3,
        maximum=0.2,
    ),
    Variable("relative_humidity", "%", "diagnostic", True, standard_name="relative_humidity", short="r"),
    Variable(
        "vertical_velocity",
        "Pa s-1",
        "diagnostic",
        True,
        standard_name="lagrangian_tendency_of_air_pressure",
        short="w",
    ),
    Variable("vorticity", "s-1", "diagnostic", True, standard_name="atmosphere_relative_vorticity", short="vo"),
    Variable("divergence", "s-1", "diagnostic", True, standard_name="divergence_of_wind", short="d"),
    Variable(
        "specific_cloud_liquid_water_content",
        "kg kg-1",
        "prognostic",
        True,
        short="clwc",
        standard_name="mass_fraction_of_cloud_liquid_water_in_air",
    ),
    Variable(
        "specific_cloud_ice_water_content",
        "kg kg-1",
        "prognostic",
        True,
        short="ciwc",
        standard_name="mass_fraction_of_cloud_ice_in_air",
    ),
    Variable(
        "ozone_mass_mixing_ratio",
        "kg kg-1",
        "prognostic",
        True,
        short="o3",
        standard_name="mass_fraction_of_ozone_in_air",
    ),
    Variable(
        "surface_pressure",
        "Pa",
        "prognostic",
        standard_name="surface_air_pressure",
        short="sp",
        minimum=3e4,
        maximum=1.2e5,
    ),
    Variable(
        "mean_sea_level_pressure",
        "Pa",
        "prognostic",
        standard_name="air_pressure_at_mean_sea_level",
        short="msl",
        minimum=8e4,
        maximum=1.2e5,
    ),
    Variable(
        "2m_temperature", "K", "prognostic", standard_name="air_temperature", short="2t", minimum=150, maximum=360
    ),
    Variable("2m_dewpoint_temperature", "K", "prognostic", standard_name="dew_point_temperature", short="2d"),
    Variable("wind_speed", "m s-1", "diagnostic", True, standard_name="wind_speed", short="ws", minimum=0, maximum=400),
    Variable("10m_wind_speed", "m s-1", "diagnostic", standard_name="wind_speed", short="10si", minimum=0),
    Variable("10m_u_component_of_wind", "m s-1", "prognostic", standard_name="eastward_wind", short="10u"),
    Variable("10m_v_component_of_wind", "m s-1", "prognostic", standard_name="northward_wind", short="10v"),
    Variable(
        "total_column_water", "kg m-2", "diagnostic", standard_name="atmosphere_mass_content_of_water", short="tcw"
    ),
    Variable(
        "total_column_water_vapour",
        "kg m-2",
        "diagnostic",
        short="tcwv",
        standard_name="atmosphere_mass_content_of_water_vapor",
    ),
    Variable(
        "sea_surface_temperature",
        "K",
        "forcing",
        standard_name="sea_surface_temperature",
        short="sst",
        minimum=200,
        maximum=350,
    ),
    Variable("sea_ice_cover", "1", "forcing", standard_name="sea_ice_area_fraction", short="ci", minimum=0, maximum=1),
    Variable("soil_temperature_level_1", "K", "forcing", standard_name="soil_temperature", short="stl1"),
    Variable(
        "mean_top_downward_short_wave_radiation_flux",
        "W m-2",
        "forcing",
        False,
        "mean",
        "toa_incoming_shortwave_flux",
        "mtdwswrf",
        0,
    ),
    _flux("mean_total_precipitation_rate", "mtpr", "precipitation_flux", "positive", "kg m-2 s-1", 0),
    _flux("mean_snowfall_rate", "msr", "snowfall_flux", "positive", "kg m-2 s-1", 0),
    _flux(
        "mean_evaporation_rate",
        "mer",
        "water_evapotranspiration_flux",
        "downward positive (evaporation negative)",
        "kg m-2 s-1",
    ),
    _flux(
        "mean_vertically_integrated_moisture_divergence",
        "mvimd",
        None,
        "positive where the column loses water to its neighbours",
        "kg m-2 s-1",
    ),
    _flux("mean_surface_net_short_wave_radiation_flux", "msnswrf", "surface_net_downward_shortwave_flux"),
    _flux("mean_surface_net_long_wave_radiation_flux", "msnlwrf", "surface_net_downward_longwave_flux"),
    _flux("mean_surface_sensible_heat_flux", "msshf", "surface_downward_sensible_heat_flux"),
    _flux("mean_surface_latent_heat_flux", "mslhf", "surface_downward_latent_heat_flux"),
    _flux("mean_top_net_short_wave_radiation_flux", "mtnswrf", "toa_net_downward_shortwave_flux"),
    _flux("mean_top_net_long_wave_radiation_flux", "mtnlwrf", "toa_net_downward_longwave_flux"),
    Variable("geopotential_at_surface", "m2 s-2", "static", False, "fixed", "surface_geopotential", "z"),
    Variable("land_sea_mask", "1", "static", False, "fixed", "land_area_fraction", "lsm", 0, 1),
)


class _Table(dict):
    """The table by name; asked for a layer mean (`temperature_mean_300_850`), it answers with the entry of that."""

    def __missing__(self, name: str) -> Variable:
        if (layer := layer_mean(name)) is None:
            raise KeyError(name)
        base = self[layer[0]]
        return dataclasses.replace(base, name=name, role="diagnostic", levels=False, standard_name=None, short="")


VARIABLES: dict[str, Variable] = _Table({variable.name: variable for variable in _TABLE})


def layer_mean(name: str) -> tuple[str, float, float] | None:
    """Variable, upper and lower pressure in hPa that the name of a layer mean says; None for any other name."""
    found = re.fullmatch(r"(.+)_mean_(\d+)_(\d+)", name)
    if found is None or found[1] not in _ON_LEVELS or not float(found[2]) < float(found[3]):
        return None
    return found[1], float(found[2]), float(found[3])


_ON_LEVELS = {variable.name for variable in _TABLE if variable.levels}


def variable(name: str) -> Variable:
    """The table's entry for a canonical name. Raises `ValueError`, naming close matches, for an unknown one."""
    try:
        return VARIABLES[name]
    except KeyError:
        import difflib

        near = difflib.get_close_matches(name, VARIABLES, n=3, cutoff=0.5)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise ValueError(f"Expected a variable of the table (ERA5 long name), got {name!r}{hint}") from None
