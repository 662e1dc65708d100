"""Stores of anemoi-datasets through ingest: the layout written by zarr alone, and the package itself where it is there."""

import logging

import numpy as np
import pytest
import xarray as xr
from anemoi_stores import COMPUTED, DATES, mesh, octahedral, values_of, write_anemoi

from emulator.ingestion.options import IngestOptions
from emulator.ingestion.run import ingest
from emulator.sources.formats import anemoi
from emulator.sources.harmonise import pieces
from emulator.sources.open import format_of, open_source
from emulator.sources.options import SourceOptions
from emulator.store.analysis import open_analysis

NAMES = ("2t", "lsm", "q_500", "q_850", "t_500", "t_850", "tp", "z")
OURS = {"t": "temperature", "q": "specific_humidity"}
SHAPE = (7, 12)


def stored(folder, source, **options) -> xr.Dataset:
    ingest(IngestOptions([SourceOptions(str(source))], **options), folder / "analysis.zarr")
    return open_analysis(folder / "analysis.zarr")


def read(path, **options) -> dict:
    """Values and coordinates of the canonical fields in a store, without axes of one."""
    options = SourceOptions(str(path), **options)
    found = [piece for source in open_source(str(path)) for piece in pieces(source, options)]
    return {p.name: (np.squeeze(p.read(range(len(p.coordinates.get("time", [0]))))), p.coordinates) for p in found}


def check(found, values, shape, kept=slice(None)):
    """Every field is that of the variables, bit for bit; rain is the mean of its six hours."""
    for short, name in OURS.items():
        for k, level in enumerate((500, 850)):
            np.testing.assert_array_equal(found[name][kept, k], values[f"{short}_{level}"][kept, 0].reshape(-1, *shape))
    np.testing.assert_array_equal(found["2m_temperature"][kept], values["2t"][kept, 0].reshape(-1, *shape))
    rate = values["tp"][kept, 0].reshape(-1, *shape) * 1000.0 / 21600.0
    np.testing.assert_allclose(found["mean_total_precipitation_rate"][kept], rate, rtol=1e-6)
    np.testing.assert_array_equal(found["land_sea_mask"], values["lsm"][0, 0].reshape(shape))
    np.testing.assert_array_equal(found["geopotential_at_surface"], values["z"][0, 0].reshape(shape))


def fields(store) -> dict:
    return {str(name): array.values for name, array in store.data_vars.items()}


def values_in(path, **options) -> dict:
    return {name: values for name, (values, _) in read(path, **options).items()}


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning", "ignore:The data type:FutureWarning")
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_regular_grid(tmp_path, caplog, zarr_format):
    values = values_of((*NAMES, *COMPUTED), 84)
    write_anemoi(tmp_path / "a.zarr", values, mesh(*SHAPE), SHAPE, zarr_format=zarr_format)
    assert format_of(str(tmp_path / "a.zarr")).name == "anemoi"
    with caplog.at_level(logging.INFO):
        store = stored(tmp_path, tmp_path / "a.zarr")
    check(fields(store), values, SHAPE)
    np.testing.assert_array_equal(store["time"].values, DATES)
    np.testing.assert_array_equal(store["latitude"].values, np.linspace(90, -90, 7))
    assert set(store.data_vars) == {*OURS.values(), "2m_temperature", "mean_total_precipitation_rate", "land_sea_mask",
                                    "geopotential_at_surface", "cell_area"}  # fmt: skip
    (said,) = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    assert all(name in said for name in COMPUTED)


def test_points_of_a_reduced_grid(tmp_path):
    place = octahedral(32)
    values = values_of(NAMES, len(place[0]))
    write_anemoi(tmp_path / "a.zarr", values, place, (len(place[0]),))
    check(values_in(tmp_path / "a.zarr"), values, (len(place[0]),))
    (_, place), *_ = read(tmp_path / "a.zarr").values()
    np.testing.assert_allclose(place["cell_area"].sum(), 1.0, rtol=1e-12)


def test_any_order_of_cells_that_rows_and_columns_have(tmp_path):
    """From the south, east of Greenwich last, columns along the first axis, and a shape that is not recorded."""
    values = values_of(NAMES, 84)
    latitude, longitude = (axis.reshape(SHAPE) for axis in mesh(*SHAPE))

    def turned(field, columns_first):
        field = np.roll(field[..., ::-1, :], 6, axis=-1)
        return field.swapaxes(-1, -2) if columns_first else field

    for columns_first, shape in ((False, None), (False, SHAPE), (True, SHAPE[::-1])):
        place = [turned(axis, columns_first).ravel() for axis in (latitude, (longitude + 180) % 360 - 180)]
        moved = {n: turned(v.reshape(8, 1, *SHAPE), columns_first).reshape(8, 1, -1) for n, v in values.items()}
        write_anemoi(tmp_path / f"{columns_first}-{shape}.zarr", moved, place, shape or (84,))
        check(values_in(tmp_path / f"{columns_first}-{shape}.zarr"), values, SHAPE)


