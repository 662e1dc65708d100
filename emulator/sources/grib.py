"""GRIB 1 and 2: headers checked message by message, fields decoded by ecCodes when they are needed.

Headers are read first and in full because a store made from what a tolerant reader leaves would look whole: broken
messages, two fields for one place, missing steps and mixed grids are all refused by name. (cfgrib builds its index ten
times slower, and keeps one of two fields for one place without a word.)
"""

import contextlib
import dataclasses
import logging
import os
import threading

import numpy as np
import xarray as xr
from xarray.backends.common import BackendArray
from xarray.core import indexing

from emulator.planet.grid import GAUSSIAN_TOLERANCE
from emulator.sources.recognise import recognise

PRESSURE = {"isobaricInhPa": 1.0, "isobaricInPa": 0.01}  # to hPa
MODEL_LEVELS = ("hybrid", "sigma")
SURFACES = (
    "surface",
    "meanSea",
    "heightAboveGround",
    "depthBelowLand",
    "depthBelowLandLayer",
    "nominalTop",
    "entireAtmosphere",
    "atmosphere",
    "atmosphereSingleLayer",
)
REFUSED_GRIDS = {"sh": "spectral coefficients"}
POINT_GRIDS = {"reduced_gg": "a reduced Gaussian grid", "healpix": "a HEALPix grid"}
MISSING = 9.969e36

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Message:
    """What the header of one field says; `offset` is in bytes, `index` counts the fields of one message."""

    offset: int
    index: int
    short: str
    units: str
    level_type: str
    level: float
    init: np.datetime64
    start_hours: float
    end_hours: float
    number: int
    data_type: str
    grid: str
    grid_hash: str
    shape: tuple

    @property
    def kind(self) -> str:
        """Level types that share one axis: pressure in Pa and in hPa."""
        return "pressure" if self.level_type in PRESSURE else self.level_type

    def place(self) -> tuple:
        """Member, initial time, lead in hours and level: what two fields of one variable must not share."""
        return (self.number, self.init, self.end_hours, self.level)

    def describe(self) -> str:
        unit = " hPa" if self.kind == "pressure" else ""
        level = f" on {self.kind} {self.level:g}{unit}" if self.kind in ("pressure", *MODEL_LEVELS) else ""
        member = f" of member {self.number}" if self.number else ""
        return f"{self.short}{level}{member} from {str(self.init)[:16]} at {self.end_hours:g} h"


def open_grib(path: str, wanted=None, points: bool = False) -> list[xr.Dataset]:
    """The variables of the table in a GRIB file, lazily, one dataset for each of them (and kind of level).

    Dimensions are `(number, time, step, level, latitude, longitude)`, `time` being the initial time. Attributes:
    `GRIB_shortName`, `units`, `vertical` (pressure, hybrid, sigma or surface), `interval_hours` where the messages are
    accumulations or means over one interval, `from_start` where they run from the initial time. `wanted`: canonical names
    to read; None for all. With `points` reduced Gaussian and HEALPix grids are read too: their last dimension is `cell`.

    Raises `ValueError` naming the file for broken messages, grids that are neither latitude-longitude nor full Gaussian,
    several grids, two fields for one place, and missing fields.
    """
    known = [m for m in _messages(path) if _is_known(m, wanted)]
    if not known:
        raise ValueError(f"Expected GRIB messages of variables in the table, got none in {path}")
    _check_grids(known, path, points)
    latitude, longitude, half_levels = _geometry(path, known)
    groups: dict[tuple, list[Message]] = {}
    for message in known:
        groups.setdefault((message.short, message.kind), []).append(message)
    for short, kind in list(groups):
        if kind in MODEL_LEVELS and (short, "pressure") in groups:  # GFS: a few sigma levels beside the pressure levels
            log.info("%s is taken on pressure levels; %s has it on %s levels too", short, path, kind)
            del groups[short, kind]
    return [_dataset(path, messages, latitude, longitude, half_levels) for messages in groups.values()]


