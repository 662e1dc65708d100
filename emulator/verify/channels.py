"""What is scored: one channel for every variable and level that the truth and all forecasts share, as float64 blocks."""

import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.planet.grid import Grid
from emulator.planet.vertical import VERTICAL, Levels, vertical_of
from emulator.store.chunks import ChunkReader
from emulator.store.masks import counted, cut, domain_name, domain_of, mask_name
from emulator.store.schema import entry, level_label
from emulator.verify.align import check_units, common_levels
from emulator.verify.averaging import all_unlike
from emulator.verify.headline import ranked

REMEDY = "emulator ingest (kind: forecast for forecasts) makes a store with the table's names and units"


def values(array: xr.DataArray) -> np.ndarray:
    """The array in memory. Dask arrays are computed in this thread: the caller is already one of many tasks."""
    if hasattr(array.data, "compute"):
        return np.asarray(array.data.compute(scheduler="synchronous"))
    return np.asarray(array.values)


@dataclasses.dataclass(frozen=True, eq=False)
class Field:
    """Blocks of one variable.

    Attributes:
      levels: positions on its vertical dimension, None where it has none.
      store: folder of the analysis store that `array` is a whole variable of, where its chunks may be read straight.
      exists: where the variable exists, `(level, cell)` on these levels; None: everywhere. Elsewhere blocks are NaN, whatever
        the store holds there.
    """

    array: xr.DataArray
    grid: Grid
    levels: tuple[int, ...] | None
    store: str = ""
    exists: np.ndarray | None = None

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

    def at_levels(self, index: Sequence[int]) -> "Field":
        """The same on some of its levels, by position among them."""
        exists = None if self.exists is None else self.exists[list(index)]
        return dataclasses.replace(self, levels=tuple(self.levels[i] for i in index), exists=exists)

    def holds(self, init: int, lead: int) -> bool:
        """Whether a forecast has a finite value where the variable exists; initial time and lead by position."""
        block = self._block(self.array.isel(init_time=init, lead_time=[lead]), "lead_time")
        return bool(np.isfinite(block).any())

    def _times(self, positions) -> np.ndarray:
        reader = _reader(self.store, str(self.array.name), _date(self.store)) if self.store else None
        if reader is None or reader.shape != self.array.shape:
            return self._block(self.array.isel(time=compact(positions)), "time")
        fields = np.empty((len(positions), *reader.shape[1:]), np.float32)
        for place, position in enumerate(positions):
            reader.read(int(position), fields[place])
        return self._block(xr.DataArray(fields, dims=self.array.dims), "time")

    def _block(self, array, axis):
        vertical = vertical_of(array.dims)
        if vertical is not None:
            array = array.isel({vertical: compact(self.levels)})
        order = (*(d for d in ("member",) if d in array.dims), axis, *([vertical] if vertical is not None else []))
        order = (*order, *self.grid.dims)
        # Read first, transposed in memory: xarray reads a lazily transposed array point by point, ten times as slowly.
        block = values(array).transpose([array.dims.index(d) for d in order])
        members = array.sizes.get("member", 1)
        shape = (members, array.sizes[axis], self.level_count, int(np.prod(self.grid.shape)))
        return cut(block.astype(np.float64, order="C").reshape(shape), self.exists)


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
      domain: how the stores name where it exists, "" for everywhere.
      ranks: positions of the levels that the first page shows -> their rank.
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
    domain: str = ""
    ranks: Mapping[int, int] = dataclasses.field(default_factory=dict)

    @property
    def exists(self) -> np.ndarray | None:
        """Where the variable exists in all stores, `(level, cell)`; None: everywhere."""
        return self.truth.exists

    def at_levels(self, index: list[int]) -> "ScoredVariable":
        """The same variable on some of its levels, by position."""
        if self.levels is None:
            return self

        return dataclasses.replace(
            self,
            truth=self.truth.at_levels(index),
            forecasts={name: field.at_levels(index) for name, field in self.forecasts.items()},
            levels=self.levels[index],
            labels=tuple(self.labels[i] for i in index),
            pressures=tuple(self.pressures[i] for i in index),
            ranks={place: self.ranks[i] for place, i in enumerate(index) if i in self.ranks},
        )


def scored(
    truth: xr.Dataset,
    forecasts: dict[str, xr.Dataset],
    grid: Grid,
    column: Levels | None,
    variables: list[str] | None = None,
    levels: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
) -> tuple[list[ScoredVariable], dict[str, str]]:
    """The variables to score, restricted to `variables` and to the levels nearest to `levels`, and why others are not.

    `levels`: of the axis `level`, or by the names of vertical axes; of axes that are not named all are scored. Raises
    `ValueError` when a wanted variable is absent, units differ, no store has an axis that is named, or nothing is left.
    """
    wanted = levels if isinstance(levels, Mapping) else {"level": levels} if levels else {}
    have = ", ".join(axis for axis in VERTICAL if axis in truth.dims) or "none"
    if isinstance(levels, Mapping) and (unknown := [axis for axis in wanted if axis not in truth.dims]):
        raise ValueError(f"Expected levels of the truth's vertical axes ({have}), got those of {unknown[0]!r}")
    names_in = {name: scored_variables(dataset, grid, "lead_time") for name, dataset in forecasts.items()}
    predicted = (
        set.intersection(*map(set, names_in.values())) if names_in else set()
    )  # by all, forcing or not in the truth
    names_in = {"truth": scored_variables(truth, grid, "time", predicted)} | names_in
    skipped = {}
    everywhere = [name for name in names_in["truth"] if all(name in names for names in names_in.values())]
    for name in sorted(set().union(*names_in.values()) - set(everywhere)):
        skipped[name] = f"not in {', '.join(store for store, names in names_in.items() if name not in names)}"
    skipped |= all_unlike(everywhere, truth, forecasts)
    everywhere = [name for name in everywhere if name not in skipped]
    for name in variables or []:
        if name not in everywhere:
            raise ValueError(
                f"Expected {name!r} in the truth and in every forecast, got it {skipped.get(name, 'nowhere')}"
            )
    chosen = [name for name in everywhere if not variables or name in variables]
    if not chosen:
        reasons = "; ".join(f"{name} is {why}" for name, why in skipped.items()) or "no fields"
        raise ValueError(f"Expected a variable that the truth and all forecasts share, got none: {reasons}; {REMEDY}")
    return ranked([_variable(name, truth, forecasts, grid, column, wanted) for name in chosen]), skipped


