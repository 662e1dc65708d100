"""WeatherBench 2's layout, which its tools and WeatherBench-X open: Zarr 2, ERA5's long names, levels in hPa.

Forecasts are `(time, prediction_timedelta, [number,] level, latitude, longitude)` by initial time, an analysis
`(time, [number,] level, latitude, longitude)`. Precipitation is an amount over the step, `total_precipitation_6hr` in
m, as there.
"""

import warnings
from pathlib import Path

import dask.array
import numpy as np
import xarray as xr

from emulator.exports.registry import TARGETS, Target
from emulator.exports.source import STARTS, Source, expect_some
from emulator.planet.calendar import in_seconds
from emulator.planet.units import WATER_DENSITY
from emulator.planet.variables import known
from emulator.planet.vertical import vertical_of
from emulator.store.forecast import to_disk_names

RAIN = "mean_total_precipitation_rate"


def check(source: Source) -> None:
    """Raises `ValueError` for a store that WeatherBench 2 has no layout for."""
    dataset, grid = source.dataset, source.grid
    if not grid.has_rows or grid.is_split:
        raise ValueError(f"Expected rows of latitude for WeatherBench 2, got {grid.describe()}")
    kind = dataset.attrs.get("vertical_coordinate", "pressure")
    if "level" in dataset.dims and kind != "pressure" and source.pressures is None:
        raise ValueError(f"Expected levels (in hPa) to interpolate the {kind} levels to for WeatherBench 2, got none")
    times = dataset["init_time" if source.is_forecast else "time"].values
    months = source.is_forecast and dataset["lead_time"].dtype.kind in "iu"
    if months or not np.issubdtype(times.dtype, np.datetime64):
        raise ValueError("Expected the standard calendar and leads of fixed length for WeatherBench 2, got another")


def write(source: Source, folder: Path) -> None:
    """An empty store first, then region by region."""
    first, hours = source.first(), _hours(source)
    moving, fixed = source.fields(first)
    names = [n for n in (*moving, *fixed) if known(n) is not None and vertical_of(first[n].dims) in (None, "level")]
    expect_some(names, [n for n in (*moving, *fixed) if n not in names], "WeatherBench 2")
    template = _as_theirs(first[names], hours)
    sizes = {"time": source.dataset.sizes["init_time" if source.is_forecast else "time"]}
    chunks = {"time": 1 if source.is_forecast else source.stretch()}
    if source.is_forecast:
        sizes["prediction_timedelta"] = source.dataset.sizes["lead_time"]
        chunks["prediction_timedelta"] = source.stretch()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consolidated metadata", UserWarning)
        _write_template(source, template, sizes, chunks, folder)
        inits = range(sizes["time"]) if source.is_forecast else [slice(None)]
        for chosen in inits:
            at = 0
            for block in source.blocks(slice(chosen, chosen + 1) if source.is_forecast else chosen):
                part = _as_theirs(block[names], hours)
                along = "prediction_timedelta" if source.is_forecast else "time"
                region = {along: slice(at, at + part.sizes[along])}
                region |= {"time": slice(chosen, chosen + 1)} if source.is_forecast else {}
                part = part[[n for n in part.data_vars if "time" in part[n].dims]]
                part = part.drop_vars([n for n in part.coords if "time" not in part[n].dims or n in part.dims])
                part.to_zarr(folder, region=region, zarr_format=2)
                at = region[along].stop


def _write_template(source: Source, template: xr.Dataset, sizes, chunks, folder: Path) -> None:
    """All coordinates and what does not change in time, and empty fields."""
    fields = {}
    for name, field in template.data_vars.items():
        if "time" not in field.dims:
            fields[name] = field.variable
            continue
        shape = [sizes.get(d, field.sizes[d]) for d in field.dims]
        empty = dask.array.full(shape, np.nan, dtype=np.float32, chunks=[chunks.get(d, -1) for d in field.dims])
        fields[name] = (field.dims, empty, field.attrs)
    ours = source.dataset[["init_time", "lead_time"] if source.is_forecast else ["time"]].reset_coords(drop=True)
    times = {n: c.variable for n, c in to_disk_names(ours.drop_vars(STARTS, errors="ignore")).coords.items()}
    kept = {n: c.variable for n, c in template.coords.items() if n not in times}
    whole = xr.Dataset(fields, times | kept, {"source": str(template.attrs.get("source", "emulator"))})
    seconds = {"units": "seconds since 1970-01-01", "dtype": "int64"}
    encoding = {"time": seconds} | {n: {"_FillValue": None} for n in kept if kept[n].dtype.kind == "f"}
    whole.drop_encoding().to_zarr(folder, mode="w", zarr_format=2, consolidated=True, compute=False, encoding=encoding)


def _as_theirs(block: xr.Dataset, hours: dict[str, float]) -> xr.Dataset:
    """Names, units and coordinates as WeatherBench 2 has them."""
    dataset = to_disk_names(block.drop_vars([STARTS, "missing", "time_bounds"], errors="ignore"))
    if "level" in dataset.coords:
        levels = dataset["level"].values
        whole = np.array_equal(levels, np.round(levels))
        dataset = dataset.assign_coords(level=("level", levels.astype(np.int32) if whole else levels, {"units": "hPa"}))
    if RAIN in hours and RAIN in dataset:
        amount = dataset[RAIN] * np.float32(hours[RAIN] * 3600 / WATER_DENSITY)
        told = {"units": "m", "long_name": "total precipitation", "cell_methods": "time: sum"}
        name = f"total_precipitation_{hours[RAIN]:g}hr"
        dataset = dataset.drop_vars(RAIN).assign({name: amount.astype(np.float32).assign_attrs(told)})
    for field in dataset.data_vars.values():
        field.attrs = {
            n: v for n, v in field.attrs.items() if n in ("units", "long_name", "standard_name", "cell_methods")
        }
    return dataset


def _hours(source: Source) -> dict[str, float]:
    """Over how many hours precipitation is, where they are whole and the same throughout."""
    along = "lead_time" if source.is_forecast else "time"
    ends, starts = source.dataset[along].values, source.dataset[STARTS].values
    spans = in_seconds(ends - starts) / 3600
    spans = np.unique(np.round(spans[spans > 0], 6))
    return {RAIN: float(spans[0])} if len(spans) == 1 and spans[0] == round(spans[0]) else {}


TARGETS.register("weatherbench", Target("WeatherBench 2's Zarr layout", check, write, suffix=".zarr"))
