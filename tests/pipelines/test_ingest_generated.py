"""Generated NetCDF files, whole and damaged: the store is what plain NumPy makes of them, or one sentence names the file."""

import itertools
import shutil

import cftime
import h5py
import netCDF4
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.sources.formats import netcdf
from emulator.store.analysis import open_analysis
from pipelines.config import IngestConfig
from pipelines.ingest import ingest

NUMBERS = itertools.count()
LEVELS = np.array([300.0, 500.0, 850.0])
LATITUDE, LONGITUDE = np.linspace(90, -90, 7), np.arange(12) * 30.0
CANONICAL = ("time", "level", "latitude", "longitude")
NAMES = {
    "ERA5": dict(zip(CANONICAL, CANONICAL, strict=True)) | {"t": "temperature", "p": "mean_sea_level_pressure"},
    "CDS": dict(zip(CANONICAL, ("valid_time", "pressure_level", "latitude", "longitude"), strict=True))
    | {"t": "t", "p": "msl"},
    "CMIP": dict(zip(CANONICAL, ("time", "plev", "lat", "lon"), strict=True)) | {"t": "ta", "p": "psl"},
}


def fields(count: int) -> dict[str, np.ndarray]:
    """Temperature in K and pressure in Pa, float64, in the convention's order; no two values are alike."""
    chance = np.random.default_rng(count)
    t = 250 + 30 * chance.random((count, len(LEVELS), len(LATITUDE), len(LONGITUDE)))
    return {"t": t, "p": 1e5 + 2e3 * chance.random((count, len(LATITUDE), len(LONGITUDE)))}


FILE = st.fixed_dictionaries(
    {
        "dims": st.permutations(CANONICAL),
        "south_first": st.booleans(),
        "bottom_first": st.booleans(),
        "pascal": st.booleans(),
        "roll": st.integers(0, 11),
        "from_180": st.booleans(),
        "celsius": st.booleans(),
        "hectopascal": st.booleans(),
        "packed": st.sampled_from([None, "i2", "i4"]),
        "scale": st.floats(0.002, 0.01),
        "time_units": st.sampled_from(["hours", "days", "minutes", "seconds"]),
        "origin": st.sampled_from(["1900-01-01", "2001-02-20 06:00:00", "1970-01-01"]),
        "time_type": st.sampled_from(["f8", "i8"]),
        "chunk": st.integers(1, 4),
        "compression": st.sampled_from([{}, {"zlib": True}, {"zlib": True, "shuffle": False}, {"fletcher32": True}]),
    }
)


def stored(values, units, file):
    """What a file holds of some values, as it holds it, and as it is read: `(numbers, attributes, float32)`."""
    change = {"degC": -273.15, "hPa": 0.0}.get(units, 0.0)
    factor = 0.01 if units == "hPa" else 1.0
    own = values * factor + change
    if file["packed"] is None:
        numbers, attributes = own.astype(np.float32), {}
        read = numbers.astype(np.float64)
    else:
        scale, offset = file["scale"] * (20 if units == "Pa" else 1), float(own.mean())
        numbers = np.rint((own - offset) / scale).astype(file["packed"])
        attributes = {"scale_factor": scale, "add_offset": offset}
        read = numbers * scale + offset
    return numbers, attributes, ((read - change) / factor).astype(np.float32)


