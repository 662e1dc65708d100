"""A globe of 16 x 32 cells with a travelling wave, and a box of the same cells: driving data and a limited area."""

from pathlib import Path

import numpy as np
import xarray as xr
from regional_sources import UNITS, wave
from small_store import write_store

from emulator.planet.grid import Grid

GLOBE = Grid.equiangular(16, 32)
ROWS, COLUMNS = slice(3, 12), slice(8, 19)
LEVEL = ("level", np.array([500.0, 850.0]), {"units": "hPa"})


def globe(times: int = 24) -> xr.Dataset:
    """Temperature on two levels and surface pressure, six-hourly, everywhere."""
    time, fields = wave(*np.meshgrid(GLOBE.latitude, GLOBE.longitude, indexing="ij"), times=times)
    dims = {"temperature": ("time", "level"), "surface_pressure": ("time",)}
    data = {n: ((*d, "latitude", "longitude"), fields[n], {"units": UNITS[n]}) for n, d in dims.items()}
    coordinates = {"time": time, "level": LEVEL, "latitude": GLOBE.latitude, "longitude": GLOBE.longitude}
    return xr.Dataset(data, coordinates).assign_attrs(vertical_coordinate="pressure", time_step_seconds=21600.0)


def box(dataset: xr.Dataset) -> xr.Dataset:
    """The cells of the limited area."""
    return dataset.isel(latitude=ROWS, longitude=COLUMNS)


def stores(folder: Path) -> tuple[Path, Path]:
    """Paths of the globe's store and of the box's."""
    whole = globe()
    return write_store(folder, whole, "globe.zarr"), write_store(folder, box(whole), "box.zarr")
