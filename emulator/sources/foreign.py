"""Truths and forecasts of other tools, opened where they lie: Zarr, or NetCDF files, under the names of their dimensions.

What stores of ours record and others do not (roles, fingerprints, interfaces of layers) is absent, and whoever reads does
without. Fields get the table's names by the rules of ingest where nothing has to be converted; what has to goes through
ingest. Fields without units are taken to be in the table's, as WeatherBench 2 leaves them, and that is logged.
"""

import logging
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.planet.calendar import in_nanoseconds
from emulator.planet.coordinates import within_poles
from emulator.planet.units import linear
from emulator.planet.variables import VARIABLES
from emulator.sources.harmonise import matches
from emulator.sources.horizontal import degrees
from emulator.sources.members import with_members
from emulator.sources.open import FORMATS, Source, find, format_of, open_source
from emulator.store.analysis import check_times, open_analysis
from emulator.store.forecast import FORECAST_NAMES, check_forecast, from_disk_names, open_forecast
from emulator.store.interval_forecasts import interval_forecasts, is_downscaled_analysis
from emulator.store.joined import is_joined
from emulator.store.schema import in_order, of_another_tool, open_zarr

ALONG = ("time", "valid_time")
SHOWN = 6

log = logging.getLogger(__name__)


def open_truth(path) -> xr.Dataset:
    """The truth at `path`, lazily: an analysis store, or another tool's Zarr store or NetCDF files (a path or a pattern).

    Fields `(time, [member,] [level,] latitude, longitude)`, north first, longitudes in [0, 360), levels from the top, with
    `time_step_seconds` among the attributes. Raises `ValueError` with one sentence, naming the path, for what does not
    open, a forecast, or times that are not evenly spaced.
    """
    if is_joined(path):
        return in_nanoseconds(open_analysis(path))
    if not _is_zarr(path):
        dataset = _joined([_named(dataset, file) for file, dataset in _files(path)], "time", path)
    else:
        dataset = open_zarr(path)
        if "emulator_schema" in dataset.attrs:
            return in_nanoseconds(open_analysis(path))
        if (kind := format_of(str(path))).name != "zarr":  # one whose dimensions are not named as what they are
            raise ValueError(of_another_tool(path, f"a {kind.label}"))
        dataset = _named(dataset, path)
    dataset = check_times(dataset.assign_attrs(source=dataset.attrs.get("source", str(path))), path)
    return in_nanoseconds(_under_canonical_names(dataset, path))


def open_any_forecast(path) -> xr.Dataset:
    """The forecasts at `path`, lazily, as `open_forecast` gives them: a Zarr store, or NetCDF files (a path or a pattern).

    A downscaled analysis counts as forecasts of the intervals that it was made of (`emulator.store.interval_forecasts`).

    A NetCDF file holds initial times and leads as dimensions, or one forecast along valid time with CF's
    `forecast_reference_time` and `forecast_period`, as rollout's `also: [netcdf]` writes it. Raises as `open_forecast`.
    """
    if _is_zarr(path):
        if is_downscaled_analysis(open_zarr(path)):
            return interval_forecasts(in_nanoseconds(open_analysis(path)))
        dataset = open_forecast(path)
        own = "emulator_schema" in dataset.attrs
        return in_nanoseconds(dataset if own else _under_canonical_names(dataset, path))
    parts = [from_disk_names(_one_forecast(_in_degrees(dataset)), file) for file, dataset in _files(path)]
    dataset = check_forecast(_joined(parts, "init_time", path), path)
    return in_nanoseconds(_under_canonical_names(dataset, path))


def _under_canonical_names(dataset: xr.Dataset, path) -> xr.Dataset:
    """Fields under the table's names, where theirs, GRIB's or CF's tell and their units are the table's."""
    renamed: dict[str, list[str]] = {}
    for name, array in dataset.data_vars.items():
        on_a_grid = any(set(place) <= set(array.dims) for place in (("latitude", "longitude"), ("y", "x")))
        known = matches(str(name), array) if on_a_grid else []
        if len(known) == 1 and not known[0].term and known[0].name != name and known[0].name not in dataset.variables:
            renamed.setdefault(known[0].name, []).append(str(name))
            units = array.attrs.get("units")
            other = known[0].sign < 0 or known[0].interval_hours or known[0].logarithm
            if other or (units and not _as_in_the_table(units, known[0].name)):
                renamed[known[0].name].append("")
                log.info("Left out %s (%s in %s) of %s: emulator ingest converts it", name, known[0].name, units, path)
    dataset = dataset.rename({theirs[0]: ours for ours, theirs in renamed.items() if len(theirs) == 1})
    bare = [
        f"{name} [{VARIABLES[str(name)].units}]"
        for name, array in dataset.data_vars.items()
        if name in VARIABLES and VARIABLES[str(name)].units not in ("", "1") and not array.attrs.get("units")
    ]
    if bare:
        more = f" and {len(bare) - SHOWN} more" if len(bare) > SHOWN else ""
        log.warning("No units recorded in %s; assumed: %s%s", path, ", ".join(bare[:SHOWN]), more)
    return dataset