def _dataset(path, messages, latitude, longitude, half_levels) -> xr.Dataset:
    first = messages[0]
    axes = [sorted({m.place()[axis] for m in messages}) for axis in range(4)]
    position = [{value: i for i, value in enumerate(axis)} for axis in axes]
    table = np.full([len(axis) for axis in axes], -1)
    for number, message in enumerate(messages):
        where = tuple(lookup[value] for lookup, value in zip(position, message.place(), strict=True))
        if (other := table[where]) >= 0:
            kinds = f" ({messages[other].data_type} and {message.data_type})"
            raise ValueError(f"Expected one field for {message.describe()} in {path}, got two{kinds}")
        table[where] = number
    offsets = np.array([(m.offset, m.index) for m in messages] + [(-1, 0)])[table]
    space = ("cell",) if first.grid in POINT_GRIDS else ("latitude", "longitude")
    size = (len(latitude),) if len(space) == 1 else (len(latitude), len(longitude))
    array = indexing.LazilyIndexedArray(GribArray(path, offsets, size))
    attributes = {
        "GRIB_shortName": first.short,
        "units": first.units,
        "vertical": first.kind if first.kind in ("pressure", *MODEL_LEVELS) else "surface",
        **_interval(messages),
    }
    dims = ("number", "time", "step", "level", *space)
    coordinates = {
        "number": axes[0],
        "time": np.array(axes[1]),
        "step": (np.array(axes[2]) * 3600e9).astype("timedelta64[ns]"),
        "level": axes[3],
        "latitude": (space[0], latitude),
        "longitude": (space[-1], longitude),
    }
    dataset = xr.Dataset({first.short: (dims, array, attributes)}, coordinates)
    dataset["level"].attrs = {"units": "hPa"} if first.kind == "pressure" else {}
    if attributes["vertical"] == "surface":
        dataset = dataset.isel(level=0, drop=True)
    if half_levels is not None and first.kind in MODEL_LEVELS:
        half_a, half_b = half_levels
        dataset = dataset.assign(half_level_a=("half_level", half_a), half_level_b=("half_level", half_b))
    dataset[first.short].attrs["present"] = (table >= 0).all(axis=(0, 3)).tolist()  # (time, step)
    if (table < 0).any(axis=(0, 3))[(table >= 0).any(axis=(0, 3))].any():
        hole = np.argwhere((table < 0) & (table >= 0).any(axis=(0, 3), keepdims=True))[0]
        number, init, hours, level = (axis[i] for axis, i in zip(axes, hole, strict=True))
        raise ValueError(
            f"Expected every member and level at each time of {path}, got no {first.short} at level {level:g}, member "
            f"{number} from {str(init)[:16]} at {hours:g} h"
        )
    return dataset


def _interval(messages) -> dict:
    """The hours that accumulations or means cover, or that they run from the initial time; empty for snapshots."""
    spans = {(m.start_hours, m.end_hours) for m in messages if m.end_hours != m.start_hours}
    lengths = {end - start for start, end in spans}
    if len(lengths) == 1:
        return {"interval_hours": lengths.pop()}
    return {"from_start": 1} if spans and {start for start, _ in spans} == {0.0} else {}


def _is_known(message: Message, wanted) -> bool:
    levels = message.level_type in PRESSURE or message.level_type in MODEL_LEVELS
    if not levels and message.level_type not in SURFACES:
        return False
    matches = recognise("", {"GRIB_shortName": message.short}, levels)
    return any(wanted is None or match.name in wanted for match in matches)


