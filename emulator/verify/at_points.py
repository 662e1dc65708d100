"""A gridded dataset at stations: nearest cell or bilinear, with a correction for the height of the ground."""

import numpy as np
import xarray as xr

from emulator.planet.cell_areas import unit_vectors
from emulator.planet.constants import ERA5
from emulator.planet.grid import Grid
from emulator.planet.projection import from_sphere
from emulator.planet.vertical import VERTICAL, vertical_of
from emulator.store.masks import domain_of, mask_is_known
from emulator.store.schema import constants_of, grid_of

LAPSE_RATE = 0.0065  # K m-1, of the standard atmosphere
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
    _check_inside(grid, latitude, longitude)
    index, weight = _nearest(grid, latitude, longitude) if method == "nearest" else _bilinear(grid, latitude, longitude)
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


def _nearest(grid: Grid, latitude, longitude):
    """The cell whose centre is nearest on the sphere, `(1, cell)` each."""
    there = unit_vectors(*(a.ravel() for a in grid.mesh()))
    here = unit_vectors(latitude, longitude)
    index = np.array([np.argmax(there @ point) for point in here])
    return index[None], np.ones((1, len(index)))


def _bilinear(grid: Grid, latitude, longitude):
    """The four cells around each point and their weights, `(4, cell)` each; longitudes wrap where rows go round."""
    if grid.is_points:
        raise ValueError(f"Expected rows and columns for bilinear interpolation, got {grid.describe()}; take nearest")
    rows, columns, north, east = _along_axes(grid, latitude, longitude)
    below = np.clip(np.searchsorted(-rows, -north), 1, len(rows) - 1)
    share = np.clip((rows[below - 1] - north) / (rows[below - 1] - rows[below]), 0, 1)
    last = len(columns) - (0 if grid.goes_round else 1)
    edges = np.concatenate([columns, [columns[0] + 360]]) if grid.goes_round else columns
    west = np.clip(np.searchsorted(edges, east, side="right") - 1, 0, last - 1)
    along = np.clip((east - edges[west]) / (edges[west + 1] - edges[west]), 0, 1)
    after = (west + 1) % len(columns)
    index = [r * len(columns) + c for r in (below - 1, below) for c in (west, after)]
    weight = [a * b for a in (1 - share, share) for b in (1 - along, along)]
    return np.stack(index), np.stack(weight)


def _along_axes(grid: Grid, latitude, longitude):
    """Decreasing coordinates of the rows, increasing ones of the columns, and those of the points."""
    if grid.kind == "projected":
        x, y = from_sphere(grid.mapping, latitude, longitude)
        return grid.y, grid.x, y, x
    columns, half = grid.longitude, np.diff(grid.longitude).mean() / 2
    first = columns[0] - (0 if grid.goes_round else half)  # a point half a cell west of a box is not a turn east of it
    return grid.latitude, columns, latitude, (longitude - first) % 360 + first


def _check_inside(grid: Grid, latitude, longitude) -> None:
    """Raises `ValueError` for points further than half a cell outside a box or a map."""
    if grid.is_global() or grid.is_points:
        return
    rows, columns, north, east = _along_axes(grid, latitude, longitude)
    steps = [np.abs(np.diff(axis)).max() / 2 for axis in (rows, columns)]
    inside = (north <= rows[0] + steps[0]) & (north >= rows[-1] - steps[0])
    if not grid.goes_round:
        inside &= (east >= columns[0] - steps[1]) & (east <= columns[-1] + steps[1])
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
