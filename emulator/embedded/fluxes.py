"""The net flux of heat through a model's surface, as its chunks hold it."""

from collections.abc import Mapping

import numpy as np

SURFACE = (
    "mean_surface_net_short_wave_radiation_flux",
    "mean_surface_net_long_wave_radiation_flux",
    "mean_surface_sensible_heat_flux",
    "mean_surface_latent_heat_flux",
)


def net_surface_flux(fields: Mapping[str, np.ndarray]) -> np.ndarray:
    """W m-2, positive into the surface, of the fields' shape, float64."""
    return sum(np.asarray(fields[name], np.float64) for name in SURFACE)
