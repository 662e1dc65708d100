"""Members of ensembles from one file each, whatever says which member a file is."""

import numpy as np
import pytest
import xarray as xr
from source_files import truth, write_grib

from emulator.ingestion.options import IngestOptions
from emulator.ingestion.run import ingest
from emulator.sources.foreign import open_any_forecast, open_truth
from emulator.sources.members import _numbers, with_members
from emulator.sources.open import Source
from emulator.sources.options import SourceOptions
from emulator.store.analysis import open_analysis

TRUTH = truth()[["temperature", "mean_sea_level_pressure", "geopotential_at_surface"]]
HOUR = np.timedelta64(1, "h")


def member(number: int) -> xr.Dataset:
    return TRUTH.assign(temperature=TRUTH.temperature + number).map(lambda a: a.assign_attrs(TRUTH[a.name].attrs))


def stored(folder, files: dict, select=None, **options) -> xr.Dataset:
    for name, dataset in files.items():
        dataset.to_netcdf(folder / name)
    source = SourceOptions(str(folder / "*.nc"), select=select or {}, **options)
    ingest(IngestOptions(source), folder / "a.zarr")
    return open_analysis(folder / "a.zarr")


def label(n: int) -> str:
    return f"r{n}i1p1f1"


# how a file of one member is named and what it holds, besides fields
WAYS = {
    "scalar": lambda n: (f"{n}.nc", member(n).assign_coords(number=n)),
    "dimension": lambda n: (f"{n}.nc", member(n).expand_dims(realization=[n])),
    "variable": lambda n: (f"{n}.nc", member(n).assign(realization=((), float(n), {"standard_name": "realization"}))),
    "text": lambda n: (f"{n}.nc", member(n).assign_coords(member_id=label(n))),
    "bytes": lambda n: (f"{n}.nc", member(n).assign_coords(realization=((), np.bytes_(label(n))))),
    "CMIP6": lambda n: (f"{n}.nc", member(n).assign_attrs(variant_label=label(n))),
    "CMIP5": lambda n: (
        f"{n}.nc",
        member(n).assign_attrs(realization=np.int32(n), initialization_method=np.int32(1), physics_version=np.int32(1)),
    ),
    "CORDEX": lambda n: (f"{n}.nc", member(n).assign_attrs(driving_model_ensemble_member=f"r{n}i1p1")),
    "name": lambda n: (f"ta_6hr_X_historical_{label(n)}_gn_2001.nc", member(n)),
    "plain name": lambda n: (f"run.member{n:03d}.nc", member(n)),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_files_of_one_member_become_an_ensemble(tmp_path, way):
    store = stored(tmp_path, dict(way(n) for n in (10, 2, 3)))
    np.testing.assert_array_equal(store.member, [2, 3, 10])
    assert store.temperature.dims == ("time", "member", "level", "latitude", "longitude")
    for n in (2, 3, 10):
        np.testing.assert_array_equal(store.temperature.sel(member=n), member(n).temperature)
    assert store.geopotential_at_surface.dims == ("latitude", "longitude")


def test_one_file_of_members_under_labels_or_without_numbers(tmp_path):
    both = xr.concat([member(1), member(2)], "ens", data_vars=["temperature"])
    for folder, values, numbers in (("a", [label(7), label(4)], [4, 7]), ("b", None, [0, 1])):
        (tmp_path / folder).mkdir()
        store = stored(tmp_path / folder, {"a.nc": both if values is None else both.assign_coords(ens=values)})
        np.testing.assert_array_equal(store.member, numbers)
        first = 4 if values else 1
        np.testing.assert_array_equal(store.temperature.sel(member=first), member(2).temperature)


def test_grib_files_without_numbers_go_by_their_names(tmp_path):
    for n in (1, 2):
        write_grib(tmp_path / f"ens_{n}.grib", member(n).temperature, "t")
    ingest(IngestOptions(str(tmp_path / "*.grib")), tmp_path / "a.zarr")
    store = open_analysis(tmp_path / "a.zarr")
    np.testing.assert_array_equal(store.member, [1, 2])
    np.testing.assert_allclose(store.temperature.sel(member=2), member(2).temperature, atol=1e-4)


def test_files_in_time_and_members_and_those_that_are_selected(tmp_path):
    parts = {f"{label(n)}_{t}.nc": member(n).isel(time=slice(4 * t, 4 * t + 4)) for n in (1, 2, 3) for t in (0, 1)}
    store = stored(tmp_path, parts, {"member": [1, 3]})
    np.testing.assert_array_equal(store.member, [1, 3])
    np.testing.assert_array_equal(store.temperature.sel(member=3), member(3).temperature)
    (tmp_path / "one").mkdir()
    one = stored(tmp_path / "one", parts, {"number": 2})
    assert "member" not in one.dims
    np.testing.assert_array_equal(one.temperature, member(2).temperature)
    for wanted, text in ((7, "got others alone"), (label(1), "numbers to select from member .*'r1i1p1f1'")):
        (folder := tmp_path / str(wanted)).mkdir()
        with pytest.raises(ValueError, match=text):
            stored(folder, parts, {"member": wanted})


def test_runs_that_differ_in_more_than_their_realization_are_numbered_in_order():
    labels = ["r1i1p2f1", "r1i1p1f1", "r10i1p1f1"]
    files = [Source(f"{n}.nc", member(n).assign_attrs(variant_label=text)) for n, text in enumerate(labels)]
    assert [int(file.dataset.member) for file in with_members(files)] == [2, 1, 3]


def test_labels_keep_their_own_numbers_however_they_are_written():
    assert _numbers({"Member02", "member01"}) == {"member01": 1, "Member02": 2}
    assert _numbers({"ens-10", "ens_2"}) == {"ens_2": 2, "ens-10": 10}


def test_what_is_no_ensemble_stays_one_run(tmp_path, caplog):
    after = {f"{label(n)}.nc": member(1).isel(time=slice(4 * n - 4, 4 * n)) for n in (1, 2)}
    assert "member" not in stored(tmp_path, after).dims
    assert "Files of several runs (r1i1p1f1, r2i1p1f1) are taken as one" in caplog.text
    for one, other in (("mean", "spread"), ("x", "y")):
        (folder := tmp_path / one).mkdir()
        files = {f"{text}.nc": member(1).assign_coords(number=text) for text in (one, other)}
        with pytest.raises(ValueError, match="once for .* and in .*; members of an ensemble are told by"):
            stored(folder, files)


def test_files_that_overlap_are_no_ensemble_and_nothing_is_said_of_one(tmp_path):
    files = {"a.nc": member(1).isel(time=slice(0, 5)), "b.nc": member(1).isel(time=slice(4, 8))}
    with pytest.raises(ValueError, match="once for 2001-02-28T00.* and in .*a.nc$"):
        stored(tmp_path, files)


def test_a_file_without_a_number_beside_numbered_ones_is_named(tmp_path):
    files = {f"{n}.nc": member(n).isel(time=slice(0, 4)).assign_coords(number=n) for n in (1, 2)}
    with pytest.raises(ValueError, match="number of a member with .* got none in .*later.nc"):
        stored(tmp_path, files | {"later.nc": member(1).isel(time=slice(4, 8))})


@pytest.mark.parametrize("way", ["scalar", "text", "CMIP6", "name"])
def test_truths_and_forecasts_of_other_tools_are_joined_along_members(tmp_path, way):
    for n in (1, 2):
        name, dataset = WAYS[way](n)
        dataset.isel(time=slice(0, 4)).to_netcdf(tmp_path / f"truth_0_{name}")
        dataset.isel(time=slice(4, 8)).to_netcdf(tmp_path / f"truth_1_{name}")
        forecast = dataset.drop_vars("geopotential_at_surface").rename(time="prediction_timedelta")
        leads = np.arange(8) * 6 * HOUR
        forecast.assign_coords(prediction_timedelta=leads, time=TRUTH.time[0]).to_netcdf(tmp_path / f"forecast_{name}")
    opened = open_truth(tmp_path / "truth_*.nc")
    np.testing.assert_array_equal(opened.member, [1, 2])
    np.testing.assert_array_equal(opened.temperature.sel(member=2), member(2).temperature)
    forecast = open_any_forecast(tmp_path / "forecast_*.nc")
    np.testing.assert_array_equal(forecast.temperature.sel(member=2).isel(init_time=0), member(2).temperature)
