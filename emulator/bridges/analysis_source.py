"""An analysis store as a data source of earth2studio. Needs no earth2studio, whose protocol is a function."""

import asyncio
import datetime
from collections.abc import Iterable, Sequence

import numpy as np
import xarray as xr

from emulator.bridges.lexicon import LexiconError, Name, of_store
from emulator.store.analysis import open_analysis
from emulator.store.masks import domain_of
from emulator.store.schema import ROWS, grid_of


class AnalysisSource:
    """Fields of an analysis store by earth2studio's names, as its workflows ask for them.

    Args:
      analysis: the store, opened or its path.
    Attributes:
      names: what it has, by earth2studio's names. lat, lon: of the grid, degrees.

    Raises `ValueError` for a store whose grid has no rows of latitude.
    """

    def __init__(self, analysis):
        self.dataset = analysis if isinstance(analysis, xr.Dataset) else open_analysis(analysis)
        grid = grid_of(self.dataset)
        if not grid.has_rows:
            raise ValueError(
                f"Expected an analysis on latitudes and longitudes for earth2studio, got {grid.describe()}"
            )
        self.lat, self.lon = grid.latitude, grid.longitude
        self.names = of_store(self.dataset)

    def __call__(self, time, variable) -> xr.DataArray:
        """Fields `(time, variable, lat, lon)` float32, missing (NaN) where they do not exist.

        Raises `LexiconError` for a name that the store has no field for, and `ValueError` for a time that it lacks.
        """
        times, wanted = _times(time), [variable] if isinstance(variable, str) else [str(name) for name in variable]
        if absent := [name for name in wanted if name not in self.names]:
            raise LexiconError(
                f"Expected fields of the analysis, {', '.join(self.names)}, got {', '.join(absent)}; "
                "earth2studio names those on pressure levels t500, on others t0k"
            )
        fields = self.read([self.names[name] for name in wanted], times)
        coordinates = {"time": times, "variable": wanted, "lat": self.lat, "lon": self.lon}
        return xr.DataArray(fields, coordinates, dims=tuple(coordinates))

    def read(self, names: Sequence[Name], times: np.ndarray) -> np.ndarray:
        """Fields in their units by earth2studio, `(time, field, lat, lon)` float32, missing (NaN) where they do not exist.

        Raises `ValueError` for a time that the store lacks.
        """
        positions = self._positions(times)
        fields = [self._field(name, positions) for name in names]
        return np.stack(fields, 1) if fields else np.zeros((len(times), 0, len(self.lat), len(self.lon)), np.float32)

    async def fetch(self, time, variable) -> xr.DataArray:
        """What a call gives, read by another thread."""
        return await asyncio.to_thread(self, time, variable)

    def _positions(self, times: np.ndarray) -> np.ndarray:
        stored = self.dataset.indexes["time"]
        found = stored.get_indexer(times)
        if (found < 0).any():
            raise ValueError(
                f"Expected times of the analysis, {stored[0]} to {stored[-1]}, got {times[int(np.argmax(found < 0))]}"
            )
        return found

    def _field(self, name: Name, positions: np.ndarray) -> np.ndarray:
        """`(time, lat, lon)` of one field."""
        field, mask = self.dataset[name.variable], domain_of(self.dataset, name.variable)
        levels = [d for d in field.dims if d not in ("time", *ROWS, "longitude")]
        if name.level is not None:
            field = field.isel({levels[0]: name.level})
        values = np.asarray(field.isel(time=positions).values if "time" in field.dims else field.values, np.float32)
        if not ROWS & set(field.dims):  # a series in time
            values = values.reshape(-1, 1, 1)
        values = np.broadcast_to(values, (len(positions), len(self.lat), len(self.lon))) * np.float32(name.factor)
        if mask is None:
            return values
        return np.where(mask[name.level] if mask.ndim == 3 else mask, values, np.float32(np.nan))


def _times(time) -> np.ndarray:
    """Times as earth2studio gives them, one or several, as datetime64[ns]."""
    given = (
        [time] if isinstance(time, datetime.datetime | np.datetime64 | str) or not isinstance(time, Iterable) else time
    )
    return np.asarray([np.datetime64(each, "ns") for each in given])
