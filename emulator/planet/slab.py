"""A mixed layer of sea water that keeps the heat it is given: the one formula of every slab ocean here.

`rho c h dT/dt = F + Q`, F being the net flux into it through its surface and Q what currents bring (Hansen et al. 1984,
"Climate sensitivity: analysis of feedback mechanisms", Geophys. Monogr. 29, 130). All are per square metre of sea, positive
where they warm it. Arguments are numbers, NumPy arrays or torch tensors that broadcast, and so are results.
"""

from emulator.planet.constants import Constants

SEA_TEMPERATURE = "sea_surface_temperature"  # K
DEPTH = "slab_ocean_depth"  # m
CONVERGENCE = "ocean_heat_flux_convergence"  # Q, W m-2
DENSITY = Constants.sea_water_density  # kg m-3
SPECIFIC_HEAT = Constants.sea_water_heat_capacity  # J kg-1 K-1
ICE = "sea_ice_cover"  # share of a cell
MOST_ICE = 0.5  # from which on a cell counts as frozen


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


def is_open(ice_cover):
    """Where less than half of a cell is frozen over, by the share of ice in each; also where that is missing."""
    return ~(ice_cover >= MOST_ICE)
