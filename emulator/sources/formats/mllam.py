"""Stores of mllam-data-prep: Zarr arrays `state`, `forcing` and `static` over (time, grid_index, feature).

Features that are pressure levels of one field (`t850hPa`, or `t850` where a `t` is known) become that field, the others
fields of their own names, with the units that the store records. Cells that fill rows and columns get those back. The map is
what the configuration in the store's attributes says for cartopy (`extra: projection`). Statistics in the store are left
alone: with the package's own example configuration its `diff_std` is that of the second difference.
"""

import functools
import logging
import re

import numpy as np
import xarray as xr
import zarr
from xarray.backends import BackendArray
from xarray.core import indexing

from emulator.planet.projection import ROTATED
from emulator.sources.formats.anemoi import attributes_at
from emulator.sources.formats.zarr import FILES
from emulator.sources.open import Format, Request, decoding, register
from emulator.sources.recognise import recognise

log = logging.getLogger(__name__)
KINDS = ("state", "forcing", "static")
PLACES = (("x", "y"), ("longitude", "latitude"), ("lon", "lat"))
LEVEL = re.compile(r"(.+?)_?(\d+(?:\.\d+)?)(hPa)?")
MAPS = {  # cartopy's classes: CF's name and what their arguments are called there
    "LambertConformal": ("lambert_conformal_conic", {"central_longitude": "longitude_of_central_meridian"}),
    "AlbersEqualArea": ("albers_conical_equal_area", {"central_longitude": "longitude_of_central_meridian"}),
    "LambertAzimuthalEqualArea": ("lambert_azimuthal_equal_area", {}),
    "Mercator": ("mercator", {}),
    "RotatedPole": (ROTATED, {}),
}
ARGUMENTS = {
    "central_longitude": "longitude_of_projection_origin",
    "central_latitude": "latitude_of_projection_origin",
    "standard_parallels": "standard_parallel",
    "pole_longitude": "grid_north_pole_longitude",
    "pole_latitude": "grid_north_pole_latitude",
    "false_easting": "false_easting",
    "false_northing": "false_northing",
    "semimajor_axis": "semi_major_axis",
    "semiminor_axis": "semi_minor_axis",
}
LOOKS = 5  # chunks of times that are read for values of a feature without a mean
KEPT_CHUNKS = 6  # of a process, each all features at some times: the fields of a slab are read one after the other


def holds(path: str) -> bool:
    """Whether the Zarr store at a path or URL is one of mllam-data-prep."""
    return "mllam-data-prep" in str(attributes_at(path).get("created_with", ""))


def opens(location: str, path: str, request: Request) -> list[xr.Dataset]:
    """A dataset of the fields without levels, and one of those on each set of levels, `([time,] [level,] y, x)` or `cell`.

    Raises `ValueError` naming the path for a map that CF has no name for, and for other layouts.
    """
    with decoding("mllam-data-prep", path):
        group = zarr.open_group(location, mode="r")
        attributes, raw = dict(group.attrs), xr.open_zarr(location, chunks=None)
        kinds = [kind for kind in KINDS if kind in raw]
        if not kinds:
            raise ValueError(f"Expected state, forcing or static in the store of mllam-data-prep {path}, got none")
        places, space, order = _places(raw, path)
        mapping = _mapping(str(attributes.get("creation_config", "")), path) if space == ("y", "x") else None
        written = str(attributes.get("created_on"))
        datasets: dict[tuple, dict] = {}
        for kind in kinds:
            for (name, leveled), parts in _fields(raw, kind, path).items():
                own = {"units": parts[0][2]} if parts[0][2] else {}
                own |= {"grid_mapping": "crs"} if mapping else {}
                array = _Field((location, written), raw[kind], [n for n, *_ in parts], leveled, (order, space, places))
                dims = (*["time"] * ("time" in raw[kind].dims), *["level"] * leveled, *space)
                levels = tuple(level for _, level, _ in parts) if leveled else ()
                datasets.setdefault(levels, {})[name] = (dims, indexing.LazilyIndexedArray(array), own)
        shared = {
            name: ((name,) if name in space else ("cell",), values, own) for name, (values, own) in places.items()
        }
        shared |= {"time": ("time", raw["time"].values)} if "time" in raw else {}
        found = []
        for levels, fields in datasets.items():
            axis = {"level": ("level", np.array(levels), {"units": "hPa"})} if levels else {}
            more = {"crs": ((), 0, mapping)} if mapping else {}
            found.append(xr.Dataset(fields | more, shared | axis))
        return found


