"""Persistence from other states than the truth's, such as a cycle's own analyses, scored as forecasts are."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import xarray as xr

from emulator.store.schema import missing_times


@dataclasses.dataclass(frozen=True)
class Held:
    """A path or dataset of an analysis store whose states are held from the initial times of the other forecasts on."""

    source: object


def held(analyses: xr.Dataset, name: str, forecasts: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Forecasts that stay as the analyses are at their initial times, lazily where the analyses are Dask arrays.

    At the leads of the first of `forecasts` and those of its initial times that the analyses have. Raises `ValueError` for no
    forecasts and for no such time.
    """
    if not forecasts:
        raise ValueError(f"Expected forecasts beside {name}, whose initial times and leads it takes, got none")
    first = next(iter(forecasts.values()))
    there = analyses["time"].values[~missing_times(analyses)]
    times = first["init_time"].values[np.isin(first["init_time"].values, there)]
    if not len(times):
        raise ValueError(
            f"Expected analyses of {name} at initial times of {next(iter(forecasts))}, the first of which is "
            f"{first['init_time'].values[0]}, got none"
        )
    moving = [field for field in analyses.data_vars if "time" in analyses[field].dims and field != "missing"]
    states = analyses[moving].sel(time=times).rename(time="init_time").drop_attrs(deep=False)
    return states.expand_dims(lead_time=first["lead_time"].values, axis=1)
