"""NetCDF files that are whole under their name or not there."""

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import xarray as xr

from emulator.files.whole_file import whole_file

SPARE_BYTES = 1 << 20  # the HDF5 library fails without a reason when less than about this is left


def write_netcdf(dataset: xr.Dataset, path: Path, encoding: Mapping | None = None) -> None:
    """Write a dataset under a temporary name beside `path`, then rename.

    Raises `OSError`, saying why and for which file, when the disk is full or the folder cannot be written; the temporary
    file is then removed.
    """
    path = Path(path)
    with whole_file(path) as partial:
        try:
            dataset.to_netcdf(partial, engine="netcdf4", encoding=dict(encoding or {}))
        except (OSError, RuntimeError) as error:
            partial.unlink(missing_ok=True)  # before the disk is measured
            if shutil.disk_usage(path.parent).free < SPARE_BYTES + dataset.nbytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
            raise OSError(f"could not write {path}: {' '.join(str(error).split())}") from error
