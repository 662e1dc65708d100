import json
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from small_planet import small_planet

from emulator.store.analysis import open_analysis
from emulator.store.forecast import open_forecast
from emulator.verify.assemble import open_scores
from emulator.verify.merging import combine
from emulator.verify.verification import score
from pipelines.config import VerifyConfig
from pipelines.verify import verify

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from made_scores import made_analysis, made_forecast_store

INITS = [30, 33, 36, 40]


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    truth = made_analysis(folder / "analysis.zarr")
    made_forecast_store(folder / "forecast.zarr", truth, INITS, 6, 0.2)
    return folder


def config(stores, output, **options) -> VerifyConfig:
    settings = {
        "forecasts": {"emulator": stores / "forecast.zarr"},
        "truth": stores / "analysis.zarr",
        "output": output,
        "variables": ["temperature", "surface_pressure"],
        "regions": ["global", "tropics"],
    }
    return VerifyConfig(**(settings | options))


def test_scores_are_whole_and_say_how_they_were_made(stores, tmp_path):
    verify(config(stores, tmp_path / "deep" / "scores.nc", climatology={"end": "2001-01-07"}))
    scores = open_scores(tmp_path / "deep" / "scores.nc")
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["scores.nc"]
    assert list(scores["forecast"].values) == ["emulator", "persistence", "climatology"]
    assert scores.sizes["channel"] == 4 and scores.sizes["init_time"] == 4
    assert scores["lead_time"].dtype.kind == "m"
    assert json.loads(scores.attrs["config"])["regions"] == ["global", "tropics"]
    assert (
        scores.attrs["climatology"].startswith("mean by hour of day over 7 days")
        and not scores.attrs["climatology_overlap"]
    )
    assert scores.attrs["spectrum_kind"] == "total"
    # Audited although only two variables are scored.
    assert np.isfinite(
        scores["budget_residual"].sel(audit_source="emulator", budget="energy").isel(audit_lead_time=2)
    ).all()


def test_stores_of_other_tools_under_other_names_score_the_same(stores, tmp_path):
    verify(config(stores, tmp_path / "ours.nc"))
    ours = xr.open_zarr(stores / "forecast.zarr", decode_timedelta=True).load()
    kept = ours[["temperature", "surface_pressure"]].isel(latitude=slice(None, None, -1), level=slice(None, None, -1))
    theirs = kept.rename(time="init_time", prediction_timedelta="lead_time")
    theirs = theirs.assign_coords(lead_time=("lead_time", np.arange(7) * 6, {"units": "hours"}))
    theirs.attrs = {}
    for array in theirs.variables.values():
        array.encoding = {}
    theirs.transpose("init_time", "lead_time", "level", "longitude", "latitude", ...).to_zarr(tmp_path / "tool.zarr")
    verify(config(stores, tmp_path / "theirs.nc", forecasts={"emulator": tmp_path / "tool.zarr"}))
    one, other = open_scores(tmp_path / "ours.nc"), open_scores(tmp_path / "theirs.nc")
    for name in ("rmse", "acc", "mae", "difference"):
        np.testing.assert_allclose(other[name], one[name], rtol=1e-9, err_msg=name)
    skipped = json.loads(other.attrs["budgets_skipped"])["emulator"]
    assert skipped["dry_air"] == "missing specific_humidity"


