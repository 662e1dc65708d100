"""Analysis and forecast stores: round trips, continuation, and one sentence for every fault."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from emulator.planet.constants import ERA5, Constants
from emulator.planet.grid import Grid
from emulator.store import analysis as analyses
from emulator.store import forecast as forecasts
from emulator.store import marks as zarr_marks
from emulator.store import regions as zarr_regions
from emulator.store import schema
from emulator.store.regions import OtherTemplate, create

GRID = Grid.gaussian(8)
TIMES = np.datetime64("2001-01-01", "ns") + np.arange(6) * np.timedelta64(6, "h")
LEADS = np.arange(5) * np.timedelta64(6, "h")


def analysis(times=TIMES, **attributes):
    random = np.random.default_rng(0)
    shape = (len(times), 3, 8, 16)
    return xr.Dataset(
        {
            "temperature": (
                ("time", "level", "latitude", "longitude"),
                random.normal(250, 20, shape).astype(np.float32),
                {"units": "K", "role": "prognostic"},
            ),
            "geopotential_at_surface": (
                ("latitude", "longitude"),
                random.normal(0, 1e3, shape[2:]).astype(np.float32),
                {"units": "m2 s-2", "role": "static"},
            ),
            "cell_area": (("latitude", "longitude"), GRID.area),
        },
        {"time": times, "level": [100.0, 500.0, 850.0], "latitude": GRID.latitude, "longitude": GRID.longitude},
        {
            "emulator_schema": "analysis-1",
            "vertical_coordinate": "pressure",
            "time_step_seconds": 21600.0,
            "constants": ERA5.to_json(),
            "fingerprint": "abc",
            **attributes,
        },
    )


def write(path, data, shards=None):
    continued = zarr_regions.create(path, data, {"time": 1}, shards)
    for start in range(0, data.sizes["time"], 2):
        if f"region-{start}" not in zarr_marks.marks(path):
            values = data.temperature.values[start : start + 2]
            zarr_regions.write_region(path, "temperature", values, {"time": start})
            zarr_marks.mark(path, f"region-{start}")
    return continued


@pytest.mark.parametrize("shards", [None, {"time": 4}])
def test_a_store_holds_what_was_written(tmp_path, shards):
    data = analysis()
    path = tmp_path / "a.zarr"
    assert not write(path, data, shards)
    assert not path.exists()
    with pytest.raises(ValueError, match=r"finished store.*a\.zarr.*unfinished"):
        analyses.open_analysis(path)
    zarr_regions.finish(path, [f"region-{start}" for start in (0, 2, 4)])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr"]
    opened = analyses.open_analysis(path)
    xr.testing.assert_identical(opened.drop_attrs(), data.drop_attrs())
    assert opened.temperature.attrs == data.temperature.attrs
    assert opened.attrs == {**data.attrs, "complete": True}
    assert zarr_regions.finished_fingerprint(path) == "abc"
    assert zarr.open_array(path, path="temperature").chunks == (1, 3, 8, 16)


def test_an_unwritten_region_is_neither_finished_nor_zero(tmp_path):
    path = tmp_path / "a.zarr"
    zarr_regions.create(path, analysis(), {"time": 1})
    with pytest.raises(ValueError, match="1 missing"):
        zarr_regions.finish(path, ["region-0"])
    assert np.isnan(zarr.open_array(zarr_marks.partial_path(path), path="temperature")[:]).all()


def test_creation_continues_the_same_and_starts_anything_else_over(tmp_path):
    path = tmp_path / "a.zarr"
    assert not write(path, analysis())
    assert write(path, analysis())
    assert zarr_marks.marks(path) == {"region-0", "region-2", "region-4"}
    for other in (analysis(fingerprint="other"), analysis(TIMES + np.timedelta64(1, "h"))):
        assert not zarr_regions.create(path, other, {"time": 1})
        assert zarr_marks.marks(path) == set()
        write(path, other)
    for number in range(3):  # killed after the rename of the template, before the folder of marks was there
        shutil.rmtree(zarr_marks.progress_path(path))
        assert zarr_regions.create(path, other, {"time": 1}) and zarr_marks.marks(path) == set()
    with pytest.raises(OtherTemplate, match=r"same sources and settings, got another; remove a\.zarr\.partial and"):
        zarr_regions.create(path, analysis(), {"time": 1}, shared=True)
    assert zarr_regions.create(path, other, {"time": 1}, shared=True)


@pytest.mark.parametrize("moment", ["rename", "rmtree"])
def test_a_finish_that_was_cut_short_is_completed(tmp_path, monkeypatch, moment):
    path = tmp_path / "a.zarr"
    write(path, analysis())
    zarr_regions.finish(path)
    write(path, analysis(fingerprint="new"))

    def killed(*arguments, **named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*((Path, "rename") if moment == "rename" else (shutil, "rmtree")), killed)
        with pytest.raises(KeyboardInterrupt):
            zarr_regions.finish(path)
    if moment == "rename":  # continued as well as settled
        assert zarr_regions.create(path, analysis(fingerprint="new"), {"time": 1}, shared=True)
    assert zarr_regions.finished_fingerprint(path) == "new"
    zarr_regions.finished_fingerprint(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]
    assert analyses.open_analysis(path).attrs["fingerprint"] == "new"


def test_what_killed_writers_leave_is_not_in_the_store(tmp_path):
    path, whole = tmp_path / "a.zarr", tmp_path / "b.zarr"
    for each in (path, whole):
        write(each, analysis())
    stray = zarr_marks.partial_path(path) / "temperature" / "c" / "0" / "0" / "0" / "0.0123.partial"
    stray.write_bytes(b"half a chunk")
    (tmp_path / "a.zarr.partial-0123").mkdir()
    for each in (path, whole):
        zarr_regions.finish(each)
    files = [
        {str(f.relative_to(each)): f.read_bytes() for f in each.rglob("*") if f.is_file()} for each in (path, whole)
    ]
    assert files[0] == files[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr", "b.zarr"]


def test_what_lies_in_a_region_is_compared_with_what_its_source_gave(tmp_path):
    path, data = tmp_path / "a.zarr", analysis()
    data["temperature"][0] = np.nan  # an empty chunk
    zarr_regions.create(path, data, {"time": 1})
    for at in (0, 1):
        values = data.temperature.values[[at]].copy()
        values[np.isnan(values)] = np.uint32(0xFFC00001).view(np.float32)  # another NaN than the one of empty chunks
        zarr_regions.write_region(path, "temperature", values, {"time": at})
        zarr_marks.mark(path, f"{at}", zarr_marks.digest(values))
        assert zarr_marks.matches(path, f"{at}", "temperature", {"time": slice(at, at + 1)})
    zarr_regions.write_region(path, "temperature", data.temperature.values[[2]], {"time": 1})
    assert not zarr_marks.matches(path, "1", "temperature", {"time": slice(1, 2)})
    (chunk,) = (f for f in (zarr_marks.partial_path(path) / "temperature" / "c" / "1").rglob("*") if f.is_file())
    chunk.write_bytes(chunk.read_bytes()[:40])
    assert not zarr_marks.matches(path, "1", "temperature", {"time": slice(1, 2)})
    zarr_marks.unmark(path, "1")
    assert zarr_marks.marks(path) == {"0"}


def test_an_older_store_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.zarr"
    write(path, analysis())
    zarr_regions.finish(path)
    write(path, analysis(fingerprint="new"))
    assert analyses.open_analysis(path).attrs["fingerprint"] == "abc"
    zarr_regions.finish(path)
    assert analyses.open_analysis(path).attrs["fingerprint"] == "new"


def test_descriptions(tmp_path):
    data = analysis(constants=Constants(gravity=9.81).to_json())
    assert schema.grid_of(data).kind == "gaussian"
    assert schema.levels_of(data).kind == "pressure"
    assert schema.levels_of(data.isel(level=0)) is None
    assert schema.levels_of(data.isel(level=[0])) is None
    assert schema.constants_of(data).gravity == 9.81
    assert schema.time_step_seconds(data) == 21600
    assert schema.variables_by_role(data) == {
        "prognostic": ["temperature"],
        "forcing": [],
        "diagnostic": [],
        "static": ["geopotential_at_surface"],
    }
    half = {"half_level_a": ("half_level", [0.0, 100, 0, 0]), "half_level_b": ("half_level", [0, 0.2, 0.6, 1])}
    hybrid = data.assign_attrs(vertical_coordinate="hybrid")
    assert len(schema.levels_of(hybrid.assign(half))) == 3
    with pytest.raises(ValueError, match="half_level_a and no half_level_b"):
        schema.levels_of(hybrid)


def spoil(path, change):
    file = path / "zarr.json"
    metadata = json.loads(file.read_text())
    change(metadata["attributes"])
    file.write_text(json.dumps(metadata))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(emulator_schema="forecast-1"), "analysis-1.*got 'forecast-1'"),
        (lambda a: a.pop("emulator_schema"), "analysis store at .*, got a store of another tool, .*emulator init"),
        (lambda a: a.update(complete=False), "without complete = true"),
        (lambda a: a.update(time_step_seconds=3600), "time_step_seconds = 21600.*3600"),
        (lambda a: a.update(vertical_coordinate="sigma"), "half_level_a"),
        (lambda a: a.update(constants='{"gravty": 9.8}'), "gravty"),
    ],
)
def test_a_store_that_breaks_the_schema_is_refused(tmp_path, change, message):
    path = tmp_path / "a.zarr"
    write(path, analysis())
    zarr_regions.finish(path)
    spoil(path, change)
    with pytest.raises(ValueError, match=message) as caught:
        analyses.open_analysis(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_no_store_no_zarr_and_an_irregular_axis(tmp_path):
    with pytest.raises(ValueError, match="got nothing there"):
        analyses.open_analysis(tmp_path / "none.zarr")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(ValueError, match=r"opens at .*empty\.zarr"):
        analyses.open_analysis(tmp_path / "empty.zarr")
    times = TIMES.copy()
    times[3:] += np.timedelta64(6, "h")
    write(tmp_path / "gap.zarr", analysis(times))
    zarr_regions.finish(tmp_path / "gap.zarr")
    with pytest.raises(ValueError, match=r"2001-01-01T12.*2001-01-02T00.*12 h"):
        analyses.open_analysis(tmp_path / "gap.zarr")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"(?i)write a store at .*file exists"):
        zarr_regions.create(tmp_path / "file" / "a.zarr", analysis(), {"time": 1})


def test_a_region_outside_the_store(tmp_path):
    data = analysis()
    zarr_regions.create(tmp_path / "a.zarr", data, {"time": 1})
    with pytest.raises(ValueError, match="Expected a region of temperature within"):
        zarr_regions.write_region(tmp_path / "a.zarr", "temperature", data.temperature.values, {"time": 1})


# --- forecasts ------------------------------------------------------------------------------------------------------


def forecast(member=False):
    """`(init_time, lead_time, [member,] level, latitude, longitude)` with a residual of one number per lead."""
    random = np.random.default_rng(1)
    members = {"member": [0, 1]} if member else {}
    sizes = {"init_time": 3, "lead_time": 5, **{d: 2 for d in members}, "level": 3, "latitude": 8, "longitude": 16}
    field = random.normal(250, 20, tuple(sizes.values())).astype(np.float32)
    return xr.Dataset(
        {
            "temperature": (tuple(sizes), field, {"units": "K", "role": "prognostic"}),
            "residual_after_water": (("init_time", "lead_time"), random.normal(size=(3, 5)).astype(np.float32)),
            "cell_area": (("latitude", "longitude"), GRID.area),
        },
        {
            "init_time": TIMES[:3],
            "lead_time": LEADS,
            **members,
            "level": [100.0, 500.0, 850.0],
            "latitude": GRID.latitude,
            "longitude": GRID.longitude,
        },
    )


@pytest.mark.parametrize("member", [False, True])
def test_a_forecast_is_written_init_by_init_and_continued(tmp_path, member):
    data, path = forecast(member), tmp_path / "f.zarr"
    attributes = {"fingerprint": "abc", "vertical_coordinate": "pressure"}
    template = data.isel(init_time=0, drop=True)

    def begin():
        return forecasts.create_forecast(path, template.isel(lead_time=[0]), TIMES[:3], LEADS, attributes)

    assert begin() == set()
    forecasts.write_forecast_init(path, data.isel(init_time=1), 1)
    forecasts.write_forecast_init(path, data.isel(init_time=0, lead_time=slice(0, 2)), 0, done=False)
    assert begin() == {1}
    with pytest.raises(ValueError, match="2 missing"):
        forecasts.finish_forecast(path)
    forecasts.write_forecast_init(path, data.isel(init_time=0), 0)
    forecasts.write_forecast_init(path, data.isel(init_time=2, lead_time=slice(3, 5)), 2, done=False)
    forecasts.write_forecast_init(path, data.isel(init_time=2, lead_time=slice(0, 3)), 2)
    forecasts.finish_forecast(path)
    opened = forecasts.open_forecast(path)
    xr.testing.assert_identical(opened.drop_attrs(), data.drop_attrs())
    assert schema.time_step_seconds(opened) == 21600
    assert opened.attrs["fingerprint"] == "abc" and opened.attrs["emulator_schema"] == "forecast-1"
    on_disk = xr.open_zarr(path, chunks=None)
    assert on_disk.temperature.dims[:2] == ("time", "prediction_timedelta")
    assert on_disk.prediction_timedelta.dtype.kind == "m"
    with pytest.raises(ValueError, match="consecutive lead times"):
        forecasts.write_forecast_init(path.with_name("g.zarr"), *broken(data, path))


def broken(data, path):
    """An unfinished store beside `path`, and a forecast whose leads it does not have."""
    template = data.isel(init_time=0, drop=True)
    forecasts.create_forecast(path.with_name("g.zarr"), template, TIMES[:3], LEADS, {})
    return template.assign_coords(lead_time=LEADS + np.timedelta64(1, "h")), 0


OTHER_NAMES = {
    "WeatherBench 2": {"init_time": "time", "lead_time": "prediction_timedelta", "member": "number"},
    "WeatherBench 2, members": {"init_time": "time", "lead_time": "prediction_timedelta", "member": "realization"},
    "in memory": {},
    "CF": {
        "init_time": "forecast_reference_time",
        "lead_time": "forecast_period",
        "latitude": "lat",
        "longitude": "lon",
    },
    "cfgrib": {"init_time": "time", "lead_time": "step", "member": "number", "level": "isobaricInhPa"},
}


@pytest.mark.parametrize("names", OTHER_NAMES.values(), ids=OTHER_NAMES)
def test_stores_of_other_tools_open_the_same(tmp_path, names):
    data = forecast(member=True).drop_vars("cell_area")
    other = data.isel(latitude=slice(None, None, -1), level=slice(None, None, -1)).roll(longitude=5, roll_coords=True)
    other = other.assign_coords(longitude=(other.longitude + 180) % 360 - 180).transpose("longitude", "latitude", ...)
    other.rename(names).to_zarr(tmp_path / "o.zarr")
    xr.testing.assert_allclose(
        forecasts.open_forecast(tmp_path / "o.zarr").drop_attrs(), data.drop_attrs(), rtol=0, atol=1e-9
    )


def test_lead_times_as_hours_and_levels_as_pascal(tmp_path):
    data = forecast().drop_vars("cell_area")
    other = data.assign_coords(
        lead_time=("lead_time", np.arange(5) * 6, {"units": "hours"}),
        level=("level", data.level.values * 100, {"units": "Pa"}),
    )
    other.to_zarr(tmp_path / "o.zarr")
    xr.testing.assert_identical(forecasts.open_forecast(tmp_path / "o.zarr").drop_attrs(), data.drop_attrs())
    del other.lead_time.attrs["units"]
    other.to_zarr(tmp_path / "p.zarr")
    with pytest.raises(ValueError, match=r"units of time in .*p\.zarr"):
        forecasts.open_forecast(tmp_path / "p.zarr")


def test_a_store_without_leads_is_no_forecast(tmp_path):
    analysis().to_zarr(tmp_path / "a.zarr")
    with pytest.raises(ValueError, match="forecast-1"):
        forecasts.open_forecast(tmp_path / "a.zarr")
    analysis().drop_attrs().to_zarr(tmp_path / "b.zarr")
    with pytest.raises(ValueError, match="prediction_timedelta or lead_time"):
        forecasts.open_forecast(tmp_path / "b.zarr")
    shutil.rmtree(tmp_path / "b.zarr")


@pytest.mark.parametrize("kind", ["file", "device", "folder", "link", "foreign store"])
def test_what_is_no_store_of_ours_is_never_replaced(tmp_path, kind):
    path, kept = tmp_path / "a.zarr", tmp_path / "kept"
    kept.mkdir()
    if kind == "file":
        path.write_text("a year's work")
    elif kind == "device":
        path.symlink_to("/dev/null")
    elif kind == "folder":
        path.mkdir()
        (path / "notes.txt").write_text("a year's work")
    elif kind == "link":
        path.symlink_to(kept)
    else:
        xr.Dataset({"x": ("t", [1.0])}).to_zarr(path, zarr_format=3)
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=r"Expected a store of this program or nothing at .*a\.zarr, got a f"):
        create(path, analysis(), chunks={"time": 1})
    assert sorted(str(p) for p in tmp_path.rglob("*")) == before


def test_an_empty_folder_may_become_a_store(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    assert create(tmp_path / "a.zarr", analysis(), chunks={"time": 1}) is False
