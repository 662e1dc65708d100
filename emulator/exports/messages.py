"""An analysis or a forecast as GRIB 2 through ecCodes, with the keys that other tools read."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.exports.source import STARTS
from emulator.files.whole_file import whole_file
from emulator.planet.grid import Grid
from emulator.planet.variables import known
from emulator.planet.vertical import VERTICAL, vertical_of
from emulator.store.masks import existing
from emulator.store.schema import entry, grid_of, missing_times

LEVEL_TYPES = {
    "mean_sea_level_pressure": ("meanSea", 0),
    "2m_temperature": ("heightAboveGround", 2),
    "2m_dewpoint_temperature": ("heightAboveGround", 2),
    "10m_u_component_of_wind": ("heightAboveGround", 10),
    "10m_v_component_of_wind": ("heightAboveGround", 10),
    "total_column_water": None,
    "total_column_water_vapour": None,
    "mean_vertically_integrated_moisture_divergence": None,
    "mean_top_net_short_wave_radiation_flux": None,
    "mean_top_net_long_wave_radiation_flux": None,
    "mean_top_downward_short_wave_radiation_flux": None,
}
OWN_SERIES = ("missing", "interpolated", "time_bounds")  # of a store along time, that are no fields
BITS = 24  # of a packed value: as precise as the stored float32 over the range of a field
MOST_DIGITS = 6  # after the point, of a depth or height
INSTANT, MEAN, INSTANT_MEMBER, MEAN_MEMBER = 0, 8, 1, 11  # product definition templates


def library():
    """ecCodes. Raises `ImportError` in one sentence where it is not installed."""
    try:
        import eccodes
    except (ImportError, RuntimeError) as error:
        raise ImportError("Expected ecCodes to write GRIB; install the extra emulator[grib]") from error
    return eccodes


def expect_rows(grid: Grid) -> None:
    """Raises `ValueError` for a grid that is not written as GRIB."""
    if not grid.has_rows or grid.is_split:
        raise ValueError(f"Expected rows of latitude for GRIB, got {grid.describe()}; NetCDF takes any grid")


def write_grib(blocks: xr.Dataset | Iterable[xr.Dataset], path: Path) -> int:
    """Writes an analysis or a forecast and returns the number of messages. Under a temporary name, then renamed.

    A bitmap says where a field does not exist; an analysis's times without values, fields that GRIB has no number for, and
    records of the conservation scheme are left out. What does not change in time is written once.

    `blocks`: consecutive times of an analysis `(time, [member,] [vertical,] latitude, longitude)`, or leads of a forecast
    `(lead_time, ...)` with a scalar `init_time`; a dataset is one.
    Raises `ImportError` without ecCodes, `ValueError` on points, a map, another calendar or leads in months, `OSError` on a
    full disk.
    """
    eccodes, count = library(), 0
    with whole_file(path) as partial, open(partial, "wb") as file:
        for number, block in enumerate([blocks] if isinstance(blocks, xr.Dataset) else blocks):
            for view, fixed in _views(block):
                count += _write_view(eccodes, file, view, fixed and number == 0)
    return count


def parameter_of(dataset: xr.Dataset, name: str) -> int | None:
    """ECMWF's number of a field; None for none, and on an axis that GRIB has no type of level for."""
    axis = vertical_of(dataset[name].dims)
    if (table := known(name)) is None or (axis is not None and not VERTICAL[axis].grib):
        return None
    return table.parameter


def _views(block: xr.Dataset) -> Iterator[tuple[xr.Dataset, bool]]:
    """A forecast as it is; of an analysis every time as two forecasts, snapshots at step 0, and means over their interval.

    With each whether it comes first.
    """
    if "lead_time" in block.dims:
        yield block, True
        return
    missing, moving = missing_times(block), [n for n in block.data_vars if "time" in block[n].dims]
    means = [n for n in moving if entry(block, str(n)).cell == "mean"] if moving else []
    for at, time in enumerate(block["time"].values):
        one = block.isel(time=at).drop_vars([STARTS, *(n for n in OWN_SERIES if n in block)], errors="ignore")
        start = block[STARTS].values[at] if STARTS in block.coords else time
        if missing[at]:
            continue
        snapshots = one.drop_vars(means).drop_vars("time").assign_coords(init_time=time)
        yield _at_lead(snapshots, [n for n in moving if n in snapshots], np.timedelta64(0, "ns")), at == 0
        if means and start != time:
            averages = one[means].drop_vars("time").assign_coords(init_time=start)
            averages.attrs = block.attrs
            fixed = {n: one[n] for n in ("half_level_a", "half_level_b", "cell_area") if n in one}
            yield _at_lead(averages.assign(fixed), means, time - start), False


