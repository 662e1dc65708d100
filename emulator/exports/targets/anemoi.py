"""A Zarr store of anemoi-datasets: one array of dates, variables, ensemble members and points, and its statistics.

Names are ECMWF's short names, with hPa on pressure levels (`t_500`) and the level's number from the top on others. Mean rates
that ECMWF archives as amounts are amounts over the step (`tp` in m, `ssr` in J m-2), as models of anemoi have them. What
ECMWF has no name for keeps ours. Fields that do not change in time are repeated at every date, as there. Statistics are over
all dates with values and all points alike, without areas, as anemoi-datasets computes them.
"""

import dataclasses
import re
import uuid
from pathlib import Path

import numpy as np
import xarray as xr
import zarr

from emulator.exports.registry import TARGETS, Target
from emulator.exports.source import STARTS, Source, expect_some
from emulator.planet.calendar import in_seconds
from emulator.planet.grid import Grid
from emulator.planet.units import WATER_DENSITY, amount_units
from emulator.planet.variables import VARIABLES, known
from emulator.planet.vertical import vertical_of
from emulator.store.schema import entry

LAYOUT = "0.22"  # version of the store's layout that anemoi-datasets 0.5.47 writes
LEVEL_TYPES = {"pressure": "pl", "sigma": "ml", "hybrid": "ml"}
# ECMWF's accumulation of a mean rate of the table: the first of its names in sources that is short and without a sign.
AMOUNTS = {
    v.name: next(other for other in v.also.split() if re.fullmatch("[a-z]{1,4}", other))
    for v in VARIABLES.values()
    if v.cell == "mean" and any(re.fullmatch("[a-z]{1,4}", other) for other in v.also.split())
}


@dataclasses.dataclass(frozen=True)
class Column:
    """One variable of anemoi: a field, or one of its levels.

    Attributes:
      text: its name. field: ours. level: position; None for a field without. factor: theirs in ours; amounts by the second.
    """

    text: str
    field: str
    level: int | None
    factor: float
    amount: bool
    about: dict


class Moments:
    """Sums over dates and points of each variable, in float64, merged block by block (Chan, Golub and LeVeque 1983)."""

    def __init__(self, count: int):
        self.number, self.mean, self.squares = np.zeros(count), np.zeros(count), np.zeros(count)
        self.minimum, self.maximum = np.full(count, np.inf), np.full(count, -np.inf)

    def add(self, values: np.ndarray) -> None:
        """`(variable, n)`; missing values do not count."""
        there = np.isfinite(values)
        number = there.sum(axis=1).astype(np.float64)
        some = np.where(there, values, 0).astype(np.float64)
        mean = some.sum(axis=1) / np.maximum(number, 1)
        squares = (np.where(there, some - mean[:, None], 0) ** 2).sum(axis=1)
        total, apart = self.number + number, mean - self.mean
        self.squares += squares + apart**2 * self.number * number / np.maximum(total, 1)
        self.mean += apart * number / np.maximum(total, 1)
        self.number = total
        self.minimum = np.minimum(self.minimum, np.where(there, values, np.inf).min(axis=1, initial=np.inf))
        self.maximum = np.maximum(self.maximum, np.where(there, values, -np.inf).max(axis=1, initial=-np.inf))

    def named(self) -> dict[str, np.ndarray]:
        """anemoi's statistics by name; missing for a variable without any value."""
        none = self.number == 0
        values = {"mean": self.mean, "stdev": np.sqrt(self.squares / np.maximum(self.number, 1))}
        values |= {"minimum": self.minimum, "maximum": self.maximum}
        return {name: np.where(none, np.nan, each) for name, each in values.items()}


def check(source: Source) -> None:
    """Raises `ValueError` for a store that anemoi-datasets does not hold."""
    if source.is_forecast:
        raise ValueError("Expected an analysis for anemoi-datasets, whose stores are series in time, got forecasts")
    if source.grid.is_split:
        raise ValueError(f"Expected contiguous longitudes for anemoi-datasets, got {source.grid.describe()}")
    if not np.issubdtype(source.dataset["time"].dtype, np.datetime64) or source.step.months:
        raise ValueError("Expected the standard calendar and a step of fixed length for anemoi-datasets, got another")


def write(source: Source, folder: Path) -> None:
    """Blocks of dates, and the statistics of all of them."""
    first, grid, times = source.first(), source.grid, source.dataset["time"].values
    moving, fixed = source.fields(first)
    names = [n for n in (*moving, *fixed) if vertical_of(first[n].dims) in (None, "level")]
    expect_some(names, [n for n in (*moving, *fixed) if n not in names], "anemoi-datasets")
    columns = [column for name in names for column in columns_of(first, name, source.step.seconds)]
    group = zarr.open_group(folder, mode="w", zarr_format=2)
    shape = (len(times), len(columns), first.sizes.get("member", 1), grid.area.size)
    data = group.create_array("data", shape=shape, chunks=(1, *shape[1:]), dtype="f4", fill_value=np.nan)
    data.attrs["_ARRAY_DIMENSIONS"] = ["time", "variable", "ensemble", "cell"]
    missing, values, changes, last, at = source.missing(), Moments(len(columns)), Moments(len(columns)), None, 0
    for block in source.blocks():
        seconds = in_seconds(block["time"].values - block[STARTS].values)
        whole = _cube(block, columns, grid, seconds)
        data[at : at + len(whole)] = whole
        for number, one in enumerate(whole):
            there = not missing[at + number]
            if there:
                values.add(one.reshape(len(columns), -1))
                if last is not None:
                    changes.add((one.astype(np.float64) - last).reshape(len(columns), -1))
            last = one.astype(np.float64) if there else None
        at += len(whole)
    _beside(group, source, columns, {"": values, "statistics_tendencies_": changes})
    group.attrs.update(_attributes(source, columns, first, fixed, bool((values.number < values.number.max()).any())))
    zarr.consolidate_metadata(folder, zarr_format=2)


