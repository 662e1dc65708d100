"""Depths in the ocean, in m, from the surface down."""

import numpy as np

from emulator.planet.vertical_axes.registry import Recorded, VerticalAxis, register

NAMES = ("depth", "deptht", "depthu", "depthv", "depthw", "st_ocean", "depthBelowSea")
STANDARD_NAMES = ("depth", "depth_below_geoid")


def _fits(recorded: Recorded) -> bool:
    if recorded.standard_name:
        return recorded.standard_name in STANDARD_NAMES
    down = recorded.attributes.get("positive") == "down" and recorded.name in ("lev", "olevel", "z_t")
    return (recorded.name in NAMES or down) and recorded.is_in("m")


def _read(recorded: Recorded) -> tuple[np.ndarray, str]:
    """Depths are positive, whichever way the file counts."""
    upward = recorded.attributes.get("positive") == "up"
    return (-1.0 if upward else 1.0) * recorded.measured("m"), "depth"


DEPTH = register(
    VerticalAxis(
        name="depth",
        label="depths",
        fits=_fits,
        read=_read,
        attributes=lambda kind: {"units": "m", "standard_name": "depth", "positive": "down", "axis": "Z"},
        bounds="m",
        grib={"depthBelowSea": "m"},
        order=20,
    )
)
