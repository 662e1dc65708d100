"""What every store has in common: order of dimensions, grid, levels, constants, roles and time step, read from its metadata.

See docs/data.md for the schema.
"""

import dataclasses
import hashlib
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.files.zarr_metadata import consolidated
from emulator.planet.calendar import TimeStep
from emulator.planet.constants import ERA5, Constants
from emulator.planet.coordinates import contiguous, positions_in_order
from emulator.planet.grid import Grid
from emulator.planet.projection import NAME as CRS
from emulator.planet.projection import is_rotated
from emulator.planet.variables import COORDINATES, Variable, known
from emulator.planet.vertical import VERTICAL, Levels, vertical_of
from emulator.store.marks import partial_path

ORDER = ("init_time", "lead_time", "time", "member", *VERTICAL, "latitude", "longitude", "y", "x", "cell")
PLACE = ("latitude", "longitude", "y", "x", CRS)  # coordinates of the horizontal grid
ROWS = frozenset(("latitude", "y", "cell"))  # dimensions one of which every field on a grid has
SORTED = ("latitude", "longitude", "y", "x", *VERTICAL)
OWN = frozenset((  # names that files of ours give to something else than a field; x and y do so on a map alone
    *ORDER, *PLACE, *(f"{axis}_bounds" for axis in VERTICAL), "time_bounds", "bounds", "cell_area", "half_level",
    "half_level_a", "half_level_b", "missing", "interpolated", "valid_time", "prediction_timedelta", "number", "statistic",
    "hour", "dayofyear",
)) - {"x", "y"}  # fmt: skip
RECORDS = (  # of forecasts
    "correction_rms_", "correction_share_", "residual_before_", "residual_after_", "saturation_", "variance_ratio_",
    "outflow_",
)  # fmt: skip


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
            return xr.open_zarr(str(path), chunks=chunks, decode_timedelta=False, consolidated=consolidated(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"Expected a Zarr store that opens at {path}, got {type(error).__name__}: {text}") from error


def in_order(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset with north first, longitudes from 0 or a box's west on, vertical axes and dimensions in order.

    Nothing is computed. Levels in Pa (by their units) become hPa.
    """
    if "level" in dataset.coords and str(dataset["level"].attrs.get("units", "")).lower() in ("pa", "pascal"):
        dataset = dataset.assign_coords(level=("level", dataset["level"].values / 100, {"units": "hPa"}))
    for name in SORTED:
        if name in dataset.dims and name in dataset.coords:
            dataset = _along(dataset, name)
    order = [d for d in ORDER if d in dataset.dims]
    return dataset.transpose(*order, ...)


def _along(dataset: xr.Dataset, name: str) -> xr.Dataset:
    """The dataset with one coordinate in the convention's order."""
    values = dataset[name].values
    if name == "longitude":
        order, values = contiguous(values)
    else:
        order = VERTICAL[name].positions(values) if name in VERTICAL else positions_in_order(name, values)
        values = values[order]
    if np.any(np.diff(order) != 1):
        reverse = np.array_equal(order, np.arange(len(order))[::-1])
        dataset = dataset.isel({name: slice(None, None, -1) if reverse else order})
    if np.array_equal(values, dataset[name].values):
        return dataset
    return dataset.assign_coords({name: (name, values, dataset[name].attrs)})


def missing_times(dataset: xr.Dataset) -> np.ndarray:
    """`(time,)` bool: which times of an analysis are slots without values."""
    return dataset["missing"].values.astype(bool) if "missing" in dataset else np.zeros(dataset.sizes["time"], bool)


def grid_of(dataset: xr.Dataset) -> Grid:
    """The horizontal grid. Raises `ValueError` when coordinates are absent or not in the convention's order."""
    if missing := [c for c in ("latitude", "longitude") if c not in dataset.coords]:
        raise ValueError(f"Expected coordinates latitude and longitude, got none named {' or '.join(missing)}")
    if {"y", "x"} <= set(dataset.dims):
        return _projected_grid(dataset)
    if "cell" in dataset.dims:
        if "cell_area" not in dataset:
            raise ValueError("Expected the variable cell_area with a point grid, got none")
        area = dataset["cell_area"]
        area = area.isel({dim: 0 for dim in area.dims if dim != "cell"})  # files that were joined have it at every time
        return Grid.points(dataset["latitude"].values, dataset["longitude"].values, area.values)
    return Grid.from_coordinates(dataset["latitude"].values, dataset["longitude"].values)


def own_rows(dataset: xr.Dataset, rows: slice | None) -> xr.Dataset:
    """A store's fields on some rows of latitude alone, still unread; None: all."""
    return dataset if rows is None else dataset.isel(latitude=rows)


def _projected_grid(dataset: xr.Dataset) -> Grid:
    if missing := [name for name in ("y", "x", CRS) if name not in dataset.variables]:
        raise ValueError(
            f"Expected coordinates y, x and {CRS} with a projected grid, got no {' and no '.join(missing)}"
        )
    return Grid.projected(dataset["x"].values, dataset["y"].values, dataset[CRS].attrs)


def horizontal_coordinates(grid: Grid) -> dict[str, tuple]:
    """The coordinates of a grid in a store: name -> `(dims, values, attributes)`."""
    places = (("latitude", grid.latitude), ("longitude", grid.longitude))
    if grid.has_rows:
        return {name: (name, values, dict(COORDINATES[name])) for name, values in places}
    found = {
        name: (grid.dims, values, {k: v for k, v in COORDINATES[name].items() if k != "axis"})
        for name, values in places
    }
    if grid.kind == "projected":
        rotated = is_rotated(grid.mapping)
        for name, values, about_a_pole in (("y", grid.y, "grid_latitude"), ("x", grid.x, "grid_longitude")):
            standard = about_a_pole if rotated else f"projection_{name}_coordinate"
            attributes = {"units": "degrees" if rotated else "m", "standard_name": standard, "axis": name.upper()}
            found[name] = (name, values, attributes)
        found[CRS] = ((), np.int32(0), dict(grid.mapping))
    return found


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


def levels_at(dataset: xr.Dataset, name: str) -> tuple[float, ...]:
    """Where the levels of a variable lie: hPa in an atmosphere whose surface is at 1000 hPa, else the coordinate's values.

    Empty for a variable without levels.
    """
    axis = vertical_of(dataset[name].dims)
    if axis is None:
        return ()
    if axis == "level" and (levels := levels_of(dataset)) is not None:
        return levels.places()
    return tuple(map(float, dataset[axis].values))


def level_label(dataset: xr.Dataset, axis: str, index: int) -> str:
    """A level of a vertical axis of a store, by position, as a person writes it: `500 hPa`, `5 m`, `layer 1`."""
    kind = str(dataset.attrs.get("vertical_coordinate", "pressure")) if axis == "level" else ""
    return VERTICAL[axis].label_of(dataset[axis].values[index], kind)


def constants_of(dataset: xr.Dataset) -> Constants:
    """Physical constants of the model that made the data; ERA5's where the store records none."""
    text = dataset.attrs.get("constants")
    return Constants.from_json(text) if text else ERA5


def entry(dataset: xr.Dataset, name: str) -> Variable:
    """What a field of a store is: what its attributes say, and where they say nothing the variable table.

    Where its units are not the table's, the table's bounds are not its own. Raises `ValueError` naming the variable where
    neither the store nor the table knows its units.
    """
    field, table = dataset[name], known(name)
    given = field.attrs
    units = str(given.get("units") or (table.units if table else ""))
    if not units:
        raise ValueError(f"Expected units of {name}, got none in its store, and the variable table does not know it")
    has_time = bool({"time", "init_time", "lead_time"} & set(field.dims))
    plain = Variable(name, units, "diagnostic" if has_time else "static", cell="point" if has_time else "fixed")
    base = table or plain
    if units.replace("**", "") != base.units:
        base = dataclasses.replace(base, minimum=None, maximum=None)
    own = {key: given[key] for key in ("role", "standard_name", "long_name", "sign", "domain") if given.get(key)}
    own |= {key: float(given[key]) for key in ("minimum", "maximum") if key in given}
    if "short_name" in given:
        own["short"] = str(given["short_name"])
    if cell := time_cell(given):
        own["cell"] = cell
    return dataclasses.replace(base, units=units, vertical=vertical_of(field.dims), **own)


def time_cell(attributes: Mapping) -> str | None:
    """The method of CF's `cell_methods` along time, "point", "mean", "sum", ...; None where the attributes have none."""
    found = re.search(r"\btime:\s*(\w+)", str(attributes.get("cell_methods", "")))
    return found[1] if found else None


def variables_by_role(dataset: xr.Dataset) -> dict[str, list[str]]:
    """Names of the fields of each role, sorted; the table's role where the store records none."""
    roles: dict[str, list[str]] = {role: [] for role in ("prognostic", "forcing", "diagnostic", "static")}
    for name in sorted(map(str, dataset.data_vars)):
        role = dataset[name].attrs.get("role") or (table.role if (table := known(name)) else None)
        if role in roles:
            roles[role].append(name)
    return roles


def check_name(name: str, dims: Sequence[str] = ()) -> None:
    """Raises `ValueError` for a name that no field of a store can have, or none on a grid of some dimensions."""
    if name in OWN or name in dims or name.startswith(RECORDS):
        raise ValueError(
            f"Expected the name of a field, got {name!r}, which stores use for something else; name it otherwise"
        )
    if not name or any(letter in name for letter in ":/") or name != name.strip() or name.startswith("."):
        raise ValueError(f"Expected a name of a field without colons, slashes and blanks at its ends, got {name!r}")


def moving_variables(dataset: xr.Dataset) -> list[str]:
    """Names of the fields that change in time: prognostic, forcing and diagnostic ones, each sorted."""
    roles = variables_by_role(dataset)
    return [name for role in ("prognostic", "forcing", "diagnostic") for name in roles[role]]


def time_step_seconds(dataset: xr.Dataset) -> float:
    """Seconds between neighbours of `time`, or of a forecast's `lead_time`; nominal ones of months (see `TimeStep`).

    0 for one time. Raises `ValueError` for an irregular axis.
    """
    return TimeStep.of(dataset).seconds


def fingerprint(settings: str, *inputs: str) -> str:
    """Hash of everything that the values of a file depend on: settings as text, and what tells its inputs from others."""
    return hashlib.sha256("\n".join([settings, *inputs]).encode()).hexdigest()[:16]


def check_schema(dataset, path, schema):
    """Raises `ValueError` where a store is of another schema or unfinished, and says how to make one of another tool's."""
    if (got := dataset.attrs.get("emulator_schema")) != schema:
        if got is None and schema.startswith("analysis"):
            raise ValueError(of_another_tool(path))
        raise ValueError(f"Expected a store with emulator_schema {schema!r} at {path}, got {got!r}")
    if dataset.attrs.get("complete") is not True:
        raise ValueError(f"Expected a finished store at {path}, got one without complete = true; run its stage again")


def of_another_tool(path, label: str = "a store of another tool", wanted: str = "an analysis store") -> str:
    """What to do with what is at a path, where a store of ours has to be."""
    return (
        f"Expected {wanted} at {path}, got {label}, which ingest makes one of: "
        f"emulator init {path} --output FILE.yaml writes an experiment that does so, and emulator run FILE.yaml runs it"
    )


def check_coordinates(dataset, path, required):
    """Raises `ValueError` where a coordinate is missing, or grid, levels or constants cannot be read."""
    for name in (*required, "latitude", "longitude"):
        if name not in dataset.coords:
            raise ValueError(f"Expected a coordinate {name} in {path}, got {sorted(map(str, dataset.coords))}")
    for name in VERTICAL:
        if name in dataset.dims and name not in dataset.coords:
            raise ValueError(f"Expected values for the dimension {name} in {path}, got none")
    try:
        grid_of(dataset)
        levels_of(dataset)
        constants_of(dataset)
    except ValueError as error:
        raise ValueError(f"{error} ({path})") from None
