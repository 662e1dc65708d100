"""References of kerchunk and VirtualiZarr, as JSON or Parquet: a Zarr store whose chunks are ranges of bytes of other files.

Those files, HDF5 for the most part, may be anywhere that fsspec reaches. They are read as the references say: whether they
are still what they were then nothing tells.
"""

import json
import re
import warnings

import fsspec
import numpy as np
import xarray as xr
import zarr
from fsspec.implementations.reference import LazyReferenceMapper

from emulator.sources.decode import decoded
from emulator.sources.open import Format, Request, decoding, register

FOLDER_FILE = ".zmetadata"
SUFFIXES = (".parq", ".parquet")
BEGINS = re.compile(rb'\s*\{\s*"(?:version"\s*:\s*1\s*,\s*"(?:refs|templates|gen)|refs|\.zgroup|\.zattrs|templates)"')


def holds(path: str) -> bool:
    """Whether the folder at a path or URL holds references as Parquet."""
    system, inner = fsspec.core.url_to_fs(path)
    try:
        return "record_size" in json.loads(system.cat_file(f"{inner.rstrip('/')}/{FOLDER_FILE}"))
    except (OSError, ValueError):
        return False


def opens(location: str, path: str, request: Request) -> list[xr.Dataset]:
    """One dataset. Raises `ValueError` naming the path for references that say nothing, or need a package that is absent."""
    with decoding("Kerchunk", path), warnings.catch_warnings():
        # Codecs of HDF5 are none of Zarr 3's own, and times beyond datetime64 become cftime: both right.
        warnings.simplefilter("ignore", category=zarr.errors.ZarrUserWarning)
        warnings.simplefilter("ignore", category=xr.SerializationWarning)
        references = _parquet(location, path) if _is_folder(location) else location
        alike = {"asynchronous": True}  # the files' system, as zarr wants the references'
        system = fsspec.filesystem("reference", fo=references, remote_options=alike, skip_instance_cache=True, **alike)
        store = zarr.storage.FsspecStore(system, read_only=True)
        options = {"consolidated": False, "decode_cf": False, "chunks": None, "cache": False}
        raw = xr.open_dataset(store, engine="zarr", **options)
        return [decoded(_without_fills_of_hdf5(raw, store), path, request.units)]


def _is_folder(location: str) -> bool:
    system, inner = fsspec.core.url_to_fs(location)
    return bool(system.isdir(inner))


def _parquet(location: str, path: str) -> LazyReferenceMapper:
    """References in a folder. Raises `ValueError` where nothing reads Parquet."""
    system, inner = fsspec.core.url_to_fs(location)
    try:
        return LazyReferenceMapper(inner.rstrip("/"), fs=system, engine="pyarrow")
    except ImportError as error:
        raise ValueError(f"Expected pyarrow to read {path} (pip install 'emulator[virtual]'), got: {error}") from None


def _without_fills_of_hdf5(raw: xr.Dataset, store) -> xr.Dataset:
    """Without zero as the mark of a missing value where no file declared it: what HDF5 has in chunks that nobody wrote.

    kerchunk and VirtualiZarr put both what a file declares and HDF5's own into `fill_value`, which xarray takes for missing.
    """
    group = zarr.open_group(store, mode="r", zarr_format=2)
    for name, variable in raw.variables.items():
        fill = variable.attrs.get("_FillValue")
        if fill is not None and not np.any(fill) and "_FillValue" not in group[name].attrs:
            attributes = {key: value for key, value in variable.attrs.items() if key != "_FillValue"}
            raw = raw.assign({name: variable._replace(attrs=attributes)})
    return raw


register(
    Format(
        "kerchunk",
        "Kerchunk references",
        opens,
        begins=lambda start: BEGINS.match(start) is not None,
        folder_files=(FOLDER_FILE,),
        suffixes=(*SUFFIXES, ".json"),
        reads_urls=True,
        holds=holds,
    )
)