def test_missing_dates_are_gaps(tmp_path):
    values = values_of(NAMES, 84)
    write_anemoi(tmp_path / "a.zarr", values, mesh(*SHAPE), SHAPE, missing=(3,))
    with pytest.raises(ValueError, match=r"uniform time axis.*missing: keep"):
        stored(tmp_path, tmp_path / "a.zarr")
    kept = stored(tmp_path, tmp_path / "a.zarr", missing="keep")
    check(fields(kept), values, SHAPE, np.delete(np.arange(8), 3))
    np.testing.assert_array_equal(kept["missing"].values, np.arange(8) == 3)
    filled = stored(tmp_path, tmp_path / "a.zarr", missing="interpolate", variables=["2m_temperature"])
    middle = (values["2t"][2, 0].astype(np.float64) + values["2t"][4, 0]) / 2
    np.testing.assert_allclose(filled["2m_temperature"].values[3].ravel(), middle, rtol=1e-6)


def test_members(tmp_path):
    values = values_of(NAMES, 84, members=3)
    write_anemoi(tmp_path / "a.zarr", values, mesh(*SHAPE), SHAPE)
    temperature, coordinates = read(tmp_path / "a.zarr")["temperature"]
    np.testing.assert_array_equal(coordinates["member"], [0, 1, 2])
    np.testing.assert_array_equal(temperature[:, :, 1].reshape(8, 3, -1), values["t_850"])


def test_chunks_of_several_times_and_parts_of_the_cells(tmp_path, monkeypatch):
    values = values_of(NAMES, 84)
    write_anemoi(tmp_path / "a.zarr", values, mesh(*SHAPE), SHAPE, chunks=(3, 5, 1, 50))
    check(values_in(tmp_path / "a.zarr"), values, SHAPE)
    monkeypatch.setattr(anemoi, "KEPT_BYTES", 1000)  # nothing is kept
    check(values_in(tmp_path / "a.zarr"), values, SHAPE)


def test_chunks_are_decompressed_once_for_all_fields(tmp_path, monkeypatch):
    write_anemoi(tmp_path / "a.zarr", values_of(NAMES, 84), mesh(*SHAPE), SHAPE)
    parts, read, get = open_source(str(tmp_path / "a.zarr")), [], anemoi.zarr.Array.__getitem__
    monkeypatch.setattr(anemoi.zarr.Array, "__getitem__", lambda array, key: (read.append(key), get(array, key))[1])
    for part in parts:
        for array in part.dataset.data_vars.values():
            array.isel(time=slice(2, 5), latitude=[0, 3]).load()
    assert sorted(key.start for key in read) == [2, 3, 4]


def test_old_stores_without_units_and_kinds_of_levels(tmp_path, caplog):
    values = values_of(NAMES, 84)
    attributes = {"variables_metadata": None, "version": "0.2", "missing_dates": None, "field_shape": None}
    write_anemoi(tmp_path / "a.zarr", values, mesh(*SHAPE), SHAPE, **attributes)
    with pytest.raises(ValueError, match="interval_hours for mean_total_precipitation_rate"):
        read(tmp_path / "a.zarr")
    check(values_in(tmp_path / "a.zarr", interval_hours=6), values, SHAPE)
    assert "records no units of 2t, lsm, q_500, " in caplog.text and "ECMWF's are taken" in caplog.text


@pytest.mark.parametrize(
    "attributes, message",
    [
        ({"version": "1.0"}, "of a version 0.* at {}, got version 1.0"),
        ({"layout": "trajectories"}, "with the layout gridded at {}, got trajectories"),
        ({"variables": ["2t"]}, "Expected 8 dates and 8 variables in {}, got 8 and 1"),
    ],
)
def test_other_layouts_are_one_sentence(tmp_path, attributes, message):
    path = tmp_path / "a.zarr"
    write_anemoi(path, values_of(NAMES, 84), mesh(*SHAPE), SHAPE, **attributes)
    with pytest.raises(ValueError) as error:
        read(path)
    assert message.format(path) in str(error.value)


