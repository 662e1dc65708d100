"""Monthly means as climate models publish them: CF bounds, mid-month times, any calendar, cut into files by years."""

from pathlib import Path

import cftime
import numpy as np
import xarray as xr

CALENDARS = ("standard", "noleap", "360_day")
LATITUDE, LONGITUDE = np.linspace(-75, 75, 6), np.arange(0.0, 360, 30)
RAIN_UNITS = "kg m-2 s-1"


def month_edges(calendar: str, first_year: int, years: int) -> np.ndarray:
    """The first instants of all months, and of the month after the last."""
    dates = [(first_year + n // 12, 1 + n % 12) for n in range(12 * years + 1)]
    return np.array([cftime.datetime(year, month, 1, calendar=calendar) for year, month in dates])


def middles(edges: np.ndarray) -> np.ndarray:
    return edges[:-1] + (edges[1:] - edges[:-1]) / 2


def monthly(calendar: str = "noleap", first_year: int = 2000, years: int = 4) -> xr.Dataset:
    """Temperature, sea-level pressure, insolation and rain, with times in the middles of months and their bounds."""
    edges = month_edges(calendar, first_year, years)
    season = 2 * np.pi * (np.arange(12 * years) % 12) / 12
    noise = np.random.default_rng(0).normal(size=(12 * years, len(LATITUDE), len(LONGITUDE)))
    slow = np.cumsum(noise, axis=0) / np.sqrt(1 + np.arange(12 * years))[:, None, None]
    phi = np.radians(LATITUDE)[:, None]
    wave = np.cos(2 * np.radians(LONGITUDE))
    cycle = np.cos(season)[:, None, None] * np.sin(phi)
    dims = ("time", "lat", "lon")
    mean = {"cell_methods": "area: time: mean"}
    fields = {
        "tas": (285 - 30 * np.sin(phi) ** 2 - 12 * cycle + wave + slow, "K", "air_temperature"),
        "psl": (1.01e5 + 300 * cycle + 200 * wave + 100 * slow, "Pa", "air_pressure_at_mean_sea_level"),
        "rsdt": (np.maximum(340 - 250 * cycle, 0) + 0 * wave, "W m-2", "toa_incoming_shortwave_flux"),
        "pr": (4e-5 * np.exp(-(np.sin(phi) ** 2)) * np.exp(0.2 * slow), RAIN_UNITS, "precipitation_flux"),
    }
    variables = {
        name: (dims, values.astype(np.float32), {"units": units, "standard_name": standard, **mean})
        for name, (values, units, standard) in fields.items()
    }
    variables["time_bnds"] = (("time", "bnds"), np.stack([edges[:-1], edges[1:]], axis=1))
    place = {"lat": ("lat", LATITUDE, {"units": "degrees_north"}), "lon": ("lon", LONGITUDE, {"units": "degrees_east"})}
    coordinates = {"time": ("time", middles(edges), {"bounds": "time_bnds", "standard_name": "time"}), **place}
    return xr.Dataset(variables, coordinates, {"frequency": "mon"})


def write_files(folder: Path, dataset: xr.Dataset, calendar: str) -> str:
    """Two NetCDF files one after the other in time; the pattern that finds both."""
    folder.mkdir(parents=True, exist_ok=True)
    half = dataset.sizes["time"] // 2
    encoding = {"time": {"units": "days since 1850-01-01", "calendar": calendar, "dtype": "float64"}}
    for number, part in enumerate((slice(0, half), slice(half, None))):
        dataset.isel(time=part).to_netcdf(folder / f"Amon_{number}.nc", encoding=encoding)
    return str(folder / "Amon_*.nc")
