"""A gridded dataset at stations: nearest cell or bilinear, with a correction for the height of the ground."""

import numpy as np
import xarray as xr

from emulator.planet.constants import ERA5
from emulator.planet.grid import Grid
from emulator.planet.interpolation import bilinear, nearest, within
from emulator.planet.vertical import VERTICAL, vertical_of
from emulator.store.masks import domain_of, mask_is_known
from emulator.store.schema import constants_of, grid_of

LAPSE_RATE = 0.0065  # K m-1, of the standard atmosphere
STANDARD_TEMPERATURE = 288.15  # K, of the standard atmosphere at sea level
TEMPERATURES = ("2m_temperature",)
METHODS = ("bilinear", "nearest")


def at_points(dataset: xr.Dataset, points: xr.Dataset, method: str = "bilinear", lapse_rate: float = LAPSE_RATE):
    """Fields without levels at the points of `points` (`cell`, with `latitude`, `longitude` and `elevation`).

    With `geopotential_at_surface` in the dataset, temperature at 2 m is carried from the model's ground to the station's by
    `lapse_rate`, and surface pressure by the hydrostatic equation; the attribute `height_correction` says what was done.
    Points north of the first or south of the last row take that row. On a map the cells around a point are those in `x` and
    `y`. Of a field with a domain those of the cells count in which it exists; without any the point is missing. Raises
    `ValueError` for an unknown method, and for points outside a box or a map.
    """
    if method not in METHODS:
        raise ValueError(f"Expected an interpolation among {', '.join(METHODS)}, got {method!r}")
    grid = grid_of(dataset)
    latitude, longitude = points["latitude"].values, points["longitude"].values
    if not (inside := within(grid, latitude, longitude)).all():
        raise ValueError(f"Expected stations within the grid {grid.describe()}, {int((~inside).sum())} are not")
    index, weight, _ = (nearest if method == "nearest" else bilinear)(grid, latitude, longitude)
    data = {}
    for name, field in dataset.data_vars.items():
        if set(grid.dims) <= set(field.dims) and vertical_of(field.dims) is None:
            exists = domain_of(dataset, str(name)) if mask_is_known(dataset, str(name)) else None
            data[name] = _interpolated(field, grid, index, weight, exists)
    fields = xr.Dataset(data, {n: c for n, c in dataset.coords.items() if not set(grid.dims) & {*c.dims, n}})
    fields = fields.drop_vars([n for n in VERTICAL if n in fields.coords])
    fields = fields.assign_coords({n: points[n].variable for n in ("station", "latitude", "longitude", "elevation")})
    fields.attrs = dict(dataset.attrs)
    fields.attrs.pop("vertical_coordinate", None)
    fields["cell_area"] = points["cell_area"].variable
    return _at_height(fields, points, lapse_rate, constants_of(dataset))


def _interpolated(field: xr.DataArray, grid: Grid, index, weight, exists=None) -> xr.DataArray:
    """`index` `(corner, cell)` into the flat grid and `weight` of the same shape -> the field over `cell`, everywhere."""
    if exists is not None:
        weight = weight * exists.ravel()[index]
        with np.errstate(invalid="ignore", divide="ignore"):
            weight = weight / weight.sum(axis=0)
    front = [d for d in field.dims if d not in grid.dims]
    if field.dims != (*front, *grid.dims):
        field = field.load().transpose(*front, *grid.dims)  # a lazily transposed array is read point by point
    count = field.sizes[front[0]] if front else 1
    parts = []
    for start in range(count):  # one initial time at a time: memory stays bounded
        part = field.isel({front[0]: slice(start, start + 1)}) if front else field
        flat = np.asarray(part.values, np.float64).reshape(*part.shape[: len(front)], -1)
        corners = flat[..., index] if exists is None else np.where(exists.ravel()[index], flat[..., index], 0.0)
        parts.append(np.einsum("...kc,kc->...c", corners, weight))
    attributes = {name: value for name, value in field.attrs.items() if name != "domain"}
    return xr.DataArray(np.concatenate(parts) if front else parts[0], dims=(*front, "cell"), attrs=attributes)


def _at_height(fields, points, lapse_rate, constants) -> xr.Dataset:
    if "geopotential_at_surface" not in fields or not np.isfinite(points["elevation"].values).any():
        return fields.assign_attrs(height_correction="none: no height of the model's or the stations' ground is known")
    ground = fields["geopotential_at_surface"] / ERA5.gravity
    above = (points["elevation"].variable - ground.variable).values  # station over the model's ground, m
    above = xr.Variable("cell", np.nan_to_num(above))
    done = []
    warmth = fields["2m_temperature"] if "2m_temperature" in fields else STANDARD_TEMPERATURE
    if "surface_pressure" in fields:
        middle = warmth - lapse_rate * above / 2
        factor = np.exp(-constants.gravity * above / (constants.gas_constant_dry_air * middle))
        fields["surface_pressure"] = (fields["surface_pressure"] * factor).assign_attrs(
            fields["surface_pressure"].attrs
        )
        done.append("surface pressure hydrostatically")
    for name in TEMPERATURES:
        if name in fields and lapse_rate:
            fields[name] = (fields[name] - lapse_rate * above).assign_attrs(fields[name].attrs)
            done.append(f"{name} by {1000 * lapse_rate:g} K per km")
    largest = float(np.abs(above.values).max(initial=0.0))
    return fields.assign_attrs(
        height_correction=(", ".join(done) or "none") + f"; stations up to {largest:.0f} m from the model's ground"
    )
