"""Forecasts of the small planet as a store on disk: the truth with an error that grows with lead, with or without members."""

from pathlib import Path

import numpy as np
import xarray as xr

from emulator.store.forecast import create_forecast, finish_forecast, write_forecast_init

FIXED = ("geopotential_at_surface", "land_sea_mask", "half_level_a", "half_level_b")


def small_forecast(planet: xr.Dataset, inits=(0, 4), leads: int = 3, members: int = 0, seed: int = 1) -> xr.Dataset:
    """`(init_time, lead_time, [member,] [level,] latitude, longitude)` in memory, six-hourly from lead 0."""
    rng = np.random.default_rng(seed)
    fields = {name: planet[name].variable for name in FIXED}
    for name in (n for n in planet.data_vars if "time" in planet[n].dims):
        field = planet[name].transpose("time", ...)
        blocks = np.stack([field.values[init : init + leads + 1] for init in inits])
        front, rest = ("init_time", "lead_time"), field.dims[1:]
        if members:
            front, blocks = (*front, "member"), np.repeat(blocks[:, :, None], members, axis=2)
        growth = np.linspace(0, 1, leads + 1).reshape(1, -1, *[1] * (blocks.ndim - 2))
        size = 0.05 * float(field.std()) * growth
        values = blocks + size * rng.standard_normal(blocks.shape)
        fields[str(name)] = ((*front, *rest), values.astype(np.float32), field.attrs)
    coordinates = {n: planet[n].variable for n in ("level", "latitude", "longitude")}
    coordinates["init_time"] = planet["time"].values[list(inits)]
    coordinates["lead_time"] = (np.arange(leads + 1) * 6).astype("timedelta64[h]").astype("timedelta64[ns]")
    return xr.Dataset(fields, coordinates, planet.attrs | {"time_step_seconds": 21600.0})


def write_forecast(path: Path, forecast: xr.Dataset) -> Path:
    """The same as a finished store."""
    attributes = forecast.attrs | {"fingerprint": "small"}
    template = forecast.isel(init_time=0, drop=True)
    create_forecast(path, template, forecast["init_time"].values, forecast["lead_time"].values, attributes)
    moving = [name for name in forecast.data_vars if "lead_time" in forecast[name].dims]
    for index in range(forecast.sizes["init_time"]):
        write_forecast_init(path, forecast[moving].isel(init_time=index), index)
    finish_forecast(path)
    return path
