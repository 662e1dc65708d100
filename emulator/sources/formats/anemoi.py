"""Stores of anemoi-datasets: one Zarr array `data` (time, variable, ensemble, cell), whose attributes say what it holds.

Variables that are levels of one field (`t_500`, `t_850`) become that field, cells of a grid with rows and columns get those
back, and missing dates are no times. What anemoi computes from time and place alone is left out. A chunk holds all variables
at a time: those of a slab of an ingest are decompressed once and kept, as far as `KEPT_BYTES` goes.
"""

import collections
import functools
import json
import logging
import re
import threading

import fsspec
import numpy as np
import xarray as xr
import zarr
from xarray.backends import BackendArray
from xarray.core import indexing

from emulator.planet.units import amount_units
from emulator.planet.variables import VARIABLES
from emulator.sources.formats.zarr import FILES
from emulator.sources.open import Format, Request, decoding, register
from emulator.sources.recognise import recognise

DIMENSIONS = ("time", "variable", "ensemble", "cell")
VERSIONS = re.compile(r"0\.\d+(\.\d+)?")  # 0.22 is that of anemoi-datasets 0.5.47
COMPUTED = re.compile(
    r"(cos|sin)_(julian_day|latitude|local_time|longitude)|cos_solar_zenith_angle|insolation|latitude|longitude"
)  # where a store does not record `computed_forcing`
LEVELS = {"pl": "hPa", "ml": "hybrid_sigma_pressure"}  # units of `levelist` by MARS's `levtype`
METHODS = {"average": "mean", "accumulation": "sum"}
UNIT_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
STRAIGHT = 1e-4  # degrees within which the places of a row or a column are the same
KEPT_BYTES = (
    768 << 20
)  # of decompressed chunks in a process: all variables of a slab, whatever the grid, are about 512 MB

KEPT: collections.OrderedDict[tuple, np.ndarray] = (
    collections.OrderedDict()
)  # chunks of this process, the latest used last
LOCK = threading.Lock()
log = logging.getLogger(__name__)


def holds(path: str) -> bool:
    """Whether the Zarr store at a path or URL is one of anemoi-datasets."""
    attributes = attributes_at(path)
    return {"variables", "missing_dates"} <= {*attributes} or {"variables", "order_by"} <= {*attributes}


def attributes_at(path: str) -> dict:
    """Attributes of the Zarr 2 or 3 group at a path; none where there is no such group."""
    system, inner = fsspec.core.url_to_fs(path)
    for name in (".zattrs", "zarr.json"):
        try:
            found = json.loads(system.cat_file(f"{inner.rstrip('/')}/{name}"))
        except (OSError, ValueError):
            continue
        return found if name == ".zattrs" else found.get("attributes", {})
    return {}


def opens(location: str, path: str, request: Request) -> list[xr.Dataset]:
    """A dataset of the fields without levels, and one of those on each set of levels.

    Fields are `(time, [number,] [level,] latitude, longitude)`, or `(..., cell)` on other grids, with `units`, `cell_methods`
    and `intervals` (hours that values cover) as far as the store records them. Raises `ValueError` naming the path for
    layouts other than the gridded one of versions 0.*.
    """
    with decoding("anemoi-datasets", path):
        group = zarr.open_group(location, mode="r")
        attributes = dict(group.attrs)
        _check_layout(attributes, group, path)
        data, dates = group["data"], np.asarray(group["dates"][:]).astype("datetime64[ns]")
        if len(dates) != data.shape[0] or len(attributes["variables"]) != data.shape[1]:
            raise ValueError(
                f"Expected {data.shape[0]} dates and {data.shape[1]} variables in {path}, got {len(dates)} and "
                f"{len(attributes['variables'])}"
            )
        times = np.flatnonzero(~np.isin(dates, np.array(attributes.get("missing_dates", ()), "datetime64[ns]")))
        place, space, shape = _places(group, attributes)
        shared = place | {"time": ("time", dates[times])}
        members = data.shape[2] > 1
        if members:
            shared["number"] = ("number", _members(attributes, data.shape[2]))
        columns = _Columns(location, (attributes.get("uuid"), attributes.get("latest_write_timestamp")))
        fields: dict[tuple, dict] = {}
        for name, parts in _fields(attributes, path).items():
            levels = tuple(level for _, level, _ in parts)
            own = dict(parts[0][2])
            vertical = own.pop("vertical", None)
            if "hours" in own:
                own["intervals"] = np.broadcast_to(own.pop("hours"), (len(times), 1))
            wanted = np.array([number for number, _, _ in parts])
            array = _AnemoiArray(columns, data, times, wanted, vertical is not None, shape)
            dims = ("time", *["number"] * members, *["level"] * (vertical is not None), *space)
            encoding = {"preferred_chunks": {"time": data.chunks[0]}}
            fields.setdefault((levels, vertical) if vertical else (), {})[name[0]] = (
                dims, indexing.LazilyIndexedArray(array), own, encoding
            )  # fmt: skip
        return [xr.Dataset(some, shared | _level(*key)) for key, some in fields.items()]


