"""A NetCDF file that grows along its time axis, block by block, so that no more than a block is in memory."""

from collections.abc import Iterator
from pathlib import Path

import netCDF4
import xarray as xr

from emulator.files.whole_file import whole_file


def write_blocks(blocks: Iterator[xr.Dataset], path: Path, dim: str = "time") -> None:
    """Writes datasets that follow each other along `dim` as one file, whole or not there.

    Each block has the encoding of the first; what lacks `dim` is the first block's, which may be all there is. Raises
    `OSError` when the disk is full.
    """
    with whole_file(path) as partial:
        length = 0
        for block in blocks:
            if not length:
                block.to_netcdf(partial, engine="netcdf4", unlimited_dims=[d for d in (dim,) if d in block.dims])
            else:
                _append(block, partial, dim, length)
            length += block.sizes.get(dim, 1)


def _append(block: xr.Dataset, path: Path, dim: str, at: int) -> None:
    encoded, _ = xr.conventions.cf_encoder(block.variables, block.attrs)
    with netCDF4.Dataset(path, "a") as file:
        file.set_auto_maskandscale(False)
        for name, variable in encoded.items():
            if dim in variable.dims:
                where = tuple(slice(at, at + block.sizes[dim]) if d == dim else slice(None) for d in variable.dims)
                file[name][where] = variable.values