def write(path, names, times, data, file):
    """One NetCDF4 file; returns the float32 values that a reader finds, in the convention's order."""
    units = {"t": "degC" if file["celsius"] else "K", "p": "hPa" if file["hectopascal"] else "Pa"}
    latitude, level = LATITUDE, LEVELS * (100 if file["pascal"] else 1)
    longitude = np.roll(LONGITUDE, file["roll"])
    if file["from_180"]:
        longitude = (longitude + 180) % 360 - 180
    order = {
        "latitude": slice(None, None, -1) if file["south_first"] else slice(None),
        "level": slice(None, None, -1) if file["bottom_first"] else slice(None),
    }
    time_units = f"{file['time_units']} since {file['origin']}"
    with netCDF4.Dataset(path, "w") as made:
        for dim, values, attributes in (
            ("time", cftime.date2num(times, time_units), {"units": time_units, "calendar": times[0].calendar}),
            ("level", level[order["level"]], {"units": "Pa" if file["pascal"] else "hPa"}),
            ("latitude", latitude[order["latitude"]], {"units": "degrees_north"}),
            ("longitude", longitude, {"units": "degrees_east"}),
        ):
            made.createDimension(names[dim], len(values))
            kind = file["time_type"] if dim == "time" and file["time_units"] != "days" else "f8"
            variable = made.createVariable(names[dim], kind, (names[dim],))
            variable.setncatts(attributes)
            variable[:] = values
        found = {}
        for name, values in data.items():
            numbers, attributes, found[name] = stored(values, units[name], file)
            own = [d for d in CANONICAL if d != "level" or name == "t"]
            dims = [d for d in file["dims"] if d in own]
            chunks = [min(file["chunk"], n) for n in (numbers.shape[own.index(d)] for d in dims)]
            variable = made.createVariable(
                names[name], numbers.dtype, [names[d] for d in dims], chunksizes=chunks, **file["compression"]
            )
            variable.set_auto_maskandscale(False)
            variable.setncatts(attributes | {"units": units[name]})
            numbers = np.roll(numbers, file["roll"], axis=-1)
            numbers = numbers[tuple(order.get(d, slice(None)) for d in own)]
            variable[:] = numbers.transpose([own.index(d) for d in dims])
    return found


def moments(calendar: str, count: int) -> np.ndarray:
    """Six-hourly, over the end of February."""
    first = cftime.datetime(2004, 2, 27, calendar=calendar)
    return np.array([cftime.num2date(6 * n, f"hours since {first}", calendar=calendar) for n in range(count)])


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=3).filter(lambda some: sum(some) > 1),
    files=st.lists(FILE, min_size=3, max_size=3),
    names=st.sampled_from(sorted(NAMES)),
    calendar=st.sampled_from(["standard", "proleptic_gregorian", "noleap", "360_day"]),
    region=st.sampled_from([None, 1, 3, 4]),
    threads=st.integers(1, 2),
    direct=st.booleans(),
    backwards=st.booleans(),
)
def test_a_store_is_what_numpy_makes_of_the_files(
    tmp_path_factory, lengths, files, names, calendar, region, threads, direct, backwards
):
    folder = tmp_path_factory.getbasetemp() / f"generated-{next(NUMBERS)}"
    folder.mkdir()
    times, data = moments(calendar, sum(lengths)), fields(sum(lengths))
    expected = {name: [] for name in data}
    start = 0
    for number, (length, file) in enumerate(zip(lengths, files, strict=False)):
        part = slice(start, start := start + length)
        place = len(lengths) - number if backwards else number
        some = {name: values[part] for name, values in data.items()}
        found = write(folder / f"{place}.nc", NAMES[names], times[part], some, file)
        for name, values in found.items():
            expected[name].append(values)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(netcdf, "LEAST_BYTES", 1 if direct else 1 << 40)
        options = {"times_per_region": region, "dask": {"threads": threads}}
        ingest(IngestConfig(sources=[{"path": str(folder / "*.nc")}], output=folder / "a.zarr", **options))
    store = open_analysis(folder / "a.zarr")
    np.testing.assert_array_equal(store.level.values, LEVELS)
    np.testing.assert_array_equal(store.latitude.values, LATITUDE)
    np.testing.assert_array_equal(store.longitude.values, LONGITUDE)
    when = store.indexes["time"]
    assert [(t.year, t.month, t.day, t.hour, t.minute) for t in when] == [
        (t.year, t.month, t.day, t.hour, t.minute) for t in times
    ]
    for name, field in (("t", store.temperature), ("p", store.mean_sea_level_pressure)):
        np.testing.assert_allclose(field.values, np.concatenate(expected[name]), rtol=2e-7, atol=0)
    shutil.rmtree(folder)


