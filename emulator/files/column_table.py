"""Columns of equal length as one Parquet file whose metadata says its schema and the units of its columns."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from emulator.files.whole_file import whole_file

SCHEMA, UNITS = b"emulator_schema", b"units"


def write_columns(path, columns: Mapping[str, np.ndarray], schema: str, units: Mapping[str, str], notes=None) -> Path:
    """Writes `columns`, each `(row,)`, whole or not at all, and returns the path.

    `notes`: more texts for the metadata. Raises `ValueError` without pyarrow, `OSError` where nothing can be written.
    """
    pa, parquet = _pyarrow(path)
    arrays = {}
    for name, values in columns.items():
        values = np.asarray(values)
        text = values.dtype.kind in "UO"
        array = pa.array(values.tolist() if text else values, pa.string() if text else None)
        arrays[name] = array.dictionary_encode() if text else array
    texts = {str(key).encode(): str(value).encode() for key, value in (notes or {}).items()}
    metadata = texts | {SCHEMA: schema.encode(), UNITS: json.dumps(dict(units)).encode()}
    table = pa.table(arrays).replace_schema_metadata(metadata)
    with whole_file(Path(path)) as partial:
        parquet.write_table(table, partial)
    return Path(path)


def read_columns(path, schema: str, needed: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns by name, `(row,)`, texts as NumPy's.

    Raises `ValueError` in one sentence where nothing lies at the path, for a file that is no Parquet or of another schema,
    for one that lacks a column of `needed`, and without pyarrow.
    """
    pa, parquet = _pyarrow(path)
    if not Path(path).is_file():
        raise ValueError(f"Expected a table at {path}, got nothing there")
    try:
        table = parquet.read_table(path)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"Expected a Parquet table at {path}, got: {' '.join(str(error).split())}") from None
    got = (table.schema.metadata or {}).get(SCHEMA, b"none").decode()
    if got != schema:
        raise ValueError(f"Expected a table of emulator_schema {schema!r} at {path}, got {got!r}")
    if absent := [name for name in needed if name not in table.column_names]:
        raise ValueError(f"Expected columns {', '.join(needed)} in {path}, it has no {', '.join(absent)}")
    return {name: _array(pa, table.column(name)) for name in table.column_names}


def _array(pa, column) -> np.ndarray:
    if pa.types.is_dictionary(column.type) or pa.types.is_string(column.type):
        return np.array(column.cast(pa.string()).to_pylist(), dtype=str)
    return column.to_numpy()


def _pyarrow(path):
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ValueError(
            f"Expected pyarrow for the table {path}, it is not installed: the extra observations"
        ) from None
    return pyarrow, parquet
