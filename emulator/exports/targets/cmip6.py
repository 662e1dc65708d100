"""CMIP6: one variable a file, with CMOR's names, units, signs, coordinates, bounds and file names.

Fields are what the store has, means or snapshots at its interval: monthly, daily, 6-hourly, 3-hourly and hourly ones that
CMIP6 has a table for. Nothing is averaged. Forecasts are written from one initial time, members as realizations.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.exports.cmor import Cmor, cmor_of
from emulator.exports.registry import TARGETS, Target
from emulator.exports.source import STARTS, Source, expect_some
from emulator.files.netcdf_blocks import write_blocks
from emulator.planet.calendar import MONTH_SECONDS, later, seconds_between, valid_times
from emulator.planet.grid import Grid, row_edges
from emulator.planet.vertical import vertical_of
from emulator.store.schema import constants_of, entry

MODEL = "emulator"
MISSING = np.float32(1e20)  # CMIP's
FREQUENCIES = {MONTH_SECONDS: "mon", 86400.0: "day", 21600.0: "6hr", 10800.0: "3hr", 3600.0: "1hr"}
DIGITS = {"mon": 6, "day": 8}  # of a time in a file's name; 12 for shorter ones
DAYS = {"units": "days since 1850-01-01", "dtype": "float64", "_FillValue": None}


def check(source: Source) -> None:
    """Raises `ValueError` for a store that is no series in time, and for a grid without rows of latitude."""
    if not source.grid.has_rows or source.grid.is_split:
        raise ValueError(f"Expected rows of latitude for CMIP6, got {source.grid.describe()}")
    if source.is_forecast and source.dataset.sizes["init_time"] > 1:
        many = source.dataset.sizes["init_time"]
        raise ValueError(
            f"Expected an analysis, or forecasts from one initial time such as a long run, for CMIP6, got {many}"
        )
    if _frequency(source) is None:
        raise ValueError(
            f"Expected times every month, day, 6, 3 or 1 hours for CMIP6, got a step of {source.step or 'no length'}"
        )


def write(source: Source, folder: Path) -> None:
    """A file for every field that a table of CMIP6 has at the store's interval, and for every member."""
    first, frequency, constants = source.first(), _frequency(source), constants_of(source.dataset)
    moving, fixed = source.fields(first)
    found: dict[str, tuple[Cmor, str]] = {}
    for name in (*moving, *fixed):
        meant = entry(first, name)
        cmor = cmor_of(meant, constants)
        table = cmor and cmor.table(*(("fx", "fixed") if name in fixed else (frequency, meant.cell)))
        if table and _on_cmip_levels(first, name):
            found[name] = cmor, table
    expect_some(list(found), [n for n in (*moving, *fixed) if n not in found], "CMIP6 at this interval")
    for name, (cmor, table) in found.items():
        for member in range(first.sizes.get("member", 1)):
            stem = f"{cmor.name}_{table}_{MODEL}_{_experiment(source)}_r{member + 1}i1p1f1_gn"
            if name in fixed:
                blocks = iter([_cmorised(first[[name]], name, cmor, source, (table, "fx"), 0)])
                write_blocks(blocks, folder / f"{stem}.nc")
            else:
                path = folder / f"{stem}_{_span(source, frequency, entry(first, name).cell)}.nc"
                write_blocks(_series(source, name, cmor, (table, frequency), member), path)


def _series(source: Source, name: str, cmor: Cmor, told: tuple[str, str], member: int) -> Iterator[xr.Dataset]:
    for block in source.blocks(0 if source.is_forecast else slice(None), [name]):
        if source.is_forecast:
            cell = entry(block, name).cell
            block = block.isel(lead_time=block["lead_time"].values > block[STARTS].values) if cell == "mean" else block
            if not block.sizes["lead_time"]:
                continue
            init = np.array([block["init_time"].values[()]])
            ends, starts = (valid_times(init, block[each].values)[0] for each in ("lead_time", STARTS))
            block = block.drop_vars(["init_time", "lead_time", STARTS]).rename(lead_time="time")
            block = block.assign_coords({"time": ("time", ends), STARTS: ("time", starts)})
        yield _cmorised(block, name, cmor, source, told, member)


def _cmorised(
    block: xr.Dataset, name: str, cmor: Cmor, source: Source, told: tuple[str, str], member: int
) -> xr.Dataset:
    """One field of a block as CMIP6 has it, south first and from the ground up."""
    field, mean = block[name], entry(block, name).cell == "mean"
    field = field.isel(member=member, drop=True) if "member" in field.dims else field
    values = (field * cmor.scale + cmor.offset).astype(np.float32)
    values = values.rename({"latitude": "lat", "longitude": "lon"}).isel(lat=slice(None, None, -1))
    coordinates = _horizontal(source.grid)
    if "level" in field.dims:
        values = values.isel(level=slice(None, None, -1)).rename(level="plev")
        attributes = {
            "units": "Pa",
            "axis": "Z",
            "positive": "down",
            "standard_name": "air_pressure",
            "long_name": "pressure",
        }
        coordinates["plev"] = ("plev", values["plev"].values * 100.0, attributes)
    if cmor.height is not None:
        attributes = {"units": "m", "axis": "Z", "positive": "up", "standard_name": "height", "long_name": "height"}
        coordinates["height"] = ((), cmor.height, attributes)
    if "time" in field.dims:
        coordinates |= _times(block["time"].values, block[STARTS].values, mean)
    on_land = cmor.realm.endswith("land") and cmor.name != "snc"
    where = "where sea " if cmor.realm in ("ocean", "seaIce") else "where land " if on_land else ""
    cell = (
        f"area: mean {where}time: {'mean' if mean else 'point'}"
        if "time" in field.dims
        else f"area: mean {where}".strip()
    )
    attributes = {
        "standard_name": cmor.standard_name, "long_name": entry(block, name).long_name or name.replace("_", " "),
        "units": cmor.units, "cell_methods": cell, "cell_measures": f"area: {cmor.area}",
    } | ({"positive": cmor.positive} if cmor.positive else {})  # fmt: skip
    attributes = {key: text for key, text in attributes.items() if text}
    dataset = xr.Dataset({cmor.name: (values.dims, values.values, attributes)})
    bounds = [n for n in coordinates if n.endswith("_bnds")]
    dataset = dataset.assign_coords({n: c for n, c in coordinates.items() if n not in bounds})
    dataset = dataset.assign({n: coordinates[n] for n in bounds})
    dataset.attrs = _attributes(source, cmor, told, member)
    dataset[cmor.name].encoding = {"_FillValue": MISSING, "missing_value": MISSING, "zlib": True, "complevel": 1}
    for other in dataset.variables:
        if other in ("time", "time_bnds"):
            dataset[other].encoding = dict(DAYS)
        elif other != cmor.name:
            dataset[other].encoding = {"_FillValue": None}
    return dataset


