"""The variable table: what each canonical name means, so that units, signs and time cells are checked and never guessed.

Names are ERA5's long names as in WeatherBench 2 and ARCO-ERA5. Fluxes are mean rates over the step that ends at `time`,
ECMWF sign: downward positive, so evaporation and surface heat losses are negative.
"""

import dataclasses
import re
from typing import Literal

Role = Literal["prognostic", "forcing", "diagnostic", "static"]
Cell = Literal["point", "mean", "fixed"]


@dataclasses.dataclass(frozen=True)
class Variable:
    """One variable: an entry of the table, or what a store or a configuration says of a field.

    Attributes:
      role: the usual one.
      vertical: the dimension that it has besides place and time: "level" (pressure, sigma or hybrid), "height", "depth" or
        "soil_layer"; None for none.
      cell: CF's time cell method: "point" (a snapshot at `time`), "mean" (over the step that ends at `time`) or "fixed".
      short: ECMWF's short name.
      minimum, maximum: physical bounds in `units` that no valid value may cross.
      domain: where it exists: "all", "land", "ocean", or a static field of its store that is 1 there and 0 elsewhere.
    """

    name: str
    units: str
    role: Role
    vertical: str | None = None
    cell: Cell = "point"
    standard_name: str | None = None
    short: str = ""
    minimum: float | None = None
    maximum: float | None = None
    sign: str | None = None
    long_name: str = ""
    domain: str = "all"

    @property
    def levels(self) -> bool:
        """Whether it has a vertical dimension."""
        return self.vertical is not None


def _state(name, short, standard_name, units, minimum=None, maximum=None, role="prognostic", levels=True):
    return Variable(name, units, role, "level" if levels else None, "point", standard_name, short, minimum, maximum)


def _surface(name, short, standard_name, units, minimum=None, maximum=None, role="prognostic"):
    return _state(name, short, standard_name, units, minimum, maximum, role, levels=False)


def _flux(name, short, standard_name, sign="downward positive", units="W m-2", minimum=None):
    return Variable(name, units, "diagnostic", None, "mean", standard_name, short, minimum, None, sign)


def _fixed(name, short, standard_name, units, minimum=None, maximum=None):
    return Variable(name, units, "static", None, "fixed", standard_name, short, minimum, maximum)


_DIVERGENCE = "positive where the column loses water to its neighbours"
_EVAPORATION = "downward positive (evaporation negative)"
_WATER = "atmosphere_mass_content_of_water"
_SUN = "mean_top_downward_short_wave_radiation_flux"

