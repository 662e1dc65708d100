"""A small planet in closed form, shared by the tests: waves that travel east over a zonal mean, with all fluxes."""

import numpy as np
import xarray as xr

from emulator.planet.constants import Constants
from emulator.planet.grid import Grid
from emulator.planet.variables import VARIABLES
from emulator.planet.vertical import Levels

CONSTANTS = Constants(gravity=9.81, heat_capacity_dry_air=1004.64, latent_heat_vaporisation=2.501e6)

FLUXES = {
    "mean_total_precipitation_rate": 3e-5,
    "mean_evaporation_rate": -3e-5,
    "mean_surface_net_short_wave_radiation_flux": 160.0,
    "mean_surface_net_long_wave_radiation_flux": -60.0,
    "mean_surface_sensible_heat_flux": -20.0,
    "mean_surface_latent_heat_flux": -75.0,
    "mean_top_net_short_wave_radiation_flux": 240.0,
    "mean_top_net_long_wave_radiation_flux": -235.0,
}


def small_planet(times: int = 48, nlat: int = 12, levels: int = 4, seed: int = 0) -> xr.Dataset:
    """Six-hourly states in the conventions of docs/data.md: `(time, level, latitude, longitude)`.

    Every field is a zonal mean plus waves of wavenumber 1-3 that travel at different speeds, so the next state follows
    from this one.
    """
    rng = np.random.default_rng(seed)
    grid, vertical = Grid.gaussian(nlat), Levels.sigma(np.linspace(0, 1, levels + 1))
    latitude, longitude = np.radians(grid.mesh())
    hours = np.arange(times) * 6.0
    sigma = vertical.values[:, None, None]

    def waves(scale):
        total = np.zeros((times, *grid.shape))
        for number in (1, 2, 3):
            phase, period = rng.uniform(0, 2 * np.pi), rng.uniform(60, 200)
            angle = number * longitude - 2 * np.pi * hours[:, None, None] / period + phase
            total += scale / number * np.cos(latitude) ** 2 * np.cos(angle)
        return total

    def levelled(base, scale):
        return base + np.stack([waves(scale) for _ in range(levels)], axis=1)

    wet = 0.012 * sigma**3 * np.cos(latitude) ** 2
    fields = {
        "temperature": levelled(220 + 70 * sigma + 25 * np.cos(latitude) ** 2 * sigma, 4.0),
        "u_component_of_wind": levelled(20 * np.cos(latitude) * (1 - sigma), 5.0),
        "v_component_of_wind": levelled(0 * sigma * latitude, 4.0),
        "specific_humidity": wet * (1 + 0.1 * np.stack([waves(1.0) for _ in range(levels)], axis=1)) + 1e-6,
        "surface_pressure": 98500 + waves(600.0),
    }
    for name, value in FLUXES.items():
        fields[name] = value * (np.cos(latitude) ** 2 + 1 / 3 + 0.05 * waves(1.0))
    fields["sea_surface_temperature"] = 273 + 28 * np.cos(latitude) ** 2 + 0 * waves(1.0)
    fields["geopotential_at_surface"] = 2000 * np.exp(-((longitude - 1.5) ** 2) - (latitude - 0.6) ** 2)
    fields["land_sea_mask"] = (np.sin(3 * longitude) * np.cos(latitude) > 0.4).astype(float)

    dims = {4: ("time", "level", "latitude", "longitude"), 3: ("time", "latitude", "longitude")}
    data = {}
    for name, values in fields.items():
        entry = VARIABLES[name]
        method = {"mean": "time: mean", "point": "time: point", "fixed": None}[entry.cell]
        attributes = {"units": entry.units} | ({"standard_name": entry.standard_name} if entry.standard_name else {})
        attributes |= {"cell_methods": method} if method else {}
        data[name] = (dims.get(values.ndim, ("latitude", "longitude")), values.astype(np.float32), attributes)
    data["half_level_a"] = ("half_level", vertical.half_a)
    data["half_level_b"] = ("half_level", vertical.half_b)
    start = np.datetime64("2001-01-01T00", "ns")
    return xr.Dataset(
        data,
        {
            "time": start + (hours * 3600e9).astype("timedelta64[ns]"),
            "level": ("level", vertical.values, {"standard_name": "atmosphere_sigma_coordinate", "units": "1"}),
            "latitude": ("latitude", grid.latitude, {"units": "degrees_north", "standard_name": "latitude"}),
            "longitude": ("longitude", grid.longitude, {"units": "degrees_east", "standard_name": "longitude"}),
        },
        {"vertical_coordinate": "sigma", "constants": CONSTANTS.to_json(), "source": "closed-form waves"},
    )


def numpy_statistics(dataset: xr.Dataset) -> xr.Dataset:
    """Statistics as docs/data.md has them, straight from their definition."""
    area = Grid.from_coordinates(dataset["latitude"], dataset["longitude"]).area
    out = {}
    for name, field in dataset.data_vars.items():
        if "time" not in field.dims:
            continue
        values = field.values.astype(np.float64)
        change = np.diff(values, axis=0)
        rows = []
        for data in (values, change):
            mean = np.sum(data * area, axis=(-2, -1)).mean(0)
            rows += [mean, np.sqrt(np.sum((data - mean[..., None, None]) ** 2 * area, axis=(-2, -1)).mean(0))]
        rows[2:2] = [values.min((0, -2, -1)), values.max((0, -2, -1))]
        out[name] = (("statistic", "level") if values.ndim == 4 else ("statistic",), np.stack(rows))
    names = ["mean", "std", "minimum", "maximum", "difference_mean", "difference_std"]
    return xr.Dataset(out, {"statistic": names})
