"""Mass of dry air, `M_d = <I(1 - q)>`, constant: nothing brings any in; q is all water that is known."""

from emulator.planet.quantities import water
from emulator.planet.quantities.registry import Quantity, register

MASS_DIVERGENCE = "mean_vertical_integral_of_divergence_of_mass_flux"  # of moist air


def content(fields, constants):
    """Dry air per kilogram of air, 1."""
    return 1 - water.content(fields, constants)


DRY_AIR = register(
    Quantity(
        name="dry_air",
        label="Dry air",
        units="kg m-2",
        state=(water.HUMIDITY,),
        content=content,
        optional=water.SPECIES[1:],
        divergence={MASS_DIVERGENCE: 1.0, water.DIVERGENCE: -1.0},
        unaccounted="dry_mass",
        drift=("Pa", 9.80665),  # the pressure that it exerts
        order=0,
    )
)
