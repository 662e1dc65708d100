"""Layers of the soil, numbered from 1 at the surface downwards, with their bounds in m where files record them.

Files measure the depths of the layers or number them. CF's standard name of the coordinate, `depth`, is that of oceans too:
what is soil is told by the field, or by the name of the coordinate.
"""

import numpy as np

from emulator.planet.vertical_axes.registry import Recorded, VerticalAxis, register

NAMES = ("soil_layer", "soil_level", "sdepth", "levsoi", "solth", "soilLayer", "depthBelowLandLayer", "depthBelowLand")


def _fits(recorded: Recorded) -> bool:
    if recorded.name in NAMES:
        return True
    soil = any("soil" in str(recorded.field.get(key, "")).lower() for key in ("standard_name", "long_name"))
    return soil and (
        recorded.standard_name == "depth" or (not recorded.standard_name and recorded.name in ("depth", "lev"))
    )


def _read(recorded: Recorded) -> tuple[np.ndarray, str]:
    """Numbers as they are, and depths by their rank from the surface."""
    values = np.asarray(recorded.values, np.float64)
    if recorded.is_in("m") or ("units" not in recorded.attributes and not _are_numbers(values)):
        upward = recorded.attributes.get("positive") == "up"
        values = np.argsort(np.argsort(-values if upward else values)) + 1.0
    return values, "soil layers"


def _are_numbers(values: np.ndarray) -> bool:
    return bool(np.all(values == np.round(values)) and values.min() >= 1)


SOIL_LAYER = register(
    VerticalAxis(
        name="soil_layer",
        label="soil layers",
        fits=_fits,
        read=_read,
        attributes=lambda kind: {
            "units": "1",
            "long_name": "soil layer from the surface",
            "positive": "down",
            "axis": "Z",
        },
        written=lambda value, kind: f"layer {value:g}",
        bounds="m",
        grib={"depthBelowLandLayer": "m", "soilLayer": "1"},
        order=10,
    )
)
