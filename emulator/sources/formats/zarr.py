"""Zarr 2 and 3, in a folder or at a URL."""

import warnings

import xarray as xr

from emulator.files.zarr_metadata import consolidated
from emulator.sources.decode import decoded
from emulator.sources.open import Format, Request, decoding, register

FILES = ("zarr.json", ".zgroup", ".zmetadata")


def opens(location: str, path: str, request: Request) -> list[xr.Dataset]:
    """One dataset."""
    options = {"decode_cf": False, "chunks": None, "cache": False}
    with decoding("Zarr", path), warnings.catch_warnings():
        warnings.simplefilter("ignore", category=xr.SerializationWarning)  # times beyond datetime64 become cftime
        raw = xr.open_dataset(location, engine="zarr", consolidated=consolidated(location), **options)
        return [decoded(raw, path, request.units, undeclared=False)]


register(Format("zarr", "Zarr", opens, folder_files=FILES, suffixes=(".zarr",), reads_urls=True))
