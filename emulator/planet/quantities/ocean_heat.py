"""Heat of the sea above 0 degrees Celsius, `<Q1> - <Q0> = dt <F>`, of potential temperature; F enters through the surface.

`Q = rho cp sum_k (T_k - 273.15 K) h_k` with the density and the heat capacity of the model that made the data: Boussinesq, in
cells of constant volume, which sea ice and fresh water leave as they are.
"""

from emulator.planet.quantities.registry import Quantity, register

TEMPERATURE = "sea_water_potential_temperature"
FLUX = "mean_downward_heat_flux_into_sea_water"
FREEZING = 273.15  # K, from which heat counts: an arbitrary zero, as is usual


def content(fields, constants):
    """Heat per kilogram of sea water, J kg-1."""
    return constants.sea_water_heat_capacity * (fields[TEMPERATURE] - FREEZING)


OCEAN_HEAT = register(
    Quantity(
        name="ocean_heat",
        label="Ocean heat",
        total="ocean's heat",
        units="J m-2",
        state=(TEMPERATURE,),
        content=content,
        fluxes={FLUX: 1.0},
        medium="sea",
        correction="increment",
        as_rate=True,
        drift=("MJ/m²", 1e-6),
        order=10,
    )
)
