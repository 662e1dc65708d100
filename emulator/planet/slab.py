"""A mixed layer of sea water that keeps the heat it is given: the one formula of every slab ocean here.

`rho c h dT/dt = F + Q`, F being the net flux into it through its surface and Q what currents bring (Hansen et al. 1984,
"Climate sensitivity: analysis of feedback mechanisms", Geophys. Monogr. 29, 130). All are per square metre of sea, positive
where they warm it. Arguments are numbers, NumPy arrays or torch tensors that broadcast, and so are results.
"""

DEPTH = "ocean_mixed_layer_depth"  # m
CONVERGENCE = "ocean_heat_flux_convergence"  # Q, W m-2
DENSITY = 1025.0  # kg m-3, of sea water at the surface
SPECIFIC_HEAT = 3991.86795711963  # J kg-1 K-1, cp0 of TEOS-10


def heat_capacity(depth):
    """J m-2 K-1 of a layer of `depth` m."""
    return DENSITY * SPECIFIC_HEAT * depth


def warming(flux, convergence, depth, seconds):
    """K by which a layer of `depth` m gets warmer in `seconds` by the two fluxes, W m-2."""
    return seconds * (flux + convergence) / heat_capacity(depth)


def implied_convergence(change, flux, depth, seconds):
    """Q, W m-2, with which `flux` makes a layer of `depth` m warmer by `change` K in `seconds`: inverse of `warming`."""
    return heat_capacity(depth) * change / seconds - flux


def is_sea(land_share):
    """Where there is a slab: cells that are more than half sea, by the share of land in each, `land_sea_mask`."""
    return land_share < 0.5
