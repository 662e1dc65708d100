"""Chunks of NetCDF4 files read without the HDF5 library hold what the library reads, whatever their shape and filters."""

import itertools
import os
import pickle
import zlib

import h5py
import netCDF4
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.kernels import chunks as native
from emulator.sources.formats import netcdf
from emulator.sources.open import open_source

SHAPE = (7, 3, 5, 8)
DIMS = ("time", "level", "latitude", "longitude")


@pytest.fixture(autouse=True)
def chunks_of_any_size(monkeypatch):
    monkeypatch.setattr(netcdf, "LEAST_BYTES", 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


def is_direct(array: xr.DataArray) -> bool:
    return "_DirectArray" in repr(array.variable._data)


def write(path, values, chunks, unlimited=False, written=None, attributes=None, **filters):
    """A variable `t` on DIMS; only the times `written` are."""
    with netCDF4.Dataset(path, "w") as file:
        for dim, size in zip(DIMS, values.shape, strict=True):
            file.createDimension(dim, None if unlimited and dim == "time" else size)
        time = file.createVariable("time", "f8", ("time",))
        time.units = "hours since 2001-01-01"
        time[:] = 6 * np.arange(len(values))
        variable = file.createVariable("t", values.dtype, DIMS, chunksizes=chunks, **filters)
        variable.set_auto_maskandscale(False)
        variable.setncatts(attributes or {})
        for n in range(len(values)) if written is None else written:
            variable[n] = values[n]
    return str(path)


NUMBERS = itertools.count()
SELECTION = st.one_of(
    st.integers(0, 2),
    st.builds(slice, st.integers(0, 2), st.integers(2, 8)),
    st.builds(slice, st.none(), st.none(), st.sampled_from([1, 2, -1])),
    st.lists(st.integers(0, 2), min_size=1, max_size=4),
)


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(["f4", "f8", "i2", "u1", "i4", "u2", "i8"]),
    chunks=st.tuples(*(st.integers(1, n) for n in SHAPE)),
    level=st.integers(0, 9),
    shuffle=st.booleans(),
    fletcher32=st.booleans(),
    unlimited=st.booleans(),
    written=st.sets(st.integers(0, 6), min_size=1),
    key=st.tuples(*[SELECTION] * 4),
)
def test_every_selection_of_every_layout(folder, dtype, chunks, level, shuffle, fletcher32, unlimited, written, key):
    values = np.random.default_rng(0).integers(-50, 200, SHAPE).astype(dtype)
    filters = {"zlib": level > 0, "complevel": level, "shuffle": shuffle, "fletcher32": fletcher32}
    last = {6} if unlimited else set()  # an unlimited dimension is as long as what was written
    path = write(folder / f"{next(NUMBERS)}.nc", values, chunks, unlimited, written | last, **filters)
    (source,) = open_source(path)
    index = dict(zip(DIMS, key, strict=True))
    with xr.open_dataset(path) as expected:
        found = source.dataset["t"]
        assert is_direct(found) == (level > 0 or fletcher32)
        assert found.dtype == expected["t"].dtype and found.attrs == expected["t"].attrs
        there = expected["t"].isel(index).values
        if found.dtype.kind == "f":  # what nobody wrote is missing
            there = np.where(there == there.dtype.type(netCDF4.default_fillvals[dtype]), np.nan, there)
        np.testing.assert_array_equal(found.isel(index).values, there)
    os.unlink(path)


@pytest.mark.filterwarnings("ignore::xarray.SerializationWarning")
@pytest.mark.parametrize("kind", ["i2", "u1", "f4"])
@pytest.mark.parametrize("scale", [None, 0.01, np.float32(0.01)])
def test_masks_and_scales_are_xarrays(tmp_path, kind, scale):
    values = np.random.default_rng(1).integers(0, 100, SHAPE).astype(kind)
    attributes = {"missing_value": values.dtype.type(7), "units": "K"}
    if scale is not None:
        attributes |= {"scale_factor": scale, "add_offset": type(scale)(250)}
    path = write(tmp_path / "a.nc", values, (1, 1, 5, 8), zlib=True, fill_value=9, attributes=attributes)
    (source,) = open_source(path)
    with xr.open_dataset(path) as expected:
        assert np.isnan(expected["t"].values).sum() == np.isin(values, [7, 9]).sum() > 0
        assert is_direct(source.dataset["t"])
        xr.testing.assert_identical(source.dataset["t"].load(), expected["t"].load())


