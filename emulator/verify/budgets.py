"""Global budgets of dry air, water and energy, audited in float64 from what a store holds.

Written apart from the conservation schemes on purpose: an auditor that shares code with the audited finds nothing.
With area mean <.>, layer thickness dp and column integral I(x) = (1/g) sum x dp:

- dry air: M_d = <(p_s - p_top)/g - I(q)>, constant;
- water: <W1> - <W0> = dt <E - P>, W = I(q);
- energy: <H1> - <H0> = dt <F_top - F_sfc>, H = I(cp(q) T + L_v q + Phi_s + (u^2 + v^2)/2) in hydrostatic balance,
  cp(q) = (1 - q) cp_d + q cp_v, F_sfc = net short wave + net long wave + sensible + latent - L_f snowfall,
  fluxes downward positive (Sha et al. 2025, arXiv 2501.05648).

q is vapour and, where the store has it, cloud water and ice.
"""

import numpy as np

from emulator.constants import Constants
from emulator.grid import Grid
from emulator.vertical import Levels

BUDGETS = ("dry_air", "water", "energy")
UNITS = {"dry_air": "kg m-2", "water": "kg m-2", "energy": "W m-2"}
TOTAL_UNITS = {"dry_air": "kg m-2", "water": "kg m-2", "energy": "J m-2"}

_WATER = ("specific_humidity", "specific_cloud_liquid_water_content", "specific_cloud_ice_water_content")
_STATES = {
    "dry_air": ("surface_pressure", "specific_humidity"),
    "water": ("surface_pressure", "specific_humidity"),
    "energy": (
        "surface_pressure",
        "specific_humidity",
        "temperature",
        "u_component_of_wind",
        "v_component_of_wind",
        "geopotential_at_surface",
    ),
}
_SURFACE = (
    "mean_surface_net_short_wave_radiation_flux",
    "mean_surface_net_long_wave_radiation_flux",
    "mean_surface_sensible_heat_flux",
    "mean_surface_latent_heat_flux",
)
_TOP = ("mean_top_net_short_wave_radiation_flux", "mean_top_net_long_wave_radiation_flux")
_FLUXES = {
    "dry_air": (),
    "water": ("mean_evaporation_rate", "mean_total_precipitation_rate"),
    "energy": (*_TOP, *_SURFACE),
}
OPTIONAL = (*_WATER[1:], "mean_snowfall_rate")


def needed(budget: str) -> tuple[str, ...]:
    """Variables without which a budget cannot be audited."""
    return _STATES[budget] + _FLUXES[budget]


def totals(fields: dict[str, np.ndarray], levels: Levels, grid: Grid, constants: Constants) -> dict[str, np.ndarray]:
    """Global means of dry air [kg m-2], water [kg m-2] and energy [J m-2], each `(...)`, as far as the fields allow.

    `fields`: name -> `(..., level, *space)`, or `(..., *space)` without levels; geopotential_at_surface `space`.
    """
    if not set(_STATES["water"]) <= set(fields):
        return {}
    pressure = np.asarray(fields["surface_pressure"], np.float64)
    thickness = np.stack(levels.thickness(pressure), axis=pressure.ndim - len(grid.shape))
    layer = thickness / constants.gravity  # kg m-2, (..., level, *space)
    axis = -1 - len(grid.shape)
    water = sum(np.asarray(fields[name], np.float64) for name in _WATER if name in fields)
    result = {
        "dry_air": grid.mean(np.sum(layer * (1 - water), axis=axis)),
        "water": grid.mean(np.sum(layer * water, axis=axis)),
    }
    if set(_STATES["energy"]) <= set(fields):
        temperature, u, v = (np.asarray(fields[name], np.float64) for name in _STATES["energy"][2:5])
        vapour = np.asarray(fields["specific_humidity"], np.float64)
        capacity = (1 - vapour) * constants.heat_capacity_dry_air + vapour * constants.heat_capacity_water_vapour
        energy = capacity * temperature + constants.latent_heat_vaporisation * vapour + (u**2 + v**2) / 2
        surface = np.sum(layer, axis=axis) * np.asarray(fields["geopotential_at_surface"], np.float64)
        result["energy"] = grid.mean(np.sum(layer * energy, axis=axis) + surface)
    return result


def sources(fields: dict[str, np.ndarray], grid: Grid, constants: Constants) -> dict[str, np.ndarray]:
    """Global mean rates at which water [kg m-2 s-1] and energy [W m-2] enter the atmosphere: `(..., *space)` -> `(...)`."""
    mean = {name: grid.mean(fields[name]) for name in (*_FLUXES["water"], *_FLUXES["energy"]) if name in fields}
    result = {}
    if set(_FLUXES["water"]) <= set(mean):
        result["water"] = -mean["mean_evaporation_rate"] - mean["mean_total_precipitation_rate"]
    if set(_FLUXES["energy"]) <= set(mean):
        surface = sum(mean[name] for name in _SURFACE)
        if "mean_snowfall_rate" in fields:
            surface = surface - constants.latent_heat_fusion * grid.mean(fields["mean_snowfall_rate"])
        result["energy"] = sum(mean[name] for name in _TOP) - surface
    return result


def residuals(total: dict, source: dict, seconds: np.ndarray, axis: int = -1) -> dict[str, np.ndarray]:
    """What each step leaves unexplained: dry air and water in kg m-2 a step, energy in W m-2.

    `total` and `source` along `axis` at successive times, `seconds` `(time - 1,)` apart; sources are means over the step
    that ends at their time. Returns arrays one shorter along `axis`.
    """
    shape = [1] * np.ndim(next(iter(total.values()))) if total else []
    if shape:
        shape[axis] = -1
        seconds = np.reshape(seconds, shape)
    result = {}
    for budget, amount in total.items():
        change = np.diff(amount, axis=axis)
        if budget == "dry_air":
            result[budget] = change
        elif budget in source:
            rate = np.delete(source[budget], 0, axis=axis)
            result[budget] = change - seconds * rate if budget == "water" else change / seconds - rate
    return result
