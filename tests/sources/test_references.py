"""References to bytes of other files (kerchunk, VirtualiZarr) and Icechunk repositories give what the files give."""

import json

import fsspec
import numpy as np
import pytest
import xarray as xr
from reference_files import references, write_parquet, written
from source_files import truth

from emulator.sources.formats import kerchunk
from emulator.sources.open import format_of, identity, open_source

TRUTH = truth()


def same_as_file(path: str, file: str) -> None:
    (ours,), (theirs,) = open_source(path), open_source(file)
    for name in theirs.dataset.variables:
        np.testing.assert_array_equal(ours.dataset[name].values, theirs.dataset[name].values)
        assert ours.dataset[name].attrs.get("units") == theirs.dataset[name].attrs.get("units")
    assert ours.dataset["temperature"].dims == theirs.dataset["temperature"].dims


def test_json_and_parquet(tmp_path):
    file = written(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps(references(file)))
    assert format_of(str(tmp_path / "a.json")).name == "kerchunk"
    same_as_file(str(tmp_path / "a.json"), file)
    pytest.importorskip("pyarrow", reason="pyarrow is not installed; the extra virtual brings it")
    write_parquet(references(file)["refs"], tmp_path / "a.parq")
    assert format_of(str(tmp_path / "a.parq")).name == "kerchunk"
    same_as_file(str(tmp_path / "a.parq"), file)


def test_a_url_of_references_to_urls(tmp_path):
    file = written(tmp_path)
    system = fsspec.filesystem("memory")
    system.pipe("/references/a.nc", (tmp_path / "a.nc").read_bytes())
    system.pipe("/references/a.json", json.dumps(references(file, "memory://references/a.nc")).encode())
    same_as_file("memory://references/a.json", file)
    before = identity("memory://references/a.json")
    system.pipe("/references/a.json", b"{}" * 5)
    assert identity("memory://references/a.json") != before


def test_zeros_of_a_file_that_declares_no_missing_value(tmp_path):
    """HDF5's own fill of 0 in `fill_value` is none of a missing value; what the attributes declare is."""
    field = xr.DataArray(np.arange(12.0).reshape(1, 3, 4), dims=("time", "latitude", "longitude"), name="a")
    refs = {".zgroup": '{"zarr_format": 2}', "a/0.0.0": "base64:" + _base64(field.values.tobytes())}
    shape = {"shape": [1, 3, 4], "chunks": [1, 3, 4], "dtype": "<f8", "order": "C", "filters": None, "compressor": None}
    dims = {"_ARRAY_DIMENSIONS": list(field.dims)}
    for fill, declared, missing in ((0.0, {}, []), (3.0, {}, [3]), (0.0, {"_FillValue": 0.0}, [0]), (None, {}, [])):
        refs["a/.zarray"] = json.dumps(shape | {"fill_value": fill, "zarr_format": 2})
        refs["a/.zattrs"] = json.dumps(dims | declared)
        (tmp_path / "a.json").write_text(json.dumps({"version": 1, "refs": refs}))
        (source,) = open_source(str(tmp_path / "a.json"))
        np.testing.assert_array_equal(np.flatnonzero(np.isnan(source.dataset["a"].values)), missing)


