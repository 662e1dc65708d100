"""Real files from ingest to a report of persistence, and to the input of a network; with a synthetic twin."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from small_planet import small_planet

from emulator.data.channels import Channels, Layout
from emulator.model.assemble import make_network
from emulator.store.analysis import open_analysis
from emulator.store.schema import grid_of, levels_of
from pipelines.cli import main


def run(folder, source, **experiment):
    path = folder / "experiment.yaml"
    raw = {"directory": str(folder / "run"), "ingest": {"sources": [source]}, **experiment}
    path.write_text(yaml.safe_dump(raw))
    assert main(["run", str(path)]) == 0
    return folder / "run"


def check_persistence(directory, names):
    """The report is there, and one score is what its definition gives."""
    assert (directory / "report" / "report.html").stat().st_size > 100_000
    assert json.loads((directory / "report" / "scores.json").read_text())
    truth, scores = open_analysis(directory / "analysis.zarr"), xr.open_dataset(directory / "scores.nc")
    assert set(names) <= set(truth.data_vars)
    found = scores["rmse"].sel(forecast="persistence", region="global").isel(lead_time=0)
    found = found[(scores["variable"].values == "temperature").argmax()]
    field = truth["temperature"].sel(level=float(found["level"])).values.astype(float)
    field = field.mean(1) if "member" in truth.dims else field  # the truth is the mean of its members
    count = int(scores["count"].sel(region="global").isel(lead_time=0)[0])
    errors = grid_of(truth).mean((field[:-1] - field[1:]) ** 2)[:count]
    np.testing.assert_allclose(found, np.sqrt(errors.mean()), rtol=1e-6)


def test_a_planet_of_our_own_as_persistence(tmp_path):
    small_planet(times=8).to_netcdf(tmp_path / "planet.nc")
    directory = run(tmp_path, {"path": str(tmp_path / "planet.nc")}, verify={}, report={})
    check_persistence(directory, ["temperature", "mean_evaporation_rate"])


def test_era5_members_from_grib(shared_data, tmp_path):
    pytest.importorskip("cfgrib")
    source = {"path": str(shared_data / "era5" / "era5-levels-members.grib")}
    directory = run(tmp_path, source, verify={}, report={})
    check_persistence(directory, ["temperature", "geopotential"])
    store = open_analysis(directory / "analysis.zarr")
    assert dict(store.sizes) | {"time": 4, "member": 10, "level": 2, "latitude": 61, "longitude": 120} == dict(
        store.sizes
    )
    # 500 hPa lies between 4900 and 5900 m, and is colder than 850 hPa
    height = store["geopotential"].sel(level=500).values / 9.80665
    assert 4600 < height.min() and height.max() < 6000
    assert (store["temperature"].sel(level=500) < store["temperature"].sel(level=850)).mean() > 0.99


def test_ifs_forecast_from_grib(shared_data, tmp_path):
    pytest.importorskip("cfgrib")
    source = {"path": str(shared_data / "nwp" / "pl_regular_ll.grib"), "select": {"lead_time": 0}}
    directory = run(tmp_path, source, verify={}, report={})
    check_persistence(directory, ["temperature", "u_component_of_wind", "v_component_of_wind", "relative_humidity"])
    store = open_analysis(directory / "analysis.zarr")
    assert store.sizes["time"] == 4 and store["latitude"].values[0] == 90 and len(levels_of(store)) == 6


def network_input(store):
    """Every field of one state through a network on the state's own grid."""
    names = [n for n in store.data_vars if "level" in store[n].dims and "time" in store[n].dims]
    channels, empty = Channels.of(store, names), Channels((), ())
    layout = Layout(channels, empty, empty, empty)
    fields = {name: torch.from_numpy(store[name].isel(time=[0]).values) for name in names}
    state = channels.pack(fields)
    assert torch.isfinite(state).all()
    scaled = (state - state.mean((-2, -1), keepdim=True)) / state.std((-2, -1), keepdim=True).clamp(min=1e-12)
    network = make_network({"kind": "sfno", "embed_dim": 8, "blocks": 1}, layout, grid_of(store))
    features = torch.zeros(1, network.in_channels - channels.count, *state.shape[2:])
    output = network(torch.cat([scaled, features], 1))
    assert output.shape == state.shape and torch.isfinite(output).all()
    return state


def test_the_full_era5_state_becomes_a_store_and_a_network_input(shared_data, tmp_path):
    directory = run(tmp_path, {"path": str(shared_data / "era5" / "era5_tl31_19590102T00.nc")})
    store = open_analysis(directory / "analysis.zarr")
    assert grid_of(store).kind == "gaussian" and store.sizes["level"] == 37
    state = network_input(store)
    assert state.shape[1] >= 4 * 37
    # warm at the surface of the equator, cold over both poles, whatever the order of the source was
    lowest = store["temperature"].isel(time=0, level=-1).mean("longitude").values
    assert lowest[16] - lowest[0] > 20 and lowest[16] - lowest[-1] > 10


def test_a_state_of_our_own_becomes_a_network_input(tmp_path):
    small_planet(times=1).to_netcdf(tmp_path / "planet.nc")
    network_input(open_analysis(run(tmp_path, {"path": str(tmp_path / "planet.nc")}) / "analysis.zarr"))
