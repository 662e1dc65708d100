"""Stores of mllam-data-prep through ingest: the layout written by xarray alone, bit for bit, and maps by their names."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

from emulator.ingestion.options import IngestOptions
from emulator.ingestion.run import ingest
from emulator.sources.formats import mllam
from emulator.sources.open import format_of
from emulator.sources.options import SourceOptions
from emulator.store.analysis import open_analysis
from emulator.store.schema import grid_of

X, Y = np.arange(7) * 2500.0 + 1e5, np.arange(5) * 2500.0 - 4e5
CONFIG = """extra:
  projection:
    class_name: LambertConformal
    kwargs:
      central_latitude: 56.7
      central_longitude: 25.0
      globe:
        semimajor_axis: 6371229.0
        semiminor_axis: 6371229.0
      standard_parallels:
      - 50.0
      - 6.0e+1
output:
  variables: {}
"""


def write(path, config=CONFIG, spatial=("x", "y")):
    """A store as mllam-data-prep 0.7 writes it: x runs slowest."""
    rng, cells, times = np.random.default_rng(0), len(X) * len(Y), np.datetime64("2019-01-01", "ns")
    x, y = (each.ravel() for each in np.meshgrid(X, Y, indexing="ij"))
    features = {"state": ["t850", "t500", "t2m", "r925hPa"], "forcing": ["swavr0m"], "static": ["lsm"]}
    units = {"state": ["K", "K", "K", "1"], "forcing": ["W m**-2"], "static": ["1"]}
    data = {
        kind: rng.normal(size=((6,) if kind != "static" else ()) + (cells, len(names))).astype("f4")
        for kind, names in features.items()
    }
    data["state"][..., :3] += 280
    data["static"] = np.clip(data["static"], 0, 1)
    dims = {k: (*["time"] * (k != "static"), "grid_index", f"{k}_feature") for k in features}
    coordinates = {spatial[0]: ("grid_index", x), spatial[1]: ("grid_index", y), "grid_index": np.arange(cells)}
    coordinates |= {"time": times + np.arange(6) * np.timedelta64(3, "h")}
    coordinates |= {f"{k}_feature": names for k, names in features.items()}
    coordinates |= {f"{k}_feature_units": (f"{k}_feature", each) for k, each in units.items()}
    attributes = {
        "created_with": "mllam-data-prep (https://github.com/mllam/mllam-data-prep)",
        "creation_config": config,
    }
    dataset = xr.Dataset({k: (dims[k], v) for k, v in data.items()}, coordinates, attributes)
    dataset["state__train__diff_std"] = ("state_feature", np.ones(4))
    dataset.to_zarr(path, zarr_format=2, encoding={"state": {"chunks": (4, cells, 4)}})
    return data


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning", "ignore:The data type:FutureWarning")
def test_fields_levels_cells_and_the_map_are_those_that_were_written(tmp_path):
    data = write(tmp_path / "danra.zarr")
    assert format_of(str(tmp_path / "danra.zarr")).name == "mllam"
    options = IngestOptions([SourceOptions(str(tmp_path / "danra.zarr"))], variables=("temperature", "2m_temperature"))
    ingest(options, tmp_path / "analysis.zarr")
    store = open_analysis(tmp_path / "analysis.zarr")

    def on_the_map(feature):
        return data["state"][..., feature].reshape(6, len(X), len(Y)).transpose(0, 2, 1)[:, ::-1]

    np.testing.assert_array_equal(store["temperature"].values[:, 0], on_the_map(1))
    np.testing.assert_array_equal(store["temperature"].values[:, 1], on_the_map(0))
    np.testing.assert_array_equal(store["2m_temperature"].values, on_the_map(2))
    grid = grid_of(store)
    assert grid.kind == "projected" and grid.shape == (5, 7)
    np.testing.assert_allclose(grid.x, X)
    assert grid.mapping["standard_parallel"] == [50.0, 60.0]
    assert grid.mapping["longitude_of_central_meridian"] == 25.0 and grid.mapping["semi_major_axis"] == 6371229.0


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning", "ignore:The data type:FutureWarning")
def test_refusals(tmp_path):
    write(tmp_path / "a.zarr", CONFIG.replace("LambertConformal", "InterruptedGoodeHomolosine"))
    with pytest.raises(ValueError, match="cartopy's maps LambertConformal.*got InterruptedGoodeHomolosine"):
        mllam.opens(str(tmp_path / "a.zarr"), "a.zarr", None)
    write(tmp_path / "b.zarr", spatial=("a", "b"))
    with pytest.raises(ValueError, match="x and y, or longitude and latitude.*got none"):
        mllam.opens(str(tmp_path / "b.zarr"), "b.zarr", None)


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning", "ignore:The data type:FutureWarning")
def test_levels_without_values_are_left_out(tmp_path, caplog):
    """As the package writes variables on different levels; here with the features before the cells, as it does now."""
    data = write(tmp_path / "danra.zarr")["state"]
    raw = xr.open_zarr(tmp_path / "danra.zarr", chunks=None).load().drop_encoding()
    names = ["t850.0hPa", "t500.0hPa", "u850.0hPa", "u500.0hPa"]
    values = np.stack([data[..., 0], data[..., 1], data[..., 3], np.full_like(data[..., 0], np.nan)], 1)
    raw = raw.assign_coords(state_feature=names, state_feature_units=("state_feature", ["K", "K", "m s-1", "m s-1"]))
    raw["state"] = ("time", "state_feature", "grid_index"), values
    raw["state__train__mean"] = ("state_feature", np.array([280, 280, 0, np.nan]))
    raw["state__test__mean"] = ("state_feature", np.array([np.nan, 280, 0, np.nan]))  # some times alone
    raw.to_zarr(tmp_path / "levels.zarr", zarr_format=2)
    store = ingested(tmp_path / "levels.zarr", tmp_path / "analysis.zarr", {"level": [850.0]})
    assert "u500.0hPa of" in caplog.text and "t850.0hPa" not in caplog.text
    for name, feature in (("temperature", 0), ("u_component_of_wind", 3)):
        expected = data[..., feature].reshape(6, len(X), len(Y)).transpose(0, 2, 1)[:, ::-1]
        np.testing.assert_array_equal(store[name].values[:, 0], expected)
    with pytest.raises(
        ValueError, match="the same levels for all fields, got 2 for temperature and 1 for u_comp.*select"
    ):
        ingested(tmp_path / "levels.zarr", tmp_path / "both.zarr", {})


LEVELS = ["t850.0hPa", "t500.0hPa", "u850.0hPa", "u500.0hPa"]


def with_means(path, state, means):
    """A store of wind and temperature on two levels, `state` `(time, cell, feature)`, with means of splits by name."""
    write(path.with_suffix(".plain"))
    raw = xr.open_zarr(path.with_suffix(".plain"), chunks=None).load().drop_encoding()
    raw = raw.drop_vars("state__train__diff_std")
    raw = raw.assign_coords(state_feature=LEVELS, state_feature_units=("state_feature", ["K", "K", "m s-1", "m s-1"]))
    raw["state"] = ("time", "grid_index", "state_feature"), state
    for name, mean in means.items():
        raw[name] = mean
    raw.to_zarr(path, zarr_format=2, encoding={"state": {"chunks": (1, *state.shape[1:])}})
    return str(path)


def levels_read(path):
    """Of temperature and of wind, in hPa."""
    found = {name: dataset for dataset in mllam.opens(path, path, None) for name in dataset}
    return [tuple(found[name]["level"].values) for name in ("t", "u")]


def mean_of(state, dims, times):
    """As xarray's mean skips what is missing, over those of `time` and `grid_index` that are not among `dims`."""
    part = xr.DataArray(state[times], dims=("time", "grid_index", "state_feature"))
    return part.mean([dim for dim in ("time", "grid_index") if dim not in dims])


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning", "ignore:The data type:FutureWarning")
@pytest.mark.parametrize("dims", [(), ("grid_index",), ("time",), None])
def test_means_are_over_any_dimensions(tmp_path, dims):
    """Of cells, of times (of which splits have different numbers), of both, or of the features too: that tells nothing."""
    state = np.random.default_rng(0).normal(size=(6, len(X) * len(Y), 4)).astype("f4")
    state[..., 3] = np.nan
    state[:, 5:, 2] = np.nan  # some cells alone
    if dims is None:
        means = {"state__train__mean": ((), np.float32(0.5))}
    else:
        parts = {"train": slice(0, 4), "test": slice(4, 6)}
        means = {
            f"state__{name}__mean": mean_of(state, dims, times).rename(time=f"time_{name}")
            if "time" in dims
            else mean_of(state, dims, times)
            for name, times in parts.items()
        }
    levels = (500.0, 850.0)
    assert levels_read(with_means(tmp_path / "a.zarr", state, means)) == [levels, levels if dims is None else (850.0,)]


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning", "ignore:The data type:FutureWarning")
@pytest.mark.parametrize("there", [slice(0, 1), slice(2, 3), slice(3, 6)])
def test_a_feature_that_exists_at_other_times_than_those_of_the_training_stays(tmp_path, caplog, there):
    state = np.random.default_rng(0).normal(size=(6, len(X) * len(Y), 4)).astype("f4")
    there = np.isin(np.arange(6), np.arange(6)[there])
    state[~there, :, 3] = np.nan
    state[..., 1] = np.nan
    mean = mean_of(state, (), slice(1, 2))
    assert mean.isnull().values.tolist() == [False, True, False, True]
    path = with_means(tmp_path / "a.zarr", state, {"state__train__mean": mean})
    assert levels_read(path) == [(850.0,), (500.0, 850.0)]
    assert "t500.0hPa of" in caplog.text and "u500.0hPa" not in caplog.text