def _at_lead(one: xr.Dataset, moving: list, lead) -> xr.Dataset:
    """With an axis of one lead, whose interval begins at the initial time."""
    fields = {name: one[name].expand_dims(lead_time=[lead]) for name in moving}
    return one.assign(fields).assign_coords({STARTS: ("lead_time", np.zeros(1, "timedelta64[ns]"))})


def _write_view(eccodes, file, forecast: xr.Dataset, fixed: bool) -> int:
    grid, init = grid_of(forecast), forecast["init_time"].values[()]
    expect_rows(grid)
    if not isinstance(init, np.datetime64):
        raise ValueError(
            f"Expected the standard calendar for GRIB, got {getattr(init, 'calendar', type(init).__name__)}"
        )
    if "lead_time" in forecast.dims and forecast["lead_time"].dtype.kind in "iu":
        raise ValueError("Expected leads of fixed length for GRIB, got months")
    count = 0
    for name in map(str, forecast.data_vars):
        wanted = fixed or "lead_time" in forecast[name].dims
        if wanted and (number := parameter_of(forecast, name)) is not None:
            count += _write_variable(eccodes, file, forecast, (name, number), grid)
    return count


def _write_variable(eccodes, file, forecast, named: tuple[str, int], grid) -> int:
    name, number = named
    field = forecast[name]
    mean = entry(forecast, name).cell == "mean"
    members = forecast.sizes.get("member", 0)
    base = _message(eccodes, forecast, grid, _template(mean, members))
    leads = forecast["lead_time"].values if "lead_time" in field.dims else np.zeros(1, "timedelta64[ns]")
    starts = forecast[STARTS].values if STARTS in forecast.coords else np.concatenate([leads[:1] * 0, leads[:-1]])
    count = 0
    for at, lead in enumerate(leads):
        if mean and lead == starts[at]:
            continue  # no step ends at lead 0
        values = existing(field.isel(lead_time=at) if "lead_time" in field.dims else field, forecast).values
        shape = (-1, *([members] if members and "member" in field.dims else [1]), *grid.shape)
        if members and "member" in field.dims:
            moved = values if vertical_of(field.dims) else values[:, None]
            values = np.moveaxis(moved, 1, 0)
        for level, per_level in enumerate(values.reshape(shape)):
            for member, one in enumerate(per_level):
                message = eccodes.codes_clone(base)
                eccodes.codes_set(message, "paramId", number)
                _describe(eccodes, message, forecast, name, level)
                _time(eccodes, message, starts[at] if mean else None, lead)
                if members:
                    eccodes.codes_set(message, "perturbationNumber", member)
                    eccodes.codes_set(message, "numberOfForecastsInEnsemble", members)
                _values(eccodes, message, one)
                eccodes.codes_write(message, file)
                eccodes.codes_release(message)
                count += 1
    eccodes.codes_release(base)
    return count


def _template(mean: bool, members: int) -> int:
    return (MEAN_MEMBER if mean else INSTANT_MEMBER) if members else (MEAN if mean else INSTANT)


def _message(eccodes, forecast, grid: Grid, template: int):
    init = forecast["init_time"].values[()].astype("datetime64[s]").item()
    handle = eccodes.codes_grib_new_from_samples("GRIB2")
    keys = {
        "tablesVersion": 30,
        "dataDate": int(init.strftime("%Y%m%d")),
        "dataTime": int(init.strftime("%H%M")),
        "typeOfProcessedData": 4 if template in (INSTANT_MEMBER, MEAN_MEMBER) else 1,
        "typeOfGeneratingProcess": 4 if template in (INSTANT_MEMBER, MEAN_MEMBER) else 2,
        "productDefinitionTemplateNumber": template,
        "gridType": "regular_gg" if grid.kind == "gaussian" else "regular_ll",
        "Ni": len(grid.longitude),
        "Nj": len(grid.latitude),
        "latitudeOfFirstGridPointInDegrees": float(grid.latitude[0]),
        "latitudeOfLastGridPointInDegrees": float(grid.latitude[-1]),
        "longitudeOfFirstGridPointInDegrees": float(grid.longitude[0]) % 360,
        "longitudeOfLastGridPointInDegrees": float(grid.longitude[-1]) % 360,
        "iDirectionIncrementInDegrees": float(np.diff(grid.longitude).mean()),
        "jScansPositively": 0,
    }
    if grid.kind == "gaussian":
        keys["N"] = len(grid.latitude) // 2
    else:
        keys["jDirectionIncrementInDegrees"] = float(np.abs(np.diff(grid.latitude)).mean())
    for key, value in keys.items():
        eccodes.codes_set(handle, key, value)
    return handle


