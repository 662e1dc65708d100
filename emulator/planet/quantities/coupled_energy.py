"""Energy of atmosphere and slab together, `<H1> - <H0> + <s rho c h (T1 - T0)> = dt <F_top + s Q - (1 - s) F_sfc>`.

s is the share of each cell whose heat the slab takes: what enters land and frozen sea is not followed up. It closes where the
slab has got the very flux that left the atmosphere.
"""

from emulator.planet.quantities.energy import ENERGY
from emulator.planet.quantities.registry import Quantity, register

COUPLED_ENERGY = register(
    Quantity(
        name="coupled_energy",
        label="Energy with the slab",
        total="energy of atmosphere and slab",
        units="J m-2",
        state=ENERGY.state,
        content=None,
        fluxes=ENERGY.fluxes,
        optional_fluxes=ENERGY.optional_fluxes,
        unaccounted=ENERGY.unaccounted,
        as_rate=True,
        drift=ENERGY.drift,
        order=4,
        audited_alone=True,
    )
)
