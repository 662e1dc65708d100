"""Reading chunks without Zarr's detours gives Zarr's values, in any layout of ours, and leaves all other layouts to it.

Windows are read by the compiled threads and, as where there is no compiler, by Python's.
"""

import pickle
import shutil

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_planet import small_planet
from zarr.codecs import BloscCodec, BytesCodec, ShardingCodec

from emulator.data.channels import Channels, Layout
from emulator.data.samples import Samples
from emulator.kernels import chunks as native
from emulator.parallel.space import Space
from emulator.store.analysis import open_analysis
from emulator.store.chunks import ChunkReader, StoreReader
from emulator.store.regions import create, finish, write_region

TIMES = 13
PACKED = BloscCodec(cname="lz4", clevel=5, shuffle="shuffle", typesize=4)


def make(path, data, times_per_chunk=1, shard=None, holes=(), rows=None):
    """A store of ours; the times at `holes` are left unwritten. `rows`: of latitude in a chunk."""
    data = data.assign_attrs(emulator_schema="analysis-1")
    chunks = {"time": times_per_chunk} | ({"latitude": rows} if rows else {})
    create(path, data, chunks, None if shard is None else {"time": shard})
    for name, field in data.data_vars.items():
        if "time" in field.dims:
            for start in range(0, data.sizes["time"], shard or 1):
                values = field.values[start : start + (shard or 1)].copy()
                values[[n for n in range(len(values)) if start + n in holes]] = np.nan
                write_region(path, name, values, {"time": start})
    finish(path)
    return path


@pytest.fixture(scope="module")
def planet():
    return small_planet(times=TIMES)


@pytest.fixture(params=["compiled", "python"])
def route(request, monkeypatch):
    if request.param == "python":
        monkeypatch.setattr(native, "DECOMPRESS", None)
    elif native.DECOMPRESS is None:
        pytest.skip("no compiled kernels, or no function of Blosc's to be had")
    return request.param


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: the kernels were not made")
def test_blosc_can_be_called_where_a_compiler_is():
    assert native.DECOMPRESS is not None


def layout_of(planet):
    return Layout(
        Channels.of(planet, ["temperature", "surface_pressure", "specific_humidity"]),
        Channels.of(planet, ["mean_evaporation_rate"]),
        Channels.of(planet, ["sea_surface_temperature", "mean_top_net_short_wave_radiation_flux"]),
        Channels.of(planet, []),
    )


@pytest.fixture(scope="module", params=[None, 1, 4, 13, 64], ids=lambda s: f"shards of {s}")
def store(request, planet, tmp_path_factory):
    return make(tmp_path_factory.mktemp("store") / "a.zarr", planet, shard=request.param, holes=(4, 5))


def test_every_time_of_every_field(store, planet):
    for name in ("temperature", "surface_pressure", "mean_evaporation_rate"):
        reader, array = ChunkReader.of(store, name), zarr.open_array(store, path=name)
        out = np.empty(array.shape[1:], np.float32)
        for time in range(TIMES):
            reader.read(time, out)
            np.testing.assert_array_equal(out, array[time])
            assert np.isnan(out).all() == (time in (4, 5))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, TIMES - 4), min_size=1, max_size=5), st.integers(1, 3), st.integers(1, 3))
def test_windows_are_those_that_zarr_reads(store, planet, route, starts, steps, threads):
    data, layout = open_analysis(store), layout_of(planet)
    expected = Samples(data, layout, cache_bytes=0).batch(starts, steps)
    for cache in (0, 1 << 30):
        samples = Samples(data, layout, cache_bytes=cache, stores=[store], threads=threads)
        found = samples.batch(starts, steps)
        for name in ("state", "diagnostic", "forcing", "clock"):
            a, b = getattr(found, name), getattr(expected, name)
            assert a.is_contiguous() and a.dtype == b.dtype
            np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_period_begins_within_the_store(store, planet):
    data, layout = open_analysis(store), layout_of(planet)
    samples = Samples(data, layout, "2001-01-01T12", "2001-01-02", cache_bytes=0, stores=[store])
    np.testing.assert_array_equal(samples.state(0)[:4], data.temperature.values[2])


@pytest.mark.parametrize("rows, shard", [(None, 4), (4, None), (4, 4), (5, 4), (12, None)])
@pytest.mark.parametrize("cache", [0, 1 << 30])
def test_bands_are_the_rows_of_whole_fields(tmp_path, planet, route, rows, shard, cache):
    """Of 12 rows each of 3 processes reads 4, from chunks of as many, of others or of all."""
    store, layout = make(tmp_path / "a.zarr", planet, shard=shard, holes=(4, 5), rows=rows), layout_of(planet)
    whole = Samples(planet, layout, cache_bytes=0)
    hollow = np.isin(np.arange(TIMES), (4, 5))
    for space in [Space.imagined(3, rank) for rank in range(3)]:
        for direct in ([store], None):
            found = Samples(open_analysis(store), layout, cache_bytes=cache, stores=direct, space=space).batch(
                [0, 9], 3
            )
            for name in ("state", "diagnostic", "forcing", "clock"):
                theirs = space.cut(getattr(whole.batch([0, 9], 3), name))
                np.testing.assert_array_equal(getattr(found, name).numpy(), theirs.numpy())
    out = np.empty((TIMES, 4, 12, 24), np.float32)
    reader = StoreReader(store)
    assert reader.can_read(["temperature"])
    reader.read([("temperature", time, time, 0, 4) for time in range(TIMES)], out)
    np.testing.assert_array_equal(out, np.where(hollow[:, None, None, None], np.nan, planet.temperature.values))


