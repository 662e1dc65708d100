"""Point observations: METAR tables, CSV and the text format of `verif`, as an analysis on a list of points."""

import dataclasses
import io
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.planet.units import conversion
from emulator.planet.variables import VARIABLES
from emulator.verify.at_points import LAPSE_RATE, at_points

GOOD = ("V", "S", "C", "G")  # MADIS: verified, screened, passed the coarse checks, subjectively good
METAR = {
    "temperature": "2m_temperature",
    "dewpoint": "2m_dewpoint_temperature",
    "seaLevelPress": "mean_sea_level_pressure",
}
VERIF = {"T": "2m_temperature", "MSLP": "mean_sea_level_pressure", "TD": "2m_dewpoint_temperature"}
PLACE = ("station", "latitude", "longitude", "elevation")
ZERO_ALTITUDE_EXPONENT, ALTITUDE_FACTOR = 0.190284, 8.4228807e-5  # altimeter setting, hPa and m (Smithsonian tables)


@dataclasses.dataclass(frozen=True)
class Observations:
    """Point observations as the truth: arguments of `open_observations`, and of `at_points` for forecasts on a grid."""

    path: str | Path
    tolerance_minutes: float = 30.0
    quality: Sequence[str] = GOOD
    stations: Sequence[str] | None = None
    method: str = "bilinear"
    lapse_rate: float = LAPSE_RATE


def at_stations(
    observations: Observations, forecasts: Mapping, open_forecast: Callable
) -> tuple[xr.Dataset, dict[str, xr.Dataset]]:
    """Observations, and the forecasts at the stations that they and every table of station forecasts have.

    `open_forecast` opens a forecast that is no table. Raises `ValueError` where no station is left.
    """
    options = observations
    truth = open_observations(options.path, options.tolerance_minutes, options.quality, options.stations)
    tables = {name: open_station_forecast(path) for name, path in forecasts.items() if is_table(path)}
    shared = [s for s in truth["station"].values if all(s in t["station"].values for t in tables.values())]
    if not shared:
        raise ValueError(f"Expected a station that {options.path} and all forecasts have, got none")
    truth, result = _only(truth, shared), {}
    for name, path in forecasts.items():
        if name in tables:
            table = _only(tables[name], shared)
            result[name] = table.assign_coords({n: truth[n].variable for n in ("latitude", "longitude")})
        else:
            result[name] = at_points(open_forecast(path), truth, options.method, options.lapse_rate)
    return truth, result


def _only(dataset: xr.Dataset, stations: list[str]) -> xr.Dataset:
    names = list(dataset["station"].values)
    dataset = dataset.isel(cell=[names.index(s) for s in stations])
    return dataset.assign(cell_area=("cell", np.full(len(stations), 1 / len(stations))))


def open_observations(
    path, tolerance_minutes: float = 30.0, quality: Sequence[str] = GOOD, stations: Sequence[str] | None = None
) -> xr.Dataset:
    """Observations as an analysis `(time, cell)` in canonical names and units, on the full hours.

    Args:
      path: METAR table of MADIS (`.parquet`), CSV, or verif's text (`.txt`).
      tolerance_minutes: a report counts for the nearest full hour within this time; of several the nearest.
      quality: flags of MADIS that are kept.
      stations: names to keep; None keeps all.
    Raises `ValueError` in one sentence for a file without the columns, `ImportError` without a reader for Parquet.
    """
    table = read_table(path, quality)
    units = table.attrs["units"]
    if stations is not None:
        if absent := sorted(set(stations) - set(table["station"])):
            raise ValueError(f"Expected stations of {path}, it has none named {', '.join(absent[:4])}")
        table = table[table["station"].isin(list(stations))]
    if "init_time" in table:
        table = table.assign(time=table["init_time"] + table["lead_time"])
        observed = [c for c in table if c.startswith("observed ")]
        twice = [c.removeprefix("observed ") for c in observed]
        table = table.drop(columns=[c for c in table if c in (*FORECAST_COLUMNS, *twice)])
        table = table.rename(columns=dict(zip(observed, twice, strict=True)))
    variables = [name for name in table.columns if name in units]
    if not variables or not len(table):
        raise ValueError(f"Expected observations of a variable of the table in {path}, got {', '.join(table.columns)}")
    hour = table["time"].dt.round("h")
    apart = (table["time"] - hour).abs()
    table = table.assign(time=hour, apart=apart)[apart.dt.total_seconds() <= 60 * tolerance_minutes]
    table = table.sort_values(["time", "station", "apart"], kind="stable")
    first = table.groupby(["time", "station"])[variables].first()  # of each variable the nearest report that has it
    return _points(first.to_xarray(), table, "time", units).assign_attrs(
        source=str(path), time_step_seconds=_step(first)
    )