def _fields(raw: xr.Dataset, kind: str, path: str) -> dict[tuple[str, bool], list[tuple[int, float, str]]]:
    """(Name, whether it has levels) -> (position, level, units) of the features of it, by increasing level.

    Where a source's variables are on different levels, the package writes all of them on all levels: those without a value
    are left out.
    """
    names = [str(name) for name in raw[f"{kind}_feature"].values]
    empty = _without_values(raw, kind)
    if empty.any():
        left_out = ", ".join(name for name, none in zip(names, empty, strict=True) if none)
        log.warning(
            "%s of %s are left out: the store has no mean of them, and they have no value at the times that were looked at, "
            "from the first to the last",
            left_out,
            path,
        )
    units = raw.coords.get(f"{kind}_feature_units")
    units = [""] * len(names) if units is None else [str(unit) for unit in units.values]
    found: dict[tuple[str, bool], list] = {}
    for number, (name, unit) in enumerate(zip(names, units, strict=True)):
        if empty[number]:
            continue
        match = LEVEL.fullmatch(name)
        known = match and not recognise(name, {}, None) and recognise(match[1], {}, "level")
        leveled = bool(match and (match[3] or known))
        key, level = (match[1], float(match[2])) if leveled else (name, 0.0)
        found.setdefault((key, leveled), []).append((number, level, unit))
    return {key: sorted(parts, key=lambda part: part[1]) for key, parts in found.items()}


def _without_values(raw: xr.Dataset, kind: str) -> np.ndarray:
    """Which features have no value, `(feature,)` boolean: no mean in any split, nor a value at the times looked at.

    Means are over the dimensions that the store's configuration chose; of those that are left a feature with one mean has
    values. A split has no mean of what exists at other times alone, hence the look at the array itself.
    """
    array, feature = raw[kind], f"{kind}_feature"
    means = [raw[name] for name in raw if re.fullmatch(f"{kind}__.+__mean", str(name))]
    means = [mean for mean in means if feature in mean.dims]
    empty = np.full(array.sizes[feature], bool(means))
    for mean in means:
        empty &= mean.isnull().all([dim for dim in mean.dims if dim != feature]).values
    for some in _looked_at(array):
        asked = np.flatnonzero(empty)
        if not len(asked):
            break
        own = some.isel({feature: asked})
        empty[asked] = own.isnull().all([dim for dim in own.dims if dim != feature]).values
    return empty