@pytest.mark.parametrize(("truth", "forecast"), [("ns", "us"), ("us", "s"), ("s", "ns")])
def test_resolution_of_times_and_leads_makes_no_difference(stores, tmp_path, truth, forecast):
    """Scores of stores whose axes are recorded otherwise are the same numbers, can be compared, and be appended to."""

    def recorded(name, unit):
        store = xr.open_zarr(stores / f"{name}.zarr", decode_timedelta=True).load()
        axes = {c: store[c].values.astype(f"{store[c].dtype.kind}8[{unit}]") for c in store.coords if "time" in str(c)}
        store = store.assign_coords(axes)
        for array in store.variables.values():
            array.encoding = {}
        store.to_zarr(tmp_path / f"{name}-{unit}.zarr", zarr_format=3)
        return tmp_path / f"{name}-{unit}.zarr"

    def other(output, **options):
        stores_ = {"truth": recorded("analysis", truth), "forecasts": {"emulator": recorded("forecast", forecast)}}
        return config(stores, output, **(stores_ | options))

    verify(config(stores, tmp_path / "plain.nc", period={"end": "2001-01-09"}))
    again = other(tmp_path / "other.nc")
    verify(again)
    plain = tmp_path / "plain.nc"
    verify(VerifyConfig(**(again.model_dump() | {"output": plain, "truth": stores / "analysis.zarr"})), append=True)
    one, two = open_scores(plain), open_scores(tmp_path / "other.nc")
    assert one.sizes["init_time"] == len(INITS)
    np.testing.assert_allclose(two["rmse"], one["rmse"], rtol=1e-12)
    assert combine({"a": one, "b": two}).sizes["forecast"] == 4
    assert one.attrs["climatology_period"] == two.attrs["climatology_period"]


@pytest.mark.slow
def test_processes_give_the_same_as_threads(stores, tmp_path):
    verify(config(stores, tmp_path / "threads.nc"))
    verify(config(stores, tmp_path / "processes.nc", dask={"workers": 1, "threads": 1}))
    one, other = open_scores(tmp_path / "threads.nc"), open_scores(tmp_path / "processes.nc")
    np.testing.assert_allclose(other["rmse"], one["rmse"], rtol=1e-12)


def test_persistence_alone(stores, tmp_path):
    verify(
        config(stores, tmp_path / "s.nc", forecasts={}, persistence_lead_hours=[6, 24], period={"start": "2001-01-10"})
    )
    scores = open_scores(tmp_path / "s.nc")
    assert list(scores["forecast"].values) == ["persistence", "climatology"]
    pressure = xr.open_zarr(stores / "analysis.zarr")["surface_pressure"].astype(np.float64)
    late = pressure.sel(time=slice("2001-01-10", None))
    area = xr.open_zarr(stores / "analysis.zarr")
    from emulator.store.schema import grid_of

    error = grid_of(area).mean((late.values[4:] - late.values[:-4]) ** 2).mean()
    ours = scores["rmse"].sel(forecast="persistence", region="global", channel="surface_pressure", lead_time="24h")
    np.testing.assert_allclose(ours, np.sqrt(error), rtol=1e-12)
    assert list(scores["audit_source"].values) == ["truth"]


def test_an_analysis_with_members_makes_persistence_an_ensemble(tmp_path):
    rng = np.random.default_rng(0)
    truth = small_planet(8, 8, 3)[["temperature"]]
    spread = xr.DataArray(
        rng.standard_normal((5, *truth["temperature"].shape)), dims=("member", *truth["temperature"].dims)
    )
    truth["temperature"] = (truth["temperature"] + spread).transpose("time", "member", ...).astype(np.float32)
    truth["temperature"].attrs = {"units": "K", "role": "prognostic"}
    truth.attrs |= {"emulator_schema": "analysis-1", "complete": True, "vertical_coordinate": "pressure"}
    truth = truth.assign_coords(level=[200.0, 500.0, 850.0])
    for array in truth.variables.values():
        array.encoding = {}
    truth.to_zarr(tmp_path / "analysis.zarr", zarr_format=3)
    verify(
        VerifyConfig(truth=tmp_path / "analysis.zarr", output=tmp_path / "scores.nc", persistence_lead_hours=[6, 12])
    )
    scores = open_scores(tmp_path / "scores.nc")
    at = scores.sel(forecast="persistence", region="global", channel="temperature 500 hPa")
    np.testing.assert_allclose(at["spread"], 1.0, rtol=0.05)
    assert (at["crps"] < at["mae"]).all()
    assert scores["members"].sel(forecast="persistence") == 5
    assert "no column" not in json.loads(scores.attrs["budgets_skipped"])["truth"]["dry_air"]


