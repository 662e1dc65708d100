"""Names of the fluxes that have corrections of their own, and what else must change when one of them is corrected.

Every flux is a mean rate over the step, ECMWF sign: downward positive, so evaporation and surface heat losses are
negative. Precipitation and snowfall are positive amounts.
"""

from torch import Tensor

from emulator.conservation.atmosphere import State
from emulator.planet.quantities import energy, water

HUMIDITY, WATER_SPECIES, DIVERGENCE = water.HUMIDITY, water.SPECIES, water.DIVERGENCE
PRECIPITATION, EVAPORATION = water.PRECIPITATION, water.EVAPORATION
TOP_FLUXES, SURFACE_FLUXES = energy.TOP_FLUXES, energy.SURFACE_FLUXES
LATENT_HEAT, SNOWFALL = energy.LATENT_HEAT, energy.SNOWFALL
NON_NEGATIVE = (*WATER_SPECIES, PRECIPITATION, SNOWFALL)


def total(state: State, names) -> Tensor:
    """Sum of the named fields."""
    first, *rest = names
    result = state[first]
    for name in rest:
        result = result + state[name]
    return result


def net_surface(state: State, names=SURFACE_FLUXES, latent_heat_fusion: float | None = None) -> Tensor:
    """Net downward heat flux into the surface, W m-2: `(batch, *space)`.

    Less the heat that snowfall released aloft, where its latent heat of fusion, J kg-1, is given.
    """
    result = total(state, names)
    return result if latent_heat_fusion is None else result - latent_heat_fusion * state[SNOWFALL]


def snow_share(state: State) -> Tensor:
    """Share of precipitation that falls frozen, 0 where none falls: `(batch, *space)`."""
    rain = state[PRECIPITATION]
    falls = rain > 0
    return (state[SNOWFALL] / rain.where(falls, rain.new_ones(()))) * falls


def linked(state: State, changed: State, latent_heat: float) -> State:
    """Fluxes that follow from corrected ones, so that the surface receives what the atmosphere's budgets gave.

    Latent heat follows evaporation, `F* = F + L (E* - E)`, and snowfall keeps its share of precipitation. Only where the
    state holds them.
    """
    result = {}
    if EVAPORATION in changed and LATENT_HEAT in state:
        result[LATENT_HEAT] = state[LATENT_HEAT] + latent_heat * (changed[EVAPORATION] - state[EVAPORATION])
    if PRECIPITATION in changed and SNOWFALL in state:
        result[SNOWFALL] = snow_share(state) * changed[PRECIPITATION]
    return result


def linked_names(changes, state) -> tuple[str, ...]:
    """Names that `linked` would add for the given changes, where `state` holds them."""
    pairs = ((EVAPORATION, LATENT_HEAT), (PRECIPITATION, SNOWFALL))
    return tuple(then for name, then in pairs if name in changes and then in state and then not in changes)
