"""Zarr 2 and 3, in a folder or at a URL."""

import warnings

import xarray as xr

from emulator.files.zarr_metadata import consolidated
from emulator.sources.open import TIME_CODER, Format, Request, decoding, register

FILES = ("zarr.json", ".zgroup", ".zmetadata")


def opens(location: str, path: str, request: Request) -> list[xr.Dataset]:
    """One dataset."""
    options: dict = {"decode_times": TIME_CODER, "decode_timedelta": False, "chunks": None, "cache": False}
    with decoding("Zarr", path), warnings.catch_warnings():
        warnings.simplefilter("ignore", category=xr.SerializationWarning)  # times beyond datetime64 become cftime
        return [xr.open_dataset(location, engine="zarr", consolidated=consolidated(location), **options)]


register(Format("zarr", "Zarr", opens, folder_files=FILES, suffixes=(".zarr",), reads_urls=True))