def _variable(name, truth, forecasts, grid, column, wanted) -> ScoredVariable:
    arrays = {"truth": truth[name]} | {store: dataset[name] for store, dataset in forecasts.items()}
    units, levels, axis = check_units(name, arrays), common_levels(name, arrays), vertical_of(truth[name].dims)
    if levels is not None and wanted.get(axis):
        levels = _nearest(levels, wanted[axis], axis)
    places = {
        store: None if levels is None else tuple(int(np.abs(array[axis].values - v).argmin()) for v in levels)
        for store, array in arrays.items()
    }
    exists, domain = _domain(name, {"truth": truth} | forecasts, places)
    fields = {store: Field(array, grid, places[store], exists=exists) for store, array in arrays.items()}
    fields["truth"] = dataclasses.replace(fields["truth"], store=store_of(truth))
    labels, pressures = [""], [np.nan]
    if levels is not None:
        labels = [level_label(truth, axis, i) for i in places["truth"]]
        pressures = [_pressure(truth, axis, column, i) for i in places["truth"]]
    named = tuple(labels), tuple(pressures), _short_name(truth, name), domain
    return ScoredVariable(name, units, fields.pop("truth"), fields, levels, *named)


def _nearest(levels: np.ndarray, wanted: Sequence[float], axis: str) -> np.ndarray:
    """The levels nearest to some, each once, in the order of stores."""
    chosen = np.unique([levels[np.abs(levels - value).argmin()] for value in wanted])
    return chosen[VERTICAL[axis].positions(chosen)]


def _domain(name: str, stores: Mapping[str, xr.Dataset], places: Mapping) -> tuple[np.ndarray | None, str]:
    """Where a variable exists in all stores that say so, `(level, cell)` on its common levels, and as what; None: everywhere.

    A forecast without the mask that its attribute names takes the truth's. What has no domain is where the first store has it
    `counted`, the truth if it can tell. Raises `ValueError` where no store has the mask.
    """
    exists, names = None, {}
    for store, dataset in stores.items():
        if (domain := domain_name(dataset, name)) is None:
            continue
        if names and mask_name(domain) not in dataset:
            continue  # nothing can be known of it
        own = domain_of(dataset, name, stores["truth"])
        own = own.reshape(1, -1) if places[store] is None else own.reshape(len(own), -1)[list(places[store])]
        exists = own if exists is None else exists & own
        names[domain] = None
    if not names:
        sea = next((own for dataset in stores.values() if (own := counted(dataset, name)) is not None), None)
        return (None, "") if sea is None else (sea.reshape(1, -1), "ocean")
    return exists, " and ".join(names)


def _short_name(truth: xr.Dataset, name: str) -> str:
    try:
        return entry(truth, name).short or name
    except ValueError:  # units are compared elsewhere, where stores of other tools may well have none
        return name


def _pressure(truth: xr.Dataset, axis: str, column: Levels | None, index: int) -> float:
    """Pressure of a level of the atmosphere in hPa over a surface at 1000 hPa; NaN on other axes."""
    if axis != "level":
        return np.nan
    if column is None:
        return float(truth[axis].values[index])
    if column.kind == "pressure":
        return float(column.values[index])
    half = column.half_a + column.half_b * 1e5
    return float(half[index] + half[index + 1]) / 200


def headline_ranks(variable: ScoredVariable) -> dict[int, int]:
    """Positions among the variable's levels that the first page shows -> their rank."""
    return dict(variable.ranks)


def channel_name(variable: ScoredVariable, index: int) -> str:
    """`temperature 510 hPa (sigma 0.51)`, `surface_pressure`."""
    return f"{variable.name} {variable.labels[index]}".strip()


def scored_variables(dataset: xr.Dataset, grid: Grid, along: str, predicted: Collection[str] = ()) -> list[str]:
    """Variables of a store with a value in every cell at every `along` ("time" or "lead_time").

    Forcing is left out that is not `predicted`.
    """
    wanted = {along, *grid.dims}
    return [
        str(name)
        for name, array in dataset.data_vars.items()
        if wanted <= set(array.dims)
        and (array.attrs.get("role") not in ("forcing", "static") or name in predicted)
        and array.dtype.kind in "fiu"
    ]


def empty_inits(variables, name: str, init_time: np.ndarray) -> np.ndarray:
    """For every initial time `(init,)` whether the forecast `name` of some `ScoredVariable`s has no finite value at any lead.

    Looked up in the smallest variable; one field of each initial time that is there is read, the last lead before the rest,
    since some fields (rain) begin after the initial time.
    """
    field = min((variable.forecasts[name] for variable in variables), key=lambda field: field.array[0].size)
    places = field.array.indexes["init_time"].get_indexer(init_time)
    leads = [field.array.sizes["lead_time"] - 1, *range(field.array.sizes["lead_time"] - 1)]
    return np.array([not any(field.holds(place, lead) for lead in leads) for place in places], bool)
