"""The statistics stage: equal to NumPy on the store, over the period alone, and continued after a stop."""

import numpy as np
import pytest
import xarray as xr
from source_files import TIMES, truth

from emulator.store.analysis import AnalysisSeries, open_analysis
from emulator.store.climatology import Sums
from emulator.store.statistics import ENVELOPE, STATISTICS
from pipelines.config import IngestConfig, StatsConfig
from pipelines.ingest import ingest
from pipelines.stats import stats

TRUTH = truth()


@pytest.fixture
def store(tmp_path):
    data = TRUTH.assign(sea_surface_temperature=TRUTH.mean_sea_level_pressure.where(TRUTH.longitude < 180) / 350)
    data.sea_surface_temperature.attrs = {"units": "K"}
    data.to_netcdf(tmp_path / "a.nc")
    ingest(IngestConfig(sources=[{"path": str(tmp_path / "a.nc")}], output=tmp_path / "a.zarr"))
    return tmp_path / "a.zarr"


def run(store, output, **settings):
    stats(StatsConfig(store=store, output=output, **settings))
    return xr.load_dataset(output)  # and closes it: the next run replaces the file


def expected(field, area):
    x = field.astype(np.float64)
    weights = area * np.isfinite(x)
    axes = [d for d in x.dims if d != "level"]
    mean = (x.fillna(0) * weights).sum(axes) / weights.sum(axes)
    return mean, np.sqrt((((x - mean) ** 2).fillna(0) * weights).sum(axes) / weights.sum(axes))


@pytest.mark.parametrize("dask", [{}, {"threads": 1}])
def test_statistics_of_a_period(tmp_path, store, dask):
    end = str(TIMES[5])
    found = run(store, tmp_path / "s.nc", period={"start": str(TIMES[1]), "end": end}, dask=dask)
    part = open_analysis(store).isel(time=slice(1, 6)).load()
    assert found.attrs["samples"] == 5 and found.attrs["period_end"][:16] == end[:16]
    assert list(found.statistic.values) == list(STATISTICS)
    moving = ("temperature", "mean_sea_level_pressure", "mean_total_precipitation_rate", "sea_surface_temperature")
    cells = {f"{name}:{label}" for name in moving for label in ENVELOPE}
    assert set(found.data_vars) == {*moving, *cells, "geopotential_at_surface"}
    for name in moving:
        field = part[name]
        mean, std = expected(field, part.cell_area)
        change, spread = expected(field.astype(np.float64).diff("time"), part.cell_area)
        axes = [d for d in field.dims if d != "level"]
        own = field.astype(np.float64).var("time")
        about = np.sqrt(own.weighted(part.cell_area).mean([d for d in own.dims if d != "level"]))
        rows = [mean, std, field.min(axes), field.max(axes), change, spread, about]
        for statistic, row in zip(STATISTICS, rows, strict=True):
            scale = float(np.abs(std).max())
            np.testing.assert_allclose(found[name].sel(statistic=statistic), row, rtol=1e-10, atol=1e-10 * scale)
        assert found[f"{name}:lowest"].dims == field.dims[1:] and found[f"{name}:lowest"].dtype == np.float32
        np.testing.assert_array_equal(found[f"{name}:lowest"], field.min("time"))
        np.testing.assert_array_equal(found[f"{name}:highest"], field.max("time"))
        exact = field.astype(np.float64).mean("time").astype(np.float32)
        np.testing.assert_allclose(found[f"{name}:time_mean"], exact, rtol=2e-7)
    assert found.temperature.dims == ("statistic", "level") and found.temperature.dtype == np.float64
    static = found.geopotential_at_surface
    assert np.isnan(static.sel(statistic=["difference_mean", "difference_std"])).all()
    np.testing.assert_allclose(
        static.sel(statistic="mean"), float((part.geopotential_at_surface * part.cell_area).sum())
    )


def test_done_again_it_does_nothing_and_continued_it_does_the_rest(tmp_path, store, monkeypatch):
    import emulator.store.statistics as module

    output = tmp_path / "s.nc"
    before = run(store, output)
    stamp = output.stat().st_mtime_ns
    run(store, output, dask={"threads": 1})
    assert output.stat().st_mtime_ns == stamp
    output.unlink()
    seen = []
    keep = module._keep

    def stopped(path, mark, name, values):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(name)
        keep(path, mark, name, values)

    monkeypatch.setattr(module, "_keep", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(store, output)
    assert not output.exists() and len(list((tmp_path / "s.nc.progress").iterdir())) == 2
    again = []
    monkeypatch.setattr(
        module, "_keep", lambda path, mark, name, values: (again.append(name), keep(path, mark, name, values))
    )
    xr.testing.assert_identical(run(store, output), before)
    assert not set(again) & set(seen) and len(again) + len(seen) == 4
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("s.nc")) == ["s.nc"]