def ingested(path, output, select):
    source = SourceOptions(str(path), select=select, rename={"swavr0m": "mean_surface_net_short_wave_radiation_flux"})
    ingest(IngestOptions([source]), output)
    return open_analysis(output)


PACKAGE = """schema_version: v0.6.0
dataset_version: v0.1.0
extra:
  projection:
    class_name: LambertConformal
    kwargs:
      central_longitude: 25.0
      central_latitude: 56.7
      standard_parallels: [56.7, 56.7]
      globe: {semimajor_axis: 6367470.0, semiminor_axis: 6367470.0}
output:
  variables:
    static: [grid_index, static_feature]
    state: [time, grid_index, state_feature]
    forcing: [time, grid_index, forcing_feature]
  coord_ranges: {time: {start: 2019-01-01T00:00, end: 2019-01-03T00:00, step: PT6H}}
  chunking: {time: 1}
  splitting:
    dim: time
    splits:
      train:
        start: 2019-01-01T00:00
        end: 2019-01-02T00:00
        compute_statistics: {ops: [mean, std, diff_mean, diff_std], dims: [grid_index, time]}
      test: {start: 2019-01-02T00:00, end: 2019-01-03T00:00}
inputs:
"""
INPUT = """  {name}:
    path: {path}
    dims: [{dims}]
    variables: {variables}
    dim_mapping:
      grid_index: {{method: stack, dims: [x, y]}}
      {target}_feature: {{method: stack_variables_by_var_name, {how}}}
{time}    target_output_variable: {target}
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mllam_data_prep") is None, reason="mllam-data-prep is not installed")
def test_a_store_of_the_package_itself(tmp_path):
    rng, times = np.random.default_rng(0), np.datetime64("2019-01-01", "ns") + np.arange(12) * np.timedelta64(6, "h")
    sizes = {"time": 12, "pressure": 2, "y": len(Y), "x": len(X)}
    fields = {"t": ("K", 280), "u": ("m s-1", 0), "t2m": ("K", 285), "swavr0m": ("W m**-2", 100), "lsm": ("1", 0.5)}
    dims = {"t": tuple(sizes), "u": tuple(sizes), "lsm": ("y", "x")}
    made = xr.Dataset(
        coords={"time": times, "pressure": ("pressure", [500.0, 850.0], {"units": "hPa"}), "x": X, "y": Y}
    )
    for name, (units, mean) in fields.items():
        own = dims.get(name, ("time", "y", "x"))
        values = mean + 0.1 * rng.normal(size=[sizes[d] for d in own])
        made[name] = own, values.astype("f4"), {"units": units, "long_name": name}
    made.to_netcdf(tmp_path / "fields.nc")
    both, one = "{pressure: {values: [500, 850], units: hPa}}", "{pressure: {values: [850], units: hPa}}"
    leveled, plain = 'dims: [pressure], name_format: "{var_name}{pressure}hPa"', 'name_format: "{var_name}"'
    inputs = [
        ("levels", "time, x, y, pressure", f"{{t: {both}, u: {one}}}", "state", leveled),
        ("surface", "time, x, y", "[t2m]", "state", plain),
        ("radiation", "time, x, y", "[swavr0m]", "forcing", plain),
        ("land", "x, y", "[lsm]", "static", plain),
    ]
    config = PACKAGE
    for name, along, variables, target, how in inputs:
        time = "      time: {method: rename, dim: time}\n" if "time" in along else ""
        more = {"name": name, "dims": along, "variables": variables, "target": target, "how": how, "time": time}
        config += INPUT.format(path=tmp_path / "fields.nc", **more)
    (tmp_path / "config.yaml").write_text(config)
    command = [sys.executable, "-m", "mllam_data_prep", "config.yaml", "--output", "store.zarr"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    store = ingested(tmp_path / "store.zarr", tmp_path / "analysis.zarr", {"level": [850.0]})
    assert store.sizes["time"] == 9 and grid_of(store).mapping["standard_parallel"] == [56.7, 56.7]
    names = {"t": "temperature", "u": "u_component_of_wind", "t2m": "2m_temperature", "lsm": "land_sea_mask",
             "swavr0m": "mean_surface_net_short_wave_radiation_flux"}  # fmt: skip
    for name, ours in names.items():
        expected = made[name].isel({d: slice(9) for d in made[name].dims if d == "time"})
        expected = expected.sel(pressure=[850.0]) if "pressure" in expected.dims else expected
        np.testing.assert_array_equal(store[ours].values, expected.values[..., ::-1, :])