def _base64(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode()


def test_what_is_no_reference_and_what_is_not_there(tmp_path):
    (tmp_path / "error.json").write_text('{"error": {"message": "no such data"}}')
    with pytest.raises(ValueError, match=r"got JSON that begins with .*a server's message"):
        open_source(str(tmp_path / "error.json"))
    file = written(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps(references(file, str(tmp_path / "moved.nc"))))
    with pytest.raises(ValueError, match=r"Expected Kerchunk data that opens at .*a.json, got: .*moved.nc"):
        open_source(str(tmp_path / "a.json"))


def test_parquet_without_its_package(tmp_path, monkeypatch):
    (tmp_path / "a.parq").mkdir()
    (tmp_path / "a.parq" / ".zmetadata").write_text('{"metadata": {}, "record_size": 10}')

    def absent(*arguments, **options):
        raise ImportError("engine choice `pyarrow` is not installed.")

    monkeypatch.setattr(kerchunk, "LazyReferenceMapper", absent)
    with pytest.raises(ValueError, match=r"Expected pyarrow to read .*a.parq \(pip install 'emulator\[virtual\]'\)"):
        open_source(str(tmp_path / "a.parq"))


def test_references_that_kerchunk_writes(tmp_path):
    hdf = pytest.importorskip("kerchunk.hdf", reason="kerchunk is not installed")
    file = written(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps(hdf.SingleHdf5ToZarr(file).translate()))
    same_as_file(str(tmp_path / "a.json"), file)


@pytest.fixture
def virtual(tmp_path):
    """A file, and its chunks as VirtualiZarr has them."""
    virtualizarr = pytest.importorskip("virtualizarr", reason="virtualizarr is not installed")
    from obspec_utils.registry import ObjectStoreRegistry
    from obstore.store import LocalStore
    from virtualizarr.parsers import HDFParser

    file, registry = written(tmp_path), ObjectStoreRegistry({"file://": LocalStore()})
    opened = virtualizarr.open_virtual_dataset(f"file://{file}", registry=registry, parser=HDFParser())
    return file, opened


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
def test_references_that_virtualizarr_writes(tmp_path, virtual):
    file, opened = virtual
    opened.vz.to_kerchunk(str(tmp_path / "a.json"), format="json")
    same_as_file(str(tmp_path / "a.json"), file)


def repository(folder, containers=None):
    icechunk = pytest.importorskip("icechunk", reason="icechunk is not installed; the extra virtual brings it")
    storage = icechunk.local_filesystem_storage(str(folder))
    config = icechunk.RepositoryConfig.default()
    for prefix in containers or ():
        store = icechunk.local_filesystem_store(prefix.removeprefix("file://"))
        config.set_virtual_chunk_container(icechunk.VirtualChunkContainer(prefix, store))
    allowed = dict.fromkeys(containers or ())
    made = icechunk.Repository.create(storage, config, authorize_virtual_chunk_access=allowed)
    made.save_config()
    return made


def test_an_icechunk_repository_and_its_next_commit(tmp_path):
    made = repository(tmp_path / "a.icechunk")
    path, identities = str(tmp_path / "a.icechunk"), []
    for factor in (1.0, 2.0):
        session = made.writable_session("main")
        (TRUTH * factor).assign_attrs(TRUTH.attrs).to_zarr(session.store, mode="w", consolidated=False, zarr_format=3)
        session.commit(f"{factor}")
        (source,) = open_source(path)
        np.testing.assert_array_equal(source.dataset["temperature"].values, TRUTH["temperature"].values * factor)
        identities.append(identity(path))
    assert format_of(path).name == "icechunk" and identities[0] != identities[1]
    (tmp_path / "b.icechunk" / "snapshots").mkdir(parents=True)  # a copy that broke off
    with pytest.raises(ValueError, match=r"an Icechunk repository at .*b.icechunk, got: the repository doesn't exist"):
        open_source(str(tmp_path / "b.icechunk"), "icechunk")


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
def test_chunks_of_files_in_an_icechunk_repository(tmp_path, virtual):
    file, opened = virtual
    made = repository(tmp_path / "a.icechunk", [f"file://{tmp_path}/"])
    session = made.writable_session("main")
    opened.vz.to_icechunk(session.store)
    session.commit("all of them")
    same_as_file(str(tmp_path / "a.icechunk"), file)
    (source,) = open_source(str(tmp_path / "a.icechunk"))
    (tmp_path / "a.nc").unlink()
    with pytest.raises(OSError, match=r"error fetching virtual reference; .*a.nc not found"):
        source.dataset["temperature"].values  # noqa: B018


def test_icechunk_without_its_package(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "icechunk", None)
    with pytest.raises(ValueError, match=r"Expected icechunk to read .*, got none: pip install 'emulator\[virtual\]'"):
        open_source("s3://bucket/a.icechunk")
