"""A forecast store as files of other formats: one an initial time, whole or not there."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emulator.files.whole_file import write_netcdf
from emulator.forecasting.grib import expect_rows, library, write_grib
from emulator.forecasting.netcdf import to_cf
from emulator.planet.grid import Grid
from emulator.store.forecast import open_forecast

log = logging.getLogger(__name__)
SUFFIX = {"netcdf": ".nc", "grib": ".grib2"}


def check_formats(kinds: Sequence[str], grid: Grid | None = None) -> None:
    """To be known before there is anything to write.

    Raises `ImportError` where a format cannot be written here, and `ValueError` for a grid that it does not hold.
    """
    if "grib" in kinds:
        library()
        if grid is not None:
            expect_rows(grid)


def export(path: Path, kind: str) -> Path:
    """Writes every initial time of a forecast store as CF NetCDF or GRIB 2 and returns the folder, beside the store.

    Files that are there and newer than the store are left alone, so that a stopped export goes on. Raises `OSError` when a
    file cannot be written.
    """
    path = Path(path)
    folder = path.with_name(f"{path.stem}_{kind}")
    folder.mkdir(parents=True, exist_ok=True)
    store = open_forecast(path)
    written = (path / "zarr.json").stat().st_mtime
    for index, init in enumerate(store["init_time"].values):
        target = folder / f"{_stamp(init)}{SUFFIX[kind]}"
        if target.exists() and target.stat().st_mtime >= written:
            continue
        one = store.isel(init_time=index)
        if kind == "netcdf":
            write_netcdf(to_cf(one), target)
        else:
            write_grib(one, target)
    log.info("%s: %d files", folder, store.sizes["init_time"])
    return folder


def _stamp(init) -> str:
    text = str(np.datetime_as_string(init, "m")) if isinstance(init, np.datetime64) else init.isoformat()[:16]
    return text.replace("-", "").replace(":", "")
