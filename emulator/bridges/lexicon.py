"""Names of single fields as earth2studio has them, one for each level (`t500`, `u10m`, `tp06`, `msl`), and what is ours.

Fields on pressure levels are ECMWF's short name and hPa. Those on sigma and hybrid levels are numbered from 0 at the top and
end in k, as earth2studio names those of ACE and CAMulator (`t0k`). What earth2studio has as an amount over some hours is a
mean rate here. A field that it has no name for keeps its ECMWF short name, or else its own name.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import xarray as xr

from emulator.data.channels import Channels
from emulator.planet.variables import VARIABLES, known
from emulator.planet.vertical import VERTICAL, vertical_of
from emulator.store.schema import time_step_seconds

WATER = 1000.0  # kg m-3, by which ECMWF's lengths of water are counted
SURFACE = {
    "10m_u_component_of_wind": "u10m",
    "10m_v_component_of_wind": "v10m",
    "10m_wind_speed": "ws10m",
    "100m_u_component_of_wind": "u100m",
    "100m_v_component_of_wind": "v100m",
    "2m_temperature": "t2m",
    "2m_dewpoint_temperature": "d2m",
    "2m_specific_humidity": "q2m",
    "2m_relative_humidity": "r2m",
    "sea_ice_cover": "sic",
    "mean_surface_upward_short_wave_radiation_flux": "msuwswrf",
    "mean_surface_upward_long_wave_radiation_flux": "msuwlwrf",
    "mean_top_upward_short_wave_radiation_flux": "mtuwswrf",
    "carbon_dioxide_mole_fraction": "global_mean_co2",
}
ALOFT = {"specific_total_water": "qtot", "soil_temperature": "stl", "volumetric_soil_water": "swvl"}
PERCENT = {"snow_cover": 100.0}  # shares here
# Lengths of water over so many hours, which are the step's: the mean rate that each is, and the hours that have a name.
AMOUNTS = {
    "mean_total_precipitation_rate": ("tp", (1, 6, 12, 24)),
    "mean_convective_precipitation_rate": ("cp", (6,)),
    "mean_snowfall_rate": ("sf", (6,)),
    "mean_runoff_rate": ("ro", (6,)),
    "mean_evaporation_rate": ("e", (6,)),
}


class LexiconError(ValueError):
    """A name that stands for no field of ours, in one sentence."""


@dataclasses.dataclass(frozen=True)
class Name:
    """One field under earth2studio's name.

    Attributes:
      text: the name. variable: ours. level: position among the levels of `variable`; None for a field without.
      factor: what ours is multiplied by to be theirs: 21.6 m per kg m-2 s-1 of `tp06`.
    """

    text: str
    variable: str
    level: int | None = None
    factor: float = 1.0


def names_of(
    channels: Channels, kind: str | None, values: Mapping[str, Sequence[float]], step_seconds: float
) -> list[Name]:
    """The names of channels, in their order.

    Args:
      channels: variables and their numbers of levels. kind: of levels of the atmosphere: pressure, sigma or hybrid.
      values: coordinates of the levels by variable, hPa of pressure levels. step_seconds: over which amounts are.
    """
    found = []
    for variable, count in zip(channels.names, channels.levels, strict=True):
        if not count:
            found.append(_surface(variable, step_seconds))
        for k, value in enumerate(values[variable] if count else ()):
            found.append(Name(_aloft(variable, kind, k, value), variable, k))
    return found


def of_store(dataset: xr.Dataset) -> dict[str, Name]:
    """All fields of an analysis store that lie on its grid, or are series in time, by earth2studio's names."""
    kind = str(dataset.attrs.get("vertical_coordinate", "pressure"))
    usable = [str(n) for n in dataset.data_vars if known(str(n)) or dataset[n].attrs.get("role")]
    channels = Channels(
        tuple(usable), tuple(dataset.sizes[axis] if (axis := vertical_of(dataset[n].dims)) else 0 for n in usable)
    )
    values = {n: dataset[axis].values for n in usable if (axis := vertical_of(dataset[n].dims))}
    return {name.text: name for name in names_of(channels, kind, values, time_step_seconds(dataset))}


def name_in(dataset: xr.Dataset, text: str, step_seconds: float) -> Name:
    """What a name of earth2studio's stands for, with levels as an analysis has them.

    `step_seconds`: over which amounts are. Raises `LexiconError` for a name that is none of ours, for a level that the
    analysis lacks, and for an amount over another time than the step.
    """
    for variable, (short, hours) in AMOUNTS.items():
        if text in {f"{short}{hour:02d}" for hour in hours}:
            if abs(int(text.removeprefix(short)) * 3600 - step_seconds) > 1e-3:
                raise LexiconError(f"Expected amounts over the step of {step_seconds / 3600:g} h, got {text}")
            return Name(text, variable, None, step_seconds / WATER)
    if text in _WITHOUT_LEVELS:
        return Name(text, (variable := _WITHOUT_LEVELS[text]), None, PERCENT.get(variable, 1.0))
    if found := of_store(dataset).get(text):
        return found
    match = re.fullmatch(r"([a-z]+?)(\d+(?:\.\d+)?)(k?)", text)
    if match is None or match[1] not in _WITH_LEVELS:
        raise LexiconError(
            f"Expected a name of earth2studio's lexicon that the variable table has a field for, got {text!r}"
        )
    variable = _WITH_LEVELS[match[1]]
    axis = VARIABLES[variable].vertical
    kind = str(dataset.attrs.get("vertical_coordinate", "pressure"))
    for k, value in enumerate(dataset[axis].values if axis in dataset.dims else ()):
        if _aloft(variable, kind, k, value) == text:
            return Name(text, variable, k)
    raise LexiconError(f"Expected a level that the analysis has for {text} ({variable}), it has none such")


def _surface(variable: str, step_seconds: float) -> Name:
    short, hours = AMOUNTS.get(variable, ("", ()))
    if (hour := round(step_seconds / 3600)) in hours and abs(hour * 3600 - step_seconds) < 1e-3:
        return Name(f"{short}{hour:02d}", variable, None, step_seconds / WATER)
    return Name(_plain(variable), variable, None, PERCENT.get(variable, 1.0))


def _plain(variable: str) -> str:
    entry = known(variable)
    return SURFACE.get(variable) or (entry.short if entry else "") or variable


def _aloft(variable: str, kind: str | None, k: int, value: float) -> str:
    entry = known(variable)
    short = ALOFT.get(variable) or (entry.short if entry else "") or f"{variable}_"
    axis = entry.vertical if entry else None
    if axis in (None, "level") and kind in ("sigma", "hybrid"):
        return f"{short}{k}k"
    return f"{short}{k + 1}" if axis == "soil_layer" else f"{short}{value:g}"


_WITHOUT_LEVELS = {_plain(v.name): v.name for v in reversed(VARIABLES.values()) if v.vertical is None}
_WITH_LEVELS = {
    ALOFT.get(v.name) or v.short: v.name
    for v in reversed(VARIABLES.values())
    if v.vertical in VERTICAL and (v.short or v.name in ALOFT)
}
