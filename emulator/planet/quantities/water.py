"""Water, `<W1> - <W0> = dt <E - P>` with `W = I(q)`: of the globe, and of every column where transport is known.

q is vapour and, where it is known, cloud water and ice. Evaporation is stored negative, as a downward flux.
"""

from emulator.planet.quantities.registry import Quantity, register

HUMIDITY = "specific_humidity"
SPECIES = (HUMIDITY, "specific_cloud_liquid_water_content", "specific_cloud_ice_water_content")
PRECIPITATION = "mean_total_precipitation_rate"
EVAPORATION = "mean_evaporation_rate"
# Positive where the column loses water to its neighbours.
DIVERGENCE = "mean_vertically_integrated_moisture_divergence"


def content(fields, constants):
    """Water per kilogram of air, kg kg-1."""
    return sum(fields[name] for name in SPECIES if name in fields)


WATER = register(
    Quantity(
        name="water",
        label="Water",
        units="kg m-2",
        state=(HUMIDITY,),
        content=content,
        fluxes={EVAPORATION: -1.0, PRECIPITATION: -1.0},
        optional=SPECIES[1:],
        divergence={DIVERGENCE: 1.0},
        unaccounted="moistening",
        drift=("kg/m²", 1.0),
        order=1,
    )
)
# `<A> = 0` on a sphere, so that the mean of the columns' budgets is that of water, which the audit has.
COLUMN_WATER = register(
    Quantity(
        name="column_water",
        label="Water by column",
        units="kg m-2",
        state=(HUMIDITY,),
        content=None,
        fluxes=WATER.fluxes | {DIVERGENCE: -1.0},
        optional=SPECIES[1:],
        drift=("kg/m²", 1.0),
        order=3,
    )
)
