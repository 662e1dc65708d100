"""From sigma and hybrid levels to pressure levels, and the height of a pressure, on NumPy arrays.

Linear in the logarithm of pressure between full levels, which lie half-way between the interfaces (Simmons and Burridge
1981). Above the top level and below the lowest one the value is that of the level; but below the lowest level temperature
rises at 6.5 K km-1 (Trenberth, Berry and Buja 1993, without their limits over high ground) and geopotential follows
hydrostatically, so that both stay plausible under mountains.
"""

import numpy as np

from emulator.planet.constants import ERA5, Constants
from emulator.planet.vertical import Levels

LAPSE_RATE = 0.0065  # K m-1


def full_pressures(levels: Levels, surface_pressure: np.ndarray) -> np.ndarray:
    """Pressures of the full levels in Pa, half-way between the interfaces: `(level, ..., *space)`."""
    half = levels.interfaces(np.asarray(surface_pressure, np.float64))
    return np.stack([(upper + lower) / 2 for upper, lower in zip(half[:-1], half[1:], strict=True)])


def interpolate(values: np.ndarray, pressures: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Linear in log pressure, constant beyond the ends: `(level, ...)` on `pressures` `(level, ...)` -> `(new, ...)`."""
    logs = np.log(np.maximum(pressures, 1e-3))
    out = np.empty((len(wanted), *values.shape[1:]))
    for number, target in enumerate(np.log(wanted)):
        below = np.clip((logs < target).sum(axis=0), 1, len(logs) - 1)[None]  # the first level that is not above
        low, high = (np.take_along_axis(logs, below + step, axis=0)[0] for step in (-1, 0))
        first, second = (np.take_along_axis(values, below + step, axis=0)[0] for step in (-1, 0))
        share = np.clip((target - low) / (high - low), 0.0, 1.0)
        out[number] = first + share * (second - first)
    return out


def on_pressures(
    field: np.ndarray,
    levels: Levels,
    surface_pressure: np.ndarray,
    wanted: np.ndarray,
    name: str = "",
    temperature: np.ndarray | None = None,
    constants: Constants = ERA5,
) -> np.ndarray:
    """A field `(level, ..., *space)` on pressures: `(new, ..., *space)` float64.

    Args:
      surface_pressure: Pa, `(..., *space)`. wanted: pressures in Pa, `(new,)`, increasing.
      name: `temperature` and `geopotential` (this with the temperature beside it) are carried below the lowest level.
    """
    field = np.asarray(field, np.float64)
    pressures = np.broadcast_to(full_pressures(levels, surface_pressure), field.shape)
    out = interpolate(field, pressures, wanted)
    exponent = constants.gas_constant_dry_air * LAPSE_RATE / constants.gravity
    below = wanted.reshape(-1, *[1] * (field.ndim - 1)) / pressures[-1]
    if name == "temperature":
        out = np.where(below > 1, field[-1] * below**exponent, out)
    elif name == "geopotential" and temperature is not None:
        lowest = np.asarray(temperature[-1], np.float64)
        fall = lowest * (below**exponent - 1) / LAPSE_RATE * constants.gravity
        out = np.where(below > 1, field[-1] - fall, out)
    return out


def geopotential_at(
    wanted: np.ndarray,
    temperature: np.ndarray,
    humidity: np.ndarray | None,
    surface: np.ndarray,
    levels: Levels,
    surface_pressure: np.ndarray,
    constants: Constants = ERA5,
) -> np.ndarray:
    """Hydrostatic geopotential of pressures in m2 s-2, `(new, ..., *space)` float64.

    From the ground up through layers of one virtual temperature each, so that interfaces have the geopotential of Simmons and
    Burridge (1981); below the ground as `on_pressures` has it.

    Args:
      wanted: Pa, `(new,)`. temperature: K, and humidity: kg kg-1 or None for dry air, `(level, ..., *space)`.
      surface: geopotential of the ground, m2 s-2, and surface_pressure: Pa, `(..., *space)`.
    """
    gas, exponent = constants.gas_constant_dry_air, constants.gas_constant_dry_air * LAPSE_RATE / constants.gravity
    if humidity is not None:
        gas = gas + (constants.gas_constant_water_vapour - gas) * np.asarray(humidity, np.float64)
    energy = gas * np.asarray(temperature, np.float64)  # R Tv, m2 s-2
    ground = np.asarray(surface_pressure, np.float64)
    half = levels.interfaces(ground)
    half[0] = np.zeros_like(ground)  # the uppermost layer goes on above the model's top
    at_ground = energy[-1] * (ground / full_pressures(levels, ground)[-1]) ** exponent
    out = np.empty((len(wanted), *energy.shape[1:]))
    for number, pressure in enumerate(wanted):
        total = np.broadcast_to(np.asarray(surface, np.float64), energy.shape[1:]).copy()
        for layer, (upper, lower) in zip(energy, zip(half[:-1], half[1:], strict=True), strict=True):
            total += layer * np.log(lower / np.clip(pressure, upper, lower))
        fall = at_ground * ((pressure / ground) ** exponent - 1) / exponent
        out[number] = np.where(pressure > ground, surface - fall, total)
    return out