def _describe(eccodes, message, forecast, name, level) -> None:
    axis = vertical_of(forecast[name].dims)
    if axis not in (None, "level"):
        _on_axis(eccodes, message, forecast, axis, level)
        return
    if axis is None:
        by_number = eccodes.codes_get(message, "typeOfLevel")
        place = LEVEL_TYPES.get(name, ("surface", 0) if by_number in ("surface", "unknown") else None)
        if place is not None:
            eccodes.codes_set(message, "typeOfLevel", place[0])
            eccodes.codes_set(message, "level", place[1])
        return
    kind, value = forecast.attrs.get("vertical_coordinate", "pressure"), float(forecast["level"].values[level])
    if kind == "pressure":
        eccodes.codes_set(message, "typeOfLevel", "isobaricInhPa")
        eccodes.codes_set(message, "level", value)
    elif kind == "sigma":
        scale = 6
        eccodes.codes_set(message, "typeOfFirstFixedSurface", 104)
        eccodes.codes_set(message, "scaleFactorOfFirstFixedSurface", scale)
        eccodes.codes_set(message, "scaledValueOfFirstFixedSurface", round(value * 10**scale))
    else:
        eccodes.codes_set(message, "typeOfLevel", "hybrid")
        eccodes.codes_set(message, "level", round(value))
        if "half_level_a" in forecast:
            halves = [np.asarray(forecast[f"half_level_{letter}"].values, np.float64) for letter in "ab"]
            eccodes.codes_set(message, "PVPresent", 1)
            eccodes.codes_set_array(message, "pv", np.concatenate(halves))


def _on_axis(eccodes, message, forecast, axis: str, index: int) -> None:
    """A depth or a height in m, or a layer by its bounds in m where the store has them, else by its number.

    ecCodes has no short names for ocean fields on depths, only for those on numbered layers of a model: messages carry WMO's
    discipline, category and number.
    """
    declared, value = VERTICAL[axis], float(forecast[axis].values[index])
    bounded = next((k for k, units in declared.grib.items() if k.endswith("Layer") and units == declared.bounds), None)
    kind = next((k for k in declared.grib if k != bounded), bounded)
    surfaces = [value - 1, value] if kind.endswith("Layer") else [value]
    if bounded is not None and f"{axis}_bounds" in forecast:
        kind, surfaces = bounded, forecast[f"{axis}_bounds"].values[index].tolist()
    eccodes.codes_set(message, "typeOfLevel", kind)
    for which, at in zip(("First", "Second"), surfaces, strict=False):
        digits = next((d for d in range(MOST_DIGITS) if np.isclose(at, round(at, d), rtol=1e-6, atol=0)), MOST_DIGITS)
        eccodes.codes_set(message, f"scaleFactorOf{which}FixedSurface", digits)
        eccodes.codes_set(message, f"scaledValueOf{which}FixedSurface", round(at * 10**digits))


def _time(eccodes, message, start, lead) -> None:
    """The forecast's step in hours where they are whole, else in minutes."""
    minutes = [round(float(t / np.timedelta64(1, "m"))) for t in (lead if start is None else start, lead)]
    unit, size = (1, 60) if all(m % 60 == 0 for m in minutes) else (0, 1)
    eccodes.codes_set(message, "stepUnits", unit)
    if start is None:
        eccodes.codes_set(message, "step", minutes[1] // size)
        return
    eccodes.codes_set(message, "stepType", "avg")
    eccodes.codes_set(message, "startStep", minutes[0] // size)
    eccodes.codes_set(message, "endStep", minutes[1] // size)


def _values(eccodes, message, field) -> None:
    flat = np.asarray(field, np.float64).ravel()
    missing = ~np.isfinite(flat)
    if missing.any():
        eccodes.codes_set(message, "bitmapPresent", 1)
        eccodes.codes_set(message, "missingValue", 9.999e20)
        flat = np.where(missing, 9.999e20, flat)
    eccodes.codes_set(message, "bitsPerValue", BITS)
    eccodes.codes_set_values(message, flat)
