"""Forecasts of a driving model on a limited area's cells, with which the limited area's own are compared (added value)."""

import dataclasses

import numpy as np
import xarray as xr

from emulator.planet.grid import Grid
from emulator.planet.interpolation import interpolated, to_grid
from emulator.store.schema import grid_of, horizontal_coordinates

OWN = ("emulator_schema", "fingerprint")  # of the store as it lies on disk


@dataclasses.dataclass(frozen=True)
class Driving:
    """A path or dataset of forecasts that are interpolated to the truth's grid before they are scored."""

    source: object


def on_domain(dataset: xr.Dataset, domain: Grid) -> xr.Dataset:
    """Forecasts at the cells of a limited area, in memory; read and interpolated one initial time at a time.

    Bilinear, of a list of points the nearest; static fields are left out. Raises `ValueError` where they do not cover it.
    """
    grid = grid_of(dataset)
    corners, covered = to_grid(grid, domain)
    if not covered.all():
        raise ValueError(
            f"Expected driving forecasts that cover {domain.describe()}, those on {grid.describe()} lack "
            f"{int((~covered).sum())} of {covered.size} cells"
        )

    data = {}
    for name, field in dataset.data_vars.items():
        if not {"init_time", "lead_time", *grid.dims} & set(field.dims):
            data[name] = field.variable  # coefficients of the levels
        if not {"init_time", "lead_time", *grid.dims} <= set(field.dims):
            continue
        front = [d for d in field.dims if d not in ("init_time", *grid.dims)]
        made = np.empty((field.sizes["init_time"], *(field.sizes[d] for d in front), *domain.shape), np.float32)
        for row, out in enumerate(made):
            one = field.isel(init_time=row).load().transpose(*front, *grid.dims).values
            out[:] = interpolated(one.reshape(*one.shape[: len(front)], -1), corners).reshape(out.shape)
        data[name] = (("init_time", *front, *domain.dims), made, dict(field.attrs))
    kept = {n: c.variable for n, c in dataset.coords.items() if not set(grid.dims) & {*c.dims, n} and n != "crs"}
    attributes = {name: value for name, value in dataset.attrs.items() if name not in OWN}
    return xr.Dataset(data, kept, attributes).assign_coords(horizontal_coordinates(domain))
