"""Levels of the atmosphere from the top down: pressure in hPa, sigma, or the number of a hybrid level.

The thickness of their layers is that of `emulator.planet.vertical.Levels`; files record interfaces in ways that
`emulator.sources.axes` knows.
"""

import re

import numpy as np

from emulator.planet.vertical_axes.registry import Recorded, VerticalAxis, register

PRESSURE_NAMES = ("isobaricInhPa", "isobaricInPa", "pressure_level", "plev", "air_pressure", "pressure")
LEVEL_NAMES = ("level", "lev", *PRESSURE_NAMES, "hybrid", "model_level", "sigma")
STANDARD_NAMES = {
    "air_pressure": "pressure",
    "atmosphere_sigma_coordinate": "sigma",
    "atmosphere_hybrid_sigma_pressure_coordinate": "hybrid",
    "hybrid_sigma_pressure": "hybrid",  # as CDO writes it
}
MODEL_LEVELS = re.compile("hybrid|model.?level", re.IGNORECASE)  # in a long name
LARGEST_PRESSURE = 1100  # hPa


def is_pressure(recorded: Recorded) -> bool:
    """Whether the values are pressures: in units of it, and not nominal ones of hybrid or sigma levels, as CESM's."""
    return recorded.values.dtype.kind in "fiu" and recorded.is_in("Pa") and kind_of(recorded) in ("pressure", "unknown")


def kind_of(recorded: Recorded) -> str:
    """What the coordinate's own attributes say of it; "unknown" where they say nothing."""
    if (kind := STANDARD_NAMES.get(recorded.standard_name)) is not None:
        return kind
    named = MODEL_LEVELS.search(str(recorded.attributes.get("long_name", ""))) and recorded.name not in PRESSURE_NAMES
    return "hybrid" if named else "unknown"


def _fits(recorded: Recorded) -> bool:
    if recorded.standard_name in STANDARD_NAMES or is_pressure(recorded):
        return True
    of_the_ocean = recorded.standard_name.startswith("ocean_")
    return recorded.name in LEVEL_NAMES and not of_the_ocean and not recorded.is_in("m")


def _read(recorded: Recorded) -> tuple[np.ndarray, str]:
    """Pressures in hPa; "unknown" where nothing says what the values are, which may then be hPa or numbers.

    Raises `ValueError` for values below zero, which are heights or depths of something, or marks of missing ones.
    """
    values = np.asarray(recorded.values, np.float64)
    if not (values >= 0).all():
        raise ValueError(f"Expected levels of zero or more along {recorded.name}, got {values[~(values >= 0)][0]:g}")
    if recorded.name in PRESSURE_NAMES or is_pressure(recorded):
        default = "Pa" if recorded.name in ("plev", "isobaricInPa") else "hPa"
        units = {"units": default} | dict(recorded.attributes)
        return Recorded(recorded.name, units, values, recorded.field).measured("hPa"), "pressure"
    if recorded.attributes.get("units") == "hybrid_sigma_pressure" or recorded.name in ("hybrid", "model_level"):
        return values, "hybrid"
    kind = recorded.field.get("vertical") or kind_of(recorded)
    if kind == "pressure":
        units = {"units": "hPa"} | dict(recorded.attributes)
        return Recorded(recorded.name, units, values, recorded.field).measured("hPa"), "pressure"
    if kind == "unknown" and values.max() > LARGEST_PRESSURE:
        raise ValueError(f"Expected units of the levels {values[:3]}, got none")
    return values, kind


def _attributes(kind: str) -> dict:
    known = {"units": "hPa", "standard_name": "air_pressure"} if kind == "pressure" else {"units": "1"}
    return {**known, "positive": "down", "axis": "Z"}


def _written(value: float, kind: str) -> str:
    """`500 hPa`, `510 hPa (sigma 0.51)` over a surface at 1000 hPa, `level 60`."""
    if kind == "pressure":
        return f"{value:g} hPa"
    if kind == "sigma":
        return f"{value * 1000:.0f} hPa (sigma {value:.3g})"
    return f"level {value:g}"


LEVEL = register(
    VerticalAxis(
        name="level",
        label="levels",
        fits=_fits,
        read=_read,
        attributes=_attributes,
        written=_written,
        grib={"isobaricInhPa": "hPa", "isobaricInPa": "hPa", "hybrid": "", "sigma": ""},
        order=40,
    )
)