def wrong(stores, tmp_path, change):
    store = xr.open_zarr(stores / "forecast.zarr", decode_timedelta=True).load()
    store = change(store)
    for array in store.variables.values():
        array.encoding = {}
    store.to_zarr(tmp_path / "wrong.zarr")
    return {"forecasts": {"wrong": tmp_path / "wrong.zarr"}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.isel(longitude=slice(0, None, 2)), "one grid .* 8 x 16 gaussian .* the truth and 8 x 8"),
        (
            lambda s: s.assign(temperature=s["temperature"].assign_attrs(units="degC")),
            "'K' in truth and 'degC' in wrong",
        ),
        (lambda s: s.assign_coords(time=s["time"] + np.timedelta64(400, "D")), "truth that covers"),
        (lambda s: s.drop_vars("temperature"), "Expected 'temperature' in the truth and in every forecast"),
        (lambda s: s.assign_coords(level=[0.11, 0.22, 0.33], time=s["time"]), "common levels of temperature"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(stores, tmp_path, change, message):
    options = wrong(stores, tmp_path, change)
    with pytest.raises(ValueError, match=message) as error:
        verify(config(stores, tmp_path / "out" / "scores.nc", **options))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_absent_and_unknown_names(stores, tmp_path):
    with pytest.raises(ValueError, match="got nothing there"):
        verify(config(stores, tmp_path / "s.nc", forecasts={"a": tmp_path / "none.zarr"}))
    with pytest.raises(ValueError, match="Expected regions among"):
        verify(config(stores, tmp_path / "s.nc", regions=["mars"]))
    with pytest.raises(ValueError, match="no times"):
        verify(config(stores, tmp_path / "s.nc", climatology={"end": "1999-01-01"}))
    assert not list(tmp_path.iterdir())


def test_real_ensemble_of_reanalyses(shared_data, tmp_path):
    """ERA5's ten members at four times, straight from GRIB: persistence of an ensemble."""
    pytest.importorskip("cfgrib")
    from pipelines.config import IngestConfig
    from pipelines.ingest import ingest

    source = {"path": str(shared_data / "era5" / "era5-levels-members.grib")}
    ingest(IngestConfig(sources=[source], output=tmp_path / "era5.zarr"))
    verify(VerifyConfig(truth=tmp_path / "era5.zarr", output=tmp_path / "scores.nc"))
    scores = open_scores(tmp_path / "scores.nc")
    at = scores.sel(forecast="persistence", region="global", channel="geopotential 500 hPa")
    assert scores.sizes["lead_time"] == 3 and list(at["count"].values) == [3, 2, 1]
    # Half a day of persistence at 500 hPa is some 300 m2 s-2 wrong, and the members differ by a tenth of that.
    assert 200 < at["rmse"][0] < 500
    assert 10 < at["spread"][0] < 0.3 * at["rmse"][0]
    assert np.all(np.diff(at["rmse"]) > 0)


def test_scores_in_memory_are_those_of_the_stage(stores, tmp_path):
    output = tmp_path / "scores.nc"
    verify(config(stores, output, climatology={"end": "2001-01-07"}, audit={"again": stores / "forecast.zarr"}))
    whole, chosen = (
        open_scores(output),
        {"variables": ["temperature", "surface_pressure"], "regions": ["global", "tropics"]},
    )
    forecast, truth = stores / "forecast.zarr", stores / "analysis.zarr"
    for judged, true in ((forecast, truth), (open_forecast(forecast), open_analysis(truth))):
        found = score({"emulator": judged}, true, climatology=(None, "2001-01-07"), audit={"again": judged}, **chosen)
        assert set(found.variables) == set(whole.variables)
        for name in whole.variables:
            np.testing.assert_array_equal(found[name].astype(whole[name].dtype), whole[name], err_msg=str(name))
        assert found.attrs["sample"] == whole.attrs["sample"]
