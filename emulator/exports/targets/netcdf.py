"""CF NetCDF: a file for each initial time of forecasts, or for each year of an analysis."""

from collections.abc import Iterator
from pathlib import Path

import xarray as xr

from emulator.exports.cf import to_cf
from emulator.exports.registry import register_files
from emulator.exports.source import Source
from emulator.files.netcdf_blocks import write_blocks


def check(source: Source | None) -> None:
    """Any store can be written."""


def one(blocks: Iterator[xr.Dataset], path: Path) -> None:
    """Consecutive blocks of an analysis or of one forecast as a file."""
    write_blocks((to_cf(block) for block in blocks), path)


register_files("netcdf", "CF NetCDF, a file for each initial time or year", check, one, ".nc")