def test_a_field_without_levels_keeps_its_name_with_a_number(tmp_path):
    """`hcc_1` is no level of a field of the atmosphere's levels: it is named in the log as it is."""
    values = values_of(NAMES, 84) | {"hcc_1": np.ones((8, 1, 84), np.float32)}
    known = {name: {"units": "1"} for name in values}
    write_anemoi(tmp_path / "a.zarr", values, mesh(*SHAPE), SHAPE, variables_metadata=known)
    names = {str(n) for part in open_source(str(tmp_path / "a.zarr")) for n in part.dataset.data_vars}
    assert names == {"2t", "lsm", "q", "t", "tp", "z", "hcc_1"}


@pytest.mark.parametrize("missing, members", [((), 1), ((3,), 1), ((), 2)])
def test_the_package_reads_the_same(tmp_path, missing, members):
    """anemoi-datasets' own reader of the layout written here, against ours."""
    pytest.importorskip("anemoi.datasets", reason="anemoi-datasets is not installed")
    from anemoi.datasets import open_dataset

    values = values_of((*NAMES, *COMPUTED), 84, members)
    write_anemoi(tmp_path / "a.zarr", values, mesh(*SHAPE), SHAPE, missing=missing)
    theirs = open_dataset(str(tmp_path / "a.zarr"))
    assert (theirs.shape, theirs.field_shape, theirs.missing) == ((8, 11, members, 84), SHAPE, set(missing))
    np.testing.assert_array_equal(theirs.latitudes.reshape(SHAPE)[:, 0], np.linspace(90, -90, 7))
    found = {}
    for part in open_source(str(tmp_path / "a.zarr")):
        found |= {
            (str(n), i): a
            for n, a in part.dataset.data_vars.items()
            for i in a.coords.get("level", xr.DataArray([0])).values.flat
        }
    rows = [n for n in range(8) if n not in missing]
    for (name, level), array in found.items():
        array = array.sel(level=level) if level else array
        number = theirs.name_to_index[f"{name}_{level:g}" if level else name]
        expected = np.stack([theirs[n][number] for n in rows]).reshape(len(rows), members, *SHAPE)
        np.testing.assert_array_equal(array.values.reshape(expected.shape), expected)
    assert len(found) == len(NAMES)


MADE = """
dates: {{start: 2001-01-01T00:00:00, end: 2001-01-02T18:00:00, frequency: 6h, missing: ['2001-01-01T18:00:00']}}
input:
  join:
    - netcdf: {{path: {0}/in.nc, param: [t, q, 2t, lsm]}}
    - forcings: {{template: '${{input.join.0.netcdf}}', param: [cos_latitude, insolation]}}
"""


@pytest.mark.slow
def test_a_store_that_the_package_made(tmp_path):
    """anemoi-datasets makes a store of a NetCDF file, and ingest gives the fields of the file."""
    commands = pytest.importorskip("anemoi.datasets.commands", reason="anemoi-datasets is not installed")
    import subprocess
    import sys

    assert commands
    values = values_of(("2t", "lsm", "q_500", "q_850", "t_500", "t_850"), 84)
    levels = {"level": ("level", [500, 850], {"units": "hPa", "standard_name": "air_pressure"})}
    place = {
        "latitude": ("latitude", np.linspace(90, -90, 7), {"units": "degrees_north", "standard_name": "latitude"}),
        "longitude": ("longitude", np.arange(12) * 30.0, {"units": "degrees_east", "standard_name": "longitude"}),
    }
    fields = {
        short: (("time", "level", "latitude", "longitude"),
                np.stack([values[f"{short}_{level}"].reshape(8, *SHAPE) for level in (500, 850)], 1), {"units": units})
        for short, units in (("t", "K"), ("q", "kg kg**-1"))
    } | {n: (("time", "latitude", "longitude"), values[n].reshape(8, *SHAPE), {"units": u})
         for n, u in (("2t", "K"), ("lsm", "1"))}  # fmt: skip
    xr.Dataset(fields, levels | place | {"time": DATES.astype("datetime64[ns]")}).to_netcdf(tmp_path / "in.nc")
    (tmp_path / "recipe.yaml").write_text(MADE.format(tmp_path))
    made = [sys.executable, "-m", "anemoi.datasets", "create", str(tmp_path / "recipe.yaml"), str(tmp_path / "a.zarr")]
    subprocess.run(made, check=True, capture_output=True, cwd=tmp_path)
    store = stored(tmp_path, tmp_path / "a.zarr", missing="keep")
    kept = np.delete(np.arange(8), 3)
    for short, name in OURS.items():
        for level in (500, 850):
            expected = values[f"{short}_{level}"][kept].reshape(-1, *SHAPE)
            np.testing.assert_array_equal(store[name].sel(level=level).values[kept], expected)
    np.testing.assert_array_equal(store["missing"].values, np.arange(8) == 3)
    np.testing.assert_array_equal(store["land_sea_mask"].values, values["lsm"][0].reshape(SHAPE))