def _check_grids(known, path, points):
    for message in known:
        if message.grid in POINT_GRIDS:
            if not points:
                raise ValueError(
                    f"Expected a latitude-longitude or full Gaussian grid in {path}, got {POINT_GRIDS[message.grid]} for "
                    f"{message.describe()}; interpolate it first, or take its cells as points (points: true of the source)"
                )
        elif message.grid not in ("regular_ll", "regular_gg"):
            what = REFUSED_GRIDS.get(message.grid, f"the grid type {message.grid}")
            raise ValueError(
                f"Expected a latitude-longitude or full Gaussian grid in {path}, got {what} for {message.describe()}; "
                "interpolate it first"
            )
    first, *others = {m.grid_hash: m for m in known}.values()
    different = [m for m in others if m.grid != first.grid or m.shape != first.shape]
    if others and not different:  # editions 1 and 2, or other shapes of the Earth: the cells may be the same
        latitude, longitude = _mesh(path, first)
        for message in others:
            rows, columns = _mesh(path, message)
            apart = np.abs((columns - longitude + 180) % 360 - 180)
            if rows.shape != latitude.shape or max(np.abs(rows - latitude).max(), apart.max()) > GAUSSIAN_TOLERANCE:
                different.append(message)
    if different:
        texts = [f"{m.shape[0]} x {m.shape[1]} ({m.describe()})" for m in (first, *different)]
        raise ValueError(f"Expected one grid in {path}, got {len(texts)}: {', '.join(texts[:3])}")


# --- ecCodes --------------------------------------------------------------------------------------------------------

_LOCK = threading.Lock()  # the switch for multi-field messages is ecCodes' own global


def _eccodes(path):
    try:
        import eccodes
    except (ImportError, RuntimeError):
        raise ValueError(f"Expected ecCodes to read {path}; install the extra emulator[grib]") from None
    return eccodes


@contextlib.contextmanager
def _opened(eccodes, path):
    """The file, with fields of multi-field messages handed out singly: by a state per file address, reset on both ends."""
    with _LOCK, open(path, "rb") as file:
        eccodes.codes_grib_multi_support_on()
        eccodes.codes_grib_multi_support_reset_file(file)
        try:
            yield file
        finally:
            eccodes.codes_grib_multi_support_reset_file(file)
            eccodes.codes_grib_multi_support_off()


def _messages(path: str) -> list[Message]:
    """The headers of all fields. Raises `ValueError` for a broken message or a file without any."""
    eccodes = _eccodes(path)
    found: list[Message] = []
    with _opened(eccodes, path) as file:
        before, index = -1, 0
        while True:
            handle = None
            try:
                handle = eccodes.codes_grib_new_from_file(file)
                if handle is None:
                    break
                offset = int(eccodes.codes_get(handle, "offset"))
                index = index + 1 if offset == before else 0
                before = offset
                found.append(_read_header(eccodes, handle, offset, index))
            except eccodes.CodesInternalError as error:
                raise ValueError(
                    f"Expected whole GRIB messages in {path}, got a broken one after {len(found)} good ones, near byte "
                    f"{file.tell()} of {os.path.getsize(path)}: {error}"
                ) from None
            finally:
                if handle is not None:
                    eccodes.codes_release(handle)
    if not found:
        raise ValueError(f"Expected GRIB messages in {path}, got none")
    return found


