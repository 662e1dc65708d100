"""Scores of a small planet for the report's tests, made once by the real verification."""

import json
from pathlib import Path

import numpy as np
import xarray as xr
from small_planet import CONSTANTS, small_planet

from emulator.verify.inputs import open_inputs
from emulator.verify.options import VerifyOptions
from emulator.verify.verification import verify_to_file


def made_analysis(path: Path, times: int = 60) -> xr.Dataset:
    """An analysis store on disk, as ingest leaves it, and its dataset."""
    truth = small_planet(times, 8, 3)
    truth.attrs |= {
        "emulator_schema": "analysis-1",
        "complete": True,
        "vertical_coordinate": "sigma",
        "time_step_seconds": 21600,
        "constants": CONSTANTS.to_json(),
    }
    truth["sea_surface_temperature"].attrs["role"] = "forcing"
    truth.to_zarr(path, zarr_format=3)
    return truth


def made_forecast_store(path: Path, truth: xr.Dataset, inits, leads: int, error: float, **attributes) -> None:
    """A forecast store under WeatherBench 2's names: truth and noise that grows with lead."""
    rng = np.random.default_rng(len(str(path)))
    valid = xr.DataArray(np.asarray(inits)[:, None] + np.arange(leads + 1), dims=("time", "prediction_timedelta"))
    forecast = truth.drop_vars("sea_surface_temperature").rename(time="valid").isel(valid=valid).drop_vars("valid")
    growth = xr.DataArray(np.arange(leads + 1) / leads, dims="prediction_timedelta")
    for name, array in forecast.data_vars.items():
        if "prediction_timedelta" in array.dims:
            noise = xr.DataArray(rng.standard_normal(array.shape), dims=array.dims)
            noisy = array + error * float(truth[name].std()) * growth * noise
            forecast[name] = noisy.transpose(*array.dims).astype(np.float32).assign_attrs(array.attrs)
    for budget in ("dry_air", "water", "energy"):
        forecast[f"residual_after_{budget}"] = (("time", "prediction_timedelta"), np.full(valid.shape, 1e-9))
    forecast["correction_rms_temperature"] = (("time", "prediction_timedelta"), np.full(valid.shape, 1e-3))
    forecast = forecast.assign_coords(
        time=truth["time"].values[np.asarray(inits)],
        prediction_timedelta=(np.arange(leads + 1) * 6).astype("timedelta64[h]").astype("timedelta64[ns]"),
    )
    forecast.attrs = truth.attrs | {"emulator_schema": "forecast-1"} | attributes
    for array in forecast.variables.values():
        array.encoding = {}
    forecast.to_zarr(path, zarr_format=3)


def long_run(truth: xr.Dataset, path, warmer: float) -> None:
    """The truth's own days as one forecast, warmer by a constant."""
    run = truth.drop_vars("sea_surface_temperature").isel(time=slice(0, None, 4))
    run = run.rename(time="prediction_timedelta")
    count = run.sizes["prediction_timedelta"]
    run = run.assign_coords(prediction_timedelta=np.arange(count).astype("timedelta64[D]").astype("timedelta64[ns]"))
    static = [n for n in run.data_vars if "prediction_timedelta" not in run[n].dims]
    kept = run[static]
    run = run.drop_vars(static).expand_dims(time=truth["time"].values[:1]).assign(kept.data_vars)
    run["temperature"] = (run["temperature"] + warmer).assign_attrs(truth["temperature"].attrs)
    run.attrs = truth.attrs | {"emulator_schema": "forecast-1"}
    for array in run.variables.values():
        array.encoding = {}
    run.to_zarr(path, zarr_format=3)


def verified(output: Path, truth: Path, forecasts: dict, audit=None, long_runs=None, **options) -> Path:
    """Scores at `output`, with a version among what is recorded; `options` as of `Options`."""
    notes = {"run": json.dumps({"versions": {"emulator": "0.1.0"}})}
    verify_to_file(open_inputs(truth, forecasts, VerifyOptions(**options), audit, long_runs), output, notes=notes)
    return output


def made_scores(folder: Path) -> Path:
    """`scores.nc` in `folder`, with the stores that it came from beside it."""
    truth = made_analysis(folder / "analysis.zarr")
    inits = [30, 33, 36, 39, 42]
    made_forecast_store(folder / "forecast.zarr", truth, inits, 12, 0.2, checkpoint="abc", unaccounted_heating=-3.0)
    made_forecast_store(folder / "plain.zarr", truth, inits[:3], 12, 0.3, conservation="none")
    forecasts, audit = {"emulator": folder / "forecast.zarr"}, {"uncorrected": folder / "plain.zarr"}
    return verified(folder / "scores.nc", folder / "analysis.zarr", forecasts, audit)