def test_what_cannot_be_described(tmp_path, store):
    with pytest.raises(ValueError, match="Expected times from 2050"):
        run(store, tmp_path / "s.nc", period={"start": "2050-01-01"})
    with pytest.raises(ValueError, match="at least 2 times .* got 1"):
        run(store, tmp_path / "s.nc", period={"end": str(TIMES[0])})
    with pytest.raises(ValueError, match="Expected a store at .*none.zarr"):
        run(tmp_path / "none.zarr", tmp_path / "s.nc")
    gone = TRUTH.assign(sea_surface_temperature=TRUTH.mean_sea_level_pressure * np.nan)
    gone.sea_surface_temperature.attrs = {"units": "K"}
    gone.to_netcdf(tmp_path / "b.nc")
    ingest(IngestConfig(sources=[{"path": str(tmp_path / "b.nc")}], output=tmp_path / "b.zarr"))
    with pytest.raises(ValueError, match="values of sea_surface_temperature on every level"):
        run(tmp_path / "b.zarr", tmp_path / "s.nc")
    assert not (tmp_path / "s.nc").exists()


def test_the_climatology_beside_the_statistics(tmp_path):
    """Of a year and a half of one field: equal to the sums of a whole, in any pieces, by threads or one thread."""
    times = np.datetime64("2001-01-01", "ns") + np.arange(550) * np.timedelta64(1, "D")
    data = truth(times).drop_vars("mean_total_precipitation_rate")
    data.to_netcdf(tmp_path / "a.nc")
    ingest(IngestConfig(sources=[{"path": str(tmp_path / "a.nc")}], output=tmp_path / "a.zarr"))
    settings = {"store": tmp_path / "a.zarr", "output": tmp_path / "s.nc"}
    stats(StatsConfig(**settings, climatology=tmp_path / "c.zarr"))
    found = xr.open_zarr(tmp_path / "c.zarr", chunks=None)
    assert dict(found.temperature.sizes) == {"hour": 1, "dayofyear": 366, "level": 3, "latitude": 7, "longitude": 12}
    for name in ("temperature", "mean_sea_level_pressure"):
        expected = Sums.of(data[name].values, times, np.array([0])).climatology()
        np.testing.assert_allclose(found[name].values, expected, rtol=1e-6)
    before = (tmp_path / "c.zarr" / "zarr.json").stat().st_mtime_ns
    stats(StatsConfig(**settings, climatology=tmp_path / "c.zarr", dask={"threads": 1}))
    assert (tmp_path / "c.zarr" / "zarr.json").stat().st_mtime_ns == before
    stats(StatsConfig(**settings, climatology=tmp_path / "d.zarr", memory_gigabytes=1e-4))  # a level at a time
    files = [
        {str(f.relative_to(p)): f.read_bytes() for f in p.rglob("*") if f.is_file()}
        for p in (tmp_path / "c.zarr", tmp_path / "d.zarr")
    ]
    assert files[0] == files[1]
    with pytest.raises(ValueError, match="at least a year .* got 59 days"):
        stats(StatsConfig(**settings, climatology=tmp_path / "e.zarr", period={"end": "2001-02-28"}))
    assert not (tmp_path / "e.zarr").exists()


def made_store(folder, name, times, **settings):
    truth(times).to_netcdf(folder / f"{name}.nc")
    ingest(IngestConfig(sources=[{"path": str(folder / f"{name}.nc")}], output=folder / f"{name}.zarr", **settings))
    return folder / f"{name}.zarr"


@pytest.mark.parametrize("pause", [0, 3])
def test_several_stores_are_one_record(tmp_path, pause):
    """Where they meet the change from one to the next counts; where time has passed between them it does not."""
    times = np.datetime64("2001-02-27", "ns") + np.arange(20 + pause) * np.timedelta64(6, "h")
    kept = np.delete(times, slice(9, 9 + pause))
    parts = kept[:9], kept[9:16], kept[16:]
    stores = [made_store(tmp_path, n, part) for n, part in zip("abc", parts, strict=True)]
    period = {"start": str(times[2])[:16]}
    found = run(stores[0], tmp_path / "s.nc", later_stores=stores[1:], period=period)
    data = xr.concat(
        [open_analysis(store)[["temperature", "mean_sea_level_pressure"]] for store in stores], "time"
    ).isel(time=slice(2, None))
    area = open_analysis(stores[0]).cell_area
    assert found.attrs["samples"] == len(kept) - 2 and found.attrs["period_end"] == str(kept[-1])
    for name in ("temperature", "mean_sea_level_pressure"):
        field = data[name].astype(np.float64)
        change = field.diff("time").values
        steps = np.diff(kept[2:]) == np.timedelta64(6, "h")
        assert steps.all() == (pause == 0)
        mean, std = expected(field, area)
        np.testing.assert_allclose(found[name].sel(statistic="mean"), mean, rtol=1e-10)
        np.testing.assert_allclose(found[name].sel(statistic="std"), std, rtol=1e-10)
        change = xr.DataArray(change[steps], dims=field.dims)
        mean, std = expected(change, area)
        scale = float(std.max())
        np.testing.assert_allclose(found[name].sel(statistic="difference_mean"), mean, rtol=1e-10, atol=1e-10 * scale)
        np.testing.assert_allclose(found[name].sel(statistic="difference_std"), std, rtol=1e-10)


