"""Mass of dry air, `M_d = <I(1 - q)>`, constant: nothing brings any in; q is all water that is known."""

from emulator.planet.quantities import Quantity, register, water


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
        unaccounted="dry_mass",
        drift=("Pa", 9.80665),  # the pressure that it exerts
        order=0,
    )
)
