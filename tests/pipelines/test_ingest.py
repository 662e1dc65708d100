"""Ingest as a stage: any source to a whole store, or one sentence and nothing."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from source_files import TIMES, truth, write_grib

from emulator.planet.constants import ERA5, Constants
from emulator.store.analysis import open_analysis
from emulator.store.forecast import open_forecast
from emulator.store.schema import constants_of, grid_of, levels_of, time_step_seconds, variables_by_role
from pipelines.config import IngestConfig
from pipelines.ingest import ingest

TRUTH = truth()


def run(source, output, **settings):
    sources = source if isinstance(source, list) else [{"path": str(source)}]
    ingest(IngestConfig(sources=sources, output=output, **settings))
    return (open_forecast if settings.get("kind") == "forecast" else open_analysis)(output)


def refused(source, output, message, **settings):
    """The error, after seeing that it is one sentence and that nothing is left."""
    with pytest.raises(ValueError, match=message) as caught:
        run(source, output, **settings)
    assert "\n" not in str(caught.value)
    assert not [file.name for file in Path(output).parent.iterdir() if file.name.startswith(Path(output).name)]
    return str(caught.value)


@pytest.fixture
def netcdf(tmp_path):
    (tmp_path / "in").mkdir()
    for number, part in enumerate((slice(0, 5), slice(5, 8))):
        TRUTH.isel(time=part).to_netcdf(tmp_path / "in" / f"{number}.nc")
    return tmp_path / "in" / "*.nc"


def test_a_store_holds_the_sources(tmp_path, netcdf):
    store = run(netcdf, tmp_path / "a.zarr", constants={"gravity": 9.81}, times_per_region=3)
    for name in TRUTH.data_vars:
        np.testing.assert_array_equal(store[name].values, TRUTH[name].values)
        assert store[name].dtype == np.float32
    assert store.temperature.dims == ("time", "level", "latitude", "longitude")
    assert store.temperature.attrs["role"] == "prognostic" and store.temperature.attrs["units"] == "K"
    assert store.mean_total_precipitation_rate.attrs["cell_methods"] == "time: mean (interval: 6 hours)"
    assert variables_by_role(store)["static"] == ["geopotential_at_surface"]
    assert constants_of(store) == Constants(**(json.loads(ERA5.to_json()) | {"gravity": 9.81}))
    assert levels_of(store).kind == "pressure" and time_step_seconds(store) == 21600
    assert float(store.cell_area.sum()) == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(store.cell_area.values, grid_of(store).area)
    assert zarr.open_array(tmp_path / "a.zarr", path="temperature").chunks == (1, 3, 7, 12)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr", "in"]


def test_roles_variables_and_periods(tmp_path, netcdf):
    store = run(
        netcdf,
        tmp_path / "a.zarr",
        variables=["temperature", "mean_sea_level_pressure"],
        roles={"mean_sea_level_pressure": "diagnostic"},
        period={"start": "2001-02-27T06:00", "end": TIMES[4].astype("datetime64[D]").item()},
    )
    assert variables_by_role(store)["diagnostic"] == ["mean_sea_level_pressure"]
    np.testing.assert_array_equal(store.time.values, TIMES[1:8])  # a bare date at the end is that whole day
    assert "geopotential_at_surface" not in store


def bytes_of(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_done_again_it_does_nothing_and_changed_it_starts_over(tmp_path, netcdf, caplog):
    path = tmp_path / "a.zarr"
    run(netcdf, path)
    before = {f: f.stat().st_mtime_ns for f in path.rglob("*")}
    run(netcdf, path, dask={"threads": 1})
    assert before == {f: f.stat().st_mtime_ns for f in path.rglob("*")}
    with caplog.at_level("WARNING"):
        store = run(netcdf, path, roles={"mean_sea_level_pressure": "forcing"})
    assert "will be replaced" in caplog.text
    assert variables_by_role(store)["forcing"] == ["mean_sea_level_pressure"]
    TRUTH.isel(time=slice(5, 8)).assign(temperature=TRUTH.temperature.isel(time=slice(5, 8)) + 1).to_netcdf(
        netcdf.parent / "1.nc"
    )
    assert float(run(netcdf, path).temperature[7, 0, 0, 0]) == pytest.approx(float(TRUTH.temperature[7, 0, 0, 0]) + 1)


SCRIPT = """
import sys
from pipelines.config import IngestConfig
from pipelines.ingest import ingest
ingest(IngestConfig(sources=[{"path": sys.argv[1]}], output=sys.argv[2], times_per_region=1))
"""


def test_killed_and_started_again_it_gives_the_same_bytes(tmp_path):
    """kill -9 as soon as some regions are done; the second start writes only what is missing."""
    times = TIMES[0] + np.arange(40) * np.timedelta64(6, "h")
    truth(times).to_netcdf(tmp_path / "a.nc")
    run(tmp_path / "a.nc", tmp_path / "whole.zarr", times_per_region=1)
    output, progress = tmp_path / "killed.zarr", tmp_path / "killed.zarr.progress"
    child = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path / "a.nc"), str(output)])
    while child.poll() is None and (len(list(progress.glob("*.done"))) < 5 or not list(progress.glob("temperature.*"))):
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    done = {f.name: f.stat().st_mtime_ns for f in progress.glob("*.done")}
    assert 5 <= len(done) < 120 and not output.exists()
    partial = tmp_path / "killed.zarr.partial"
    chunks = {f: f.stat().st_mtime_ns for f in (partial / "temperature" / "c").rglob("*") if f.is_file()}
    marked = {f: t for f, t in chunks.items() if f"temperature.{int(f.relative_to(partial).parts[2]):08d}.done" in done}
    run(tmp_path / "a.nc", output, times_per_region=1)
    assert bytes_of(output) == bytes_of(tmp_path / "whole.zarr")
    assert marked  # and those were not written again
    assert all((output / f.relative_to(partial)).stat().st_mtime_ns == t for f, t in marked.items())


def test_a_full_disk_is_one_sentence_and_can_be_continued(tmp_path, netcdf):
    """A limit on the size of a file stands for the full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    settings = {"times_per_region": 4, "dask": {"threads": 1}}
    big = xr.concat(
        [TRUTH.assign_coords(time=TIMES + n * np.timedelta64(2, "D")) for n in range(4)], "time", data_vars="minimal"
    )
    rng = np.random.default_rng(0)
    big["temperature"] += rng.normal(size=big.temperature.shape).astype(np.float32)
    big.to_netcdf(tmp_path / "big.nc")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
        with pytest.raises(ValueError, match="Expected to write temperature to .*File too large") as caught:
            run(tmp_path / "big.nc", tmp_path / "a.zarr", **settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value) and not (tmp_path / "a.zarr").exists()
    assert list((tmp_path / "a.zarr.progress").glob("*.done"))
    store = run(tmp_path / "big.nc", tmp_path / "a.zarr", **settings)
    np.testing.assert_array_equal(store.temperature.values, big.temperature.values)