@pytest.mark.parametrize("shard", [None, 4])
def test_a_process_opens_the_files_of_its_rows_alone(tmp_path, planet, route, shard):
    store, layout = make(tmp_path / "a.zarr", planet, shard=shard, rows=4), layout_of(planet)
    expected = Samples(planet, layout, cache_bytes=0, space=Space.imagined(3, 1)).batch([2], 3)
    others = [folder for folder in store.glob("*/c/*/**") if folder.name in ("0", "2") and (folder / "0").is_file()]
    assert others
    for folder in others:
        shutil.rmtree(folder)
    found = Samples(open_analysis(store), layout, cache_bytes=0, stores=[store], space=Space.imagined(3, 1)).batch(
        [2], 3
    )
    np.testing.assert_array_equal(found.state.numpy(), expected.state.numpy())
    lost = Samples(open_analysis(store), layout, cache_bytes=0, stores=[store], space=Space.imagined(3, 0)).batch(
        [2], 3
    )
    assert np.isnan(lost.state.numpy()).all()


@pytest.mark.parametrize("layout", ["chunks of two times", "float64", "another codec", "a URL"])
def test_other_layouts_are_left_to_zarr(tmp_path, planet, layout):
    path = tmp_path / "a.zarr"
    if layout == "chunks of two times":
        make(path, planet, times_per_chunk=2, shard=4)
    else:
        data = planet.astype(np.float64) if layout == "float64" else planet
        data.to_zarr(
            path,
            zarr_format=3,
            consolidated=False,
            encoding={v: {"chunks": (1, *data[v].shape[1:])} for v in ("temperature",)},
        )
    assert ChunkReader.of("memory://a.zarr" if layout == "a URL" else path, "temperature") is None


def sharded(endian="little", **index):
    codecs = (BytesCodec(endian=endian), PACKED)
    return ShardingCodec(chunk_shape=(1, 3, 4), codecs=codecs, **index)


@pytest.mark.parametrize(
    "options",
    [
        {"serializer": BytesCodec(endian="big")},
        {"chunk_key_encoding": {"name": "default", "separator": "."}},
        {"shards": {"shape": (2, 3, 4), "index_location": "start"}},
        {"chunks": (2, 3, 4), "serializer": sharded("big"), "compressors": []},
        {"chunks": (2, 3, 4), "serializer": sharded(index_codecs=[BytesCodec()]), "compressors": []},
        {"chunks": (2, 6, 4), "serializer": sharded(), "compressors": []},
    ],
    ids=["big-endian", "dots", "index first", "big-endian shards", "no checksum", "shards beyond the array"],
)
def test_what_others_have_laid_out_in_another_way_is_left_to_zarr(tmp_path, options):
    """None of these differs in its chunks' shape, type or compression."""
    options = {"chunks": (1, 3, 4), "compressors": [PACKED]} | options
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("t", shape=(4, 3, 4), dtype="f4", fill_value=np.nan, **options)[:] = 1
    assert ChunkReader.of(tmp_path / "a.zarr", "t") is None


BREAKAGES = {
    "no header": lambda data: data.__setitem__(slice(0, 40), bytes(40)),
    "another size": lambda data: data.__setitem__(4, data[4] ^ 1),
    "garbage inside": lambda data: data.__setitem__(slice(16, 4000), bytes(range(256)) * 15 + bytes(144)),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
@pytest.mark.parametrize("shard", [None, 4])
def test_a_broken_chunk_is_named(tmp_path, planet, route, breakage, shard):
    path = make(tmp_path / "a.zarr", planet, shard=shard)
    file = path / "temperature" / "c" / "0" / "0" / "0" / "0"
    data = bytearray(file.read_bytes())
    size = len(data)
    BREAKAGES[breakage](data)
    file.write_bytes(data[:size])
    message = r"chunk of temperature that decompresses in .*c/0/0/0/0"
    with pytest.raises(ValueError, match=message):
        ChunkReader.of(path, "temperature").read(0, np.empty(planet.temperature.shape[1:], np.float32))
    samples = Samples(open_analysis(path), layout_of(planet), cache_bytes=0, stores=[path], threads=2)
    with pytest.raises(ValueError, match=message):
        samples.batch([0, 6], 1)


@pytest.mark.parametrize("shard", [None, 4])
def test_a_file_that_shrinks_after_its_index_was_read_is_named(tmp_path, planet, route, shard):
    path = make(tmp_path / "a.zarr", planet, shard=shard)
    samples = Samples(open_analysis(path), layout_of(planet), cache_bytes=0, stores=[path], threads=2)
    samples.batch([0], 1)
    file = path / "temperature" / "c" / "0" / "0" / "0" / "0"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"chunk of temperature that decompresses in .*c/0/0/0/0"):
        samples.batch([0], 1)