@settings(max_examples=40, deadline=None)
@given(
    file=FILE,
    fault=st.sampled_from(["cut off", "a byte of a chunk"]),
    where=st.floats(0, 1, exclude_max=True),
    direct=st.booleans(),
)
def test_a_damaged_file_is_named_or_did_no_harm(tmp_path_factory, file, fault, where, direct):
    """Cut off anywhere, or with one wrong byte in a chunk: the right values, or one sentence and nothing left."""
    folder = tmp_path_factory.getbasetemp() / f"damaged-{next(NUMBERS)}"
    folder.mkdir()
    if fault == "a byte of a chunk":
        file = file | {"compression": {"zlib": True, "fletcher32": True}}
    times, data = moments("standard", 8), fields(8)
    for number, part in enumerate((slice(0, 4), slice(4, 8))):
        some = {name: values[part] for name, values in data.items()}
        write(folder / f"{number}.nc", NAMES["ERA5"], times[part], some, file)
    sources = {"sources": [{"path": str(folder / "*.nc")}]}
    ingest(IngestConfig(output=folder / "whole.zarr", **sources))
    path = folder / "1.nc"
    whole = path.read_bytes()
    if fault == "cut off":
        path.write_bytes(whole[: int(where * len(whole))])
    else:
        with h5py.File(path) as opened:
            temperature = opened["temperature"].id
            chunk = temperature.get_chunk_info(int(where * temperature.get_num_chunks()))
        place = chunk.byte_offset + int(where * chunk.size)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(netcdf, "LEAST_BYTES", 1 if direct else 1 << 40)
        try:
            ingest(IngestConfig(output=folder / "a.zarr", **sources))
        except ValueError as error:
            assert "1.nc" in str(error) and "\n" not in str(error) and str(error).startswith("Expected")
            assert not [p for p in folder.iterdir() if p.name.startswith("a.zarr")]
        else:
            one, other = open_analysis(folder / "a.zarr"), open_analysis(folder / "whole.zarr")
            np.testing.assert_array_equal(one.temperature.values, other.temperature.values)
            assert fault != "a byte of a chunk"  # which checksums find, wherever it is
    shutil.rmtree(folder)


def test_a_compressed_source_that_changes_while_it_is_read_is_named(tmp_path, monkeypatch):
    """Chunks are read from where they lay when the file was opened, which is not where they lie in another one."""
    import emulator.ingestion.run as module

    monkeypatch.setattr(netcdf, "LEAST_BYTES", 1)
    file = dict.fromkeys(("south_first", "bottom_first", "pascal", "from_180", "celsius", "hectopascal"), False) | {
        "dims": CANONICAL,
        "roll": 0,
        "packed": None,
        "time_units": "hours",
        "origin": "1970-01-01",
        "time_type": "f8",
        "chunk": 4,
        "compression": {"zlib": True},
    }
    times, data = moments("standard", 8), fields(8)
    write(tmp_path / "a.nc", NAMES["ERA5"], times, data, file)
    fill = module.fill

    def changing(*arguments):
        fill(*arguments)
        write(tmp_path / "b.nc", NAMES["ERA5"], times, {n: v + 1 for n, v in data.items()}, file | {"chunk": 3})
        (tmp_path / "b.nc").replace(tmp_path / "a.nc")

    monkeypatch.setattr(module, "fill", changing)
    options = {"times_per_region": 1, "dask": {"threads": 1}}
    with pytest.raises(ValueError, match=r"Expected to read .* from .*a\.nc, got: a file that was changed"):
        ingest(IngestConfig(sources=[{"path": str(tmp_path / "a.nc")}], output=tmp_path / "a.zarr", **options))
    assert [p.name for p in tmp_path.iterdir()] == ["a.nc"]
