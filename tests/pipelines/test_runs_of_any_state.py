"""States of other kinds from files to the report, by `emulator run` alone, a few seconds each."""

import json

import numpy as np
import xarray as xr
import yaml
from small_planet import small_planet

from emulator.model.saved_model import load_model
from emulator.store.analysis import open_analysis
from emulator.store.forecast import open_forecast
from pipelines.cli import main

NETWORK = {"kind": "unet", "width": 4, "depth": 1}
FEW = {"conservation": {"kind": "none"}, "network": NETWORK, "phases": [{"updates": 4, "rollout_steps": 2}]}


def run(folder, files, train, scored, **stages):
    """Runs an experiment over some datasets; gives its folder, and the scores of some variables."""
    for name, data in files.items():
        data.to_netcdf(folder / f"{name}.nc")
    sources = [{"path": str(folder / f"{name}.nc")} for name in files]
    experiment = {
        "directory": str(folder / "run"),
        "ingest": {"sources": sources},
        "stats": {},
        "train": FEW | train,
        "rollout": {"lead_days": 1, "every_hours": 12, "maximum_inits": 4, "batch_size": 2},
        "verify": {"events": [], "variables": scored, "levels": [0.9]},
        "report": {},
    }
    for name, more in stages.items():
        experiment[name] = experiment[name] | more
    (folder / "experiment.yaml").write_text(yaml.safe_dump(experiment))
    assert main(["run", str(folder / "experiment.yaml")]) == 0
    assert main(["run", str(folder / "experiment.yaml"), "--check"]) == 0
    done = folder / "run"
    assert (done / "report" / "report.html").exists()
    return done, xr.open_dataset(done / "scores.nc")


def test_two_input_times_a_gap_and_a_series(tmp_path):
    """Two times are in no file of the fields; CO2, one number a time, has a file of its own."""
    planet = small_planet(times=48)
    co2 = ("time", 400 + np.arange(48.0), {"units": "ppm", "role": "forcing", "long_name": "carbon dioxide"})
    series = xr.Dataset({"co2": co2}, {"time": planet["time"]})
    files = {"first": planet.isel(time=slice(0, 20)), "then": planet.isel(time=slice(22, 48)), "series": series}
    train = {"history": 2, "predict": "state", "forcing_moments": {"sea_surface_temperature": "both"}}
    done, scores = run(tmp_path, files, train, ["surface_pressure"], ingest={"missing": "keep"})
    store, forecast = open_analysis(done / "analysis.zarr"), open_forecast(done / "forecast.zarr")
    assert store.attrs["missing_times"] == 2
    layout = load_model(done / "train" / "checkpoint").layout
    assert layout.history == 2 and "both" in layout.moments and "co2" in layout.forcing.names
    inits = forecast["init_time"].values
    before = inits - np.timedelta64(6, "h")
    assert set(before) <= set(store["time"].values[~store["missing"].values])  # and none starts without them
    np.testing.assert_array_equal(forecast["temperature"][:, 0], store["temperature"].sel(time=inits))
    assert np.isfinite(scores["rmse"].sel(forecast="emulator").values).any()


def test_a_map_without_a_state(tmp_path):
    """Fluxes from the columns at the end of the step: trained, rolled out as a series and verified."""
    train = {
        "prognostic": [],
        "forcing": ["temperature", "specific_humidity"],
        "forcing_moments": {"temperature": "end"},
        "validation": {"period": {"start": "2001-01-10"}, "steps": 2, "windows": 2, "every": 2},
    }
    done, scores = run(tmp_path, {"planet": small_planet(times=48)}, train, ["mean_evaporation_rate"])
    forecast = open_forecast(done / "forecast.zarr")
    assert "temperature" not in forecast and np.isfinite(forecast["mean_evaporation_rate"]).all()
    assert np.isfinite(scores["rmse"].sel(forecast="emulator").values).any()
    rows = [json.loads(line) for line in (done / "train" / "validation.jsonl").read_text().splitlines()]
    assert [row["update"] for row in rows] == [2, 4]


def test_steps_of_half_a_day_from_a_six_hourly_store(tmp_path):
    train = {"steps": [6, 12], "forcing": ["sea_surface_temperature"]}
    done, _ = run(tmp_path, {"planet": small_planet(times=48)}, train, ["temperature"], rollout={"step_hours": 12})
    forecast = open_forecast(done / "forecast.zarr")
    np.testing.assert_array_equal(forecast["lead_time"].values / np.timedelta64(1, "h"), [0, 12, 24])
    assert forecast.attrs["time_step_seconds"] == 43200