def _times(ends: np.ndarray, starts: np.ndarray, mean: bool) -> dict[str, tuple]:
    """Middles of the intervals of means with their bounds, or the times of snapshots."""
    about = {"standard_name": "time", "long_name": "time", "axis": "T"}
    if not mean:
        return {"time": ("time", ends, about)}
    middles = _middles(ends, starts)
    bounds = ("time", "bnds"), np.stack([starts, ends], axis=1)
    return {"time": ("time", middles, about | {"bounds": "time_bnds"}), "time_bnds": bounds}


def _horizontal(grid: Grid) -> dict[str, tuple]:
    edges = np.degrees(np.arcsin(np.clip(row_edges(grid.latitude), -1, 1)))[::-1]
    step = np.diff(grid.longitude).mean() / 2
    return {
        "lat": ("lat", grid.latitude[::-1], _axis("latitude", "Y", "degrees_north", "lat")),
        "lon": ("lon", grid.longitude, _axis("longitude", "X", "degrees_east", "lon")),
        "lat_bnds": (("lat", "bnds"), np.stack([edges[:-1], edges[1:]], axis=1)),
        "lon_bnds": (("lon", "bnds"), np.stack([grid.longitude - step, grid.longitude + step], axis=1)),
    }


def _axis(name: str, axis: str, units: str, short: str) -> dict[str, str]:
    return {"standard_name": name, "long_name": name, "axis": axis, "units": units, "bounds": f"{short}_bnds"}


def _attributes(source: Source, cmor: Cmor, told: tuple[str, str], member: int) -> dict:
    table, frequency = told
    return {
        "Conventions": "CF-1.7 CMIP-6.2",
        "mip_era": "CMIP6",
        "variable_id": cmor.name,
        "table_id": table,
        "frequency": frequency + ("Pt" if table.endswith("Pt") else ""),
        "realm": cmor.realm,
        "source_id": MODEL,
        "experiment_id": _experiment(source),
        "variant_label": f"r{member + 1}i1p1f1",
        "grid_label": "gn",
        "source": str(source.dataset.attrs.get("source", MODEL)),
        "history": str(source.dataset.attrs.get("history", "")),
        "title": f"{MODEL} output of {cmor.name}",
    }


def _on_cmip_levels(first: xr.Dataset, name: str) -> bool:
    """Whether a field has no levels, or those of pressure, which tables of these frequencies have."""
    axis = vertical_of(first[name].dims)
    return axis is None or (axis == "level" and first.attrs.get("vertical_coordinate", "pressure") == "pressure")


def _frequency(source: Source) -> str | None:
    if source.is_forecast and source.dataset.sizes["lead_time"] > 1 and source.dataset.attrs.get("time_mean"):
        starts, ends = (source.dataset[n].values for n in (STARTS, "lead_time"))
        if ends.dtype.kind == "m" and len(np.unique(ends - starts)) > 1:
            return "mon" if (ends - starts).min() >= np.timedelta64(28, "D") else None
    return next((name for seconds, name in FREQUENCIES.items() if abs(source.step.seconds - seconds) < 1), None)


def _experiment(source: Source) -> str:
    return "forecast" if source.is_forecast else "analysis"


def _span(source: Source, frequency: str, cell: str) -> str:
    """The first and the last time of a field, or middle of an interval, as part of a file's name."""
    dataset, along = source.dataset, "lead_time" if source.is_forecast else "time"
    ends, starts = dataset[along].values, dataset[STARTS].values
    if cell == "mean":
        kept = np.flatnonzero(ends > starts)[[0, -1]]
        ends, starts = ends[kept], starts[kept]
    else:
        ends, starts = ends[[0, -1]], ends[[0, -1]]
    if source.is_forecast:
        init = dataset["init_time"].values[:1]
        ends, starts = (valid_times(init, each)[0] for each in (ends, starts))
    times = _middles(ends, starts)
    texts = [str(np.datetime_as_string(t, "m")) if isinstance(t, np.datetime64) else t.isoformat()[:16] for t in times]
    digits = DIGITS.get(frequency, 12)
    return "-".join("".join(c for c in text if c.isdigit())[:digits] for text in texts)


def _middles(ends: np.ndarray, starts: np.ndarray) -> np.ndarray:
    spans = [seconds_between(np.array([start, end]))[0] for start, end in zip(starts, ends, strict=True)]
    return np.array([later(end, -span / 2) for end, span in zip(ends, spans, strict=True)])


TARGETS.register("cmip6", Target("CMIP6 files, one variable each", check, write))