def test_scenarios_are_samples_of_one_planet(tmp_path):
    """Of the same times or others: values and envelope count alike, and no change leads from one to another."""
    times = np.datetime64("2001-02-27", "ns") + np.arange(9) * np.timedelta64(6, "h")
    stores = [made_store(tmp_path, n, part) for n, part in (("a", times), ("b", times[3:] + np.timedelta64(50, "D")))]
    warmer = open_analysis(stores[0]).load()
    warmer["temperature"] = warmer.temperature + np.float32(3)
    warmer.attrs["fingerprint"] = "warmer"
    for name in warmer.variables:
        warmer[name].encoding = {}
    warmer.to_zarr(tmp_path / "c.zarr", zarr_format=3, consolidated=False)
    parts = [open_analysis(store).temperature.astype(np.float64) for store in (*stores, tmp_path / "c.zarr")]
    found = run(stores[0], tmp_path / "s.nc", scenarios=[stores[1], tmp_path / "c.zarr"])
    area, every = open_analysis(stores[0]).cell_area, xr.concat(parts, "time")
    changes = xr.concat([part.diff("time") for part in parts], "time")
    assert found.attrs["samples"] == 24 and found.attrs["period_end"] == str(times[-1] + np.timedelta64(50, "D"))
    for names, values in ((("mean", "std"), every), (("difference_mean", "difference_std"), changes)):
        for name, value in zip(names, expected(values, area), strict=True):
            np.testing.assert_allclose(found.temperature.sel(statistic=name), value, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(found["temperature:highest"], every.max("time"))
    np.testing.assert_allclose(found["temperature:time_mean"], every.mean("time"), rtol=2e-7)
    alone = run(stores[0], tmp_path / "s.nc")  # is not taken for the same
    assert alone.attrs["samples"] == 9 and alone.attrs["fingerprint"] != found.attrs["fingerprint"]
    with pytest.raises(ValueError, match=r"scenarios of one time step, got 6 h and 12 h .*d\.zarr"):
        run(stores[0], tmp_path / "s.nc", scenarios=[made_store(tmp_path, "d", times[::2])])


def test_statistics_of_an_older_version_are_found_anew(tmp_path, store):
    """They are complete but for the envelope, so a new start writes what they lack."""
    output = tmp_path / "s.nc"
    whole = run(store, output)
    old = whole.drop_vars([n for n in whole.data_vars if ":" in n]).drop_sel(statistic="std_about_time_mean")
    old.to_netcdf(output)
    xr.testing.assert_identical(run(store, output), whole)


def test_several_stores_are_one_climatology(tmp_path):
    times = np.datetime64("2001-01-01", "ns") + np.arange(500) * np.timedelta64(1, "D")
    parts = [made_store(tmp_path, n, part) for n, part in (("a", times[:200]), ("b", times[200:]))]
    sources = [{"path": [str(tmp_path / "a.nc"), str(tmp_path / "b.nc")]}]
    ingest(IngestConfig(sources=sources, output=tmp_path / "c.zarr"))
    parts.append(tmp_path / "c.zarr")
    settings = {"period": {"start": "2001-02-01"}}
    run(parts[0], tmp_path / "s.nc", later_stores=[parts[1]], climatology=tmp_path / "one.zarr", **settings)
    run(parts[2], tmp_path / "t.nc", climatology=tmp_path / "two.zarr", **settings)
    one, two = (xr.open_zarr(tmp_path / f"{name}.zarr", chunks=None) for name in ("one", "two"))
    np.testing.assert_array_equal(one.temperature.values, two.temperature.values)
    assert one.attrs["period_end"] == two.attrs["period_end"] == str(times[-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "Expected stores in the order of time"),
        ({"step": 12}, "Expected stores of one time step, got 6 h, 12 h"),
        (
            {"constants": {"gravity": 9.8}},
            r"Expected stores with the same physical constants, got others .*a\.zarr and .*b\.zarr",
        ),
        ({"variables": ["temperature"]}, r"Expected .* in every store, got none in .*b\.zarr"),
        ({"grid": {"rows": 6}}, "Expected stores of one grid"),
    ],
)
def test_stores_that_are_no_record(tmp_path, change, message):
    first = made_store(tmp_path, "a", TIMES)
    begin = TIMES[-1] + np.timedelta64(6, "h") if change else TIMES[4]
    times = begin + np.arange(4) * np.timedelta64(change.pop("step", 6), "h")
    second = made_store(tmp_path, "b", times, **change)
    with pytest.raises(ValueError, match=message):
        run(first, tmp_path / "s.nc", later_stores=[second])
    assert not (tmp_path / "s.nc").exists()


def test_a_field_on_other_dimensions_is_no_record(tmp_path):
    first = open_analysis(made_store(tmp_path, "a", TIMES))
    later = first.assign_coords(time=first.time + (TIMES[-1] - TIMES[0]) + np.timedelta64(6, "h"))
    fixed = later.assign(mean_sea_level_pressure=later.mean_sea_level_pressure.isel(time=0, drop=True))
    with pytest.raises(ValueError, match="Expected mean_sea_level_pressure on .* in every store"):
        AnalysisSeries.of([first, fixed])
