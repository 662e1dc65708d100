"""What no data set holds: bounds of every variable of the table, and of the global means of fluxes.

They are wider than what a forecast is bounded by (`minimum` and `maximum` of the table), and catch wrong units, signs and
fill values. Ranges of global means enclose published ones of a year: those of Wild et al. (2015, doi
10.1007/s00382-014-2430-z) and Trenberth et al. (2009, doi 10.1175/2008BAMS2634.1), which differ by up to a fifth. A month,
and an instant even more, lie further away, so that the ranges are wider by a fifth or more; that of sensible heat by more.
"""

import logging

import numpy as np
import xarray as xr

from emulator.planet.grid import Grid
from emulator.planet.variables import VARIABLES, Variable

# By units, for variables that have no bounds of their own in the table.
BY_UNITS = {
    "K": (50.0, 400.0),
    "%": (-25.0, 250.0),
    "m s-1": (-400.0, 400.0),
    "W m-2": (-3000.0, 3000.0),
    "N m-2": (-100.0, 100.0),
    "kg m-2 s-1": (-0.5, 0.5),
    "kg kg-1": (-1e-2, 0.5),
    "Pa s-1": (-500.0, 500.0),
    "s-1": (-1.0, 1.0),
    "K m2 kg-1 s-1": (-10.0, 10.0),
    "m2 s-2": (-2e4, 2e6),
    "J kg-1": (-100.0, 5e4),
    "m3 m-3": (-0.01, 1.1),
    "m2 m-2": (-0.1, 50.0),
    "radian": (-10.0, 10.0),
    "degree": (-360.0, 720.0),
    "s": (-1.0, 1e4),
    "g kg-1": (-1.0, 500.0),
    "kg m-3": (-1.0, 2000.0),
    "mol mol-1": (-1e-6, 1.0),
    "1": (-1e4, 1e4),
}
BY_NAME = {
    "mean_snowfall_rate": (-1e-3, 0.03),  # 0.03 is a hundred millimetres in an hour
    "mean_evaporation_rate": (-0.01, 0.01),
    "mean_snowmelt_rate": (-1e-3, 0.1),
    "snow_depth": (-0.1, 1000.0),  # of water; models keep glaciers at 10 m, some at more
    "snow_thickness": (-0.1, 5000.0),
    "sea_ice_thickness": (-0.1, 500.0),
    "boundary_layer_height": (-1.0, 3e4),
    "ocean_mixed_layer_depth": (-1.0, 12000.0),
    "slab_ocean_depth": (0.0, 12000.0),
    "skin_reservoir_content": (-1e-3, 1.0),
    "standard_deviation_of_orography": (-1.0, 5000.0),
    "forecast_surface_roughness": (-1e-3, 1000.0),
    "total_column_water": (-1.0, 300.0),
    "total_column_water_vapour": (-1.0, 300.0),
    "total_column_cloud_water": (-1.0, 300.0),
    "total_column_cloud_liquid_water": (-1.0, 300.0),
    "total_column_cloud_ice_water": (-1.0, 300.0),
    "total_column_rain_water": (-1.0, 300.0),
    "total_column_snow_water": (-1.0, 300.0),
    "total_column_ozone": (-1e-3, 0.05),
    "soil_water_content": (-1.0, 5e4),
    "total_soil_water_content": (-1.0, 5e5),
    "geopotential_at_surface": (-2e4, 1.5e5),
}
# Wild et al. (2015), Trenberth et al. (2009): global means of a year, W m-2, downward positive; water from latent heat, since
# the atmosphere keeps next to none (82 W m-2 are 2.8 mm a day, 3.3e-5 kg m-2 s-1).
PUBLISHED = {
    "mean_surface_latent_heat_flux": (-82.0, -80.0),
    "mean_surface_sensible_heat_flux": (-21.0, -17.0),
    "mean_evaporation_rate": (-3.3e-5, -3.2e-5),
    "mean_total_precipitation_rate": (3.3e-5, 3.2e-5),
    "mean_surface_net_short_wave_radiation_flux": (160.0, 161.0),
    "mean_surface_net_long_wave_radiation_flux": (-56.0, -63.0),
    "mean_surface_downward_short_wave_radiation_flux": (185.0, 184.0),
    "mean_surface_downward_long_wave_radiation_flux": (342.0, 333.0),
    "mean_surface_upward_short_wave_radiation_flux": (25.0, 23.0),
    "mean_surface_upward_long_wave_radiation_flux": (398.0, 396.0),
    "mean_top_downward_short_wave_radiation_flux": (340.0, 341.0),
    "mean_top_net_short_wave_radiation_flux": (240.0, 239.0),
    "mean_top_net_long_wave_radiation_flux": (-239.0, -239.0),
    "mean_top_upward_short_wave_radiation_flux": (100.0, 102.0),
}
# Of whole globes; an instant's mean and a month's lie within. Those that are not above are parts of precipitation, and the
# ocean's heat, which is small in a year and some tens of W m-2 in a month.
GLOBAL_MEANS = {
    "mean_surface_latent_heat_flux": (-160.0, -30.0),
    "mean_surface_sensible_heat_flux": (-60.0, -1.0),
    "mean_evaporation_rate": (-6.5e-5, -1.2e-5),
    "mean_total_precipitation_rate": (1.0e-5, 7.0e-5),
    "mean_convective_precipitation_rate": (1.0e-6, 6.0e-5),
    "mean_large_scale_precipitation_rate": (1.0e-6, 6.0e-5),
    "mean_snowfall_rate": (2.0e-7, 1.5e-5),
    "mean_surface_net_short_wave_radiation_flux": (100.0, 230.0),
    "mean_surface_net_long_wave_radiation_flux": (-120.0, -20.0),
    "mean_surface_downward_short_wave_radiation_flux": (120.0, 280.0),
    "mean_surface_downward_long_wave_radiation_flux": (220.0, 450.0),
    "mean_surface_upward_short_wave_radiation_flux": (5.0, 80.0),
    "mean_surface_upward_long_wave_radiation_flux": (300.0, 480.0),
    "mean_top_downward_short_wave_radiation_flux": (300.0, 380.0),
    "mean_top_net_short_wave_radiation_flux": (170.0, 310.0),
    "mean_top_net_long_wave_radiation_flux": (-300.0, -180.0),
    "mean_top_upward_short_wave_radiation_flux": (50.0, 170.0),
    "mean_downward_heat_flux_into_sea_water": (-100.0, 100.0),
}
TIMES = 5  # of a field, whose global mean is looked at