def columns_of(first: xr.Dataset, name: str, step_seconds: float) -> list[Column]:
    """The variables of anemoi that a field becomes."""
    table, amount = known(name), name in AMOUNTS and entry(first, name).cell == "mean" and step_seconds > 0
    short = AMOUNTS[name] if amount else (table.short if table else "") or name
    factor = 1 / WATER_DENSITY if amount and amount_units(table) == "m" else 1.0
    about = {"param": short}
    more = {"constant_in_time": True} if "time" not in first[name].dims else {}
    more |= {"process": "accumulation", "period": [0, round(step_seconds / 3600)]} if amount else {}
    if "level" not in first[name].dims:
        return [Column(short, name, None, factor, amount, {"mars": about | {"levtype": "sfc"}} | more)]
    kind, found = str(first.attrs.get("vertical_coordinate", "pressure")), []
    for k, value in enumerate(first["level"].values):
        number = float(value) if kind == "pressure" else k + 1
        mars = about | {"levtype": LEVEL_TYPES[kind], "levelist": int(number) if number == round(number) else number}
        found.append(Column(f"{short}_{number:g}", name, k, factor, amount, {"mars": mars} | more))
    return found


def _cube(block: xr.Dataset, columns: list[Column], grid: Grid, seconds: np.ndarray) -> np.ndarray:
    """`(date, variable, member, point)` float32."""
    shape = (block.sizes["time"], len(columns), block.sizes.get("member", 1), *grid.shape)
    cube = np.empty(shape, np.float32)
    for number, column in enumerate(columns):
        field = block[column.field] if column.level is None else block[column.field].isel(level=column.level)
        values = np.asarray(field.transpose(*[d for d in ("time", "member") if d in field.dims], ...).values)
        if "time" not in field.dims:
            values = values[None]
        if "member" not in field.dims:
            values = values[:, None]
        factor = column.factor * (seconds if column.amount else np.ones(len(seconds)))
        cube[:, number] = values * factor.reshape(-1, *[1] * (values.ndim - 1))
    return cube.reshape(*shape[:3], -1)


def _beside(group, source: Source, columns: list[Column], statistics: dict[str, Moments]) -> None:
    """The arrays beside the data."""
    latitude, longitude = (np.asarray(part, np.float64).ravel() for part in source.grid.mesh())
    arrays = {"dates": source.dataset["time"].values.astype("datetime64[s]")}
    arrays |= {"latitudes": latitude, "longitudes": longitude % 360}
    for begins, moments in statistics.items():
        frequency = f"{_frequency(source)}_" if begins else ""
        arrays |= {f"{begins}{frequency}{name}": values for name, values in moments.named().items()}
    for name, values in arrays.items():
        array = group.create_array(name, data=values)
        kind = {"dates": "time", "latitudes": "cell", "longitudes": "cell"}.get(name, "variable")
        array.attrs["_ARRAY_DIMENSIONS"] = [kind]


def _attributes(source: Source, columns: list[Column], first: xr.Dataset, fixed: list[str], gaps: bool) -> dict:
    times = source.dataset["time"].values.astype("datetime64[s]")
    start, end = str(times[0]), str(times[-1])
    return {
        "version": LAYOUT,
        "layout": "gridded",
        "uuid": str(uuid.uuid4()),
        "description": str(first.attrs.get("source", "analysis store of emulator")),
        "attribution": str(first.attrs.get("source", "")),
        "variables": [column.text for column in columns],
        "variables_metadata": {column.text: column.about for column in columns},
        "constant_fields": [column.text for column in columns if column.field in fixed],
        "dimensions": ["dates", "variables", "ensembles", "values"],
        "ensemble_dimension": 2,
        "flatten_grid": True,
        "field_shape": list(source.grid.shape),
        "resolution": _resolution(source.grid),
        "start_date": start,
        "end_date": end,
        "statistics_start_date": start,
        "statistics_end_date": end,
        "frequency": _frequency(source),
        "missing_dates": [str(time) for time in times[source.missing()]],
        "allow_nans": gaps,
        "dtype": "float32",
    }


def _frequency(source: Source) -> str:
    """As anemoi writes it: `6h`, `30m`."""
    seconds = round(source.step.seconds) or 3600
    return next(
        f"{seconds // size}{unit}"
        for size, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
        if seconds % size == 0
    )


def _resolution(grid: Grid) -> str:
    if grid.kind == "gaussian":
        return f"f{len(grid.latitude) // 2}"
    if not grid.has_rows:
        return f"{grid.area.size}points"
    spacing = [abs(float(np.diff(axis).mean())) for axis in (grid.latitude, grid.longitude)]
    return "x".join(f"{each:.4g}".replace(".", "p") for each in dict.fromkeys(np.round(spacing, 6)))


TARGETS.register("anemoi", Target("a Zarr store of anemoi-datasets", check, write, suffix=".zarr"))