_TABLE = (
    _state("geopotential", "z", "geopotential", "m2 s-2"),
    _state("temperature", "t", "air_temperature", "K", 50, 400),
    _state("u_component_of_wind", "u", "eastward_wind", "m s-1", -400, 400),
    _state("v_component_of_wind", "v", "northward_wind", "m s-1", -400, 400),
    _state("specific_humidity", "q", "specific_humidity", "kg kg-1", -1e-3, 0.2),
    _state("relative_humidity", "r", "relative_humidity", "%", role="diagnostic"),
    _state("vertical_velocity", "w", "lagrangian_tendency_of_air_pressure", "Pa s-1", role="diagnostic"),
    _state("vorticity", "vo", "atmosphere_relative_vorticity", "s-1", role="diagnostic"),
    _state("divergence", "d", "divergence_of_wind", "s-1", role="diagnostic"),
    _state("specific_cloud_liquid_water_content", "clwc", "mass_fraction_of_cloud_liquid_water_in_air", "kg kg-1"),
    _state("specific_cloud_ice_water_content", "ciwc", "mass_fraction_of_cloud_ice_in_air", "kg kg-1"),
    _state("ozone_mass_mixing_ratio", "o3", "mass_fraction_of_ozone_in_air", "kg kg-1"),
    _surface("surface_pressure", "sp", "surface_air_pressure", "Pa", 3e4, 1.2e5),
    _surface("mean_sea_level_pressure", "msl", "air_pressure_at_mean_sea_level", "Pa", 8e4, 1.2e5),
    _surface("2m_temperature", "2t", "air_temperature", "K", 150, 360),
    _surface("2m_dewpoint_temperature", "2d", "dew_point_temperature", "K"),
    _state("wind_speed", "ws", "wind_speed", "m s-1", 0, 400, role="diagnostic"),
    _surface("10m_wind_speed", "10si", "wind_speed", "m s-1", 0, role="diagnostic"),
    _surface("10m_u_component_of_wind", "10u", "eastward_wind", "m s-1"),
    _surface("10m_v_component_of_wind", "10v", "northward_wind", "m s-1"),
    _surface("total_column_water", "tcw", _WATER, "kg m-2", role="diagnostic"),
    _surface("total_column_water_vapour", "tcwv", f"{_WATER}_vapor", "kg m-2", role="diagnostic"),
    _surface("sea_surface_temperature", "sst", "sea_surface_temperature", "K", 200, 350, role="forcing"),
    _surface("sea_ice_cover", "ci", "sea_ice_area_fraction", "1", 0, 1, role="forcing"),
    _surface("soil_temperature_level_1", "stl1", "soil_temperature", "K", role="forcing"),
    Variable(_SUN, "W m-2", "forcing", None, "mean", "toa_incoming_shortwave_flux", "mtdwswrf", 0),
    _flux("mean_total_precipitation_rate", "mtpr", "precipitation_flux", "positive", "kg m-2 s-1", 0),
    _flux("mean_snowfall_rate", "msr", "snowfall_flux", "positive", "kg m-2 s-1", 0),
    _flux("mean_evaporation_rate", "mer", "water_evapotranspiration_flux", _EVAPORATION, "kg m-2 s-1"),
    _flux("mean_vertically_integrated_moisture_divergence", "mvimd", None, _DIVERGENCE, "kg m-2 s-1"),
    _flux("mean_surface_net_short_wave_radiation_flux", "msnswrf", "surface_net_downward_shortwave_flux"),
    _flux("mean_surface_net_long_wave_radiation_flux", "msnlwrf", "surface_net_downward_longwave_flux"),
    _flux("mean_surface_sensible_heat_flux", "msshf", "surface_downward_sensible_heat_flux"),
    _flux("mean_surface_latent_heat_flux", "mslhf", "surface_downward_latent_heat_flux"),
    _flux("mean_top_net_short_wave_radiation_flux", "mtnswrf", "toa_net_downward_shortwave_flux"),
    _flux("mean_top_net_long_wave_radiation_flux", "mtnlwrf", "toa_net_downward_longwave_flux"),
    _fixed("geopotential_at_surface", "z", "surface_geopotential", "m2 s-2"),
    _fixed("land_sea_mask", "lsm", "land_area_fraction", "1", 0, 1),
)


class _Table(dict):
    """The table by name; asked for a layer mean (`temperature_mean_300_850`), it answers with the entry of that."""

    def __missing__(self, name: str) -> Variable:
        if (layer := layer_mean(name)) is None:
            raise KeyError(name)
        base = self[layer[0]]
        return dataclasses.replace(base, name=name, role="diagnostic", vertical=None, standard_name=None, short="")


VARIABLES: dict[str, Variable] = _Table({variable.name: variable for variable in _TABLE})


# CF attributes of coordinates, alike in all files that are written.
COORDINATES = {
    "time": {"standard_name": "time", "axis": "T"},
    "member": {"standard_name": "realization", "axis": "E"},
    "latitude": {"units": "degrees_north", "standard_name": "latitude", "axis": "Y"},
    "longitude": {"units": "degrees_east", "standard_name": "longitude", "axis": "X"},
}


def layer_mean(name: str) -> tuple[str, float, float] | None:
    """Variable, upper and lower pressure in hPa that the name of a layer mean says; None for any other name."""
    match = re.fullmatch(r"(.+)_mean_(\d+)_(\d+)", name)
    if match is None or match[1] not in _ON_LEVELS or not float(match[2]) < float(match[3]):
        return None
    return match[1], float(match[2]), float(match[3])


_ON_LEVELS = {variable.name for variable in _TABLE if variable.vertical == "level"}


def known(name: str) -> Variable | None:
    """The table's entry for a name, those of layer means included; None for a name that the table does not know."""
    try:
        return VARIABLES[name]
    except KeyError:
        return None


def variable(name: str) -> Variable:
    """The table's entry for a canonical name. Raises `ValueError`, naming close matches, for an unknown one."""
    if (entry := known(name)) is not None:
        return entry
    import difflib

    near = difflib.get_close_matches(name, VARIABLES, n=3, cutoff=0.5)
    hint = f"; nearest: {', '.join(near)}" if near else ""
    raise ValueError(f"Expected a variable of the table (ERA5 long name), got {name!r}{hint}")
