"""GRIB 2 through ecCodes: a file for each initial time of forecasts, or for each year of an analysis."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.exports.messages import expect_rows, library, parameter_of, write_grib
from emulator.exports.registry import register_files
from emulator.exports.source import Source, expect_some


def check(source: Source | None) -> None:
    """Raises `ImportError` without ecCodes, and `ValueError` for a store that GRIB does not hold."""
    library()
    if source is None:
        return
    expect_rows(source.grid)
    times = source.dataset["init_time" if source.is_forecast else "time"].values
    if not np.issubdtype(times.dtype, np.datetime64):
        raise ValueError(f"Expected the standard calendar for GRIB, got {times[0].calendar}")


def one(blocks: Iterator[xr.Dataset], path: Path) -> None:
    """Consecutive blocks of an analysis or of one forecast as a file."""
    write_grib(blocks, path)


def begin(source: Source) -> None:
    """Says which fields GRIB has no number for. Raises `ValueError` where it has one for none."""
    first = source.first()
    names = [n for some in source.fields(first) for n in some]
    numbered = [n for n in names if parameter_of(first, n) is not None]
    expect_some(numbered, [n for n in names if n not in numbered], "GRIB")


register_files("grib", "GRIB 2, a file for each initial time or year", check, one, ".grib2", begin)