def test_missing_times_are_kept_when_asked_for(tmp_path):
    TRUTH.isel(time=[0, 1, 3, 4]).to_netcdf(tmp_path / "a.nc")
    refused(tmp_path / "a.nc", tmp_path / "a.zarr", "uniform time axis")
    store = run(tmp_path / "a.nc", tmp_path / "a.zarr", missing="keep")
    assert store.missing.values.tolist() == [False, False, True, False, False]
    assert store.attrs["missing_times"] == 1
    assert np.isnan(store.temperature.values[2]).all() and np.isfinite(store.temperature.values[3]).all()


def test_model_levels_of_the_embedded_model_pass_unchanged(tmp_path):
    half = np.array([0.0, 0.2, 0.6, 1.0])
    sigma = (half[1:] + half[:-1]) / 2
    data = truth(level=sigma)
    data["level"].attrs = {"standard_name": "atmosphere_sigma_coordinate", "units": "1"}
    data = data.assign(half_level_a=("half_level", np.zeros(4)), half_level_b=("half_level", half))
    data.attrs = {"vertical_coordinate": "sigma", "constants": Constants(gravity=9.81).to_json(), "source": "a model"}
    data.to_netcdf(tmp_path / "a.nc")
    store = run(tmp_path / "a.nc", tmp_path / "a.zarr")
    np.testing.assert_array_equal(store.temperature.values, data.temperature.values)
    assert levels_of(store).kind == "sigma"
    np.testing.assert_array_equal(levels_of(store).half_b, half)
    np.testing.assert_array_equal(store.level.values, sigma)
    assert constants_of(store).gravity == 9.81 and store.attrs["source"] == "a model"
    data.drop_vars(["half_level_a", "half_level_b"]).to_netcdf(tmp_path / "b.nc")
    refused(tmp_path / "b.nc", tmp_path / "b.zarr", r"interface coefficients of the sigma levels .* in .*b\.nc")