def _as_in_the_table(units: str, name: str) -> bool:
    try:
        return linear(str(units), VARIABLES[name].units) == (1.0, 0.0)
    except ValueError:
        return False


def _is_zarr(path) -> bool:
    text = str(path)
    if any(c in text for c in "*?[") or text.endswith(FORMATS["netcdf"].suffixes):
        return False
    if "://" in text or not Path(text).is_file():
        return True  # a folder, a URL, or nothing: the store's own words
    return False


def _files(path) -> list[tuple[str, xr.Dataset]]:
    """Paths and contents of the files of a pattern, with members by number."""
    files = [Source(file, _opened(file)) for file in find(str(path))]
    return [(file.path, file.dataset) for file in with_members(files)]


def _opened(file: str) -> xr.Dataset:
    if (entry := format_of(file)).name not in ("netcdf", "zarr"):
        raise ValueError(f"Expected Zarr or NetCDF at {file}, got {entry.label}; make a store of it by emulator ingest")
    (source,) = open_source(file)
    return source.dataset.chunk()  # Dask arrays: joining files reads nothing


def _named(dataset: xr.Dataset, path) -> xr.Dataset:
    """An analysis under in-memory names, in order."""
    leads = [name for name in FORECAST_NAMES["lead_time"] if name in dataset.dims]
    if leads:
        raise ValueError(f"Expected a truth with one time axis at {path}, got a forecast with {leads[0]}")
    names = {}
    for ours in ("level", "latitude", "longitude", "member"):
        theirs = [
            name for name in FORECAST_NAMES[ours] if name in (dataset.coords if ours == "member" else dataset.dims)
        ]
        if theirs and theirs[0] != ours:
            names[theirs[0]] = ours
    along = [name for name in ALONG if name in dataset.dims]
    if not along:
        raise ValueError(
            f"Expected a dimension {' or '.join(ALONG)} in {path}, got {', '.join(map(str, dataset.dims))}"
        )
    names |= {along[0]: "time"} if along[0] != "time" else {}
    dataset = _in_degrees(dataset)
    clashes = [ours for theirs, ours in names.items() if ours in dataset.variables]
    return in_order(dataset.drop_vars(clashes).rename(names))


def _in_degrees(dataset: xr.Dataset) -> xr.Dataset:
    """Latitudes and longitudes in degrees, none beyond a pole by rounding."""
    for ours in ("latitude", "longitude"):
        for name in (name for name in FORECAST_NAMES[ours] if name in dataset.coords):
            values = degrees(dataset[name])
            values = within_poles(values) if ours == "latitude" else values
            if not np.array_equal(values, dataset[name].values):
                units = {"units": "degrees_north" if ours == "latitude" else "degrees_east"}
                dataset = dataset.assign_coords({name: (dataset[name].dims, values, dataset[name].attrs | units)})
    return dataset


def _one_forecast(dataset: xr.Dataset) -> xr.Dataset:
    """A file along valid time with a scalar initial time has its leads as the dimension."""
    period, reference = "forecast_period", "forecast_reference_time"
    if period in dataset.variables and dataset[period].dims == ("time",) and reference in dataset.variables:
        dataset = dataset.set_coords([period, reference]).swap_dims(time=period).drop_vars("time")
        dataset = dataset.drop_vars([n for n in ("time_bounds", "time_bnds") if n in dataset.variables])
    return dataset


def _joined(parts: list[xr.Dataset], axis: str, path) -> xr.Dataset:
    if len(parts) == 1:
        return parts[0]
    numbers = [int(part["member"]) if "member" in part and part["member"].ndim == 0 else None for part in parts]
    if len(different := sorted({n for n in numbers if n is not None})) > 1:
        if None in numbers:
            raise ValueError(f"Expected the number of a member in all of the files {path}, got some without")
        each = [[part for part, n in zip(parts, numbers, strict=True) if n == number] for number in different]
        parts = [_joined(own, axis, path).expand_dims("member") for own in each]
        axis = "member"
    moving = [name for name, array in parts[0].data_vars.items() if axis in array.dims]
    lacking = [name for name in moving for part in parts if name not in part]
    if lacking:
        raise ValueError(f"Expected {lacking[0]} in all of the files {path}, got some without")
    try:
        joined = xr.concat(
            [part[moving] for part in parts], axis, join="exact", coords="minimal", compat="override",
            combine_attrs="override",
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(f"Expected files {path} on one grid with the same leads and levels, got: {error}") from None
    fixed = parts[0].drop_vars(moving)
    return joined.sortby(axis).assign({n: a for n, a in fixed.data_vars.items() if axis not in a.dims})
