"""A small planet on a fine and on a coarse grid, as two stores of one weather, for the tests of downscaling."""

from pathlib import Path

import numpy as np
import torch
import xarray as xr
from small_planet import small_planet
from small_store import write_store

from emulator.planet.grid import Grid
from emulator.sphere.cell_means import CellMeans

FINE, COARSE = Grid.gaussian(16), Grid.gaussian(8)
NAMES = ["temperature", "surface_pressure", "mean_total_precipitation_rate", "geopotential_at_surface", "land_sea_mask"]
SMALL = {"kind": "unet", "width": 4, "depth": 1}


def fine_planet(times: int = 24, grid: Grid = FINE) -> xr.Dataset:
    """Waves over mountains: every fine field has a part that the coarse ones do not tell, but the place does."""
    planet = small_planet(times, len(grid.latitude), levels=2)[[*NAMES, "half_level_a", "half_level_b"]]
    rough = np.random.default_rng(7).standard_normal(grid.shape)
    planet["geopotential_at_surface"] = planet["geopotential_at_surface"] + (100 * rough).astype(np.float32)
    planet["surface_pressure"] = planet["surface_pressure"] - (50 * rough).astype(np.float32)
    rain = planet["mean_total_precipitation_rate"]
    planet["mean_total_precipitation_rate"] = rain.copy(
        data=np.maximum(rain.values * (1 + rough), 0).astype(np.float32)
    )
    return planet


def coarsened(fine: xr.Dataset, steps: int = 1, grid: Grid = COARSE) -> xr.Dataset:
    """Means of cells, and of every `steps` times of what is a mean; instants of the last of them."""
    own = Grid.from_coordinates(fine["latitude"].values, fine["longitude"].values)
    means, data = CellMeans.of(own, grid), {}
    for name, field in fine.data_vars.items():
        values = field.values
        if "time" in field.dims and steps > 1:
            blocks = values[1:].reshape(-1, steps, *values.shape[1:])
            values = blocks.mean(1) if "mean" in field.attrs["cell_methods"] else blocks[:, -1]
        on_grid = {"latitude", "longitude"} <= set(field.dims)
        data[name] = (field.dims, means(values).astype(np.float32) if on_grid else values, field.attrs)
    times = fine["time"].values[::steps][1 if steps > 1 else 0 :]
    places = {n: (n, getattr(grid, n), fine[n].attrs) for n in ("latitude", "longitude")}
    return xr.Dataset(data, {"level": fine["level"], "time": times, **places}, fine.attrs)


def two_stores(folder: Path, steps: int = 1, times: int = 25) -> tuple[Path, Path]:
    """Paths of the fine and of the coarse store."""
    fine = fine_planet(times)
    return write_store(folder, fine, "fine.zarr"), write_store(folder, coarsened(fine, steps), "coarse.zarr")


class Nothing(torch.nn.Module):
    """A generative network whose output is zero."""

    def forward(self, noisy, time, condition):
        return torch.zeros_like(noisy)