def _level(values: tuple = (), units: str = "") -> dict:
    return {"level": ("level", np.array(values), {"units": units})} if values else {}


def _check_layout(attributes: dict, group: zarr.Group, path: str) -> None:
    """Raises `ValueError` for what is none of the layouts that are known here."""
    layout, version = attributes.get("layout", "gridded"), str(attributes.get("version", "0.1"))
    if layout != "gridded":
        raise ValueError(f"Expected a store of anemoi-datasets with the layout gridded at {path}, got {layout}")
    if not VERSIONS.fullmatch(version):
        raise ValueError(f"Expected a store of anemoi-datasets of a version 0.* at {path}, got version {version}")
    if "variables" not in attributes or not {"data", "dates"} <= {*group.array_keys()}:
        raise ValueError(f"Expected data, dates and variables of a store of anemoi-datasets at {path}, got none")
    if (shape := group["data"].shape) and len(shape) != len(DIMENSIONS):
        raise ValueError(f"Expected data {DIMENSIONS} in the anemoi store {path}, got the shape {shape}")


def _fields(attributes: dict, path: str) -> dict[tuple, list[tuple[int, float | None, dict]]]:
    """(Name, kind of levels) -> (position in the store, level, attributes) of every variable of it, by increasing level."""
    found, computed, bare = {}, [], []
    for number, name in enumerate(attributes["variables"]):
        recorded = attributes.get("variables_metadata", {}).get(name, {})
        if recorded.get("computed_forcing") or COMPUTED.fullmatch(name):
            computed.append(name)
            continue
        param, level, own = _meaning(name, recorded)
        if "units" not in own and (units := _units_of_ecmwf(param, level)):
            own["units"] = units
            bare.append(name)
        found.setdefault((param, own.get("vertical")), []).append((number, level, own))
    if computed:
        log.info("%s of %s are left out: time and place alone tell them", ", ".join(computed), path)
    if bare:
        log.warning("%s records no units of %s: ECMWF's are taken", path, ", ".join(bare))
    return {key: sorted(parts, key=lambda part: part[1] or 0.0) for key, parts in found.items()}


def _meaning(name: str, recorded: dict) -> tuple[str, float | None, dict]:
    """The field that a variable is a level of, the level, and what is recorded of it: as MARS has it, else by its name."""
    mars, own = recorded.get("mars") or {}, {}
    units = recorded.get("units") or mars.get("units")
    own |= {"units": str(units)} if units else {}
    if number := (recorded.get("grib") or {}).get("paramId"):
        own["GRIB_paramId"] = number
    if process := recorded.get("process"):
        own["cell_methods"] = f"time: {METHODS.get(process, process)}"
        start, end = (_seconds(text) for text in recorded.get("period") or (0, 0))
        own |= {"hours": (end - start) / 3600} if end > start else {}
    level, kind = mars.get("levelist", mars.get("level")), mars.get("levtype")
    match = re.fullmatch(r"(.+)_(\d+(?:\.\d+)?)", name)
    if kind is None and match and recognise(match[1], {}, "level"):
        level, kind = match[2], "pl"
    if kind not in LEVELS or level is None:
        return name, None, own
    param = match[1] if match and float(match[2]) == float(level) else str(mars.get("param", name))
    return param, float(level), own | {"vertical": LEVELS[kind]}


def _seconds(text) -> float:
    """A time such as 6h or 1d as anemoi writes it."""
    parts = re.findall(r"(-?\d+)([dhms])", str(text)) or [(str(text), "h")]
    return float(sum(int(number) * UNIT_SECONDS[unit] for number, unit in parts))


def _units_of_ecmwf(param: str, level: float | None) -> str | None:
    """The units of a field of ECMWF's archive by its short name: of amounts as `amount_units` has them."""
    if not (matches := recognise(param, {}, None if level is None else "level")):
        return None
    entry = VARIABLES[matches[0].name]
    is_rate = param == entry.short or param.startswith("avg_")
    return amount_units(entry) if entry.cell == "mean" and not is_rate else entry.units


def _members(attributes: dict, count: int) -> np.ndarray:
    """Numbers of the members where a variable records them, else counted from 0."""
    recorded = ((v.get("mars") or {}).get("number") for v in attributes.get("variables_metadata", {}).values())
    numbers = next((n for n in recorded if isinstance(n, list) and len(n) == count), range(count))
    return np.array(numbers, np.int64)


