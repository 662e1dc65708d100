"""A stretched grid: a fine region's store and a globe's as one store of points, what `kind: cutout` writes.

The points are all cells of the region, and after them the cells of the globe whose centres the region does not cover (the
cut-out of Nipen et al. 2024, arXiv 2409.02891). Each keeps its own area; where the region's edge cuts cells of the globe,
areas together differ a little from the sphere's, which the log tells.
"""

import logging

import numpy as np
import xarray as xr

from emulator.ingestion.join import expect_stores
from emulator.ingestion.options import IngestOptions
from emulator.planet.cell_areas import unit_vectors
from emulator.planet.grid import Grid
from emulator.planet.interpolation import to_grid
from emulator.planet.vertical import VERTICAL
from emulator.sphere.icosphere import within
from emulator.store.analysis import open_analysis
from emulator.store.regions import create, finish, finished_fingerprint, write_region
from emulator.store.schema import constants_of, fingerprint, grid_of, horizontal_coordinates

USED = {"sources", "kind", "settings"}  # options that mean something to stores that exist
NO_FIELDS = ("cell_area", "missing", "interpolated")
HALF_LEVELS = ("half_level_a", "half_level_b")
REACH = 0.8  # sides of a fine cell: its corners are 0.71 from its centre where it is square
AREA_TOLERANCE = 0.05  # of the sphere: what coarse cells at the region's edge overlap, or leave open

log = logging.getLogger(__name__)


def cut_out(options: IngestOptions, output) -> None:
    """Writes the store of points of two analysis stores, the first a region's, the second a globe's.

    Times are those that both have values at, fields those that both have. Raises `ValueError` for stores that do not go
    together, and for an option that a cut-out has no use for.
    """
    paths = [part.path for part in expect_stores(options, USED, "cutout")]
    if len(paths) != 2:
        raise ValueError(f"Expected two sources with kind cutout, a region's store and a globe's, got {len(paths)}")
    stores = [open_analysis(path) for path in paths]
    own = fingerprint("cutout", *(str(store.attrs.get("fingerprint")) for store in stores))
    if finished_fingerprint(output) == own:
        log.info("%s is complete for these stores", output)
        return
    grids = [grid_of(store) for store in stores]
    names = _shared_fields(stores, grids)
    outside = np.flatnonzero(~covered(*grids))
    times = [_times(store) for store in stores]
    shared = np.intersect1d(*times)
    if len(shared) < 2:
        raise ValueError(f"Expected two times or more that {paths[0]} and {paths[1]} share, got {len(shared)}")
    grid = _stretched(grids, outside)
    places = [np.searchsorted(own_times, shared) for own_times in times]
    rows = [np.flatnonzero(_there(store))[place] for store, place in zip(stores, places, strict=True)]

    def joined(name, number=None):
        fields = [store[name] for store in stores]
        if number is not None:
            fields = [field.isel(time=row[number]) for field, row in zip(fields, rows, strict=True)]
        inside, beyond = (_cells(field, own_grid) for field, own_grid in zip(fields, grids, strict=True))
        return np.concatenate([inside, beyond[..., outside]], -1)

    moving = [name for name in names if "time" in stores[0][name].dims]
    fixed = {name: joined(name) for name in names if name not in moving}
    create(output, _template(stores[0], moving, fixed, grid, shared).assign_attrs(fingerprint=own), {"time": 1})
    for name in moving:
        for number in range(len(shared)):
            write_region(output, name, joined(name, number)[None], {"time": number})
    finish(output)
    log.info(
        "%s: %d times of %d cells of %s and %d outside of %s", output, len(shared), grids[0].area.size, paths[0],
        len(outside), paths[1],
    )  # fmt: skip


def covered(region: Grid, globe: Grid) -> np.ndarray:
    """Which cells of a globe have their centres in a region, `(cell,)` boolean: between its cells or within reach of one."""
    fine, coarse = (unit_vectors(*(np.ravel(angle) for angle in grid.mesh())) for grid in (region, globe))
    side = float(np.sqrt(4 * np.pi * region.cell_area.max()))
    found = np.zeros(len(coarse), bool)
    found[within(coarse, fine, REACH * side)[0]] = True
    # cells of a box near a pole are longer than wide: between them lies what is in reach of none
    return found if region.is_points else found | np.ravel(to_grid(region, globe)[1])