log = logging.getLogger(__name__)


def limits(entry: Variable) -> tuple[float | None, float | None]:
    """The lowest and the highest value that a field may hold in its units: its own bounds, else the widest of its kind.

    None for what is not known: fields that the table does not have keep to the bounds that they say of themselves.
    """
    low, high = (None, None)
    if entry.name in VARIABLES and entry.units == VARIABLES[entry.name].units:
        low, high = BY_NAME.get(entry.name, BY_UNITS.get(entry.units, (None, None)))
    return (low if entry.minimum is None else entry.minimum, high if entry.maximum is None else entry.maximum)


def warn_of_global_means(store: xr.Dataset, grid: Grid) -> None:
    """Names the fluxes of a store whose mean over the globe is none of the Earth's: of another sign, unit or interval.

    Args:
      store: of analyses or forecasts, of which a few times are read; grid: of it. A region is let pass.
    """
    for name, (low, high) in GLOBAL_MEANS.items() if grid.is_global() else ():
        if name not in store or "domain" in store[name].attrs:
            continue
        array = store[name]
        along = [dim for dim in array.dims if dim not in grid.dims]
        sizes = tuple(array.sizes[dim] for dim in along)
        chosen = np.unique(np.linspace(0, np.prod(sizes, dtype=int) - 1, TIMES).astype(int)) if along else [0]
        places = [dict(zip(along, np.unravel_index(at, sizes), strict=True)) for at in chosen]
        means = [grid.mean(array.isel(place).transpose(*grid.dims).values) for place in places]
        means = [float(mean) for mean in means if np.isfinite(mean)]
        if means and not low <= (mean := float(np.mean(means))) <= high:
            turned = "; its sign is probably the opposite one (negate)" if low <= -mean <= high else ""
            log.warning(
                "Expected a global mean of %s between %g and %g %s (%s), got %.4g%s: are its sign, units or interval others?",
                name, low, high, array.attrs.get("units"), array.attrs.get("sign", "positive"), mean, turned,
            )  # fmt: skip
