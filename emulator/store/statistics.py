"""Mean, spread, extremes and step differences of fields: area-weighted, in float64, in one pass, in any split.

Sums of squared deviations are merged by Chan, Golub and LeVeque (1979), "Updating formulae and a pairwise algorithm for
computing sample variances", here with weights; nothing is ever subtracted from a large sum of squares.
"""

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.files.whole_file import whole_file, write_netcdf
from emulator.parallel.tasks import Over, Report, one_by_one, silent
from emulator.planet.vertical import VERTICAL, vertical_of
from emulator.store.analysis import AnalysisSeries, open_analysis
from emulator.store.schema import fingerprint, moving_variables, variables_by_role

BLOCK_BYTES = 32 << 20  # of float32; a block takes a few times that as float64
STATISTICS = ("mean", "std", "minimum", "maximum", "difference_mean", "difference_std")
SCHEMA = "statistics-1"

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Weighted moments of some values, per level: arrays `(level,)` or `()`, float64.

    Attributes:
      weight: sum of the weights of the values that are not missing.
      mean: weighted mean; squares: weighted sum of squared deviations from it.
      minimum, maximum: of the values, infinite where there is none.
    """

    weight: np.ndarray
    mean: np.ndarray
    squares: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, area: np.ndarray, has_level: bool) -> "Moments":
        """Moments of `(..., [level,] *space)`; `area` `(*space)` weighs the cells, NaN are left out, all else is averaged."""
        values = np.asarray(values, np.float64)
        space = tuple(range(-area.ndim, 0))
        others = tuple(range(values.ndim - area.ndim - has_level))
        axes = others + space
        good = np.isfinite(values)
        if good.all():
            count = np.prod([values.shape[axis] for axis in others], dtype=np.float64)
            shape = [values.shape[axis] for axis in range(values.ndim) if axis - values.ndim not in space]
            weight = np.full(shape[len(others) :], count * area.sum())
            weights = area
        else:
            weights = good * area
            weight = weights.sum(axis=axes)
            low, high = (np.where(good, values, sign * np.inf) for sign in (1, -1))
            values = np.where(good, values, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(weight > 0, (values * weights).sum(axis=axes) / weight, 0.0)
        deviations = values - (mean.reshape(-1, *[1] * area.ndim) if has_level else mean)
        squares = (deviations * deviations * weights).sum(axis=axes)
        low, high = (values, values) if good.all() else (low, high)
        return cls(weight, mean, squares, low.min(axis=axes), high.max(axis=axes))

    @classmethod
    def none(cls, levels: int | None) -> "Moments":
        """Moments of no values."""
        shape = () if levels is None else (levels,)
        zero, infinite = np.zeros(shape), np.full(shape, np.inf)
        return cls(zero, zero, zero, infinite, -infinite)

    def merge(self, other: "Moments") -> "Moments":
        """Moments of the values of both."""
        weight = self.weight + other.weight
        share = np.divide(other.weight, weight, out=np.zeros_like(weight), where=weight > 0)
        apart = other.mean - self.mean
        return Moments(
            weight,
            self.mean + apart * share,
            self.squares + other.squares + apart * apart * self.weight * share,
            np.minimum(self.minimum, other.minimum),
            np.maximum(self.maximum, other.maximum),
        )

    @property
    def std(self) -> np.ndarray:
        """Population standard deviation; NaN where there are no values."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.sqrt(self.squares / self.weight)

    def or_nan(self, values: np.ndarray) -> np.ndarray:
        """The values, NaN where there are none to speak of."""
        return np.where(self.weight > 0, values, np.nan)


def of_block(array: xr.Variable, start: int, stop: int, end: int, area: np.ndarray) -> tuple[Moments, Moments]:
    """Moments of the times `start` to `stop` of a field, and of the changes that begin there.

    Args:
      array: `(time, [member,] [level,] *space)`, lazy.
      start, stop: the block; `end` is the end of the period: the change from `stop - 1` to `stop` counts if it is within.
      area: `(*space)`.
    """
    has_level = vertical_of(array.dims) is not None
    values = np.asarray(array.isel(time=slice(start, min(stop + 1, end))).values, np.float64)
    return Moments.of(values[: stop - start], area, has_level), _of_changes(array, values, area)


def of_seam(before: xr.Variable, last: int, after: xr.Variable, first: int, area: np.ndarray):
    """Moments of no values, and of the change from the time `last` of one store to the time `first` of the next."""
    values = [np.asarray(array.isel(time=[at]).values) for array, at in ((before, last), (after, first))]
    changes = _of_changes(before, np.concatenate(values).astype(np.float64), area)
    return Moments.none(before.sizes.get(vertical_of(before.dims))), changes


def _of_changes(array, values, area):
    if len(values) < 2:
        return Moments.none(array.sizes.get(vertical_of(array.dims)))
    return Moments.of(np.diff(values, axis=0), area, vertical_of(array.dims) is not None)


def merged(parts: Iterable[tuple[Moments, Moments]]) -> tuple[Moments, Moments]:
    """Moments of values and of changes over all blocks."""
    first, *rest = parts
    for part in rest:
        first = first[0].merge(part[0]), first[1].merge(part[1])
    return first


def table(values: Moments, changes: Moments | None) -> np.ndarray:
    """The statistics in their order, `(statistic, [level])`; differences are NaN for a static field (no `changes`)."""
    absent = np.full_like(values.mean, np.nan)
    rows = [
        values.or_nan(values.mean),
        values.std,
        values.or_nan(values.minimum),
        values.or_nan(values.maximum),
        absent if changes is None else changes.or_nan(changes.mean),
        absent if changes is None else changes.std,
    ]
    return np.stack(rows)


