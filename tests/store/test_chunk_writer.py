"""Chunks written without Zarr's detours are the bytes that Zarr writes."""

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.store import regions as zarr_regions
from emulator.store.chunk_writer import write_chunks
from emulator.store.chunks import ChunkReader
from emulator.store.regions import create, write_region


def bytes_of(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def template(times, shape):
    dims = ("time", "level", "latitude", "longitude")[: 1 + len(shape)]
    return xr.Dataset({"t": (dims, np.zeros((times, *shape), np.float32))}, {"time": np.arange(times)})


@settings(max_examples=40, deadline=None)
@given(
    times=st.integers(1, 11),
    shape=st.sampled_from([(5,), (3, 4), (2, 9, 16)]),
    shard=st.sampled_from([None, 1, 2, 4, 5]),
    holes=st.sets(st.integers(0, 10)),
    some=st.sets(st.integers(0, 10)),
    scale=st.sampled_from([0.0, 1.0, 1e30]),
)
def test_the_bytes_are_zarrs(tmp_path_factory, times, shape, shard, holes, some, scale):
    """Times that are all NaN (`holes`) are left out, those that are partly NaN (`some`) are not."""
    folder = tmp_path_factory.mktemp("stores")
    values = (scale * np.random.default_rng(0).normal(size=(times, *shape))).astype(np.float32)
    values[[n for n in holes if n < times]] = np.nan
    values[[n for n in some if n < times], ..., 0] = np.nan
    if scale == 0:
        values[0, ..., -1] = -0.0
    found = []
    for direct in (True, False):
        path = folder / f"{direct}.zarr"
        create(path, template(times, shape), {"time": 1}, None if shard is None else {"time": shard})
        with pytest.MonkeyPatch.context() as patched:
            if not direct:
                patched.setattr(zarr_regions, "write_chunks", lambda *arguments: False)
            for start in range(0, times, shard or 3):
                write_region(path, "t", values[start : start + (shard or 3)], {"time": start})
        found.append(bytes_of(folder / f"{direct}.zarr.partial"))
        np.testing.assert_array_equal(zarr.open_array(folder / f"{direct}.zarr.partial" / "t")[:], values)
    assert found[0] == found[1]


def test_what_is_left_to_zarr(tmp_path):
    """A part of a file, and a fill value that is a number."""
    values = np.ones((2, 3, 4), np.float32)
    create(tmp_path / "a.zarr", template(8, (3, 4)), {"time": 1}, {"time": 4})
    layout = ChunkReader.of(tmp_path / "a.zarr.partial", "t")
    before = bytes_of(tmp_path)
    assert not write_chunks(layout, 0, values) and not write_chunks(layout, 1, np.ones((4, 3, 4), np.float32))
    create(tmp_path / "b.zarr", template(8, (3, 4)), {"time": 1}, {"time": 2}, fill=0.0)
    assert not write_chunks(ChunkReader.of(tmp_path / "b.zarr.partial", "t"), 0, values)
    assert {name: data for name, data in bytes_of(tmp_path).items() if name.startswith("a.")} == before
    write_region(tmp_path / "a.zarr", "t", values, {"time": 2})
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a.zarr.partial" / "t")[2:4], values)


def test_a_region_of_gaps_removes_what_was_there(tmp_path):
    create(tmp_path / "a.zarr", template(4, (3, 4)), {"time": 1}, {"time": 2})
    empty = bytes_of(tmp_path)
    write_region(tmp_path / "a.zarr", "t", np.ones((2, 3, 4), np.float32), {"time": 2})
    assert bytes_of(tmp_path) != empty
    write_region(tmp_path / "a.zarr", "t", np.full((2, 3, 4), np.nan, np.float32), {"time": 2})
    assert bytes_of(tmp_path) == empty


def test_nothing_is_left_of_a_file_that_could_not_be_written(tmp_path, monkeypatch):
    create(tmp_path / "a.zarr", template(4, (3, 4)), {"time": 1}, {"time": 2})
    before = bytes_of(tmp_path)

    def full(self, data):
        raise OSError(28, "No space left on device", "c/0")

    monkeypatch.setattr("emulator.store.chunk_writer._write", full)
    with pytest.raises(zarr_regions.DiskError, match="No space left on device"):
        write_region(tmp_path / "a.zarr", "t", np.ones((2, 3, 4), np.float32), {})
    assert bytes_of(tmp_path) == before


@pytest.mark.parametrize("place", ["chunk", "index"])
def test_a_fault_of_the_disk_is_found_by_reading_back(tmp_path, monkeypatch, place):
    """A bit that is flipped on its way to the disk."""
    create(tmp_path / "a.zarr", template(4, (3, 40)), {"time": 1}, {"time": 2})
    from emulator.store import chunk_writer

    write = chunk_writer._write
    count = iter(range(100))

    def flip(file, data):
        broken = bytearray(data)
        if next(count) == (1 if place == "chunk" else 2):
            broken[len(broken) // 2 if place == "chunk" else 1] ^= 4
        write(file, bytes(broken))

    monkeypatch.setattr(chunk_writer, "_write", flip)
    with pytest.raises(ValueError, match=r"read back what was written of t|decompresses in|broken file"):
        write_region(tmp_path / "a.zarr", "t", np.random.default_rng(0).normal(size=(2, 3, 40)), {})