def _stretched(grids: list[Grid], outside: np.ndarray) -> Grid:
    region, globe = grids
    places = [[np.ravel(angle) for angle in grid.mesh()] for grid in grids]
    latitude, longitude = (np.concatenate([a, b[outside]]) for a, b in zip(*places, strict=True))
    area = np.concatenate([region.cell_area.ravel(), globe.area.ravel()[outside]])
    log.info("the areas of the points are %.5g of the sphere's together", area.sum())
    if abs(area.sum() - 1) > AREA_TOLERANCE:
        raise ValueError(
            f"Expected a region and the globe's cells outside it that cover the sphere once, got {area.sum():.3g} of its area"
        )
    return Grid.points(latitude, longitude % 360, area)


def _shared_fields(stores, grids) -> list[str]:
    """Names of the fields of both stores. Raises `ValueError` where the stores do not go together."""
    region, globe = grids
    if region.is_global() or not globe.is_global() or np.isnan(region.share):
        raise ValueError(
            f"Expected a region with known areas and a globe, in this order, got {region.describe()} and {globe.describe()}"
        )
    for name in (*VERTICAL, *HALF_LEVELS):
        values = [store[name].values if name in store else None for store in stores]
        if (values[0] is None) != (values[1] is None) or (values[0] is not None and not np.array_equal(*values)):
            raise ValueError(f"Expected stores with the same {name}, got others in the region and on the globe")
    if constants_of(stores[0]) != constants_of(stores[1]):
        raise ValueError("Expected stores with the same physical constants, got others")
    names = [str(n) for n in stores[0].data_vars if n in stores[1].data_vars and n not in NO_FIELDS]
    names = [n for n in names if set(grids[0].dims) <= set(stores[0][n].dims)]
    for name in names:
        for what in ("units", "cell_methods", "role"):
            pair = [str(store[name].attrs.get(what, "")) for store in stores]
            if pair[0] != pair[1]:
                raise ValueError(
                    f"Expected {name} with the same {what} in both stores, got {pair[0]!r} and {pair[1]!r}"
                )
    if left := sorted({str(n) for s in stores for n in s.data_vars} - {*names, *NO_FIELDS, *HALF_LEVELS}):
        log.warning("%s are left out: both stores need a field", ", ".join(left))
    if not names:
        raise ValueError("Expected fields that both stores have, got none")
    return names


def _there(store: xr.Dataset) -> np.ndarray:
    return np.ones(store.sizes["time"], bool) if "missing" not in store else ~store["missing"].values.astype(bool)


def _times(store: xr.Dataset) -> np.ndarray:
    return store["time"].values[_there(store)]


def _cells(field: xr.DataArray, grid: Grid) -> np.ndarray:
    """`(..., cell)` of a field at a time."""
    values = field.transpose(..., *grid.dims).values
    return values.reshape(*values.shape[: -len(grid.dims)], -1)


def _template(store: xr.Dataset, moving: list[str], fixed: dict, grid: Grid, times: np.ndarray) -> xr.Dataset:
    """Coordinates, fields without time, and empty ones of the store of points."""
    space = set(grid_of(store).dims)

    def dims(name):
        return tuple(dim for dim in store[name].dims if dim not in space)

    fields = {name: ((*dims(name), "cell"), values, store[name].attrs) for name, values in fixed.items()}
    for name in moving:
        sizes = [len(times) if dim == "time" else store.sizes[dim] for dim in dims(name)]
        empty = np.broadcast_to(np.zeros((), store[name].dtype), (*sizes, grid.area.size))
        fields[name] = ((*dims(name), "cell"), empty, store[name].attrs)
    kept = {name: store[name].variable for name in HALF_LEVELS if name in store}
    kept["cell_area"] = ("cell", grid.area, {"units": "1", "long_name": "share of the sphere"})
    along = {name: store[name].variable for name in store.coords if name in VERTICAL}
    time = {"time": ("time", times, store["time"].attrs)}
    return xr.Dataset(fields | kept, horizontal_coordinates(grid) | along | time, store.attrs)