def test_departures_from_a_climatology(tmp_path, capsys):
    """A year of days; the climatology of the stage stats is what the network counts from, in training and forecasts."""
    planet = small_planet(times=4 * 366, nlat=8, levels=2).isel(time=slice(None, None, 4))
    climatology = tmp_path / "run" / "climatology.zarr"
    train, stats = {"predict": "anomaly"}, {"climatology": str(climatology)}
    rollout = {"every_hours": 48, "lead_days": 3}
    done, scores = run(tmp_path, {"planet": planet}, train, ["surface_pressure"], stats=stats, rollout=rollout)
    assert climatology.exists() and np.isfinite(open_forecast(done / "forecast.zarr")["temperature"]).all()
    assert np.isfinite(scores["rmse"].sel(forecast="emulator").values).any()
    other = tmp_path / "other.zarr"
    experiment = str(tmp_path / "experiment.yaml")
    window = ["climatology_window=181", f"climatology={other}", f"output={tmp_path / 'other.nc'}"]
    assert main(["stats", experiment, *window]) == 0
    for how in ([], ["--check"]):
        new = tmp_path / "new.zarr"
        assert main(["rollout", experiment, f"climatology={other}", f"output={new}", *how]) == 1 and not new.exists()
        said = capsys.readouterr().err
        assert "window_days 61" in said and f"window_days 181 in {other}" in said and "Traceback" not in said


def test_a_masked_ocean_of_two_levels(tmp_path):
    """Missing where the first time has no values: so in the store and in forecasts."""
    planet = small_planet(times=48)
    land = planet["land_sea_mask"].values > 0.5
    exists = np.stack([~land, ~land & (np.abs(planet["latitude"].values) < 50)[:, None]])
    warmth = np.where(exists, 280 + planet["temperature"].values[:, :2] / 30, np.nan).astype(np.float32)
    about = {"units": "K", "standard_name": "sea_water_potential_temperature", "domain": "valid", "role": "prognostic"}
    ocean = xr.Dataset(
        {
            "thetao": (("time", "depth", "latitude", "longitude"), warmth, about),
            "land_sea_mask": planet["land_sea_mask"],
        },
        {n: planet[n] for n in ("time", "latitude", "longitude")}
        | {"depth": ("depth", [5.0, 100.0], {"units": "m", "positive": "down", "axis": "Z", "standard_name": "depth"})},
    )
    done, scores = run(tmp_path, {"ocean": ocean}, {"mask_channels": True, "prognostic": ["thetao"]}, ["thetao"])
    assert np.isfinite(scores["rmse"].sel(forecast="emulator", region="global").values).all()
    forecast = open_forecast(done / "forecast.zarr")
    np.testing.assert_array_equal(np.isfinite(forecast["thetao"]), np.broadcast_to(exists, forecast["thetao"].shape))
    assert load_model(done / "train" / "checkpoint").layout.masks == 2


def test_what_contradicts_itself_is_refused_in_a_sentence(tmp_path, capsys):
    small_planet(times=12).to_netcdf(tmp_path / "planet.nc")
    experiment = {
        "directory": str(tmp_path / "run"),
        "ingest": {"sources": [{"path": str(tmp_path / "planet.nc")}]},
        "stats": {},
        "train": FEW,
    }
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(experiment))
    assert main(["run", str(tmp_path / "e.yaml")]) == 0
    for asked, words in (
        ("history=11", ["windows of 2 steps with 11 input times", "12 times", "takes 13"]),
        ("steps=[9]", ["multiples of the store's 6 h", "9"]),
        ("forcing_moments={temperature: end}", ["forcing_moments", "temperature"]),
        ("forcing_moments={sea_surface_temperature: noon}", ["noon"]),
        ("predict=tendency", ["anomaly", "change", "state"]),
        ("predict=anomaly", ["climatology"]),
        ("history=0", ["history"]),
    ):
        out = tmp_path / "out"
        for how in ([], ["--check"]):
            assert main(["train", str(tmp_path / "e.yaml"), asked, f"output={out}", *how]) == 1
            said = capsys.readouterr().err.strip().splitlines()
            assert all(word in said[-1] for word in words), said[-1]
        assert not (out / "checkpoint").exists() and "Traceback" not in "".join(said)
