"""Heights above the ground, in m, from the top down as levels are."""

import numpy as np

from emulator.planet.vertical_axes.registry import Recorded, VerticalAxis, register

NAMES = ("height", "heightAboveGround", "height_above_ground")


def _fits(recorded: Recorded) -> bool:
    if recorded.standard_name:
        return recorded.standard_name == "height"
    up = recorded.attributes.get("positive", "up") == "up" and recorded.name in NAMES
    return up and recorded.is_in("m")


def _read(recorded: Recorded) -> tuple[np.ndarray, str]:
    return recorded.measured("m"), "height"


HEIGHT = register(
    VerticalAxis(
        name="height",
        label="heights",
        fits=_fits,
        read=_read,
        attributes=lambda kind: {"units": "m", "standard_name": "height", "positive": "up", "axis": "Z"},
        decreasing=True,
        bounds="m",
        grib={"heightAboveGround": "m"},
        order=30,
    )
)
