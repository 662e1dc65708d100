"""Analysis and forecast stores: opened, checked, described; forecasts created and filled init by init.

The only place that knows the names on disk. See docs/data.md for the schema.
"""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.constants import ERA5, Constants
from emulator.grid import Grid
from emulator.variables import VARIABLES
from emulator.vertical import Levels
from emulator.zarr_marks import mark, marks, partial_path
from emulator.zarr_regions import create, finish, write_region

ANALYSIS = "analysis-1"
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
ORDER = ("init_time", "lead_time", "time", "member", "level", "latitude", "longitude", "cell")

log = logging.getLogger(__name__)


def open_analysis(path, chunks=None) -> xr.Dataset:
    """The analysis store at `path`, lazily: fields `(time, [member,] level, latitude, longitude)`.

    Args:
      path: folder or fsspec URL of a store that ingest finished.
      chunks: None for arrays that are read when indexed; xarray's `chunks` (e.g. `{"time": 64}`) for Dask arrays.

    Raises `ValueError` with one sentence, naming the path, when it is absent, unfinished or breaks the schema.
    """
    dataset = open_zarr(path, chunks)
    _check_schema(dataset, path, ANALYSIS)
    return check_times(dataset, path)


def check_times(dataset: xr.Dataset, path) -> xr.Dataset:
    """The analysis, with `time_step_seconds` as its axis has it. Raises `ValueError` where coordinates or step are wrong."""
    _check_coordinates(dataset, path, ("time",))
    step = _uniform_step(dataset["time"].values, "time", path)
    recorded = dataset.attrs.get("time_step_seconds", step)
    if abs(recorded - step) > 1e-6:
        raise ValueError(f"Expected time_step_seconds = {step:g} as the time axis of {path} has it, got {recorded:g}")
    return dataset if "time_step_seconds" in dataset.attrs else dataset.assign_attrs(time_step_seconds=step)


def open_forecast(path, chunks=None) -> xr.Dataset:
    """The forecast store at `path`, lazily: fields `(init_time, lead_time, [member,] level, latitude, longitude)`.

    Stores of other tools are accepted with WeatherBench 2's names, the in-memory ones or CF's; latitudes and longitudes
    in any order, and levels in Pa or hPa, are put in order by name. Lead times are timedeltas. Raises `ValueError` with
    one sentence, naming the path.
    """
    dataset = open_zarr(path, chunks)
    if "emulator_schema" in dataset.attrs:
        _check_schema(dataset, path, FORECAST)
    return check_forecast(from_disk_names(dataset, path), path)


def check_forecast(dataset: xr.Dataset, path) -> xr.Dataset:
    """The forecasts under in-memory names. Raises `ValueError` where coordinates or the order of times are wrong."""
    _check_coordinates(dataset, path, ("init_time", "lead_time"))
    for name in ("init_time", "lead_time"):
        values = dataset[name].values
        if len(np.unique(values)) != len(values) or np.any(values[1:] <= values[:-1]):
            raise ValueError(f"Expected strictly increasing values of {name} in {path}, got {values[:4]}")
    return dataset


def from_disk_names(dataset: xr.Dataset, path="the dataset") -> xr.Dataset:
    """A forecast dataset under in-memory names, in the convention's order. Raises `ValueError` naming `path`."""
    taken, names = {}, {}
    for ours, candidates in FORECAST_NAMES.items():
        found = [c for c in candidates if c in dataset.dims] or [c for c in candidates if c in dataset.coords]
        if "init_time" in dataset.variables and ours == "init_time":
            found = ["init_time"]
        if found:
            names[found[0]] = ours
            taken[ours] = found[0]
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
        if units not in ("hours", "h", "hour", "days", "day", "d", "seconds", "s", "minutes", "min", "nanoseconds"):
            raise ValueError(f"Expected a lead time with units of time in {path}, got units {units!r}")
        lead = lead.variable.to_index_variable()
        scale = {"h": 3600, "d": 86400, "s": 1, "m": 60, "n": 1e-9}[units[0]]
        values = np.round(lead.values * scale * 1e9).astype("timedelta64[ns]")
        dataset = dataset.assign_coords(lead_time=values)
    return in_order(dataset)


