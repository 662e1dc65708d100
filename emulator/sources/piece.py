"""A box of one canonical field in one source: where its values go, how they change, and how they are read."""

import dataclasses
import functools
import logging
from collections.abc import Mapping

import numpy as np
import xarray as xr

from emulator.planet.calendar import in_seconds
from emulator.planet.grid import Grid
from emulator.planet.variables import Variable, known, variable
from emulator.sources.open import reaching
from emulator.sphere.regrid import Regridder

log = logging.getLogger(__name__)
BEFORE, AFTER = ("time", "lead_time", "member"), ("latitude", "longitude", "y", "x", "cell")  # the vertical dimension
BLOCK_BYTES = 4 << 20  # of the source's values: a core's cache
SAMPLED = 12  # cells along each horizontal dimension
REGRID_BYTES = 64 << 20  # of the source's values, float64


@dataclasses.dataclass(frozen=True, eq=False)
class Piece:
    """A box of one canonical field, in one source.

    Attributes:
      name, term: the canonical variable, and which term of it (usually "").
      path: of the source, for messages.
      array: the source's variable, lazy; `dims` maps canonical dimensions to its own.
      coordinates: values along each canonical dimension, in the convention's order; `time` holds initial times and
        `lead_time` leads in a forecast. A dimension that the variable lacks is a coordinate of one value, or absent.
      order: positions in the source of the values along `member`, the vertical axis, `latitude`, `longitude`,
        `y` and `x`.
      scale, offset: canonical = scale * source + offset, sign included.
      axis: the vertical dimension, or None; vertical: what its values are ("pressure", "unknown", "depth", ...).
      bounds: of those values, `(n, 2)`, where they are recorded.
      domain: where the field exists (`emulator.store.masks`), or None; exists: that on the source's grid, for regridding:
        `([vertical,] *space)` in the convention's order.
      averaged: the source says that these are means over time.
      stamp: where in its interval the time of a mean lies, "start", "middle" or "end"; None: unknown.
      moments: of a static field that its source has at several times the first, the second and the last, as in the source.
      starts: of the intervals that means end at `time`, `(time,)`; None where no bounds tell them.
      lengths: seconds that each value covers up to its time, NaN for unknown: `(time, lead_time)`; None where nothing tells.
      totals: the values are totals over those, and not means; assumed: amounts of which the options alone say over what.
      logarithm: the values are natural logarithms of the field's.
      otherwise: the same of other experiments (CDS's `expver`: final and preliminary data in one file), for what is missing.
      regrid: from the source's grid to that of `coordinates`; None where they are one.
      entry: what the field is, where that is not in the variable table.
    """

    name: str
    term: str
    path: str
    array: xr.Variable
    dims: Mapping[str, str]
    coordinates: Mapping[str, np.ndarray]
    order: Mapping[str, np.ndarray]
    scale: float
    offset: float
    axis: str | None = None
    vertical: str | None = None
    bounds: np.ndarray | None = None
    domain: str | None = None
    exists: np.ndarray | None = None
    averaged: bool = False
    lengths: np.ndarray | None = None
    totals: bool = False
    assumed: bool = False
    logarithm: bool = False
    otherwise: tuple[xr.Variable, ...] = ()
    regrid: Regridder | None = None
    entry: Variable | None = None
    stamp: str | None = None
    starts: np.ndarray | None = None
    moments: tuple[xr.Variable, ...] = ()

    @property
    def meaning(self) -> Variable:
        """What the field is: the entry of its own, or the variable table's."""
        return self.entry or variable(self.name)

    @property
    def interval_seconds(self) -> np.ndarray | None:
        """Seconds that each value covers up to its time, by bounds where there are any: `(time, lead_time)`, or None."""
        if self.starts is None:
            return self.lengths
        return in_seconds(self.coordinates["time"] - self.starts)[:, None]

    def read(self, times, leads=None) -> np.ndarray:
        """Values at positions `times` (and `leads`) of the coordinates, all else whole, as float32 or float64.

        Axes are `(time, lead_time, member, vertical, latitude, longitude)`, of size 1 where the source has no such dimension;
        on a map the last two are `y` and `x`, on point grids they are one, `cell`.
        """
        if self.regrid is None:
            return self._in_blocks(np.asarray(times), leads)
        one = 8 * int(
            np.prod([len(self.coordinates.get(d, [0])) for d in ("member", self.axis)] + [*self.regrid.source_shape])
        )
        one *= 1 if leads is None else len(leads)
        block = max(1, REGRID_BYTES // one)  # a few times as much is needed while it is regridded
        parts = [self._regridded(self._read(times[n : n + block], leads)) for n in range(0, len(times), block)]
        return np.concatenate(parts).astype(np.float32)

    def some_cells(self, times: np.ndarray, leads: np.ndarray) -> np.ndarray:
        """Values of a few cells as the source has them, of the first level and member: `(time, lead, cell)`."""
        index: dict = {raw: 0 for d, raw in self.dims.items() if d not in ("time", "lead_time", *AFTER)}
        for d, raw in self.dims.items():
            if d in AFTER:
                index[raw] = np.unique(np.linspace(0, self.array.sizes[raw] - 1, SAMPLED).astype(int))
        chosen = {"time": times, "lead_time": leads}
        index |= {self.dims[d]: as_slice(at) for d, at in chosen.items() if d in self.dims}
        with reaching(self.path):
            values = self.array.isel(index)
            along = [self.dims[d] for d in chosen if d in self.dims]
            values = values.transpose(*along, ...).values
        return values.reshape(len(times), len(leads), -1)

    def _regridded(self, values: np.ndarray) -> np.ndarray:
        """On the other grid. What lies outside the domain has no part in it, and any value inside is enough for a cell: which
        cells are inside there is said by the mask on that grid."""
        if self.exists is None:
            return self.regrid(values)
        return self.regrid(np.where(self.exists, values, np.nan), minimum_share=0.0)

    def on(self, grid: Grid, method: str) -> "Piece":
        """The same on a grid. Raises `ValueError` naming the file where it cannot be regridded to it."""
        if {"cell_area", "y"} & set(self.coordinates):
            kind = "points" if "cell_area" in self.coordinates else "a map projection"
            raise ValueError(
                f"Expected a grid of rows and columns to regrid {self.name} from, got {kind} in {self.path}"
            )
        own = _grid_of(self.coordinates["latitude"].tobytes(), self.coordinates["longitude"].tobytes())
        if own.same_as(grid):
            return self
        place = {"latitude": grid.latitude, "longitude": grid.longitude}
        try:
            regrid = _regridder(own, grid, method)
        except ValueError as error:
            raise ValueError(f"{error} ({self.name} in {self.path})") from None
        return dataclasses.replace(self, coordinates={**self.coordinates, **place}, regrid=regrid)

    def _in_blocks(self, times: np.ndarray, leads) -> np.ndarray:
        """Values that have to be unpacked or converted a few times at once: what is made on the way stays in the cache."""
        block = len(times) if self._is_plain else self._block(times, leads)
        if block >= len(times):
            return self._read(times, leads)
        out: np.ndarray | None = None
        for first in range(0, len(times), block):
            part = self._read(times[first : first + block], leads)
            if out is None:
                out = np.empty((len(times), *part.shape[1:]), np.float32)
            out[first : first + block] = part
        return out

    @property
    def _is_plain(self) -> bool:
        fills = [self.array.encoding.get(name) for name in ("_FillValue", "missing_value")]
        masked = any(fill is not None and not np.isnan(fill).all() for fill in fills)
        return self.array.dtype == np.float32 and (self.scale, self.offset) == (1, 0) and not masked

    def _block(self, times: np.ndarray, leads) -> int:
        """How many times to read at once: whole chunks of the source, none of which is then decompressed twice."""
        raw, whole = self.dims.get("time"), len(times)
        chunks = self.array.encoding.get("preferred_chunks", {raw: 1})
        if "://" in self.path or raw not in chunks or whole == 0:
            return whole
        one = self.array.dtype.itemsize * self.array[{raw: 0}].size
        block = max(1, BLOCK_BYTES // max(1, one)) // chunks[raw] * chunks[raw] or chunks[raw]
        aligned = chunks[raw] == 1 or (times[0] % chunks[raw] == 0 and (np.diff(times) == 1).all())
        return block if aligned else whole

    def _read(self, times, leads=None) -> np.ndarray:
        wanted = {"time": np.asarray(times), "lead_time": np.asarray([0] if leads is None else leads)}
        index, after = {}, {}
        for dim, raw in self.dims.items():
            positions = wanted.get(dim, self.order.get(dim))
            if positions is None:
                continue
            ordered, back = np.unique(positions, return_inverse=True)
            index[raw] = as_slice(ordered)
            after[dim] = back
        try:
            return self._ordered(index, after)
        except (OSError, RuntimeError, ValueError, IndexError) as error:
            text = " ".join(str(error).split())
            raise ValueError(f"Expected to read {self.name} from {self.path}, got: {text}") from error

    def _ordered(self, index, after) -> np.ndarray:
        with reaching(self.path):
            order = (*BEFORE, self.axis or "level", *AFTER)
            raw = [self.dims[d] for d in order if d in self.dims]
            values = self.array.isel(index).transpose(*raw).values
            for other in self.otherwise:
                if (gaps := np.isnan(values)).any():
                    values = np.where(gaps, other.isel(index).transpose(*raw).values, values)
        shape = []
        for dim in order:
            if dim in self.dims:
                if dim in after and np.any(np.diff(after[dim]) != 1):
                    values = np.take(values, after[dim], axis=len(shape))
                shape.append(values.shape[len(shape)])
            elif dim not in AFTER:
                values = np.expand_dims(values, len(shape))
                shape.append(1)
        if self.logarithm:
            values = np.exp(values, dtype=np.float64)
        if self.scale != 1 or self.offset != 0:
            values = values * np.float64(self.scale) + self.offset
        return values


def check_fixed(name: str, first, other, path: str) -> None:
    """Compares the values of a static field at two moments, to a thousandth of their range: packing rounds.

    Raises `ValueError` naming the file for a field that moves; one that the table has as static is only told of in the log.
    """
    first, other = (np.asarray(values, np.float64) for values in (first, other))
    there = np.isfinite(first)
    slack = 1e-3 * np.ptp(first[there]) if there.any() else 0.0
    if first.shape != other.shape or np.allclose(first, other, rtol=1e-6, atol=slack, equal_nan=True):
        return
    table = known(name)
    if table is None or table.role != "static":
        raise ValueError(
            f"Expected {name}, which is static, to be the same at all times, got other values at a later one in {path}; a "
            "field that changes in time has another role and cell (define, roles)"
        )
    log.warning("%s changes in time in %s: the first values are taken for all times", name, path)


@functools.lru_cache(maxsize=16)
def _grid_of(latitude: bytes, longitude: bytes) -> Grid:
    return Grid.from_coordinates(np.frombuffer(latitude), np.frombuffer(longitude))


@functools.lru_cache(maxsize=16)
def _regridder(source: Grid, target: Grid, method: str) -> Regridder:
    return Regridder(source, target, method)


def as_slice(positions: np.ndarray):
    """A slice for consecutive positions, which every backend reads fastest."""
    if len(positions) and np.all(np.diff(positions) == 1):
        return slice(int(positions[0]), int(positions[-1]) + 1)
    return positions
