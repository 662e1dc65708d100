"""Exports opened by the packages that they are for, where these are installed."""

import numpy as np
import pytest
import xarray as xr
from small_forecast import small_forecast, write_forecast
from small_planet import small_planet
from small_store import write_store

import emulator as em

pytestmark = pytest.mark.slow
KEPT = ["temperature", "surface_pressure", "geopotential_at_surface", "land_sea_mask", "half_level_a", "half_level_b"]
PLANET = small_planet(times=6, nlat=8)[KEPT]
LEVELS = [500.0, 850.0]


def test_cfgrib(tmp_path):
    pytest.importorskip("cfgrib")
    (path,) = em.export(write_store(tmp_path, PLANET), "grib", tmp_path / "grib", LEVELS).iterdir()
    options = {"filter_by_keys": {"shortName": "t"}, "indexpath": ""}
    found = xr.open_dataset(path, engine="cfgrib", backend_kwargs=options)["t"].sortby("isobaricInhPa")
    np.testing.assert_allclose(found.values, em.on_pressure(PLANET, LEVELS)["temperature"].values, rtol=1e-6)
    np.testing.assert_array_equal(found["valid_time"].values, PLANET["time"].values)


def test_anemoi_datasets(tmp_path):
    datasets = pytest.importorskip("anemoi.datasets")  # of a release that takes zarr 3
    store = em.export(write_store(tmp_path, PLANET), "anemoi", tmp_path / "a.zarr", LEVELS)
    found = datasets.open_dataset(str(store))
    values = np.stack([found[n][found.name_to_index["t_850"], 0] for n in range(6)])
    expected = em.on_pressure(PLANET, LEVELS)["temperature"].values[:, 1]
    np.testing.assert_array_equal(values.reshape(expected.shape), expected)


def test_weatherbench_x(tmp_path):
    loaders = pytest.importorskip("weatherbenchX.data_loaders.xarray_loaders")
    from weatherbenchX import aggregation
    from weatherbenchX.metrics import base, deterministic

    forecast = write_forecast(tmp_path / "f.zarr", small_forecast(PLANET, (0, 1), 2))
    paths = [em.export(forecast, "weatherbench", tmp_path / "wf.zarr", LEVELS)]
    paths += [em.export(write_store(tmp_path, PLANET), "weatherbench", tmp_path / "wa.zarr", LEVELS)]
    inits, leads = PLANET["time"].values[:2], (np.arange(3) * 6).astype("timedelta64[h]").astype("timedelta64[ns]")
    predictions = loaders.PredictionsFromXarray(path=str(paths[0]), variables=["temperature"]).load_chunk(inits, leads)
    targets = loaders.TargetsFromXarray(path=str(paths[1]), variables=["temperature"]).load_chunk(inits, leads)
    metrics = {"rmse": deterministic.RMSE()}
    aggregator = aggregation.Aggregator(reduce_dims=("init_time", "latitude", "longitude"))
    statistics = base.compute_unique_statistics_for_all_metrics(metrics, predictions, targets)
    found = aggregator.aggregate_statistics(statistics).metric_values(metrics)["rmse.temperature"]
    truth, ours = em.on_pressure(PLANET, LEVELS), em.on_pressure(em.open_forecast(forecast).load(), LEVELS)
    error = [
        ours["temperature"].values[init, lead] - truth["temperature"].values[init + lead]
        for init in (0, 1)
        for lead in range(3)
    ]
    square = (np.array(error, np.float64) ** 2).mean(axis=(-2, -1)).reshape(2, 3, 2).mean(axis=0)
    np.testing.assert_allclose(found.transpose("lead_time", "level").values, np.sqrt(square), rtol=1e-5, atol=1e-9)
