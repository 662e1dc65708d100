"""NetCDF 3 and 4; large compressed variables of NetCDF 4 are read beside the HDF5 library."""

import warnings

import xarray as xr
from xarray.backends import NetCDF4BackendEntrypoint

from emulator.sources.formats import TIME_CODER, Format, Request, decoding, register
from emulator.sources.hdf5_chunks import with_direct_chunks


def opens(location: str, path: str, request: Request) -> list[xr.Dataset]:
    """One dataset. The engine is asked itself: given its name, xarray loads every engine that is installed."""
    with decoding("NetCDF", path), warnings.catch_warnings():
        # A variable with two fill values is masked by both, and times beyond datetime64 become cftime: both right.
        warnings.simplefilter("ignore", category=xr.SerializationWarning)
        raw = NetCDF4BackendEntrypoint().open_dataset(
            location,
            mask_and_scale=False,
            decode_times=False,
            concat_characters=False,
            decode_coords=False,
            use_cftime=None,
            decode_timedelta=False,
        )
        raw = with_direct_chunks(raw, location)
        return [xr.decode_cf(raw, decode_times=TIME_CODER, decode_timedelta=False)]


def _begins(start: bytes) -> bool:
    return start[:3] == b"CDF" or start[:8] == b"\x89HDF\r\n\x1a\n"


register(Format("netcdf", "NetCDF", opens, _begins, suffixes=(".nc", ".nc4", ".cdf", ".netcdf")))
