"""A gridded dataset at stations: nearest cell or bilinear, with a correction for the height of the ground."""

import numpy as np
import xarray as xr

from emulator.planet.constants import ERA5
from emulator.planet.grid import Grid
from emulator.planet.vertical import VERTICAL, vertical_of
from emulator.store.masks import domain_of
from emulator.store.schema import constants_of, grid_of

LAPSE_RATE = 0.0065  # K m-1, of the standard atmosphere
TEMPERATURES = ("2m_temperature",)
METHODS = ("bilinear", "nearest")


def at_points(dataset: xr.Dataset, points: xr.Dataset, method: str = "bilinear", lapse_rate: float = LAPSE_RATE):
    """Fields without levels at the points of `points` (`cell`, with `latitude`, `longitude` and `elevation`).

    With `geopotential_at_surface` in the dataset, temperature at 2 m is carried from the model's ground to the station's by
    `lapse_rate`, and surface pressure by the hydrostatic equation; the attribute `height_correction` says what was done.
    Points north of the first or south of the last row take that row. Of a field with a domain those of the cells count in
    which it exists; without any the point is missing. Raises `ValueError` for an unknown method, and for points outside a
    regional grid.
    """
    if method not in METHODS:
        raise ValueError(f"Expected an interpolation among {', '.join(METHODS)}, got {method!r}")
    grid = grid_of(dataset)
    latitude, longitude = points["latitude"].values, points["longitude"].values
    index, weight = _nearest(grid, latitude, longitude) if method == "nearest" else _bilinear(grid, latitude, longitude)
    data = {}
    for name, field in dataset.data_vars.items():
        if set(grid.dims) <= set(field.dims) and vertical_of(field.dims) is None:
            data[name] = _interpolated(field, grid, index, weight, domain_of(dataset, str(name)))
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


def _nearest(grid: Grid, latitude, longitude):
    """The cell whose centre is nearest on the sphere, `(1, cell)` each."""
    there = _vectors(*(a.ravel() for a in grid.mesh()))
    here = _vectors(latitude, longitude)
    index = np.array([np.argmax(there @ point) for point in here])
    return index[None], np.ones((1, len(index)))


def _vectors(latitude, longitude):
    phi, lam = np.radians(latitude), np.radians(longitude)
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)


def _bilinear(grid: Grid, latitude, longitude):
    """The four cells around each point and their weights, `(4, cell)` each; longitudes wrap on a global grid."""
    if grid.kind == "points":
        raise ValueError(f"Expected rows and columns for bilinear interpolation, got {grid.describe()}; take nearest")
    rows, columns = grid.latitude, grid.longitude
    _check_inside(grid, latitude, longitude)
    below = np.clip(np.searchsorted(-rows, -latitude), 1, len(rows) - 1)
    share = np.clip((rows[below - 1] - latitude) / (rows[below - 1] - rows[below]), 0, 1)
    edges = np.concatenate([columns, [columns[0] + 360]])
    turned = (longitude - columns[0]) % 360 + columns[0]
    last = len(columns) - (0 if _wraps(columns) else 1)
    west = np.clip(np.searchsorted(edges, turned, side="right") - 1, 0, last - 1)
    along = (turned - edges[west]) / (edges[west + 1] - edges[west])
    east = (west + 1) % len(columns)
    index = [r * len(columns) + c for r in (below - 1, below) for c in (west, east)]
    weight = [a * b for a in (1 - share, share) for b in (1 - along, along)]
    return np.stack(index), np.stack(weight)


def _wraps(columns) -> bool:
    return bool(np.isclose(columns[-1] - columns[0] + np.diff(columns).mean(), 360, rtol=1e-3))


def _check_inside(grid, latitude, longitude):
    if grid.is_global():
        return
    step = np.abs(np.diff(grid.latitude)).max()
    inside = (latitude <= grid.latitude[0] + step / 2) & (latitude >= grid.latitude[-1] - step / 2)
    if not _wraps(grid.longitude):
        inside &= (longitude - grid.longitude[0]) % 360 <= grid.longitude[-1] - grid.longitude[0]
    if not inside.all():
        raise ValueError(f"Expected stations within the grid {grid.describe()}, {int((~inside).sum())} are not")


def _at_height(fields, points, lapse_rate, constants) -> xr.Dataset:
    if "geopotential_at_surface" not in fields or not np.isfinite(points["elevation"].values).any():
        return fields.assign_attrs(height_correction="none: no height of the model's or the stations' ground is known")
    ground = fields["geopotential_at_surface"] / ERA5.gravity
    above = (points["elevation"].variable - ground.variable).values  # station over the model's ground, m
    above = xr.Variable("cell", np.nan_to_num(above))
    done = []
    warmth = fields["2m_temperature"] if "2m_temperature" in fields else 288.15
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
