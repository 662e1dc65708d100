"""Salt of the sea, `<S1> - <S0> = dt <F>` with `S = rho sum_k s_k h_k`: F is the virtual salt flux through the surface."""

from emulator.planet.quantities.registry import Quantity, register

SALINITY = "sea_water_salinity"
FLUX = "mean_virtual_salt_flux_into_sea_water"


def content(fields, constants):
    """Salt per kilogram of sea water, kg kg-1; salinity comes in g kg-1."""
    return fields[SALINITY] / 1000


OCEAN_SALT = register(
    Quantity(
        name="ocean_salt",
        label="Ocean salt",
        total="ocean's salt",
        units="kg m-2",
        state=(SALINITY,),
        content=content,
        fluxes={FLUX: 1.0},
        medium="sea",
        correction="increment",
        drift=("kg/m²", 1.0),
        order=11,
    )
)