FORECAST_COLUMNS = ("init_time", "lead_time")


def open_station_forecast(path) -> xr.Dataset:
    """Forecasts at stations `(init_time, lead_time, cell)` from verif's text, or CSV with `init_time` and `lead_hours`."""
    table = read_table(path)
    if "init_time" not in table:
        raise ValueError(f"Expected columns init_time and lead_hours in {path}, got {', '.join(table.columns)}")
    units = table.attrs["units"]
    variables = [name for name in table.columns if name in units]
    table = table.drop_duplicates(["init_time", "lead_time", "station"])
    forecast = table.set_index(["init_time", "lead_time", "station"])[variables].to_xarray()
    return _points(forecast, table, "init_time", units).assign_attrs(source=str(path))


def is_table(path) -> bool:
    """Whether a path is a table of stations rather than a store."""
    return not isinstance(path, xr.Dataset) and Path(str(path)).suffix in (".txt", ".csv", ".parquet")


def read_table(path, quality: Sequence[str] = GOOD):
    """One row a report: time (or init_time and lead_time), place and variables, of which the attribute `units` has the units.

    See `open_observations`.
    """
    import pandas

    path = Path(path)
    if not path.exists():
        raise ValueError(f"Expected observations at {path}, got nothing there")
    try:
        if path.suffix == ".parquet":
            return _with_units(_metar(pandas.read_parquet(path), path, quality))
        if path.suffix == ".txt":
            return _with_units(_verif(path.read_text(encoding="utf-8"), path))
        return _csv(pandas.read_csv(path), path)
    except (pandas.errors.ParserError, UnicodeDecodeError) as error:
        raise ValueError(f"Expected a table at {path}, got: {' '.join(str(error).split())}") from None
    except ImportError:
        raise ValueError(f"Expected pyarrow to read {path}, it is not installed: the extra observations") from None


def _with_units(table, own: Mapping[str, str] = types.MappingProxyType({})):
    """The table with the units of its variables: the variable table's, or those of names that it does not know."""
    known = {name: VARIABLES[name].units for name in map(str, table.columns) if name in VARIABLES}
    table.attrs["units"] = {**own, **known}
    return table