def test_room_of_another_size_is_refused(store, planet, route):
    """Addresses are handed to compiled code: nothing may be written beyond them."""
    reader = StoreReader(store)
    assert reader.can_read(["temperature"])
    count, *space = planet.temperature.shape[1:]
    for shape, dtype, last in (((2, count, *space), "f4", count - 1), ((2, count, *space), "f8", count)):
        with pytest.raises(ValueError, match="Expected (room|C-contiguous)"):
            reader.read([("temperature", 0, 0, 0, last)], np.empty(shape, dtype))
    with pytest.raises(ValueError, match="Expected C-contiguous"):
        reader.read([("temperature", 0, 0, 0, count)], np.empty((2, count, *space[::-1]), "f4").swapaxes(-1, -2))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path, planet, share):
    """What then stands where the index should be points anywhere."""
    path = make(tmp_path / "a.zarr", planet, shard=4)
    file = path / "temperature" / "c" / "0" / "0" / "0" / "0"
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=r"Expected a .* of temperature .* c/0/0/0/0|temperature .*c/0/0/0/0"):
        for time in range(4):
            ChunkReader.of(path, "temperature").read(time, np.empty(planet.temperature.shape[1:], np.float32))


def test_it_is_sent_to_other_processes(tmp_path, planet):
    path = make(tmp_path / "a.zarr", planet, shard=4)
    reader = StoreReader(path, threads=2)
    assert reader.can_read(["temperature"])
    copy, out = pickle.loads(pickle.dumps(reader)), np.empty((1, *planet.temperature.shape[1:]), np.float32)
    assert copy.can_read(["temperature"])
    copy.read([("temperature", 7, 0, 0, out.shape[1])], out)
    np.testing.assert_array_equal(out[0], planet.temperature.values[7])


# --- several stores -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(planet, tmp_path_factory):
    """The planet's times 0 to 5 and 6 to 12."""
    folder = tmp_path_factory.mktemp("two")
    return [
        make(folder / f"{n}.zarr", planet.isel(time=part), shard=4)
        for n, part in enumerate((slice(0, 6), slice(6, 13)))
    ]


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("cache", [0, 1 << 30])
def test_stores_that_follow_one_another_are_one(two, planet, direct, cache, tmp_path):
    layout, datasets = layout_of(planet), [open_analysis(path) for path in two]
    whole = Samples(open_analysis(make(tmp_path / "whole.zarr", planet, shard=4)), layout, cache_bytes=0)
    samples = Samples(datasets, layout, cache_bytes=cache, stores=two if direct else None)
    np.testing.assert_array_equal(samples.times, whole.times)
    np.testing.assert_array_equal(samples.starts(3), whole.starts(3))
    starts = [s for s in range(10) if s in (6, 7, 8)]
    for found, expected in zip(samples.batch(starts, 3)._tensors(), whole.batch(starts, 3)._tensors(), strict=True):
        np.testing.assert_array_equal(found.numpy(), expected.numpy())
    within = Samples(datasets, layout, planet.time.values[7], None, cache_bytes=0, stores=two if direct else None)
    np.testing.assert_array_equal(within.state(0)[:4], planet.temperature.values[7])


def test_no_window_crosses_the_seam_of_stores_that_leave_a_gap(planet):
    layout = layout_of(planet)
    parts = [planet.isel(time=slice(0, 5)), planet.isel(time=slice(7, 13))]
    samples = Samples(parts, layout)
    assert samples.starts(1).tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert samples.starts(3).tolist() == [0, 1, 5, 6, 7]


def test_stores_that_do_not_fit_are_named(planet):
    layout = layout_of(planet)
    for other, message in (
        (planet.isel(time=slice(4, 13)), "in the order of time, got 2001-01-02T06.* and then 2001-01-02T00"),
        (planet.isel(time=slice(6, 13), latitude=slice(0, 6)), "stores of one grid"),
        (planet.isel(time=slice(6, 13, 2)), "one time step, got 6 h, 12 h"),
    ):
        with pytest.raises(ValueError, match=message):
            Samples([planet.isel(time=slice(0, 6)), other], layout)
    with pytest.raises(ValueError, match="a path for each of 2 stores, got 1"):
        Samples([planet, planet], layout, stores=["a.zarr"])
    assert isinstance(planet, xr.Dataset)