def test_a_table_of_coefficients_may_be_one_more_source(tmp_path):
    data = truth(level=np.array([2.0, 3.0, 5.0]))
    del data.level.attrs["units"]
    data.to_netcdf(tmp_path / "a.nc")
    half = xr.Dataset(
        {"a_half": ("h", np.linspace(0, 100, 7) * np.linspace(1, 0, 7)), "b_half": ("h", np.linspace(0, 1, 7))}
    )
    data[["geopotential_at_surface"]].merge(half).to_netcdf(tmp_path / "levels.nc")
    sources = [{"path": str(tmp_path / "a.nc")}, {"path": str(tmp_path / "levels.nc")}]
    store = run(sources, tmp_path / "a.zarr")
    assert levels_of(store).kind == "hybrid"
    np.testing.assert_allclose(store.half_level_b.values, np.array([0, 2, 4, 6]) / 6)


def test_other_calendars_come_through(tmp_path):
    times = xr.date_range("2001-02-27", periods=8, freq="6h", calendar="360_day", use_cftime=True)
    TRUTH.assign_coords(time=times).to_netcdf(tmp_path / "a.nc")
    store = run(tmp_path / "a.nc", tmp_path / "a.zarr", period={"start": "2001-02-27T06:00", "end": "2001-02-28T12:00"})
    assert list(store.time.values) == list(times[1:7])


@pytest.mark.slow
def test_processes_write_the_same_bytes_as_threads(tmp_path, netcdf):
    write_grib(tmp_path / "in" / "w.grib", TRUTH.temperature.assign_attrs(units="Pa s-1") - 250, "w")
    sources = [{"path": str(netcdf)}, {"path": str(tmp_path / "in" / "w.grib")}]
    run(sources, tmp_path / "threads.zarr", times_per_region=2)
    run(sources, tmp_path / "processes.zarr", times_per_region=2, dask={"workers": 2, "threads": 1})
    assert bytes_of(tmp_path / "threads.zarr") == bytes_of(tmp_path / "processes.zarr")
    TRUTH.assign(temperature=TRUTH.temperature.where(TRUTH.time != TIMES[3])).to_netcdf(tmp_path / "holes.nc")
    refused(tmp_path / "holes.nc", tmp_path / "b.zarr", "252 missing ones", dask={"workers": 1})


# --- forecasts ------------------------------------------------------------------------------------------------------


def test_a_forecast_store(tmp_path):
    leads = np.arange(3) * np.timedelta64(6, "h")
    parts = [TRUTH.isel(time=slice(n, n + 4)).assign_coords(time=TIMES[:4]) for n in range(3)]
    moving = [part.drop_vars("geopotential_at_surface") for part in parts]
    data = xr.concat(moving, xr.Variable("step", leads)).rename(temperature="t").expand_dims(number=[0])
    data = data.assign(geopotential_at_surface=TRUTH.geopotential_at_surface)
    data.to_netcdf(tmp_path / "a.nc")
    store = run(tmp_path / "a.nc", tmp_path / "f.zarr", kind="forecast")
    expected = data.t.isel(number=0).transpose("time", "step", "level", "latitude", "longitude").values
    np.testing.assert_array_equal(store.temperature.values, expected)
    np.testing.assert_array_equal(store.lead_time.values, leads)
    np.testing.assert_array_equal(store.init_time.values, TIMES[:4])
    assert np.isnan(store.mean_total_precipitation_rate.values).sum() == 0
    other = xr.open_zarr(tmp_path / "f.zarr")
    assert {"time", "prediction_timedelta"} <= set(other.dims) and "number" not in other.dims
    refused(tmp_path / "a.nc", tmp_path / "g.zarr", "set kind: forecast")
    TRUTH.to_netcdf(tmp_path / "b.nc")
    refused(tmp_path / "b.nc", tmp_path / "g.zarr", "Expected a forecast with lead times", kind="forecast")


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: d.drop_vars(d.data_vars).assign(salt=TRUTH.temperature.drop_attrs()),
            "variables of the table .* got salt",
        ),
        (lambda d: d.assign(temperature=d.temperature.assign_attrs(units="m")), r"convert to 'K', got 'm' .*a\.nc"),
        (
            lambda d: d.assign(temperature=(d.temperature - 273.15).assign_attrs(units="K")),
            r"temperature in K between 50 and 400, got -.*a\.nc",
        ),
        (lambda d: d.isel(time=[0, 1, 3]), "step of 9 h and 6 h from 2001-02-27T00.* to 2001-02-27T06"),
        (lambda d: d.isel(time=[0, 1, 1, 2]), "once for 2001-02-27T06.* twice"),
        (
            lambda d: d.assign(temperature=d.temperature.where((d.time != TIMES[3]) | (d.latitude < 60))),
            "values of temperature everywhere, got 72 missing ones at 2001-02-27T18",
        ),
        (
            lambda d: d.drop_vars("longitude"),
            "variables with latitudes and longitudes in .*a.nc, got none for .*temperature",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(tmp_path, change, message):
    change(TRUTH).to_netcdf(tmp_path / "a.nc")
    refused(tmp_path / "a.nc", tmp_path / "out.zarr", message)


def test_more_bad_input(tmp_path, netcdf):
    output = tmp_path / "out.zarr"
    refused(tmp_path / "absent.nc", output, "Expected files at .*absent.nc, got none")
    refused(
        netcdf, output, "Expected specific_humidity in the sources, got", variables=["temperature", "specific_humidity"]
    )
    refused(netcdf, output, "nearest: temperature", variables=["temprature"])
    refused(netcdf, output, "in the period, got none", period={"start": "2020-01-01"})
    (netcdf.parent / "2.nc").write_bytes((netcdf.parent / "1.nc").read_bytes()[:3000])
    refused(netcdf, output, r"opens at .*2\.nc")
    TRUTH.isel(latitude=slice(0, 5)).to_netcdf(netcdf.parent / "2.nc")
    refused(netcdf, output, r"one grid, got 7 x 12 .*0\.nc and 5 x 12 .*2\.nc")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="Expected to write a store at"):
        (netcdf.parent / "2.nc").unlink()
        run(netcdf, tmp_path / "file" / "out.zarr")


