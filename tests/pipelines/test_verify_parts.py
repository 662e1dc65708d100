"""Parts, restarts and later initial times end in the scores of one run."""

import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from emulator.verify import verification
from emulator.verify.assemble import open_scores
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


@pytest.mark.parametrize("order", [(2, 1), (3, 1, 2), (5, 7, 1, 4, 2, 6, 3)])
def test_parts_in_any_order_add_up_to_the_whole(stores, whole, tmp_path, order):
    output, count = tmp_path / "scores.nc", len(order)
    for number in order:
        assert not output.exists()
        verify(config(stores, output), part=(number, count))
    assert_same(open_scores(output), whole)
    assert [p.name for p in tmp_path.iterdir()] == ["scores.nc"]


@pytest.mark.slow
def test_a_cluster_of_processes_gives_the_whole_at_once_and_in_parts(stores, whole, tmp_path):
    processes = {"workers": 2, "threads": 1}
    verify(config(stores, tmp_path / "cluster.nc", dask=processes))
    assert_same(open_scores(tmp_path / "cluster.nc"), whole)
    for number in (2, 3, 1):  # one part by the cluster, the others by threads
        options = {"dask": processes} if number == 3 else {}
        verify(config(stores, tmp_path / "parts.nc", **options), part=(number, 3))
    assert_same(open_scores(tmp_path / "parts.nc"), whole)


def test_a_scheduler_that_does_not_answer_is_one_sentence(stores, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.engine.CONNECT_SECONDS", 0.5)
    with pytest.raises(ValueError, match="scheduler that answers at tcp://127.0.0.1:9"):
        verify(config(stores, tmp_path / "s.nc", dask={"address": "tcp://127.0.0.1:9"}))
    assert not list(tmp_path.iterdir())


def test_a_part_that_is_there_is_not_made_again(stores, whole, tmp_path, monkeypatch):
    output = tmp_path / "scores.nc"
    verify(config(stores, output), part=(1, 2))
    calls = []
    score = verification.score_inits
    monkeypatch.setattr(verification, "score_inits", lambda *a: calls.append(len(a[1])) or score(*a))
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
    score = verification.score_inits
    monkeypatch.setattr(verification, "score_inits", lambda *a: calls.append(len(a[1])) or score(*a))
    verify(config(stores, output), append=True)
    assert calls == [3]
    found = open_scores(output)
    np.testing.assert_array_equal(found["init_time"], whole["init_time"])
    for name in ("rmse", "acc", "crps", "brier", "power", "budget_residual", "count", "difference_half_width"):
        held = found[name].sizes
        assert held == whole[name].sizes, name
    verify(config(stores, output), append=True)
    assert calls == [3]


def grown(stores, path, times) -> Path:
    """The truth up to a time, as ingest had left it before it was continued."""
    store = xr.open_zarr(stores / "analysis.zarr").load().isel(time=slice(0, times))
    store.attrs["fingerprint"] = f"{times} times"
    for array in store.variables.values():
        array.encoding = {}
    store.to_zarr(path, zarr_format=3)
    return path


def test_a_truth_that_has_grown_is_the_same_truth(stores, whole, tmp_path):
    """Month by month: initial times whose last leads have no truth yet wait for it."""
    output = tmp_path / "scores.nc"
    verify(config(stores, output, truth=grown(stores, tmp_path / "a.zarr", 45)), append=True)
    assert open_scores(output).sizes["init_time"] == 5  # 38 + 6 is reached, 40 + 6 is not
    verify(config(stores, output, truth=grown(stores, tmp_path / "b.zarr", 60)), append=True)
    found = open_scores(output)
    for name in ("rmse", "acc", "crps", "brier", "power", "budget_residual", "count", "difference_half_width"):
        np.testing.assert_allclose(found[name], whole[name], rtol=1e-10, atol=1e-12, err_msg=name)
    other = xr.open_zarr(tmp_path / "b.zarr").load()
    other["temperature"] = other["temperature"] + np.float32(0.01)
    other.attrs["fingerprint"] = "another"
    for array in other.variables.values():
        array.encoding = {}
    other.to_zarr(tmp_path / "other.zarr", zarr_format=3)
    (tmp_path / "scores.nc").unlink()
    verify(config(stores, output, "early_members.zarr", truth=tmp_path / "a.zarr"), append=True)
    with pytest.raises(ValueError, match="Expected scores of the same truth, got '45 times' and 'another'"):
        verify(config(stores, output, truth=tmp_path / "other.zarr"), append=True)


def test_a_truth_that_reaches_no_last_lead_has_nothing_to_append(stores, tmp_path):
    with pytest.raises(ValueError, match="as far as the last lead of an initial time to append"):
        verify(config(stores, tmp_path / "s.nc", truth=grown(stores, tmp_path / "a.zarr", 35)), append=True)
    assert not (tmp_path / "s.nc").exists()


def test_parts_that_another_process_adds_up_first(stores, whole, tmp_path, monkeypatch):
    """Two processes that finish together both find all parts: the slower one sees them vanish."""
    output = tmp_path / "scores.nc"
    verify(config(stores, output), part=(1, 2))
    read = verification.open_scores

    def too_late(path):
        monkeypatch.setattr(verification, "open_scores", read)
        whole.to_netcdf(output)
        for part in tmp_path.glob("*.part-*"):
            part.unlink()
        return read(path)

    monkeypatch.setattr(verification, "open_scores", too_late)
    verify(config(stores, output), part=(2, 2))
    assert output.exists()


def test_appending_to_scores_of_another_kind_is_refused(stores, tmp_path):
    output = tmp_path / "scores.nc"
    verify(config(stores, output, "early_members.zarr"))
    before = output.read_bytes()
    with pytest.raises(ValueError, match="scores of the same region, got global, tropics and global"):
        verify(config(stores, output, regions=["global"]), append=True)
    with pytest.raises(ValueError, match="scores of the same climatology, got 'mean by hour of day over 7 days"):
        verify(config(stores, output, climatology={"end": "2001-01-05"}), append=True)
    others = {
        "climatology": {"climatology": {"end": "2001-01-05"}},
        "energy": {"energy": "total"},
        "channel": {"variables": ["temperature"]},
        "event": {"events": [0.1]},
    }
    for name, options in others.items():  # refused too when no initial time is new
        with pytest.raises(ValueError, match=f"scores of the same {name}"):
            verify(config(stores, output, "early_members.zarr", **options), append=True)
    verify(config(stores, output, "early_members.zarr"), append=True)
    assert output.read_bytes() == before


def test_more_parts_than_initial_times_are_refused(stores, tmp_path):
    with pytest.raises(ValueError, match="at most 7 parts"):
        verify(config(stores, tmp_path / "s.nc"), part=(8, 8))
