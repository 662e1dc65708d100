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


def on_domain(dataset: xr.Dataset, domain: Grid, static: bool = False) -> xr.Dataset:
    """Forecasts or an analysis at the cells of a limited area, in memory; read and interpolated one (initial) time at a time.

    Bilinear, of a list of points the nearest; fields without times are left out, unless `static`. Raises `ValueError` where
    they do not cover it.
    """
    axes = ["init_time", "lead_time"] if "lead_time" in dataset.dims else ["time"]
    grid = grid_of(dataset)
    corners, covered = to_grid(grid, domain)
    if not covered.all():
        raise ValueError(
            f"Expected driving data that cover {domain.describe()}, those on {grid.describe()} lack "
            f"{int((~covered).sum())} of {covered.size} cells"
        )

    data = {}
    for name, field in dataset.data_vars.items():
        if not {*axes, *grid.dims} & set(field.dims):
            data[name] = field.variable  # coefficients of the levels
        if not set(grid.dims) <= set(field.dims) or not (set(axes) <= set(field.dims) or static):
            continue
        first = [axis for axis in axes[:1] if axis in field.dims]
        field = field.load() if first == ["time"] else field  # at once, which is faster; the caller says how many times
        front = [d for d in field.dims if d not in (*first, *grid.dims)]
        made = np.empty((*(field.sizes[d] for d in (*first, *front)), *domain.shape), np.float32)
        for row, out in enumerate(made if first else [made]):
            one = field.isel({axis: row for axis in first}).load().transpose(*front, *grid.dims).values
            out[:] = interpolated(one.reshape(*one.shape[: len(front)], -1), corners).reshape(out.shape)
        data[name] = ((*first, *front, *domain.dims), made, dict(field.attrs))
    kept = {n: c.variable for n, c in dataset.coords.items() if not set(grid.dims) & {*c.dims, n} and n != "crs"}
    attributes = {name: value for name, value in dataset.attrs.items() if name not in OWN}
    return xr.Dataset(data, kept, attributes).assign_coords(horizontal_coordinates(domain))