def in_order(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset with north first, longitudes in [0, 360) increasing, levels from the top, and dimensions in order.

    Nothing is computed. Levels in Pa (by their units) become hPa.
    """
    if "level" in dataset.coords and str(dataset["level"].attrs.get("units", "")).lower() in ("pa", "pascal"):
        dataset = dataset.assign_coords(level=("level", dataset["level"].values / 100, {"units": "hPa"}))
    if "longitude" in dataset.dims:
        longitude = dataset["longitude"]
        wrapped = np.asarray(longitude.values % 360, longitude.dtype)
        wrapped = np.where(wrapped >= 360, 0, wrapped)  # float32 rounds -1e-8 % 360 up to 360
        if not np.array_equal(wrapped, longitude.values):
            dataset = dataset.assign_coords(longitude=("longitude", wrapped, longitude.attrs))
    for name, sign in (("latitude", -1), ("longitude", 1), ("level", 1)):
        if name in dataset.dims and name in dataset.coords:
            order = np.argsort(sign * dataset[name].values, kind="stable")
            if np.any(np.diff(order) != 1):
                reverse = np.array_equal(order, np.arange(len(order))[::-1])
                dataset = dataset.isel({name: slice(None, None, -1) if reverse else order})
    order = [d for d in ORDER if d in dataset.dims]
    return dataset.transpose(*order, ...)


def grid_of(dataset: xr.Dataset) -> Grid:
    """The horizontal grid. Raises `ValueError` when coordinates are absent or not in the convention's order."""
    if missing := [c for c in ("latitude", "longitude") if c not in dataset.coords]:
        raise ValueError(f"Expected coordinates latitude and longitude, got none named {' or '.join(missing)}")
    if "cell" in dataset.dims:
        if "cell_area" not in dataset:
            raise ValueError("Expected the variable cell_area with a point grid, got none")
        return Grid.points(dataset["latitude"].values, dataset["longitude"].values, dataset["cell_area"].values)
    return Grid.from_coordinates(dataset["latitude"].values, dataset["longitude"].values)


def levels_of(dataset: xr.Dataset) -> Levels | None:
    """The vertical levels; None without a dimension `level`, and for a single pressure level, which makes no column."""
    if "level" not in dataset.dims or dataset.attrs.get("levels_selected"):
        return None  # a selection of levels makes no column
    kind, values = dataset.attrs.get("vertical_coordinate", "pressure"), np.asarray(dataset["level"].values, np.float64)
    if kind == "pressure":
        return Levels.pressure(values) if len(values) > 1 else None
    if missing := [name for name in ("half_level_a", "half_level_b") if name not in dataset]:
        raise ValueError(f"Expected interface coefficients with {kind} levels, got no {' and no '.join(missing)}")
    half = [np.asarray(dataset[name].values, np.float64) for name in ("half_level_a", "half_level_b")]
    return Levels(kind, values, *half)


def constants_of(dataset: xr.Dataset) -> Constants:
    """Physical constants of the model that made the data; ERA5's where the store records none."""
    text = dataset.attrs.get("constants")
    return Constants.from_json(text) if text else ERA5


def variables_by_role(dataset: xr.Dataset) -> dict[str, list[str]]:
    """Names of the fields of each role, sorted; the table's role where the store records none."""
    roles: dict[str, list[str]] = {role: [] for role in ("prognostic", "forcing", "diagnostic", "static")}
    for name in sorted(map(str, dataset.data_vars)):
        role = dataset[name].attrs.get("role") or (VARIABLES[name].role if name in VARIABLES else None)
        if role in roles:
            roles[role].append(name)
    return roles


def time_step_seconds(dataset: xr.Dataset) -> float:
    """Seconds between neighbours of `time`, or of a forecast's `lead_time`; 0 for one. Raises `ValueError` if irregular."""
    name = "lead_time" if "lead_time" in dataset.dims else "time"
    return _uniform_step(dataset[name].values, name, "the dataset")


def seconds_between(times: np.ndarray) -> np.ndarray:
    """Seconds between neighbours of `(time,)` datetime64, timedelta64 or cftime values: float64 `(time - 1,)`."""
    steps = np.diff(np.asarray(times))
    if steps.dtype == object:
        return np.array([step.total_seconds() for step in steps], np.float64)
    return steps / np.timedelta64(1, "s")


def _uniform_step(times, name, path) -> float:
    steps = seconds_between(times)
    if len(steps) == 0:
        return 0.0
    if np.any(steps <= 0):
        at = int(np.argmax(steps <= 0))
        raise ValueError(f"Expected strictly increasing {name} in {path}, got {times[at]} then {times[at + 1]}")
    if np.any(np.abs(steps - steps[0]) > 1e-3):
        at = int(np.argmax(np.abs(steps - steps[0]) > 1e-3))
        raise ValueError(
            f"Expected a uniform {name} axis in {path}, got a step of {steps[0] / 3600:g} h and then {times[at]} to "
            f"{times[at + 1]} ({steps[at] / 3600:g} h)"
        )
    return float(steps[0])


def open_zarr(path, chunks=None) -> xr.Dataset:
    """Any Zarr store, names as on disk. Raises `ValueError`, naming the path, for one that is absent or does not open."""
    local = "://" not in str(path)
    if local and not Path(path).exists():
        if partial_path(path).exists():
            raise ValueError(
                f"Expected a finished store at {path}, got an unfinished one; run its stage again to finish"
            )
        raise ValueError(f"Expected a store at {path}, got nothing there")
    try:
        with warnings.catch_warnings():
            # Zarr 3 writes stores without consolidated metadata by default: nothing that a user has to act on.
            warnings.filterwarnings("ignore", "Failed to open Zarr store with consolidated metadata", RuntimeWarning)
            return xr.open_zarr(str(path), chunks=chunks, decode_timedelta=None)
    except (OSError, ValueError, KeyError, TypeError) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"Expected a Zarr store that opens at {path}, got {type(error).__name__}: {text}") from error


