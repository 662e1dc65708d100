"""Forecast stores: opened and checked, created, and filled initial time by initial time.

The only place that knows the names of forecasts on disk. See docs/data.md for the schema.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.planet.lead_times import as_timedelta
from emulator.store.marks import mark, marks, partial_path
from emulator.store.regions import create, finish, write_region
from emulator.store.schema import ORDER, check_coordinates, check_schema, in_order, open_zarr

FORECAST = "forecast-1"
CHUNK_BYTES = (
    4_000_000  # of one forecast chunk: 20 initial times of a 48 x 96 model in some 700 files instead of 16 000
)

# In-memory name: names on disk, ours (WeatherBench 2's) first, then those of other tools.
FORECAST_NAMES = {
    "init_time": ("time", "init_time", "forecast_reference_time", "reference_time", "initial_time"),
    "lead_time": ("prediction_timedelta", "lead_time", "step", "forecast_period", "leadtime"),
    "member": ("number", "member", "realization", "ensemble_member", "ensemble", "sample"),
    "level": ("level", "isobaricInhPa", "pressure_level", "plev", "lev", "pressure"),
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon"),
}


def open_forecast(path, chunks=None) -> xr.Dataset:
    """The forecast store or NetCDF file at `path`, lazily: `(init_time, lead_time, [member,] level, latitude, longitude)`.

    Stores of other tools are accepted with WeatherBench 2's names, the in-memory ones or CF's; latitudes and longitudes
    in any order, and levels in Pa or hPa, are put in order by name. Lead times are timedeltas, or integers for calendar
    months. Raises `ValueError` with one sentence, naming the path.
    """
    if "://" not in str(path) and Path(path).is_file():
        dataset = _open_file(path, chunks)
    else:
        dataset = open_zarr(path, chunks)
        if "emulator_schema" in dataset.attrs:  # ours, which is filled initial time by initial time
            check_schema(dataset, path, FORECAST)
    return check_forecast(from_disk_names(dataset, path), path)


def _open_file(path, chunks) -> xr.Dataset:
    try:
        return xr.open_dataset(path, chunks=chunks, decode_timedelta=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"Expected a NetCDF file that opens at {path}, got {type(error).__name__}: {text}") from error


def boundary_told(attributes: Mapping) -> dict:
    """What a store says of the driving data of its limited area; nothing where another tool means something else by it."""
    try:
        told = json.loads(attributes.get("boundary", "{}"))
    except (TypeError, ValueError):
        return {}
    return told if isinstance(told, dict) and {"kind", "place", "width"} <= told.keys() else {}


def check_forecast(dataset: xr.Dataset, path) -> xr.Dataset:
    """The forecasts under in-memory names. Raises `ValueError` where coordinates or the order of times are wrong."""
    check_coordinates(dataset, path, ("init_time", "lead_time"))
    for name in ("init_time", "lead_time"):
        values = dataset[name].values
        if len(np.unique(values)) != len(values) or np.any(values[1:] <= values[:-1]):
            raise ValueError(f"Expected strictly increasing values of {name} in {path}, got {values[:4]}")
    return dataset


def from_disk_names(dataset: xr.Dataset, path="the dataset") -> xr.Dataset:
    """A forecast dataset under in-memory names, in the convention's order. Raises `ValueError` naming `path`."""
    taken, names = {}, {}
    for ours, candidates in FORECAST_NAMES.items():
        theirs = [c for c in candidates if c in dataset.dims] or [c for c in candidates if c in dataset.coords]
        if "init_time" in dataset.variables and ours == "init_time":
            theirs = ["init_time"]
        if theirs:
            names[theirs[0]] = ours
            taken[ours] = theirs[0]
    for ours in ("init_time", "lead_time"):
        if ours not in taken:
            raise ValueError(
                f"Expected a forecast with a coordinate {' or '.join(FORECAST_NAMES[ours][:4])} in {path}, got "
                f"coordinates {sorted(map(str, dataset.coords))}"
            )
    clashes = [o for n, o in names.items() if o != n and o in dataset.variables]
    dataset = dataset.drop_vars(["valid_time", *clashes], errors="ignore")
    dataset = dataset.rename({n: o for n, o in names.items() if n != o})
    for name in ("init_time", "lead_time"):
        if name not in dataset.dims:
            dataset = dataset.expand_dims(name)
    lead = dataset["lead_time"]
    if not np.issubdtype(lead.dtype, np.timedelta64):
        units = lead.attrs.get("units")
        if units in ("months", "month") and np.array_equal(lead.values, np.round(lead.values)):
            dataset = dataset.assign_coords(lead_time=("lead_time", lead.values.astype(np.int64), lead.attrs))
            return in_order(dataset)
        values = as_timedelta(lead.values, units, path)
        attributes = {name: value for name, value in lead.attrs.items() if name not in ("units", "dtype")}
        dataset = dataset.assign_coords(lead_time=("lead_time", values, attributes))
    return in_order(dataset)


def in_memory_names(dataset: xr.Dataset) -> xr.Dataset:
    """An analysis or forecasts that somebody has opened, under in-memory names and in the convention's order."""
    leads = [name for name in FORECAST_NAMES["lead_time"] if name in dataset.dims]
    return from_disk_names(dataset) if leads else in_order(dataset)


