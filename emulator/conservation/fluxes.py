"""Names and signs of the fluxes, and what else must change when one of them is corrected.

Every flux is a mean rate over the step, ECMWF sign: downward positive, so evaporation and surface heat losses are
negative. Precipitation and snowfall are positive amounts.
"""

from torch import Tensor

from emulator.conservation.atmosphere import State

PRECIPITATION = "mean_total_precipitation_rate"
SNOWFALL = "mean_snowfall_rate"
EVAPORATION = "mean_evaporation_rate"
LATENT_HEAT = "mean_surface_latent_heat_flux"
TOP_FLUXES = ("mean_top_net_short_wave_radiation_flux", "mean_top_net_long_wave_radiation_flux")
SURFACE_FLUXES = (
    "mean_surface_net_short_wave_radiation_flux",
    "mean_surface_net_long_wave_radiation_flux",
    "mean_surface_sensible_heat_flux",
    LATENT_HEAT,
)
# ERA5's name; positive where the column loses water to its neighbours.
DIVERGENCE = "mean_vertically_integrated_moisture_divergence"

HUMIDITY = "specific_humidity"
WATER_SPECIES = (HUMIDITY, "specific_cloud_liquid_water_content", "specific_cloud_ice_water_content")
NON_NEGATIVE = (*WATER_SPECIES, PRECIPITATION, SNOWFALL)


def total(state: State, names) -> Tensor:
    """Sum of the named fields."""
    first, *rest = names
    result = state[first]
    for name in rest:
        result = result + state[name]
    return result


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