def test_what_is_left_to_the_library(tmp_path):
    """Big-endian numbers, other filters, arrays without chunks, and dimensions that have grown beyond a variable."""
    values = np.ones(SHAPE, np.float32)
    layouts = {  # a build of the library may lack bzip2
        "plain": (values, {"contiguous": True}),
        "big": (values.astype(">f4"), {"zlib": True, "endian": "big"}),
        "bzip2": (values, {"compression": "bzip2"}),
    }
    for name, (data, filters) in layouts.items():
        try:
            path = write(tmp_path / f"{name}.nc", data, None if name == "plain" else (1, 3, 5, 8), **filters)
        except RuntimeError:
            continue
        (source,) = open_source(path)
        assert not is_direct(source.dataset["t"]), name
        np.testing.assert_array_equal(source.dataset["t"].values, 1)
    with netCDF4.Dataset(tmp_path / "grown.nc", "w") as file:
        file.createDimension("time", None)
        file.createDimension("x", 4)
        for name, length in (("longer", 9), ("shorter", 5)):
            variable = file.createVariable(name, "f4", ("time", "x"), zlib=True, chunksizes=(2, 4), fill_value=-1)
            variable[:] = np.ones((length, 4))
    (source,) = open_source(str(tmp_path / "grown.nc"))
    assert not is_direct(source.dataset["shorter"]) and is_direct(source.dataset["longer"])
    np.testing.assert_array_equal(np.isnan(source.dataset["shorter"].values).all(axis=1), np.arange(9) >= 5)


def test_it_travels_to_other_processes(tmp_path):
    values = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    (source,) = open_source(write(tmp_path / "a.nc", values, (2, 3, 5, 8), zlib=True))
    again = pickle.loads(pickle.dumps(source.dataset["t"].variable))
    np.testing.assert_array_equal(again[2:5].values, values[2:5])


def test_the_folder_may_change_after_a_file_was_opened(tmp_path, monkeypatch):
    values = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    write(tmp_path / "a.nc", values, (2, 3, 5, 8), zlib=True)
    monkeypatch.chdir(tmp_path)
    (source,) = open_source("a.nc")
    monkeypatch.chdir("/")
    assert is_direct(source.dataset["t"])
    np.testing.assert_array_equal(source.dataset["t"].values, values)


def test_a_chunk_of_one_byte_is_a_fault(tmp_path):
    """Rather than the value of a whole chunk."""
    with h5py.File(tmp_path / "a.nc", "w") as file:
        variable = file.create_dataset("t", (8, 8), "u1", chunks=(4, 8), compression="gzip")
        variable.id.write_direct_chunk((4, 0), zlib.compress(b"x"))
        for n, dim in enumerate("yx"):
            file.create_dataset(dim, data=np.arange(8)).make_scale(dim)
            variable.dims[n].attach_scale(file[dim])
    (source,) = open_source(str(tmp_path / "a.nc"))
    with pytest.raises(OSError, match="1 bytes for 32"):
        source.dataset["t"].load()


def test_faults_are_told(tmp_path):
    values = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    path = write(tmp_path / "a.nc", values, (1, 3, 5, 8), zlib=True, shuffle=True, fletcher32=True)
    with h5py.File(path) as file:
        chunk = file["t"].id.get_chunk_info_by_coord((4, 0, 0, 0))
    whole = bytearray(open(path, "rb").read())
    for fault, message in (
        (slice(chunk.byte_offset + 40, chunk.byte_offset + 41), "cannot be decoded"),
        (slice(chunk.byte_offset + chunk.size - 4, chunk.byte_offset + chunk.size), "cannot be decoded"),
    ):
        broken = bytearray(whole)
        broken[fault] = bytes(255 - b for b in whole[fault])
        with open(path, "wb") as file:
            file.write(broken)
        (source,) = open_source(path)
        np.testing.assert_array_equal(source.dataset["t"][3].values, values[3])
        with pytest.raises(OSError, match=message):
            source.dataset["t"][4].load()
    (source,) = open_source(path)
    os.truncate(path, chunk.byte_offset)
    with pytest.raises(OSError, match="changed after it was opened"):
        source.dataset["t"][0].load()


@settings(max_examples=40, deadline=None)
@given(size=st.sampled_from([1, 2, 3, 4, 8]), data=st.binary(max_size=600))
def test_shuffled_bytes(size, data):
    """Against numcodecs', compiled and not."""
    from numcodecs.shuffle import Shuffle

    whole = len(data) // size * size
    shuffled = bytes(Shuffle(size).encode(data[:whole])) + data[whole:] if whole else data
    for library in (native.LIBRARY, None):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(native, "LIBRARY", library)
            out = native.unshuffle(shuffled, size, np.empty(len(data), np.uint8))
            assert out.tobytes() == data
