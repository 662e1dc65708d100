"""A downscaled analysis as forecasts: each interval that it was made of is one, from its start to its fine steps."""

import json

import numpy as np
import xarray as xr

from emulator.planet.calendar import later
from emulator.store.analysis import ANALYSIS
from emulator.store.forecast import FORECAST
from emulator.store.schema import in_order, time_step_seconds

DOWNSCALING = "downscaling"  # attribute: how a store was made
INTERVALS = "of_intervals"  # attribute: that `interval_forecasts` made it


def is_downscaled_analysis(dataset: xr.Dataset) -> bool:
    """Whether a store is an analysis that `downscale` has written."""
    return dataset.attrs.get("emulator_schema") == ANALYSIS and DOWNSCALING in dataset.attrs


def steps_of_interval(attributes, seconds: float) -> int:
    """Fine steps of `seconds` in a step of the coarse store that a downscaled one was made of."""
    return round(json.loads(attributes[DOWNSCALING])["coarse_step_hours"] * 3600 / seconds)


def interval_forecasts(dataset: xr.Dataset) -> xr.Dataset:
    """The analysis `(time, ...)` as `(init_time, lead_time, ...)`, lazily; of intervals that it holds as a whole.

    With one fine step in an interval the only lead is that step.
    """
    seconds = time_step_seconds(dataset)
    steps = steps_of_interval(dataset.attrs, seconds)
    whole = dataset.isel(time=slice(0, dataset.sizes["time"] // steps * steps))
    inits = later(whole["time"].values[steps - 1 :: steps], -steps * seconds)
    leads = (np.arange(1, steps + 1) * round(seconds * 1e9)).astype("timedelta64[ns]")
    own = whole if steps == 1 else whole.chunk({"time": 1})  # Dask: what is joined stays on disk
    parts = [
        own.isel(time=slice(number, None, steps)).rename(time="init_time").assign_coords(init_time=inits)
        for number in range(steps)
    ]
    fixed = [name for name, field in dataset.variables.items() if "time" not in field.dims]
    moving = [part.drop_vars(fixed) for part in parts]
    joined = moving[0].expand_dims("lead_time", 1) if steps == 1 else xr.concat(moving, "lead_time")
    joined = joined.assign_coords(lead_time=leads).assign(dataset[fixed].variables)
    return in_order(joined).assign_attrs(dataset.attrs | {"emulator_schema": FORECAST, INTERVALS: 1})