def _places(group: zarr.Group, attributes: dict) -> tuple[dict, tuple[str, ...], tuple[int, ...]]:
    """Latitudes and longitudes, of rows and columns where the cells are such; dimensions and shape of a field."""
    names = {*group.array_keys()}
    north, east = (
        np.asarray(group[n if n in names else n.removesuffix("s")][:], np.float64) for n in ("latitudes", "longitudes")
    )
    for shape in _shapes(attributes.get("field_shape"), north):
        rows, columns = north.reshape(shape), east.reshape(shape) % 360
        if _straight(rows, 1) and _straight(columns, 0):
            place = {"latitude": ("latitude", rows[:, 0]), "longitude": ("longitude", columns[0])}
            return place, ("latitude", "longitude"), shape
        if _straight(rows, 0) and _straight(columns, 1):
            place = {"latitude": ("latitude", rows[0]), "longitude": ("longitude", columns[:, 0])}
            return place, ("longitude", "latitude"), shape
    return {"latitude": ("cell", north), "longitude": ("cell", east)}, ("cell",), north.shape


def _shapes(recorded, north: np.ndarray) -> list[tuple[int, int]]:
    """Rows and columns that the cells may have: as recorded, else by where the latitude changes first."""
    if recorded is not None and len(recorded) == 2 and np.prod(recorded) == len(north):
        return [tuple(recorded)]
    changes = np.flatnonzero(np.abs(np.diff(north)) > STRAIGHT)
    width = int(changes[0]) + 1 if len(changes) else 0
    return [(len(north) // width, width)] if width > 1 and len(north) % width == 0 else []


def _straight(values: np.ndarray, along: int) -> bool:
    """Whether degrees are the same along an axis, those on both sides of Greenwich as well."""
    apart = np.abs(values - np.take(values, [0], axis=along))
    return bool(np.minimum(apart, 360 - apart).max() < STRAIGHT)


class _Columns:
    """Chunks of a store, all variables together, of which a process keeps the latest.

    Args:
      location: of the store; written: which of the stores that have lain there it is.
    """

    def __init__(self, location: str, written: tuple):
        self.location, self.written = location, written

    def chunk(self, number: int) -> np.ndarray | None:
        """The array at the times of a chunk, `(time, variable, ensemble, cell)`; None where that is too much to keep."""
        data = _data(self.location, self.written)
        length = data.chunks[0]
        if 2 * length * data.dtype.itemsize * int(np.prod(data.shape[1:])) > KEPT_BYTES:
            return None
        key = (self.location, self.written, number)
        with LOCK:
            if key in KEPT:
                KEPT.move_to_end(key)
                return KEPT[key]
        values = data[number * length : (number + 1) * length]
        with LOCK:
            KEPT[key] = values
            while sum(kept.nbytes for kept in KEPT.values()) > KEPT_BYTES:
                KEPT.popitem(last=False)
        return values


@functools.lru_cache(maxsize=8)
def _data(location: str, written: tuple) -> zarr.Array:
    """The array of a store, opened once in a process."""
    return zarr.open_group(location, mode="r")["data"]


class _AnemoiArray(BackendArray):
    """One field of a store, as xarray's backends have them: indexed along every dimension on its own.

    Args:
      columns: of the store; data: its array; times: positions of the field's times; variables: positions of its levels, one
        for a field without (`leveled`); space: its shape on the sphere.
    """

    def __init__(self, columns: _Columns, data: zarr.Array, times, variables, leveled: bool, space: tuple[int, ...]):
        self._columns, self._times, self._variables, self._leveled = columns, times, variables, leveled
        self._length, self._members, self._space, self.dtype = data.chunks[0], data.shape[2], space, data.dtype
        members, levels = (data.shape[2],) * (data.shape[2] > 1), (len(variables),) * leveled
        self.shape = (len(times), *members, *levels, *space)

    def __getitem__(self, key):
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple) -> np.ndarray:
        time, *rest = key
        positions = np.atleast_1d(self._times[time])
        out = np.empty((len(positions), *self.shape[1:]), self.dtype)
        for row, position in enumerate(positions.tolist()):
            out[row] = self._at(position)
        index = (slice(None), *rest)
        for axis in reversed(range(1, len(index))):
            out = out[(slice(None),) * axis + (index[axis],)]
        return out[0] if np.ndim(self._times[time]) == 0 else out

    def _at(self, position: int) -> np.ndarray:
        """The field at a time of the store."""
        chunk = self._columns.chunk(position // self._length)
        if chunk is None:
            data = _data(self._columns.location, self._columns.written)
            values = data.oindex[position, self._variables]
        else:
            values = chunk[position % self._length, self._variables]
        values = values.swapaxes(0, 1).reshape(self._members, len(self._variables), *self._space)
        values = values if self._leveled else values[:, 0]
        return values if self._members > 1 else values[0]


LABEL = "Zarr of anemoi-datasets"
register(Format("anemoi", LABEL, opens, folder_files=FILES, suffixes=(".zarr",), reads_urls=True, holds=holds))