def station_weights(names: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Regions of observations: all stations with equal weight, then each alone. Names, and weights `(region, cell)`."""
    count = len(names)
    weights = np.concatenate([np.full((1, count), 1 / count), np.eye(count)])
    return (("stations", *map(str, names)), weights) if count > 1 else (("stations",), weights[:1])


def _metar(table, path, quality):
    need = ["stationName", "latitude", "longitude", "elevation", "timeObs"]
    if absent := [name for name in need if name not in table]:
        raise ValueError(f"Expected a METAR table with {', '.join(need)} in {path}, it has no {', '.join(absent)}")
    names = {"stationName": "station", "timeObs": "time"}
    result = table[need].rename(columns=names).reset_index(drop=True)
    table = table.reset_index(drop=True)

    def good(name):
        values = table[name].astype(np.float64)
        flags = table.get(f"{name}DD")
        return values if flags is None else values.where(flags.isin(list(quality)))

    for column, name in METAR.items():
        if column in table:
            result[name] = good(column)
    if "windSpeed" in table and "windDir" in table:
        speed, angle = good("windSpeed"), np.radians(good("windDir"))
        calm = speed == 0  # reported with any direction, or none
        result["10m_u_component_of_wind"] = (-speed * np.sin(angle)).where(~calm, 0.0)
        result["10m_v_component_of_wind"] = (-speed * np.cos(angle)).where(~calm, 0.0)
    if "altimeter" in table:
        n = ZERO_ALTITUDE_EXPONENT
        reduced = (good("altimeter") / 100) ** n - ALTITUDE_FACTOR * result["elevation"].astype(np.float64)
        result["surface_pressure"] = 100 * reduced ** (1 / n)
    return result


def _verif(text, path):
    import pandas

    notes = dict(line[1:].strip().split(": ", 1) for line in text.splitlines() if line.startswith("#") and ": " in line)
    table = pandas.read_csv(io.StringIO(text), sep=r"\s+", comment="#")
    need = ["date", "leadtime", "obs", "fcst"]
    if absent := [name for name in need if name not in table]:
        raise ValueError(f"Expected verif's columns {', '.join(need)} in {path}, it has no {', '.join(absent)}")
    if notes.get("variable") not in VERIF:
        raise ValueError(f"Expected '# variable:' among {', '.join(VERIF)} in {path}, got {notes.get('variable')!r}")
    name = VERIF[notes["variable"]]
    if "units" not in notes:
        raise ValueError(f"Expected a line '# units:' in {path}, got none")
    units = notes["units"].replace("$", "").replace("^o", "deg")
    result = pandas.DataFrame(
        {
            "init_time": pandas.to_datetime(table["date"].astype(str), format="%Y%m%d"),
            "lead_time": pandas.to_timedelta(table["leadtime"].astype(float), unit="h"),
            "station": table.get("location", table.get("id", 0)).astype(str),
            "latitude": table.get("lat", np.nan),
            "longitude": table.get("lon", np.nan),
            "elevation": table.get("altitude", table.get("elev", np.nan)),
        }
    )
    for column, target in (("fcst", name), ("obs", f"observed {name}")):
        values = table[column].astype(np.float64)
        result[target] = _converted(values.where(values > -900), units, name)
    return result


def _converted(values, units: str, name: str):
    factor, offset = conversion(units, VARIABLES[name])
    return values * factor + offset


def _csv(table, path):
    import pandas

    bare = {column: column.split("[")[0].strip() for column in table.columns}
    units = {bare[c]: c.split("[")[1].rstrip("] ") for c in table.columns if "[" in c}
    table = table.rename(columns=bare)
    moments = ["init_time", "lead_hours"] if "init_time" in table else ["time"]
    if absent := [name for name in (*moments, *PLACE[:3]) if name not in table]:
        raise ValueError(
            f"Expected columns {', '.join((*moments, *PLACE[:3]))} in {path}, it has no {', '.join(absent)}"
        )
    for name in moments[:1]:
        table[name] = pandas.to_datetime(table[name], utc=True).dt.tz_localize(None)
    if "lead_hours" in moments:
        table["lead_time"] = pandas.to_timedelta(table.pop("lead_hours").astype(float), unit="h")
    table["station"] = table["station"].astype(str)
    if "elevation" not in table:
        table["elevation"] = np.nan
    for name in (n for n in table.columns if n in VARIABLES):
        if name not in units and VARIABLES[name].units != "1":
            raise ValueError(
                f"Expected units of {name} in {path}, got none; write them into the header, as in "
                f"{name} [{VARIABLES[name].units}]"
            )
    for name in (n for n in table.columns if n in VARIABLES and n in units):
        table[name] = _converted(table[name].astype(np.float64), units[name], name)
    others = {n: text for n, text in units.items() if n not in VARIABLES and n not in (*moments, "lead_time", *PLACE)}
    own = {n: text for n, text in others.items() if table[n].dtype.kind in "if"}
    keep = [n for n in table.columns if n in VARIABLES or n in own or n in (*moments[:1], "lead_time", *PLACE)]
    return _with_units(table[keep], own)


def _points(dataset: xr.Dataset, table, axis: str, units: Mapping[str, str]) -> xr.Dataset:
    """Values by station as a dataset over `cell`, with the place of each."""
    places = table.groupby("station")[list(PLACE[1:])].median().loc[dataset["station"].values]
    dataset = dataset.rename(station="cell").drop_vars("cell")
    count = dataset.sizes["cell"]
    dataset = dataset.assign_coords(
        station=("cell", places.index.to_numpy(dtype=str)),
        latitude=("cell", places["latitude"].to_numpy(np.float64)),
        longitude=("cell", places["longitude"].to_numpy(np.float64) % 360),
        elevation=("cell", places["elevation"].to_numpy(np.float64)),
    )
    for name in dataset.data_vars:
        dataset[name].attrs = {"units": units[str(name)], "role": "prognostic"}
    dataset["cell_area"] = ("cell", np.full(count, 1 / count))
    for name in (axis, "lead_time"):
        if name in dataset.coords:
            kind = "datetime64[ns]" if name == axis else "timedelta64[ns]"
            dataset = dataset.assign_coords({name: dataset[name].values.astype(kind)})
    return dataset


def _step(first) -> float:
    times = np.unique(first.index.get_level_values("time").values)
    return float(np.median(np.diff(times)) / np.timedelta64(1, "s")) if len(times) > 1 else 0.0