# --- real files -----------------------------------------------------------------------------------------------------


def test_era5_members(tmp_path, shared_data):
    store = run(shared_data / "era5" / "era5-levels-members.grib", tmp_path / "a.zarr")
    assert dict(store.sizes) == {"time": 4, "member": 10, "level": 2, "latitude": 61, "longitude": 120}
    assert time_step_seconds(store) == 43200
    mean = (store.temperature.sel(level=500) * store.cell_area).sum(["latitude", "longitude"])
    assert 250 < float(mean.min()) < float(mean.max()) < 262
    spread = store.geopotential.sel(level=500).std("member").mean()
    assert 5 < float(spread) < 200


def test_ifs_forecast(tmp_path, shared_data):
    store = run(shared_data / "nwp" / "pl_regular_ll.grib", tmp_path / "f.zarr", kind="forecast")
    assert dict(store.sizes) == {"init_time": 4, "lead_time": 2, "level": 6, "latitude": 19, "longitude": 36}
    assert levels_of(store).values.tolist() == [300, 400, 500, 700, 850, 1000]
    height = store.geopotential.sel(level=500).isel(lead_time=0, init_time=0) / 9.80665
    assert 5000 < float((height * store.cell_area).sum()) < 5900


def test_a_full_era5_state(tmp_path, shared_data):
    source = shared_data / "era5" / "era5_tl31_19590102T00.nc"
    store = run(source, tmp_path / "a.zarr")
    assert grid_of(store).kind == "gaussian" and len(levels_of(store)) == 37
    raw = xr.open_dataset(source)
    for name in ("temperature", "specific_humidity"):
        expected = raw[name].transpose("level", "latitude", "longitude").values[:, ::-1]
        np.testing.assert_array_equal(store[name].values[0], expected)
    assert float(store.temperature.sel(level=1000)[0, 0].mean()) < float(
        store.temperature.sel(level=1000)[0, 16].mean()
    )


BAD = {
    "80.nc": "interface coefficients",
    "era5-levels-corrupted.grib": "broken one",
    "hpa_and_pa.grib": "kind: forecast",
    "reduced_gg.grib": "reduced Gaussian",
    "spherical_harmonics.grib": "spectral coefficients",
    "t_analysis_and_fc_0.grib": "between 50 and 400",
    "tp_on_different_grid_resolutions.grib": "one grid",
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_end_in_one_sentence_that_names_them(tmp_path, shared_data, name):
    assert name in refused(shared_data / "bad" / name, tmp_path / "out.zarr", BAD[name])


def test_irregular_leads_are_named(tmp_path, shared_data):
    refused(shared_data / "nwp" / "mslp.nc", tmp_path / "out.zarr", "24 h from 2022-08-17T00.* to 2022-08-18T00")


def test_root_is_not_needed_to_read(tmp_path, netcdf):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (netcdf.parent / "0.nc").chmod(0)
    refused(netcdf, tmp_path / "out.zarr", "Permission denied")
