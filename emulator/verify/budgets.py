"""Global budgets of dry air, water and energy, audited in float64 from what a store holds.

Written apart from the conservation schemes on purpose: an auditor that shares code with the audited finds nothing.
With area mean <.>, layer thickness dp and column integral I(x) = (1/g) sum x dp:

- dry air: M_d = <(p_s - p_top)/g - I(q)>, constant;
- water: <W1> - <W0> = dt <E - P>, W = I(q);
- energy: <H1> - <H0> = dt <F_top - F_sfc>, fluxes downward positive,
  F_sfc = net short wave + net long wave + sensible + latent - L_f snowfall, with one of two forms of H:
  hydrostatic, H = I(cp T + L_v q + Phi_s + (u^2 + v^2)/2) (Sha et al. 2025, arXiv 2501.05648), where cp is that of dry
  air or, "moist", (1 - q) cp_d + q cp_v; or total, H = I(cv T + L_v q + g z), z from the hypsometric equation and no
  kinetic energy (Watt-Meyer et al. 2024, arXiv 2411.11268).

q is vapour and, where the store has it, cloud water and ice.
"""

import dataclasses

import numpy as np

from emulator.planet.constants import Constants
from emulator.planet.grid import Grid
from emulator.planet.vertical import Levels

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


@dataclasses.dataclass(frozen=True)
class EnergyForm:
    """What energy means: `form` "hydrostatic" or "total"; `heat_capacity` "constant" or "moist", and `kinetic` whether the
    winds count, in the hydrostatic form."""

    form: str = "hydrostatic"
    heat_capacity: str = "constant"
    kinetic: bool = True


HYDROSTATIC = EnergyForm()


def needed(budget: str) -> tuple[str, ...]:
    """Variables without which a budget cannot be audited."""
    return _STATES[budget] + _FLUXES[budget]


def totals(
    fields: dict[str, np.ndarray], levels: Levels, grid: Grid, constants: Constants, form: EnergyForm = HYDROSTATIC
) -> dict[str, np.ndarray]:
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
        column = _energy(fields, layer, levels, constants, form)
        result["energy"] = grid.mean(column)
    return result


def _energy(fields, layer, levels, constants, form: EnergyForm) -> np.ndarray:
    """Energy of every column, J m-2: `(..., *space)`; `layer` is its mass by level, kg m-2."""
    temperature, u, v = (np.asarray(fields[name], np.float64) for name in _STATES["energy"][2:5])
    vapour, surface = (
        np.asarray(fields[name], np.float64) for name in ("specific_humidity", "geopotential_at_surface")
    )
    axis = -1 - surface.ndim
    energy = constants.latent_heat_vaporisation * vapour
    if form.form == "total":
        capacity = constants.heat_capacity_dry_air - constants.gas_constant_dry_air
        height = _height_energy(fields, surface, levels, constants)
        return np.sum(layer * (energy + capacity * temperature), axis=axis) + height
    capacity = constants.heat_capacity_dry_air
    if form.heat_capacity == "moist":
        capacity = (1 - vapour) * capacity + vapour * constants.heat_capacity_water_vapour
    energy = energy + capacity * temperature
    if form.kinetic:
        energy = energy + (u**2 + v**2) / 2
    return np.sum(layer * energy, axis=axis) + np.sum(layer, axis=axis) * surface


def _height_energy(fields, surface, levels, constants) -> np.ndarray:
    """`I(g z)` of every column, J m-2, layer by layer upwards; temperature is constant within a layer."""
    pressure = np.asarray(fields["surface_pressure"], np.float64)
    half = levels.interfaces(pressure)
    axis = -1 - surface.ndim
    gas = constants.gas_constant_dry_air
    gas = gas + (constants.gas_constant_water_vapour - gas) * np.asarray(fields["specific_humidity"], np.float64)
    virtual = np.moveaxis(gas * np.asarray(fields["temperature"], np.float64), axis, 0)
    bottom, total = surface + 0 * pressure, 0.0
    for index in reversed(range(len(levels))):
        upper, lower = half[index], half[index + 1]
        held = (upper > 0) & (
            lower > upper
        )  # a layer within the ground holds nothing; above the last there is no height
        ratio = np.log(np.where(held, lower, 1.0) / np.where(held, upper, 1.0))
        total = total + bottom * (lower - upper) + virtual[index] * (lower - upper - upper * ratio)
        bottom = bottom + virtual[index] * ratio
    return total / constants.gravity


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
