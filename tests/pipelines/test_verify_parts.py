"""Parts, restarts and later initial times end in the scores of one run."""

import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from emulator.verify.files import open_scores
from pipelines.config import VerifyConfig
from pipelines.verify import verify

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from made_scores import made_analysis, made_forecast_store

INITS = [30, 32, 33, 36, 38, 40, 44]


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    truth = made_analysis(folder / "analysis.zarr")
    made_forecast_store(folder / "forecast.zarr", truth, INITS, 6, 0.2)
    made_forecast_store(folder / "early.zarr", truth, INITS[:4], 6, 0.2)
    made_forecast_store(folder / "plain.zarr", truth, INITS[:2], 6, 0.3)
    for name in ("forecast", "early"):
        store = xr.open_zarr(folder / f"{name}.zarr", decode_timedelta=True).load()
        rng = np.random.default_rng(7)
        noise = xr.DataArray(rng.standard_normal((4, len(INITS), 7)), dims=("number", "time", "prediction_timedelta"))
        noise = noise.isel(time=slice(0, store.sizes["time"]))
        many = store[["temperature", "surface_pressure", "mean_total_precipitation_rate"]]
        many = many * (1 + 1e-3 * noise)
        many = many.transpose("time", "prediction_timedelta", "number", ...).astype(np.float32)
        many = many.assign(half_level_a=store["half_level_a"], half_level_b=store["half_level_b"])
        many = many.assign_attrs(store.attrs)
        for field, array in many.data_vars.items():
            array.attrs = store[field].attrs
        for array in many.variables.values():
            array.encoding = {}
        many.to_zarr(folder / f"{name}_members.zarr", zarr_format=3)
    return folder


def config(stores, output, forecast="forecast_members.zarr", **options) -> VerifyConfig:
    settings = {
        "forecasts": {"emulator": stores / forecast},
        "audit": {"one": stores / "forecast.zarr", "uncorrected": stores / "plain.zarr"},
        "truth": stores / "analysis.zarr",
        "output": output,
        "regions": ["global", "tropics"],
        "climatology": {"end": "2001-01-07"},
    }
    return VerifyConfig(**(settings | options))


def assert_same(found: xr.Dataset, whole: xr.Dataset):
    assert set(found.variables) == set(whole.variables)
    for name, expected in whole.variables.items():
        got = found[name].transpose(*expected.dims)
        if expected.dtype.kind == "f":
            scale = np.nanmax(np.abs(expected.values), initial=0.0)
            tolerance = 1e-6 if expected.dtype == np.float32 else 1e-12
            np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * scale, err_msg=name)
        else:
            np.testing.assert_array_equal(got, expected, err_msg=name)


@pytest.fixture(scope="module")
def whole(stores, tmp_path_factory) -> xr.Dataset:
    path = tmp_path_factory.mktemp("whole") / "scores.nc"
    verify(config(stores, path))
    return open_scores(path)


def test_the_file_holds_what_an_ensemble_is_judged_by(whole):
    for name in (
        "crps",
        "crps_ecdf",
        "spread_skill",
        "energy_score",
        "rank_histogram",
        "brier_fair",
        "roc_area",
        "fss",
    ):
        assert np.isfinite(whole[name].sel(forecast="emulator")).any(), name
    emulator = whole.sel(forecast="emulator")
    np.testing.assert_allclose(emulator["rank_histogram"].sum("rank").isel(lead_time=slice(1, None)), 1.0, rtol=1e-10)
    assert (emulator["rmse_unbiased"] <= emulator["rmse"] + 1e-15).all()
    assert (emulator["crps_ecdf"] >= emulator["crps"] - 1e-15).where(emulator["crps"].notnull(), True).all()


@pytest.mark.parametrize("count", [2, 7])
def test_parts_in_any_order_add_up_to_the_whole(stores, whole, tmp_path, count):
    output = tmp_path / "scores.nc"
    for number in [*range(count, 0, -1)]:
        assert not output.exists()
        verify(config(stores, output), part=(number, count))
    assert_same(open_scores(output), whole)
    assert [p.name for p in tmp_path.iterdir()] == ["scores.nc"]


def test_a_part_that_is_there_is_not_made_again(stores, whole, tmp_path, monkeypatch):
    output = tmp_path / "scores.nc"
    verify(config(stores, output), part=(1, 2))
    calls = []
    score = __import__("pipelines.verify", fromlist=["x"])._score
    monkeypatch.setattr("pipelines.verify._score", lambda *a: calls.append(len(a[2])) or score(*a))
    verify(config(stores, output), part=(1, 2))
    assert calls == []
    verify(config(stores, output, climatology={"end": "2001-01-06"}), part=(1, 2))
    assert calls == [4]  # another climatology: made anew
    verify(config(stores, output), part=(1, 2))
    verify(config(stores, output), part=(2, 2))
    assert calls == [4, 4, 3]
    assert_same(open_scores(output), whole)


def test_later_initial_times_are_added_without_making_the_old_ones_again(stores, whole, tmp_path, monkeypatch):
    output = tmp_path / "scores.nc"
    verify(config(stores, output, "early_members.zarr"), append=True)
    assert open_scores(output).sizes["init_time"] == 4
    calls = []
    score = __import__("pipelines.verify", fromlist=["x"])._score
    monkeypatch.setattr("pipelines.verify._score", lambda *a: calls.append(len(a[2])) or score(*a))
    verify(config(stores, output), append=True)
    assert calls == [3]
    found = open_scores(output)
    np.testing.assert_array_equal(found["init_time"], whole["init_time"])
    for name in ("rmse", "acc", "crps", "brier", "power", "budget_residual", "count", "difference_half_width"):
        held = found[name].sizes
        assert held == whole[name].sizes, name
    verify(config(stores, output), append=True)
    assert calls == [3]


def test_appending_to_scores_of_another_kind_is_refused(stores, tmp_path):
    output = tmp_path / "scores.nc"
    verify(config(stores, output, "early_members.zarr"))
    before = output.read_bytes()
    with pytest.raises(ValueError, match="scores of the same region, got global, tropics and global"):
        verify(config(stores, output, regions=["global"]), append=True)
    with pytest.raises(ValueError, match="scores of the same climatology, got 'mean by hour of day over 7 days"):
        verify(config(stores, output, climatology={"end": "2001-01-05"}), append=True)
    assert output.read_bytes() == before


def test_more_parts_than_initial_times_are_refused(stores, tmp_path):
    with pytest.raises(ValueError, match="at most 7 parts"):
        verify(config(stores, tmp_path / "s.nc"), part=(8, 8))