def _looked_at(array: xr.DataArray) -> list[xr.DataArray]:
    """`LOOKS` chunks of an array's times, spread evenly from the first to the last; all of one without times."""
    if "time" not in array.dims:
        return [array]
    count = array.sizes["time"]
    length = array.encoding.get("preferred_chunks", {}).get("time", count)
    first = np.unique(np.linspace(0, -(-count // length) - 1, LOOKS).round().astype(int)) * length
    return [array.isel(time=slice(start, start + length)) for start in first]


def _places(raw: xr.Dataset, path: str):
    """Coordinates (values and attributes) by name, dimensions of a field, and the store's cells in their order."""
    for east, north in PLACES:
        if not {east, north} <= {*raw.coords}:
            continue
        x, y = (np.asarray(raw[name].values, np.float64) for name in (east, north))
        if x.shape != y.shape or x.ndim != 1:
            raise ValueError(
                f"Expected {east} and {north} of every cell in {path}, got the shapes {x.shape} and {y.shape}"
            )
        columns, rows = np.unique(x), np.unique(y)[::-1]
        own = {"units": "m"} if east == "x" else {"units": "degrees"}
        order = np.full(len(rows) * len(columns), -1)
        if len(order) == len(x):
            order[np.searchsorted(-rows, -y) * len(columns) + np.searchsorted(columns, x)] = np.arange(len(x))
        names = ("x", "y") if east == "x" else ("longitude", "latitude")
        attributes = [dict(raw[name].attrs) or own for name in (east, north)]
        if (order >= 0).all():
            values = dict(zip(names, zip((columns, rows), attributes, strict=True), strict=True))
            return values, (names[1], names[0]), order
        return dict(zip(names, zip((x, y), attributes, strict=True), strict=True)), ("cell",), np.arange(len(x))
    words = ", or ".join(" and ".join(pair) for pair in PLACES)
    raise ValueError(f"Expected {words} of every cell in the store of mllam-data-prep {path}, got none")


def _mapping(config: str, path: str) -> dict | None:
    """CF attributes of the map that the store's configuration has for cartopy; None for one without, or in degrees."""
    given = re.search(r"^( *)projection: *\n((?:\1 +.*\n?)+)", config, re.MULTILINE)
    if given is None:
        return None
    kind = re.search(r"class_name: *['\"]?(\w+)", given[2])
    if kind is None or kind[1] not in MAPS:
        raise ValueError(
            f"Expected one of cartopy's maps {', '.join(MAPS)} in the configuration of {path}, got "
            f"{kind[1] if kind else 'none'}"
        )
    name, own = MAPS[kind[1]]
    attributes: dict = {"grid_mapping_name": name}
    for argument, ours in (ARGUMENTS | own).items():
        values = re.search(rf"\b{argument}:([^:]*?)(?=\s*\w+:|\Z)", given[2])  # up to the next key
        if values is not None:
            found = [float(each) for each in re.findall(r"[-+]?\d[\d.eE+-]*", values[1])]
            attributes[ours] = found if len(found) > 1 else found[0]
    return attributes


class _Field(BackendArray):
    """One field of a store, as xarray's backends have them: indexed along every dimension on its own.

    Args:
      store: location and when it was written. array: of all features. features: positions of the field's levels, one for a
        field without (`leveled`). space: order of the cells, dimensions and coordinates of a field.
    """

    def __init__(self, store: tuple[str, str], array: xr.DataArray, features: list[int], leveled: bool, space: tuple):
        order, dims, places = space
        self._store, self._kind, self._dims = store, array.name, array.dims
        self._features, self._leveled, self._order = features, leveled, order
        self._space = (len(order),) if dims == ("cell",) else tuple(len(places[dim][0]) for dim in dims)
        self._timed = "time" in array.dims
        self.dtype = array.dtype
        times = (array.sizes["time"],) if self._timed else ()
        self.shape = (*times, *[len(features)] * leveled, *self._space)

    def __getitem__(self, key):
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple) -> np.ndarray:
        if not self._timed:
            return _indexed(self._at(None), key)
        times = np.arange(self.shape[0])[key[0]]
        if np.ndim(times) == 0:
            return _indexed(self._at(int(times)), key[1:])
        if not len(times):
            return _indexed(np.empty(self.shape, self.dtype)[:0], (slice(None), *key[1:]))
        return np.stack([_indexed(self._at(int(time)), key[1:]) for time in times])

    def _at(self, time: int | None) -> np.ndarray:
        """The field at a time: `([level,] *space)`."""
        values = _chunk(*self._store, self._kind, self._dims, time)[self._order][:, self._features]
        values = values.T.reshape(len(self._features), *self._space)
        return values if self._leveled else values[0]


def _indexed(values: np.ndarray, key: tuple) -> np.ndarray:
    for axis in reversed(range(len(key))):
        values = values[(slice(None),) * axis + (key[axis],)]
    return values


def _chunk(location: str, written: str, kind: str, dims: tuple[str, ...], time: int | None) -> np.ndarray:
    """`(cell, feature)` of an array at a time."""
    array = _array(location, written, kind)
    first = 0 if time is None else time // array.chunks[dims.index("time")]
    values = _kept(location, written, kind, dims, first)
    return values if time is None else values[time % array.chunks[dims.index("time")]]


@functools.lru_cache(maxsize=KEPT_CHUNKS)
def _kept(location: str, written: str, kind: str, dims: tuple[str, ...], number: int) -> np.ndarray:
    """`([time,] cell, feature)` of the chunk of times of that number."""
    array, axis = _array(location, written, kind), dims.index("time") if "time" in dims else None
    if axis is None:
        values = array[:]
    else:
        length = array.chunks[axis]
        values = array[
            tuple(slice(number * length, (number + 1) * length) if n == axis else slice(None) for n in range(len(dims)))
        ]
    wanted = [*["time"] * (axis is not None), "grid_index", f"{kind}_feature"]
    return values.transpose([dims.index(name) for name in wanted])


@functools.lru_cache(maxsize=8)
def _array(location: str, written: str, kind: str) -> zarr.Array:
    """An array of a store, opened once in a process."""
    return zarr.open_group(location, mode="r")[kind]


register(
    Format(
        "mllam", "Zarr of mllam-data-prep", opens, folder_files=FILES, suffixes=(".zarr",), reads_urls=True, holds=holds
    )
)