def _read_header(eccodes, handle, offset, index) -> Message:
    def get(key, kind, default=None):
        try:
            return eccodes.codes_get(handle, key, kind)
        except eccodes.KeyValueNotFoundError:
            return default

    with contextlib.suppress(eccodes.CodesInternalError):
        eccodes.codes_set(handle, "stepUnits", "h")
    date, time = get("dataDate", int), get("dataTime", int)
    level_type = get("typeOfLevel", str, "unknown")
    return Message(
        offset=offset,
        index=index,
        short=get("shortName", str),
        units=get("units", str, ""),
        level_type=level_type,
        level=round(float(get("level", float, 0.0)) * PRESSURE.get(level_type, 1.0), 6),
        init=np.datetime64(f"{date // 10000:04d}-{date // 100 % 100:02d}-{date % 100:02d}", "ns")
        + np.timedelta64(time // 100 * 60 + time % 100, "m"),
        start_hours=float(get("startStep", float, 0.0)),
        end_hours=float(get("endStep", float, 0.0)),
        number=get("number", int, 0) or 0,
        data_type=get("dataType", str, ""),
        grid=get("gridType", str, "unknown"),
        grid_hash=get("md5GridSection", str, ""),
        shape=(get("Nj", int), get("Ni", int)),
    )


@contextlib.contextmanager
def _handle(path, offset, index):
    """The field at an offset of the file."""
    eccodes = _eccodes(path)
    with _opened(eccodes, path) as file:
        file.seek(offset)
        handle = None
        try:
            for _ in range(index + 1):
                if handle is not None:
                    eccodes.codes_release(handle)
                handle = eccodes.codes_grib_new_from_file(file)
            yield handle
        except eccodes.CodesInternalError as error:
            raise ValueError(f"Expected a field at byte {offset} of {path} that decodes, got: {error}") from None
        finally:
            if handle is not None:
                eccodes.codes_release(handle)


def _geometry(path, known):
    """Latitudes and longitudes in the order of the file, and interface coefficients of model levels (or None)."""
    eccodes = _eccodes(path)
    model = [m for m in known if m.kind in MODEL_LEVELS]
    message = (model or known)[0]
    half = None
    with _handle(path, message.offset, message.index) as handle:
        if model and eccodes.codes_get(handle, "PVPresent", int):
            pv = np.asarray(eccodes.codes_get_array(handle, "pv"), np.float64)
            half = pv[: len(pv) // 2], pv[len(pv) // 2 :]
    return *_mesh(path, message), half


def _mesh(path, message) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes of the rows and longitudes of the columns of a message in its order, or both of every cell of points."""
    eccodes = _eccodes(path)
    with _handle(path, message.offset, message.index) as handle:
        if message.grid not in POINT_GRIDS and eccodes.codes_get(handle, "alternativeRowScanning", int):
            raise ValueError(f"Expected rows that all run in one direction in {path}, got alternating ones")
        rows, columns = (
            _arranged(eccodes, handle, eccodes.codes_get_array(handle, k)) for k in ("latitudes", "longitudes")
        )
    return (rows, columns) if rows.ndim == 1 else (rows[:, 0], columns[0])


def _arranged(eccodes, handle, values) -> np.ndarray:
    """Values in the order of the message as `(row, column)`, or `(cell,)` of a grid of points."""
    if eccodes.codes_get(handle, "gridType", str) in POINT_GRIDS:
        return np.asarray(values)
    rows, columns = eccodes.codes_get(handle, "Nj", int), eccodes.codes_get(handle, "Ni", int)
    if eccodes.codes_get(handle, "jPointsAreConsecutive", int):
        return np.asarray(values).reshape(columns, rows).T
    return np.asarray(values).reshape(rows, columns)


class GribArray(BackendArray):
    """Fields of a file as one lazy array `(number, time, step, level, *space)`; NaN where there is no message."""

    def __init__(self, path: str, offsets: np.ndarray, grid: tuple[int, ...]):
        self.path, self.offsets = path, offsets
        self.shape = (*offsets.shape[:-1], *grid)
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key):
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._outer)

    def _outer(self, key):
        # Slices and vectors keep their axis; an integer is taken as a slice of one and squeezed at the end.
        wide = tuple(slice(k, k + 1) if isinstance(k, int | np.integer) else k for k in key)
        index = [np.arange(n)[k] for n, k in zip(self.shape, wide, strict=True)]
        chosen = self.offsets[np.ix_(*index[:4])]
        out = np.full((*chosen.shape[:-1], *map(len, index[4:])), np.nan, np.float32)
        for where in np.ndindex(chosen.shape[:-1]):
            offset, number = (int(n) for n in chosen[where])
            if offset >= 0:
                out[where] = self._field(offset, number)[np.ix_(*index[4:])]
        squeezed = tuple(axis for axis, k in enumerate(key) if isinstance(k, int | np.integer))
        return out.squeeze(squeezed)

    def _field(self, offset, index) -> np.ndarray:
        eccodes = _eccodes(self.path)
        with _handle(self.path, offset, index) as handle:
            eccodes.codes_set(handle, "missingValue", MISSING)
            values = np.asarray(eccodes.codes_get_values(handle))
            if eccodes.codes_get(handle, "bitmapPresent", int):
                values = np.where(values == MISSING, np.nan, values)
            return _arranged(eccodes, handle, values).astype(np.float32)
