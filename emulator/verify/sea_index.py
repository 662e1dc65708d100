"""The sea temperature of the tropical Pacific as a series: what regressions of the climate are on.

Nino 3.4 (Trenberth 1997, Bull. Amer. Meteor. Soc. 78, 2771): the mean over 5 S - 5 N, 170 - 120 W, as departures from
the mean of each calendar month.
"""

import numpy as np
import xarray as xr

from emulator.planet.grid import Grid
from emulator.store.masks import counted
from emulator.verify.channels import compact, values
from emulator.verify.climate import BLOCK_BYTES, MONTHS
from emulator.verify.yearly import Moments

FIELD = "sea_surface_temperature"
NORTH, WEST, EAST = 5.0, 190.0, 240.0
LEAST = 0.05  # K; below that the sea follows a fixed annual cycle


def box(grid: Grid) -> np.ndarray:
    """Cells of the index, `(*space)` bool."""
    latitude, longitude = grid.mesh()
    reach = max(NORTH, np.abs(latitude).min() + 1e-6)  # a grid so coarse that it has no row there gives its nearest
    return (np.abs(latitude) <= reach) & (longitude % 360 >= WEST) & (longitude % 360 <= EAST)


def box_means(dataset: xr.Dataset, grid: Grid, positions: np.ndarray) -> np.ndarray | None:
    """Sea temperature of the box at some positions in time, `(time,)`; None where a store does not hold it."""
    if FIELD not in dataset or "time" not in dataset[FIELD].dims or "member" in dataset[FIELD].dims:
        return None
    inside = box(grid) if grid.has_rows or grid.is_points else np.zeros(grid.shape, bool)
    if (exists := counted(dataset, FIELD)) is not None:
        inside = inside & exists.reshape(grid.shape)
    if not inside.any():
        return None
    array, means = dataset[FIELD], np.empty(len(positions))
    block = max(1, BLOCK_BYTES // (8 * inside.size))
    for start in range(0, len(positions), block):
        part = positions[start : start + block]
        fields = values(array.isel(time=compact(part)).transpose("time", *grid.dims)).astype(np.float64)[:, inside]
        weight = np.where(np.isfinite(fields), grid.area[inside], 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            means[start : start + block] = (weight * np.nan_to_num(fields)).sum(axis=1) / weight.sum(axis=1)
    return means


def departures(means: np.ndarray, moments: Moments) -> np.ndarray | None:
    """Monthly departures of `(time,)` at each time, over whole years, 0 outside; None where the sea does not vary.

    The means of single months less the mean of the calendar month, so that what varies within months, or with the season
    alone, is none.
    """
    month, year, inside = moments.month, moments.year, moments.year >= 0
    if not inside.any() or not np.isfinite(means[inside]).all():
        return None
    found = np.zeros(len(means))
    for number in range(MONTHS):
        own = np.flatnonzero(inside & (month == number))
        for label in np.unique(year[own]):
            one = own[year[own] == label]
            found[one] = means[one].mean()
        if len(own):
            found[own] -= found[own].mean()
    deviation = float(np.sqrt(np.mean(found[inside] ** 2)))
    return found if deviation > LEAST else None
