"""Energy of the atmosphere, `<H1> - <H0> = dt <F_top - F_sfc>`, fluxes downward positive, in the two published forms.

`F_sfc` is net short wave, net long wave, sensible and latent heat, less the heat of fusion of snowfall where it is known:

    hydrostatic (CREDIT; Sha et al. 2025, arXiv 2501.05648):  H = I(cp T + L q + Phi_s + (u^2 + v^2) / 2)
    total (ACE2; Watt-Meyer et al. 2024, arXiv 2411.11268):   H = I(cv T + L q + g z), z from the hypsometric equation

cp is that of dry air or, "moist", `(1 - q) cp_d + q cp_v`. Here both are written from their definitions, for the audit; the
schemes have formulas of their own (`emulator.conservation.energy`), and a test compares the two.
"""

import dataclasses

import numpy as np

from emulator.planet.quantities.registry import Columns, Quantity, register
from emulator.planet.quantities.water import HUMIDITY

TOP_FLUXES = ("mean_top_net_short_wave_radiation_flux", "mean_top_net_long_wave_radiation_flux")
LATENT_HEAT = "mean_surface_latent_heat_flux"
SURFACE_FLUXES = (
    "mean_surface_net_short_wave_radiation_flux",
    "mean_surface_net_long_wave_radiation_flux",
    "mean_surface_sensible_heat_flux",
    LATENT_HEAT,
)
SNOWFALL = "mean_snowfall_rate"
DIVERGENCE = "mean_vertical_integral_of_divergence_of_total_energy_flux"


@dataclasses.dataclass(frozen=True)
class EnergyForm:
    """What energy means: `form` "hydrostatic" or "total"; `heat_capacity` "constant" or "moist", and `kinetic` whether the
    winds count, in the hydrostatic form."""

    form: str = "hydrostatic"
    heat_capacity: str = "constant"
    kinetic: bool = True


HYDROSTATIC = EnergyForm()


def content(fields, constants, form: EnergyForm = HYDROSTATIC):
    """Energy per kilogram without geopotential, J kg-1."""
    temperature, vapour = fields["temperature"], fields[HUMIDITY]
    energy = constants.latent_heat_vaporisation * vapour
    if form.form == "total":
        return energy + (constants.heat_capacity_dry_air - constants.gas_constant_dry_air) * temperature
    capacity = constants.heat_capacity_dry_air
    if form.heat_capacity == "moist":
        capacity = (1 - vapour) * capacity + vapour * constants.heat_capacity_water_vapour
    energy = energy + capacity * temperature
    if form.kinetic:
        energy = energy + (fields["u_component_of_wind"] ** 2 + fields["v_component_of_wind"] ** 2) / 2
    return energy


def column(columns: Columns) -> np.ndarray:
    """Energy of every column, J m-2: `(..., *space)`."""
    surface = columns.fields["geopotential_at_surface"]
    energy = columns.integral(content(columns.fields, columns.constants, columns.form), surface.ndim)
    if columns.form.form == "total":
        return energy + height_energy(columns, surface)
    return energy + columns.integral(1, surface.ndim) * surface


def height_energy(columns: Columns, surface: np.ndarray) -> np.ndarray:
    """`I(g z)` of every column, J m-2, layer by layer upwards; temperature is constant within a layer."""
    fields, constants, axis = columns.fields, columns.constants, -1 - surface.ndim
    half = columns.levels.interfaces(fields["surface_pressure"])
    gas = constants.gas_constant_dry_air
    gas = gas + (constants.gas_constant_water_vapour - gas) * fields[HUMIDITY]
    virtual = np.moveaxis(gas * fields["temperature"], axis, 0)
    bottom, total = surface + 0 * fields["surface_pressure"], 0.0
    for index in reversed(range(len(columns.levels))):
        upper, lower = half[index], half[index + 1]
        # A layer within the ground has no air; above the last interface there is no height.
        there = (upper > 0) & (lower > upper)
        ratio = np.log(np.where(there, lower, 1.0) / np.where(there, upper, 1.0))
        total = total + bottom * (lower - upper) + virtual[index] * (lower - upper - upper * ratio)
        bottom = bottom + virtual[index] * ratio
    return total / constants.gravity


def gain(fields, constants):
    """`F_top - F_sfc`, W m-2."""
    surface = sum(fields[name] for name in SURFACE_FLUXES)
    if SNOWFALL in fields:
        surface = surface - constants.latent_heat_fusion * fields[SNOWFALL]
    return sum(fields[name] for name in TOP_FLUXES) - surface


ENERGY = register(
    Quantity(
        name="energy",
        label="Energy",
        total="atmosphere's energy",
        units="J m-2",
        state=(HUMIDITY, "temperature", "u_component_of_wind", "v_component_of_wind", "geopotential_at_surface"),
        content=content,
        fluxes=dict.fromkeys(TOP_FLUXES, 1.0) | dict.fromkeys(SURFACE_FLUXES, -1.0),
        optional_fluxes=(SNOWFALL,),
        divergence={DIVERGENCE: 1.0},
        gain=gain,
        column=column,
        unaccounted="heating",
        as_rate=True,
        drift=("MJ/m²", 1e-6),
        order=2,
    )
)
