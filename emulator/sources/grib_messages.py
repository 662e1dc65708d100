"""GRIB messages by ecCodes: headers, places of the cells, and fields, each decoded when it is needed."""

import contextlib
import dataclasses
import os
import threading

import numpy as np
from xarray.backends.common import BackendArray
from xarray.core import indexing

PRESSURE = {"isobaricInhPa": 1.0, "isobaricInPa": 0.01}  # to hPa
MODEL_LEVELS = ("hybrid", "sigma")
POINT_GRIDS = {"reduced_gg": "a reduced Gaussian grid", "healpix": "a HEALPix grid"}
MISSING = 9.969e36

_LOCK = threading.Lock()  # the switch for multi-field messages is ecCodes' own global


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
    step_type: str = ""
    centre: str = ""
    edition: int = 0
    production: int = 0

    @property
    def attributes(self) -> dict:
        """What says which variable it is, as attributes that cfgrib writes."""
        return {
            "GRIB_shortName": self.short,
            "GRIB_stepType": self.step_type,
            "GRIB_centre": self.centre,
            "GRIB_edition": self.edition,
            "GRIB_dataType": self.data_type,
            "GRIB_productionStatusOfProcessedData": self.production,
            "units": self.units,
        }

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


def read_headers(path: str) -> list[Message]:
    """The headers of all fields. Raises `ValueError` for a broken message or a file without any."""
    eccodes = _eccodes(path)
    headers: list[Message] = []
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
                headers.append(_read_header(eccodes, handle, offset, index))
            except eccodes.CodesInternalError as error:
                raise ValueError(
                    f"Expected whole GRIB messages in {path}, got a broken one after {len(headers)} good ones, near byte "
                    f"{file.tell()} of {os.path.getsize(path)}: {error}"
                ) from None
            finally:
                if handle is not None:
                    eccodes.codes_release(handle)
    if not headers:
        raise ValueError(f"Expected GRIB messages in {path}, got none")
    return headers


def _read_header(eccodes, handle, offset, index) -> Message:
    def get(key, kind, default=None):
        try:
            return eccodes.codes_get(handle, key, kind)
        except eccodes.KeyValueNotFoundError:
            return default

    with contextlib.suppress(eccodes.CodesInternalError):
        eccodes.codes_set(handle, "stepUnits", "s")  # of which there are whole numbers: hours would cut minutes off
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
        + np.timedelta64(time // 100 * 60 + time % 100, "m")
        + np.timedelta64(get("second", int, 0) or 0, "s"),
        start_hours=get("startStep", float, 0.0) / 3600,
        end_hours=get("endStep", float, 0.0) / 3600,
        number=get("number", int, 0) or 0,
        data_type=get("dataType", str, ""),
        grid=get("gridType", str, "unknown"),
        grid_hash=get("md5GridSection", str, ""),
        shape=(get("Nj", int), get("Ni", int)),
        step_type=get("stepType", str, ""),
        centre=get("centre", str, ""),
        edition=get("edition", int, 0),
        production=get("productionStatusOfProcessedData", int, 0) or 0,
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


def geometry(path, known):
    """Latitudes and longitudes in the order of the file, and interface coefficients of model levels (or None)."""
    eccodes = _eccodes(path)
    model = [m for m in known if m.kind in MODEL_LEVELS]
    message = (model or known)[0]
    half = None
    with _handle(path, message.offset, message.index) as handle:
        if model and eccodes.codes_get(handle, "PVPresent", int):
            pv = np.asarray(eccodes.codes_get_array(handle, "pv"), np.float64)
            half = pv[: len(pv) // 2], pv[len(pv) // 2 :]
    return *mesh(path, message), half


def mesh(path, message) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes of the rows and longitudes of the columns of a message in its order, or both of every cell of points."""
    eccodes = _eccodes(path)
    with _handle(path, message.offset, message.index) as handle:
        rows, columns = (
            _arranged(eccodes, handle, eccodes.codes_get_array(handle, k)) for k in ("latitudes", "longitudes")
        )
    return (rows, columns) if rows.ndim == 1 else (rows[:, 0], columns[0])


def _in_one_direction(eccodes, handle, values) -> np.ndarray:
    """Values of a message whose rows run to and fro (WMO's flag table 3.4) as if all ran in the direction of the first.

    Latitudes and longitudes need none of it: ecCodes gives them row after row, whatever the flag.
    """
    if not eccodes.codes_get(handle, "alternativeRowScanning", int):
        return values
    consecutive = eccodes.codes_get(handle, "jPointsAreConsecutive", int)
    lines = np.array(values).reshape(eccodes.codes_get(handle, "Ni" if consecutive else "Nj", int), -1)
    lines[1::2] = lines[1::2, ::-1]
    return lines.ravel()


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

    def __init__(self, path: str, offsets: np.ndarray, grid: tuple[int, ...], dtype=np.float32):
        self.path, self.offsets = path, offsets
        self.shape = (*offsets.shape[:-1], *grid)
        self.dtype = np.dtype(dtype)

    def __getitem__(self, key):
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._outer)

    def _outer(self, key):
        # Slices and vectors keep their axis; an integer is taken as a slice of one and squeezed at the end.
        wide = tuple(slice(k, k + 1) if isinstance(k, int | np.integer) else k for k in key)
        index = [np.arange(n)[k] for n, k in zip(self.shape, wide, strict=True)]
        chosen = self.offsets[np.ix_(*index[:4])]
        out = np.full((*chosen.shape[:-1], *map(len, index[4:])), np.nan, self.dtype)
        for where in np.ndindex(chosen.shape[:-1]):
            offset, number = (int(n) for n in chosen[where])
            if offset >= 0:
                out[where] = field_values(self.path, offset, number)[np.ix_(*index[4:])]
        squeezed = tuple(axis for axis, k in enumerate(key) if isinstance(k, int | np.integer))
        return out.squeeze(squeezed)


def field_values(path, offset, index) -> np.ndarray:
    """The field at an offset of a file, `(row, column)` or `(cell,)` float64, NaN where it has no value."""
    eccodes = _eccodes(path)
    with _handle(path, offset, index) as handle:
        eccodes.codes_set(handle, "missingValue", MISSING)
        values = np.asarray(eccodes.codes_get_values(handle))
        if eccodes.codes_get(handle, "bitmapPresent", int):
            values = np.where(values == MISSING, np.nan, values)
        if eccodes.codes_get(handle, "gridType", str) not in POINT_GRIDS:
            values = _in_one_direction(eccodes, handle, values)
        return _arranged(eccodes, handle, values)
