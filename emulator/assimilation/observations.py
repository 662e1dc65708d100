"""Observations as columns of equal length, one row an observation, and the Parquet file that holds them."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from emulator.files.column_table import read_columns, write_columns

SCHEMA = "observations-1"
TEXTS = ("operator", "variable", "station", "system")
UNITS = {
    "latitude": "degrees_north",
    "longitude": "degrees_east",
    "level": "of the store's vertical axis",
    "value": "SI, of the variable",
    "error": "SI, of the variable",
    "elevation": "m",
    "width": "scale heights, or units of the level",
    "confidence": "1",
}
NEEDED = ("operator", "variable", "time", "latitude", "longitude", "value", "error")


@dataclasses.dataclass(frozen=True, eq=False)
class Observations:
    """Columns `(row,)`; those that are left out are NaN, empty text, or ones for `confidence`.

    Attributes:
      operator: name of what makes the equivalent of a state (`emulator.assimilation.operators`).
      variable: ERA5's long name. time: datetime64[ns]. latitude, longitude: degrees; longitudes are kept in [0, 360).
      level: value of the store's vertical axis, or the centre of a weighting function; NaN for fields without levels.
      value, error: of the observation and its standard deviation, SI.
      station: who reported. system: the observing system, for statistics and data denial.
      confidence: 0 to 1. elevation: of the station's ground, m. width: of a weighting function.
    Rows may be bad: `emulator.assimilation.quality.screen` finds and counts them. Raises `ValueError` for columns of unequal
    length or of values that are no numbers, texts or times.
    """

    operator: np.ndarray
    variable: np.ndarray
    time: np.ndarray
    latitude: np.ndarray
    longitude: np.ndarray
    value: np.ndarray
    error: np.ndarray
    level: np.ndarray | None = None
    station: np.ndarray | None = None
    system: np.ndarray | None = None
    confidence: np.ndarray | None = None
    elevation: np.ndarray | None = None
    width: np.ndarray | None = None

    def __post_init__(self):
        count = np.size(self.value)
        for field in dataclasses.fields(self):
            given = getattr(self, field.name)
            if given is None:
                given = "" if field.name in TEXTS else 1.0 if field.name == "confidence" else np.nan
            kind = str if field.name in TEXTS else "datetime64[ns]" if field.name == "time" else np.float64
            try:
                column = np.asarray(given, kind)
            except (TypeError, ValueError):
                raise ValueError(
                    f"Expected {field.name} of observations as {np.dtype(kind).name}, got others"
                ) from None
            column = np.broadcast_to(column, (count,)) if column.ndim == 0 else column
            if column.shape != (count,):
                raise ValueError(f"Expected {count} rows in each column, got {column.shape} of {field.name}")
            if field.name == "longitude":
                column = column % 360
            object.__setattr__(self, field.name, column)

    def __len__(self) -> int:
        return len(self.value)

    def columns(self) -> dict[str, np.ndarray]:
        """All columns by name, `(row,)` each."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def where(self, chosen) -> "Observations":
        """The rows of a mask or of positions."""
        return Observations(**{name: column[chosen] for name, column in self.columns().items()})

    def replace(self, **columns) -> "Observations":
        """The same rows with other columns."""
        return dataclasses.replace(self, **columns)

    def within(self, window: tuple) -> "Observations":
        """Rows later than the start of a window and not later than its end, so that windows share none."""
        start, end = (np.datetime64(moment, "ns") for moment in window)
        return self.where((self.time > start) & (self.time <= end))

    def slots(self, times) -> np.ndarray:
        """Of every row which of the increasing `times` `(slot,)` is nearest, the earlier one in the middle: `(row,)`."""
        times = np.asarray(times, "datetime64[ns]")
        if len(times) == 1:
            return np.zeros(len(self), np.int64)
        middle = times[:-1] + (times[1:] - times[:-1]) // 2
        return np.searchsorted(middle, self.time)

    @classmethod
    def concat(cls, parts: Sequence["Observations"]) -> "Observations":
        """All rows of some tables, in order; no rows of none."""
        if not parts:
            return cls(*([] for _ in NEEDED))
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

    def write(self, path, notes: Mapping[str, str] | None = None) -> Path:
        """Writes one Parquet file, whole or not at all; `notes` go into its metadata. Raises `ValueError` without pyarrow."""
        return write_columns(path, self.columns(), SCHEMA, UNITS, notes)

    @classmethod
    def read(cls, path, window: tuple | None = None) -> "Observations":
        """What `write` wrote, or what of it lies `within` a window. Raises `ValueError` in a sentence for any other file."""
        found = read_columns(path, SCHEMA, NEEDED, window)
        return cls(**{field.name: found.get(field.name) for field in dataclasses.fields(cls)})

    @staticmethod
    def times_in(path) -> np.ndarray:
        """Times of all rows of what `write` wrote, `(row,)`, without reading the rest. Raises `ValueError` as `read`."""
        return np.asarray(read_columns(path, SCHEMA, NEEDED, only=("time",))["time"], "datetime64[ns]")
