"""One variable of a store as plain float64 blocks, whatever the order and kind of its dimensions."""

import dataclasses
import functools
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.planet.grid import Grid
from emulator.store.chunks import ChunkReader


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
