"""What is scored: one channel for every variable and level that the truth and all forecasts share, as float64 blocks."""

import dataclasses
import functools
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.planet.grid import Grid
from emulator.planet.vertical import Levels
from emulator.store.chunks import ChunkReader
from emulator.store.schema import entry
from emulator.verify.align import check_units, common_levels

# Variable, pressure in hPa: what a forecaster looks at first. The nearest level within `NEAR` of it is taken.
HEADLINE = (
    ("geopotential", 500.0),
    ("temperature", 500.0),
    ("u_component_of_wind", 500.0),
    ("v_component_of_wind", 500.0),
    ("specific_humidity", 850.0),
    ("surface_pressure", None),
    ("mean_sea_level_pressure", None),
    ("2m_temperature", None),
    ("mean_total_precipitation_rate", None),
    ("temperature", 850.0),
)
REMEDY = "emulator ingest (kind: forecast for forecasts) makes a store with the table's names and units"
NEAR = 1.25  # ratio of pressures


def values(array: xr.DataArray) -> np.ndarray:
    """The array in memory. Dask arrays are computed in this thread: the caller is already one of many tasks."""
    if hasattr(array.data, "compute"):
        return np.asarray(array.data.compute(scheduler="synchronous"))
    return np.asarray(array.values)


@dataclasses.dataclass(frozen=True, eq=False)
class Field:
    """Blocks of one variable.

    Attributes:
      levels: positions on its `level` dimension, None where it has none.
      store: folder of the analysis store that `array` is a whole variable of, where its chunks may be read straight.
    """

    array: xr.DataArray
    grid: Grid
    levels: tuple[int, ...] | None
    store: str = ""

    def analysis(self, positions) -> np.ndarray:
        """Fields at the given positions in time, `(time, level, cell)`; the mean over members where there are some."""
        block = self._times(positions)
        return block.mean(axis=0) if block.shape[0] > 1 else block[0]

    def analysis_members(self, position: int) -> np.ndarray:
        """Every member at one time, `(member, level, cell)`."""
        return self._times([position])[:, 0]

    def forecast(self, init, lead_time: np.ndarray) -> np.ndarray:
        """One forecast at the given leads, `(member, lead, level, cell)`."""
        start = self.array.indexes["init_time"].get_indexer([init])
        leads = self.array.indexes["lead_time"].get_indexer(lead_time)
        if start[0] < 0 or (leads < 0).any():
            raise KeyError(f"no forecast from {init} at all of the leads {lead_time}")
        return self._block(self.array.isel(init_time=int(start[0]), lead_time=compact(leads)), "lead_time")

    @property
    def level_count(self) -> int:
        return 1 if self.levels is None else len(self.levels)

    def _times(self, positions) -> np.ndarray:
        reader = _reader(self.store, str(self.array.name), _date(self.store)) if self.store else None
        if reader is None or reader.shape != self.array.shape:
            return self._block(self.array.isel(time=compact(positions)), "time")
        fields = np.empty((len(positions), *reader.shape[1:]), np.float32)
        for place, position in enumerate(positions):
            reader.read(int(position), fields[place])
        return self._block(xr.DataArray(fields, dims=self.array.dims), "time")

    def _block(self, array, axis):
        if self.levels is not None:
            array = array.isel(level=compact(self.levels))
        order = (*(d for d in ("member",) if d in array.dims), axis, *(["level"] if self.levels is not None else []))
        order = (*order, *self.grid.dims)
        # Read first, transposed in memory: xarray reads a lazily transposed array point by point, ten times as slowly.
        block = values(array).transpose([array.dims.index(d) for d in order])
        members = array.sizes.get("member", 1)
        shape = (members, array.sizes[axis], self.level_count, int(np.prod(self.grid.shape)))
        return block.astype(np.float64, order="C").reshape(shape)


@functools.lru_cache(maxsize=256)
def _reader(store: str, name: str, date: int) -> ChunkReader | None:
    return ChunkReader.of(store, name)


def _date(store: str) -> int:
    """Of the store's metadata: a store that was made anew has another, and other places of its chunks."""
    return (Path(store) / "zarr.json").stat().st_mtime_ns


def store_of(dataset: xr.Dataset) -> str:
    """The folder of a dataset that is an analysis store of ours, as `open_analysis` gave it; "" for any other."""
    source = str(dataset.encoding.get("source", ""))
    own = "emulator_schema" in dataset.attrs and "://" not in source and (Path(source) / "zarr.json").is_file()
    return source if own else ""


def compact(positions) -> slice | np.ndarray:
    """Positions as a slice where they are evenly spaced and rising, which Zarr reads faster than a list."""
    index = np.asarray(positions, np.int64)
    steps = np.unique(np.diff(index))
    if len(index) == 1:
        return slice(int(index[0]), int(index[0]) + 1)
    if len(steps) == 1 and steps[0] > 0:
        return slice(int(index[0]), int(index[-1]) + 1, int(steps[0]))
    return index


@dataclasses.dataclass(frozen=True, eq=False)
class ScoredVariable:
    """One variable in the truth and in every forecast.

    Attributes:
      truth: the truth's field; forecasts: forecast name -> field, in order.
      levels: `(level,)` in the truth's coordinate, None without.
      labels, pressures: a name and a nominal pressure in hPa (NaN where it has none) for each level.
      short: a short name where the truth's store or the table has one, else the name.
    """

    name: str
    units: str
    truth: Field
    forecasts: dict[str, Field]
    levels: np.ndarray | None
    labels: tuple[str, ...]
    pressures: tuple[float, ...]
    short: str

    def at_levels(self, index: list[int]) -> "ScoredVariable":
        """The same variable on some of its levels, by position."""
        if self.levels is None:
            return self

        def only(field):
            return dataclasses.replace(field, levels=tuple(field.levels[i] for i in index))

        return dataclasses.replace(
            self,
            truth=only(self.truth),
            forecasts={name: only(field) for name, field in self.forecasts.items()},
            levels=self.levels[index],
            labels=tuple(self.labels[i] for i in index),
            pressures=tuple(self.pressures[i] for i in index),
        )