def _check_schema(dataset, path, schema):
    if (got := dataset.attrs.get("emulator_schema")) != schema:
        raise ValueError(f"Expected a store with emulator_schema {schema!r} at {path}, got {got!r}")
    if dataset.attrs.get("complete") is not True:
        raise ValueError(f"Expected a finished store at {path}, got one without complete = true; run its stage again")


def _check_coordinates(dataset, path, required):
    for name in (*required, "latitude", "longitude"):
        if name not in dataset.coords:
            raise ValueError(f"Expected a coordinate {name} in {path}, got {sorted(map(str, dataset.coords))}")
    if "level" in dataset.dims and "level" not in dataset.coords:
        raise ValueError(f"Expected values for the dimension level in {path}, got none")
    try:
        grid_of(dataset)
        levels_of(dataset)
        constants_of(dataset)
    except ValueError as error:
        raise ValueError(f"{error} ({path})") from None


# --- forecasts ------------------------------------------------------------------------------------------------------


def create_forecast(
    path, template: xr.Dataset, init_times, lead_times, attributes: Mapping, shared: bool = False
) -> set[int]:
    """Makes (or continues) an unfinished forecast store; returns the indices of the initial times already written.

    Args:
      path: where the finished store will be.
      template: variables of one forecast with dimensions among `lead_time`, `member`, `level`, `latitude`, `longitude`
        (only shapes, attributes and coordinates are used, not the length of `lead_time`); variables without
        `lead_time` are static and written now.
      init_times: datetime64 or cftime `(init,)`; lead_times: timedelta64 `(lead,)`, from 0.
      attributes: of the store; a different `fingerprint` starts an unfinished store over.
      shared: as for `create`.
    """
    lead_times = np.asarray(lead_times, "timedelta64[ns]")
    fields = {}
    for name, field in template.data_vars.items():
        if "lead_time" not in field.dims:
            fields[name] = field.variable
            continue
        rest = [d for d in field.dims if d != "lead_time"]
        shape = (len(init_times), len(lead_times), *(field.sizes[d] for d in rest))
        dtype = np.float32 if field.dtype.kind == "f" else field.dtype
        empty = np.broadcast_to(np.zeros((), dtype), shape)
        fields[name] = xr.Variable(("init_time", "lead_time", *rest), empty, field.attrs)
    coordinates = {n: c.variable for n, c in template.coords.items() if not {"lead_time", "init_time"} & {*c.dims, n}}
    whole = xr.Dataset(fields, {**coordinates, "init_time": list(init_times), "lead_time": lead_times})
    whole["init_time"].attrs = {"standard_name": "forecast_reference_time", "long_name": "initial time"}
    whole["lead_time"].attrs = {"standard_name": "forecast_period", "long_name": "lead time"}
    # dict order: attributes given twice are the caller's
    whole.attrs = {**template.attrs, **dict(attributes), "emulator_schema": FORECAST}
    whole.attrs.pop("complete", None)
    largest = max((v.dtype.itemsize * v[0, 0].size for v in fields.values() if "lead_time" in v.dims), default=1)
    leads = int(np.clip(CHUNK_BYTES // largest, 1, len(lead_times)))
    create(path, to_disk_names(whole), {"time": 1, "prediction_timedelta": leads}, shared=shared)
    return {int(key.removeprefix("init-")) for key in marks(path)}


def write_forecast_init(path, dataset: xr.Dataset, index: int, done: bool = True) -> None:
    """Writes one forecast, or consecutive leads of it: `(lead_time, ..., latitude, longitude)` under in-memory names.

    The leads are placed by the values of the coordinate `lead_time`. With `done` the initial time is marked as written,
    after which a continued run skips it.
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
            write_region(path, str(name), values[None], {"time": index, "prediction_timedelta": first})
    if done:
        mark(path, f"init-{index:06d}")


def finish_forecast(path) -> None:
    """Makes the forecast store whole. Raises `ValueError` when an initial time has not been written."""
    with xr.open_zarr(partial_path(path), chunks=None, consolidated=False, decode_timedelta=True) as store:
        count = store.sizes["time"]
    finish(path, [f"init-{index:06d}" for index in range(count)])


def to_disk_names(dataset: xr.Dataset) -> xr.Dataset:
    """A forecast dataset under WeatherBench 2's names for the dimensions."""
    return dataset.rename(
        {ours: FORECAST_NAMES[ours][0] for ours in ("init_time", "lead_time", "member") if ours in dataset.dims}
    )
