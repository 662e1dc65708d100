"""Forecasts on pressure levels in a store beside that of the model's levels, which verification and budgets keep."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.forecasting.options import ThinOptions, pressure_store
from emulator.forecasting.writing import is_complete
from emulator.store.forecast import create_forecast, finish_forecast, open_forecast, write_forecast_init
from emulator.store.pressure import SURFACE_PRESSURE, check_interpolation, on_pressure
from emulator.store.schema import fingerprint

BLOCK_BYTES = 1 << 26  # of a store's fields that are interpolated at a time


def check_pressures(dataset: xr.Dataset, pressures, predicted: Iterable[str], thin: ThinOptions) -> None:
    """Raises `ValueError` where forecasts will not have what pressure levels are made from.

    `dataset`: the analysis; `predicted`: names of the model's states and diagnostics.
    """
    levels = check_interpolation(dataset, pressures)
    if SURFACE_PRESSURE not in predicted:
        raise ValueError(
            f"Expected a model that predicts {SURFACE_PRESSURE} for pressure levels, got {levels.kind} levels"
        )
    if thin.levels is not None or (thin.variables is not None and SURFACE_PRESSURE not in thin.variables):
        raise ValueError(f"Expected thin to keep all levels and {SURFACE_PRESSURE} for pressure levels, got less")


def write_on_pressure(path: Path, pressures) -> Path:
    """The forecasts of a finished store on pressure levels (hPa), in the store beside it; returns its path.

    Initial time by initial time; a stopped call goes on where it was, and a store that is complete for the same forecasts and
    levels is left alone. Raises `ValueError` as `emulator.store.pressure.on_pressure` does.
    """
    output, store = pressure_store(Path(path)), open_forecast(path)
    own = fingerprint(f"pressure {list(map(float, pressures))}", str(store.attrs.get("fingerprint")))
    if is_complete(output, own):
        return output
    inits, leads = store["init_time"].values, store["lead_time"].values
    first = on_pressure(store.isel(init_time=0, lead_time=slice(1)), pressures)
    precise = [name for name, field in first.data_vars.items() if field.dtype == np.float64]
    done = create_forecast(output, first, inits, leads, first.attrs | {"fingerprint": own}, precise=precise)
    size = max(1, BLOCK_BYTES // max(1, store.isel(init_time=0, lead_time=0).nbytes))
    for index in range(len(inits)):
        for at in range(0, 0 if index in done else len(leads), size):
            part = store.isel(init_time=index, lead_time=slice(at, at + size))
            write_forecast_init(output, on_pressure(part, pressures), index, done=at + size >= len(leads))
    finish_forecast(output)
    return output
