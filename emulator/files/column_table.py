"""Columns of equal length as one Parquet file whose metadata says its schema and the units of its columns."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from emulator.files.whole_file import whole_file

ROWS = 50_000  # of a part of the file, as few as a window of observations has
SCHEMA, UNITS = b"emulator_schema", b"units"


def write_columns(path, columns: Mapping[str, np.ndarray], schema: str, units: Mapping[str, str], notes=None) -> Path:
    """Writes `columns`, each `(row,)`, whole or not at all, and returns the path.

    `notes`: more texts for the metadata. Raises `ValueError` without pyarrow, `OSError` where nothing can be written.
    """
    pa, parquet = pyarrow_for(path)
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
        parquet.write_table(table, partial, row_group_size=ROWS)
    return Path(path)


def read_columns(
    path, schema: str, needed: Sequence[str], window: tuple | None = None, only: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Columns by name, `(row,)`, texts as NumPy's.

    `window`: rows alone whose `time` is later than its start and not later than its end; the file's other parts are not read.
    `only`: of these columns; None: of all.

    Raises `ValueError` in one sentence where nothing lies at the path, for a file that is no Parquet or of another schema,
    for one that lacks a column of `needed`, and without pyarrow.
    """
    pa, parquet = pyarrow_for(path)
    if not Path(path).is_file():
        raise ValueError(f"Expected a table at {path}, got nothing there")
    edges = () if window is None else (np.datetime64(moment, "ns") for moment in window)
    times = [
        ("time", sign, pa.scalar(edge, pa.timestamp("ns"))) for sign, edge in zip((">", "<="), edges, strict=False)
    ]
    try:
        schema_of = parquet.read_schema(path)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"Expected a Parquet table at {path}, got: {' '.join(str(error).split())}") from None
    got = (schema_of.metadata or {}).get(SCHEMA, b"none").decode()
    if got != schema:
        raise ValueError(f"Expected a table of emulator_schema {schema!r} at {path}, got {got!r}")
    if absent := [name for name in needed if name not in schema_of.names]:
        raise ValueError(f"Expected columns {', '.join(needed)} in {path}, it has no {', '.join(absent)}")
    table = parquet.read_table(path, columns=only and list(only), filters=times or None)
    return {name: _array(pa, table.column(name)) for name in table.column_names}


def _array(pa, column) -> np.ndarray:
    if pa.types.is_dictionary(column.type) or pa.types.is_string(column.type):
        column = column.combine_chunks().cast(pa.string()).dictionary_encode()
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        names = np.array(column.dictionary.to_pylist() or [""], dtype=str)
        return names[column.indices.to_numpy(zero_copy_only=False)]
    return column.to_numpy()


def pyarrow_for(path):
    """pyarrow and its Parquet. Raises `ValueError`, naming the table, where it is not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ValueError(
            f"Expected pyarrow for the table {path}, it is not installed: the extra observations"
        ) from None
    return pyarrow, parquet