def scored(
    truth: xr.Dataset,
    forecasts: dict[str, xr.Dataset],
    grid: Grid,
    column: Levels | None,
    variables: list[str] | None = None,
    levels: list[float] | None = None,
) -> tuple[list[ScoredVariable], dict[str, str]]:
    """The variables to score, restricted to `variables` and to the levels nearest to `levels`, and why others are not.

    Raises `ValueError` when a wanted variable is absent, units differ, or nothing is left.
    """
    names_in = {"truth": scored_variables(truth, grid, "time")}
    names_in |= {name: scored_variables(dataset, grid, "lead_time") for name, dataset in forecasts.items()}
    skipped = {}
    everywhere = [name for name in names_in["truth"] if all(name in names for names in names_in.values())]
    for name in sorted(set().union(*names_in.values()) - set(everywhere)):
        skipped[name] = f"not in {', '.join(store for store, names in names_in.items() if name not in names)}"
    for name in variables or []:
        if name not in everywhere:
            raise ValueError(
                f"Expected {name!r} in the truth and in every forecast, got it {skipped.get(name, 'nowhere')}"
            )
    chosen = [name for name in everywhere if not variables or name in variables]
    if not chosen:
        reasons = "; ".join(f"{name} is {why}" for name, why in skipped.items()) or "no fields"
        raise ValueError(f"Expected a variable that the truth and all forecasts share, got none: {reasons}; {REMEDY}")
    return [_variable(name, truth, forecasts, grid, column, levels) for name in chosen], skipped


def _variable(name, truth, forecasts, grid, column, wanted) -> ScoredVariable:
    arrays = {"truth": truth[name]} | {store: dataset[name] for store, dataset in forecasts.items()}
    units, levels = check_units(name, arrays), common_levels(name, arrays)
    if levels is not None and wanted:
        levels = np.unique([levels[np.abs(levels - value).argmin()] for value in wanted])
    places = {
        store: None if levels is None else tuple(int(np.abs(array["level"].values - v).argmin()) for v in levels)
        for store, array in arrays.items()
    }
    fields = {store: Field(array, grid, places[store]) for store, array in arrays.items()}
    fields["truth"] = dataclasses.replace(fields["truth"], store=store_of(truth))
    labels, pressures = [""], [np.nan]
    if levels is not None:
        index = [int(np.abs(truth["level"].values - value).argmin()) for value in levels]
        labels = [column.label(i) if column else f"{truth['level'].values[i]:g} hPa" for i in index]
        pressures = [_pressure(column, i) if column else float(truth["level"].values[i]) for i in index]
    short = _short_name(truth, name)
    return ScoredVariable(name, units, fields.pop("truth"), fields, levels, tuple(labels), tuple(pressures), short)


def _short_name(truth: xr.Dataset, name: str) -> str:
    try:
        return entry(truth, name).short or name
    except ValueError:  # units are compared elsewhere, where stores of other tools may well have none
        return name


def _pressure(column: Levels, index: int) -> float:
    """Pressure of a level in hPa over a surface at 1000 hPa."""
    if column.kind == "pressure":
        return float(column.values[index])
    half = column.half_a + column.half_b * 1e5
    return float(half[index] + half[index + 1]) / 200


def headline_ranks(variable: ScoredVariable) -> dict[int, int]:
    """Positions among the variable's levels that the first page shows -> their rank in `HEADLINE`."""
    result = {}
    for rank, (name, pressure) in enumerate(HEADLINE):
        if name != variable.name:
            continue
        distance = (
            np.abs(np.log(np.asarray(variable.pressures) / pressure)) if pressure and variable.labels != ("",) else None
        )
        if distance is None:
            result.setdefault(0, rank)
        elif distance.min() <= np.log(NEAR):
            result.setdefault(int(distance.argmin()), rank)
    return result


def channel_name(variable: ScoredVariable, index: int) -> str:
    """`temperature 510 hPa (sigma 0.51)`, `surface_pressure`."""
    return f"{variable.name} {variable.labels[index]}".strip()


def scored_variables(dataset: xr.Dataset, grid: Grid, along: str) -> list[str]:
    """Variables of a store with a value in every cell at every `along` ("time" or "lead_time"), forcings left out."""
    wanted = {along, *grid.dims}
    return [
        str(name)
        for name, array in dataset.data_vars.items()
        if wanted <= set(array.dims)
        and array.attrs.get("role") not in ("forcing", "static")
        and array.dtype.kind in "fiu"
    ]


def empty_inits(variables, name: str, init_time: np.ndarray) -> np.ndarray:
    """For every initial time `(init,)` whether the forecast `name` of some `ScoredVariable`s has no finite value at any lead.

    Looked up in the smallest variable; one field of each initial time that is there is read, the last lead before the rest,
    since some fields (rain) begin after the initial time.
    """
    array = min((variable.forecasts[name].array for variable in variables), key=lambda a: a[0].size)
    places = array.indexes["init_time"].get_indexer(init_time)
    leads = [array.sizes["lead_time"] - 1, *range(array.sizes["lead_time"] - 1)]
    return np.array([not any(_holds(array, place, lead) for lead in leads) for place in places], bool)


def _holds(array, place: int, lead: int) -> bool:
    return bool(np.isfinite(values(array.isel(init_time=place, lead_time=lead))).any())