def lead_attributes(lead_time: np.ndarray) -> dict[str, str]:
    """The units of integer leads, which no library decodes: a month is no fixed span of time."""
    return {"units": "months"} if lead_time.dtype.kind in "iu" else {}


def to_disk_names(dataset: xr.Dataset) -> xr.Dataset:
    """A forecast dataset under WeatherBench 2's names for the dimensions."""
    return dataset.rename(
        {ours: FORECAST_NAMES[ours][0] for ours in ("init_time", "lead_time", "member") if ours in dataset.dims}
    )


def create_forecast(
    path,
    template: xr.Dataset,
    init_times,
    lead_times,
    attributes: Mapping,
    shared: bool = False,
    rows: int | None = None,
    precise: Collection[str] = (),
) -> set[int]:
    """Makes (or continues) an unfinished forecast store; returns the indices of the initial times already written.

    Args:
      path: where the finished store will be.
      template: variables of one forecast with dimensions among `lead_time`, `member`, `level`, `latitude`, `longitude`
        (only shapes, attributes and coordinates are used, not the length of `lead_time`); variables without
        `lead_time` are static and written now.
      init_times: datetime64 or cftime `(init,)`; lead_times: timedelta64, or integers for calendar months, `(lead,)`.
      attributes: of the store; a different `fingerprint` starts an unfinished store over.
      shared: as for `create`. rows: of latitude in a chunk; None: all. precise: fields that are float64, others of floats
        are float32.
    """
    lead_times = np.asarray(lead_times)
    lead_times = lead_times.astype(np.int64 if lead_times.dtype.kind in "iu" else "timedelta64[ns]")
    fields = {}
    for name, field in template.data_vars.items():
        if "lead_time" not in field.dims:
            fields[name] = field.variable
            continue
        rest = [d for d in field.dims if d != "lead_time"]
        shape = (len(init_times), len(lead_times), *(field.sizes[d] for d in rest))
        dtype = (np.float64 if name in precise else np.float32) if field.dtype.kind == "f" else field.dtype
        empty = np.broadcast_to(np.zeros((), dtype), shape)
        fields[name] = xr.Variable(("init_time", "lead_time", *rest), empty, field.attrs)
    coordinates = {n: c.variable for n, c in template.coords.items() if not {"lead_time", "init_time"} & {*c.dims, n}}
    whole = xr.Dataset(fields, {**coordinates, "init_time": list(init_times), "lead_time": lead_times})
    whole["init_time"].attrs = {"standard_name": "forecast_reference_time", "long_name": "initial time"}
    whole["lead_time"].attrs = {
        "standard_name": "forecast_period",
        "long_name": "lead time",
        **lead_attributes(lead_times),
    }
    # dict order: attributes given twice are the caller's
    whole.attrs = {**template.attrs, **dict(attributes), "emulator_schema": FORECAST}
    whole.attrs.pop("complete", None)
    largest = max((v.dtype.itemsize * v[0, 0].size for v in fields.values() if "lead_time" in v.dims), default=1)
    largest = largest if rows is None else max(1, largest * rows // whole.sizes["latitude"])
    leads = int(np.clip(CHUNK_BYTES // largest, 1, len(lead_times)))
    chunks = {"time": 1, "prediction_timedelta": leads} | ({} if rows is None else {"latitude": rows})
    create(path, to_disk_names(whole), chunks, shared=shared)
    return whole_inits(path)


def whole_inits(path) -> set[int]:
    """Which initial times of an unfinished store are written, by number; parts of one do not count."""
    return {int(key.removeprefix("init-")) for key in marks(path) if key.startswith("init-")}


def write_forecast_init(path, dataset: xr.Dataset, index: int, done: str | bool = True, first_row: int = 0) -> None:
    """Writes one forecast, or consecutive leads of it: `(lead_time, ..., latitude, longitude)` under in-memory names.

    The leads are placed by the values of the coordinate `lead_time`. With `done` the initial time is marked as written,
    under that name where it is one, after which a continued run skips it. `first_row`: of latitude, where the fields of
    one of several processes begin.
    """
    with xr.open_zarr(partial_path(path), chunks=None, consolidated=False, decode_timedelta=True) as store:
        leads = store["prediction_timedelta"].values
    wanted = dataset["lead_time"].values.astype(leads.dtype)
    first = int(np.searchsorted(leads, wanted[0]))
    if not np.array_equal(leads[first : first + len(wanted)], wanted):
        raise ValueError(f"Expected consecutive lead times of {path}, got {wanted[0]} to {wanted[-1]}")
    for name, field in dataset.data_vars.items():
        if "lead_time" in field.dims:
            values = field.transpose("lead_time", *[d for d in ORDER if d in field.dims and d != "lead_time"]).values
            at = {"time": index, "prediction_timedelta": first, "latitude": first_row}
            write_region(path, str(name), values[None], at)
    if done:
        mark(path, done if isinstance(done, str) else f"init-{index:06d}")


def finish_forecast(path, attributes: Mapping | None = None) -> None:
    """Makes the forecast store whole, with more attributes. Raises `ValueError` when an initial time has not been written."""
    with xr.open_zarr(partial_path(path), chunks=None, consolidated=False, decode_timedelta=True) as store:
        count = store.sizes["time"]
    finish(path, [f"init-{index:06d}" for index in range(count)], attributes)
