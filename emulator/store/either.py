"""A store that may be an analysis or forecasts, such as driving data."""

from pathlib import Path

import xarray as xr

from emulator.store.analysis import ANALYSIS, open_analysis
from emulator.store.forecast import open_forecast
from emulator.store.schema import open_zarr


def open_either(path: Path) -> xr.Dataset:
    """An analysis or a forecast store, by what it says of itself or its dimensions. Raises `ValueError` for neither."""
    schema = open_zarr(path).attrs.get("emulator_schema") if not (Path(path) / "joined.json").exists() else ANALYSIS
    return open_analysis(path) if schema == ANALYSIS else open_forecast(path)
