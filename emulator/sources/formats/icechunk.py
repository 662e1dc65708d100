"""Icechunk repositories (the extra `virtual`), on disk or in S3: the latest snapshot of the branch `main`.

Chunks that lie in other files, as VirtualiZarr writes them, are read from where the repository's configuration says.
"""

import os
import warnings

import fsspec
import xarray as xr
import zarr
from zarr.storage import WrapperStore

from emulator.sources.decode import decoded
from emulator.sources.open import Format, Request, decoding, register, short

BRANCH = "main"
FILES = (f"refs/branch.{BRANCH}/ref.json", "repo")  # of Icechunk's format 1, and of 2
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")


class _Chunks(WrapperStore):
    """A store of Icechunk whose errors are those of files."""

    async def get(self, key, prototype, byte_range=None):
        from icechunk import IcechunkError

        try:
            return await self._store.get(key, prototype, byte_range)
        except IcechunkError as error:
            raise OSError(_first(error)) from error


def _first(error: Exception) -> str:
    """What Icechunk's error says, without its drawing of where it comes from."""
    lines = [line.strip(" |`->x×╰▶─") for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(("context", "at ", "with ", "0:", "1:", "2:"))]
    return short(OSError("; ".join(dict.fromkeys(said))))


def opens(location: str, path: str, request: Request) -> list[xr.Dataset]:
    """One dataset. Raises `ValueError` naming the path without the package, a repository, or the branch."""
    try:
        import icechunk
    except ImportError:
        raise ValueError(f"Expected icechunk to read {path}, got none: pip install 'emulator[virtual]'") from None
    icechunk.set_logs_filter("error")  # its warnings are of concurrent commits
    with decoding("Icechunk", path), warnings.catch_warnings():
        warnings.simplefilter("ignore", category=zarr.errors.ZarrUserWarning)  # codecs of HDF5 in virtual chunks
        warnings.simplefilter("ignore", category=xr.SerializationWarning)
        try:
            storage = _storage(icechunk, location)
            containers = icechunk.Repository.open(storage).config.virtual_chunk_containers or {}
            allowed = {prefix: _credentials(icechunk, prefix) for prefix in containers}
            repository = icechunk.Repository.open(storage, authorize_virtual_chunk_access=allowed)
            store = _Chunks(repository.readonly_session(BRANCH).store)
        except icechunk.IcechunkError as error:
            raise ValueError(f"Expected an Icechunk repository at {path}, got: {_first(error)}") from error
        options = {"consolidated": False, "decode_cf": False, "chunks": None, "cache": False}
        return [decoded(xr.open_dataset(store, engine="zarr", **options), path, request.units, undeclared=False)]


def _storage(icechunk, location: str):
    """Where a repository lies. Raises `ValueError` for URLs of other protocols than s3."""
    protocol, _, rest = location.rpartition("://")
    if not protocol:
        return icechunk.local_filesystem_storage(os.path.abspath(location))
    if protocol != "s3":
        raise ValueError(f"Expected an Icechunk repository on disk or in S3, got the URL {location}")
    bucket, _, prefix = rest.strip("/").partition("/")
    endpoint = next((os.environ[name] for name in ENDPOINTS if os.environ.get(name)), None)
    return icechunk.s3_storage(
        bucket=bucket,
        prefix=prefix,
        region=next((os.environ[name] for name in REGIONS if os.environ.get(name)), None),
        endpoint_url=endpoint,
        allow_http=str(endpoint).startswith("http://"),
        force_path_style=endpoint is not None,
        **_identity(),
    )


def _identity() -> dict[str, bool]:
    """Anonymous where fsspec is told so of s3 (`FSSPEC_S3_ANON`), else by the environment's credentials."""
    anonymous = str(fsspec.config.conf.get("s3", {}).get("anon", False)).lower() in ("true", "1")
    return {"anonymous": True} if anonymous else {"from_env": True}


def _credentials(icechunk, prefix: str):
    """What chunks in other files are read with."""
    return icechunk.s3_credentials(**_identity()) if prefix.startswith("s3://") else None


register(Format("icechunk", "Icechunk", opens, folder_files=FILES, suffixes=(".icechunk",), reads_urls=True))