def write_statistics(
    stores: Sequence,
    output,
    start=None,
    end=None,
    settings: str | None = None,
    over: Over = one_by_one,
    report: Report = silent,
) -> None:
    """Writes the statistics of analysis stores, one after another in time, as a NetCDF file at `output`.

    Fields that are done are kept beside the output, so a killed run goes on with the next.

    Args:
      stores: a path, or several; output: path of the file.
      start, end: of the period, both included (see `emulator.planet.calendar.within`); None is open.
      settings: text of all that the values depend on besides the stores, for the fingerprint; None: of the period.
      over, report: see `emulator.parallel.tasks`.

    Raises `ValueError` when the period holds no times, or a field of a network no values at all.
    """
    stores = [stores] if isinstance(stores, str | Path) else stores
    output, opened = Path(output), [open_analysis(path) for path in stores]
    settings = settings or json.dumps([str(start), str(end)])
    own = fingerprint(settings, *(str(each.attrs.get("fingerprint")) for each in opened))
    if _finished_fingerprint(output) == own:
        log.info("%s is complete for this store and period", output)
        return
    store, series = opened[0], AnalysisSeries.of(opened, start, end)
    if len(series.times) < 2:
        raise ValueError(f"Expected at least 2 times of {stores[0]} in the period, got 1: {series.times[0]}")
    area, moving = store["cell_area"].values, moving_variables(store)
    tables = _kept(output, own)
    weights = {name: area if set(store["cell_area"].dims) <= set(store[name].dims) else np.ones(()) for name in moving}
    tasks = {name: _tasks(series, opened, name, weights[name]) for name in moving if name not in tables}
    done, total = 0, sum(map(len, tasks.values()))
    for name, own_tasks in tasks.items():
        parts = over(_call, own_tasks, lambda count, done=done: report(done + count, total, ""))
        done += len(own_tasks)
        tables[name] = table(*merged(parts))
        _keep(output, own, name, tables[name])
    for name in variables_by_role(store)["static"]:
        tables[name] = table(Moments.of(store[name].values, area, vertical_of(store[name].dims) is not None), None)
    if empty := [name for name in moving if not np.isfinite(tables[name][:4]).all()]:
        raise ValueError(f"Expected values of {', '.join(empty)} on every level of {stores[0]}, got missing ones alone")
    write_netcdf(_as_dataset(tables, opened, series.times, own), output)
    shutil.rmtree(_folder(output), ignore_errors=True)
    log.info("%s: %d fields, %s to %s", output, len(tables), series.times[0], series.times[-1])


def _call(function: Callable, *arguments) -> tuple[Moments, Moments]:
    return function(*arguments)


def _tasks(series: AnalysisSeries, stores: Sequence[xr.Dataset], name: str, area: np.ndarray) -> list[tuple]:
    """A field's blocks of times, store by store, and the changes from a store to the next where the two meet."""
    tasks: list[tuple] = []
    before = None
    for stretch, start in zip(series.stretches, series.edges, strict=False):
        array, last = stores[stretch.store][name], stretch.first + stretch.dataset.sizes["time"]
        if before is not None and not series.breaks[start - 1]:
            tasks.append((of_seam, *before, array.variable, stretch.first, area))
        tasks += [(of_block, array.variable, *edges, last, area) for edges in _blocks(array, stretch.first, last)]
        before = array.variable, last - 1
    return tasks


def _blocks(array, first: int, last: int) -> list[tuple[int, int]]:
    """Times from `first` to `last` in blocks whose edges are multiples of their length, as the store's files are."""
    one = 4 * array[0].size
    length = min(64, max(1, BLOCK_BYTES // one))
    edges = [first, *range((first // length + 1) * length, last, length), last]
    return list(zip(edges[:-1], edges[1:], strict=True))


def _as_dataset(tables: Mapping[str, np.ndarray], stores: Sequence[xr.Dataset], times: np.ndarray, own: str):
    """What is written: `(statistic, <vertical>)` or `(statistic,)`, float64."""
    store = stores[0]
    variables = {
        name: (
            ("statistic", vertical_of(store[name].dims))[: values.ndim],
            values,
            {"units": store[name].attrs.get("units", "")},
        )
        for name, values in sorted(tables.items())
    }
    coordinates: dict = {"statistic": list(STATISTICS)}
    for axis in (axis for axis in VERTICAL if axis in store.dims):
        coordinates[axis] = (axis, store[axis].values, store[axis].attrs)
    attributes = {
        "emulator_schema": SCHEMA,
        "period_start": str(times[0]),
        "period_end": str(times[-1]),
        "samples": len(times),
        "time_step_seconds": store.attrs["time_step_seconds"],
        "store_fingerprint": ", ".join(str(each.attrs.get("fingerprint")) for each in stores),
        "fingerprint": own,
    }
    return xr.Dataset(variables, coordinates, attributes)


def _finished_fingerprint(output: Path) -> str | None:
    try:
        with xr.open_dataset(output) as dataset:
            return dataset.attrs.get("fingerprint")
    except (OSError, ValueError):
        return None


def _folder(output: Path) -> Path:
    return output.with_name(output.name + ".progress")


def _kept(output: Path, own: str) -> dict[str, np.ndarray]:
    """Tables of the fields that an earlier start has finished for the same stores and settings."""
    entries = [json.loads(file.read_text()) for file in _folder(output).glob("*.json")]
    return {entry["name"]: np.array(entry["table"]) for entry in entries if entry.get("fingerprint") == own}


def _keep(output: Path, own: str, name: str, values: np.ndarray) -> None:
    with whole_file(_folder(output) / f"{name}.json") as partial:
        partial.write_text(json.dumps({"name": name, "fingerprint": own, "table": values.tolist()}))
