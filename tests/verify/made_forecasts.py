"""Truth and forecasts in memory for the verification tests, in the names of docs/data.md."""

import numpy as np
import xarray as xr
from small_planet import CONSTANTS, small_planet


def made_truth(times: int = 60, nlat: int = 8, levels: int = 3) -> xr.Dataset:
    """An analysis as `open_analysis` gives it: `(time, level, latitude, longitude)`, six-hourly."""
    truth = small_planet(times, nlat, levels)
    truth.attrs |= {"vertical_coordinate": "sigma", "time_step_seconds": 21600.0, "constants": CONSTANTS.to_json()}
    for name in ("sea_surface_temperature",):
        truth[name].attrs["role"] = "forcing"
    return truth


def made_forecast(
    truth: xr.Dataset, inits, leads: int, error: float = 0.1, members: int = 0, seed: int = 0
) -> xr.Dataset:
    """Truth plus noise that grows with lead, as `open_forecast` gives it; `inits` are positions in the truth."""
    rng = np.random.default_rng(seed)
    valid = xr.DataArray(np.asarray(inits)[:, None] + np.arange(leads + 1), dims=("init_time", "lead_time"))
    forecast = truth.drop_vars("sea_surface_temperature", errors="ignore").isel(time=valid)
    growth = xr.DataArray(np.arange(leads + 1) / max(leads, 1), dims="lead_time")
    for name, array in forecast.data_vars.items():
        if "lead_time" not in array.dims:
            continue
        shape = {"member": members, **array.sizes} if members else dict(array.sizes)
        noise = xr.DataArray(rng.standard_normal(tuple(shape.values())), dims=tuple(shape))
        noisy = array + error * float(truth[name].std()) * growth * noise
        order = [d for d in ("init_time", "lead_time", "member", "level", "latitude", "longitude") if d in noisy.dims]
        forecast[name] = noisy.transpose(*order).astype(np.float32).assign_attrs(array.attrs)
    return forecast.drop_vars("time", errors="ignore").assign_coords(
        init_time=truth["time"].values[np.asarray(inits)],
        lead_time=(np.arange(leads + 1) * 6).astype("timedelta64[h]").astype("timedelta64[ns]"),
    )
