"""Mean, spread, extremes and step differences of fields, area-weighted, and every cell's envelope, in one pass over the data.

All of it is merged from moments in float64, in any split (`emulator.store.moments`).
"""

import dataclasses
import functools
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
from emulator.store.analysis import AnalysisSeries, check_alike, open_analysis
from emulator.store.masks import cut, domain_of
from emulator.store.moments import Cells, Moments, std_about_mean
from emulator.store.schema import fingerprint, moving_variables, variables_by_role

BLOCK_BYTES = 32 << 20  # of float32; a block takes a few times that as float64
MERGED_BYTES = 1 << 30  # of the cells' moments of one field, which its tasks return
STATISTICS = ("mean", "std", "minimum", "maximum", "difference_mean", "difference_std", "std_about_time_mean")
ENVELOPE = ("time_mean", "lowest", "highest")  # of every cell; in the file as `<field>:time_mean`
SCHEMA = "statistics-1"

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """What one task finds of a field.

    Attributes:
      blocks: moments of the values and of the changes of every block of times.
      cells: moments of every cell by itself; None where the task has no values of its own.
    """

    blocks: list[tuple[Moments, Moments]]
    cells: Moments | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """The statistics of a field: the `table` `(statistic, [level])`, float64, and of a field that moves its envelope.

    `cells`: by the names in `ENVELOPE`, `([level,] *space)` float32, NaN where a cell never has a value. `fewest`: values of
    the cell that has fewest of those that have any, -1 where that is not known.
    """

    table: np.ndarray
    cells: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    fewest: int = -1


def _read(array: xr.Variable, start: int, stop: int) -> np.ndarray:
    return np.asarray(array.isel(time=slice(start, stop)).values, np.float64)


def _of_values(array: xr.Variable, values: np.ndarray, count: int, area: np.ndarray) -> tuple[Moments, Moments]:
    """Of the first `count` of some times, and of the changes between all of them."""
    return Moments.of(values[:count], area, vertical_of(array.dims) is not None), _of_changes(array, values, area)


def of_run(
    array: xr.Variable, edges: Sequence[int], end: int, area: np.ndarray, exists: np.ndarray | None = None
) -> Part:
    """Of blocks of times one after the other, and of the changes that begin there.

    Args:
      array: `(time, [member,] [vertical,] *space)`, lazy.
      edges: of the blocks; `end` is the end of the period, beyond which no change counts.
      area: `(*space)`. exists: where the field does, `([vertical,] *space)` bool; None: everywhere.
    """
    cells, blocks = Cells(array.shape[1 + ("member" in array.dims) :]), []
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        values = cut(_read(array, start, min(stop + 1, end)), exists)
        cells.add(values[: stop - start])
        blocks.append(_of_values(array, values, stop - start, area))
    return Part(blocks, cells.moments())


def of_seam(
    before: xr.Variable, last: int, after: xr.Variable, first: int, area: np.ndarray, exists: np.ndarray | None = None
) -> Part:
    """Of no values, and of the change from the time `last` of one store to the time `first` of the next."""
    values = [np.asarray(array.isel(time=[at]).values) for array, at in ((before, last), (after, first))]
    changes = _of_changes(before, cut(np.concatenate(values).astype(np.float64), exists), area)
    return Part([(Moments.none(before.sizes.get(vertical_of(before.dims))), changes)])


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


def table(values: Moments, changes: Moments | None, about: np.ndarray | None = None) -> np.ndarray:
    """The statistics in their order, `(statistic, [level])`; NaN are those of changes (none of a static field), and `about`.

    `about`: the standard deviation about the cells' own means.
    """
    absent = np.full_like(values.mean, np.nan)
    rows = [
        values.or_nan(values.mean),
        values.std,
        values.or_nan(values.minimum),
        values.or_nan(values.maximum),
        absent if changes is None else changes.or_nan(changes.mean),
        absent if changes is None else changes.std,
        absent if about is None else about,
    ]
    return np.stack(rows)


def found(parts: Sequence[Part], area: np.ndarray) -> Found:
    """The statistics of a field from those of its tasks."""
    cells = functools.reduce(Moments.merge, [part.cells for part in parts if part.cells is not None])
    values, changes = merged(block for part in parts for block in part.blocks)
    envelope = (cells.or_nan(each).astype(np.float32) for each in (cells.mean, cells.minimum, cells.maximum))
    fewest = int(cells.weight[cells.weight > 0].min(initial=cells.weight.max()))
    return Found(
        table(values, changes, std_about_mean(cells, area)), dict(zip(ENVELOPE, envelope, strict=True)), fewest
    )


def write_statistics(
    stores: Sequence,
    output,
    start=None,
    end=None,
    settings: str | None = None,
    over: Over = one_by_one,
    report: Report = silent,
    scenarios: Sequence = (),
) -> None:
    """Writes the statistics of analysis stores, one after another in time, as a NetCDF file at `output`.

    Fields that are done are kept beside the output, so a killed run goes on with the next.

    Args:
      stores: a path, or several; output: path of the file.
      start, end: of the period, both included (see `emulator.planet.calendar.within`); None is open.
      settings: text of all that the values depend on besides the stores, for the fingerprint; None: of the period.
      over, report: see `emulator.parallel.tasks`.
      scenarios: paths of further stores of any times, each by itself: no change leads from one to another.

    Raises `ValueError` when the period holds no times, or a field of a network no values at all.
    """
    groups = [[stores] if isinstance(stores, str | Path) else list(stores), *([path] for path in scenarios)]
    output, opened = Path(output), [[open_analysis(path) for path in group] for group in groups]
    settings, marks = settings or json.dumps([str(start), str(end)]), [_fingerprints(group) for group in opened]
    own = fingerprint(settings, *marks[0], *(f"scenario {mark}" for (mark,) in marks[1:]))
    if _finished_fingerprint(output) == own:
        log.info("%s is complete for this store and period", output)
        return
    store, series = opened[0][0], [AnalysisSeries.of(group, start, end) for group in opened]
    _check(series, groups)
    area, moving = store["cell_area"].values, moving_variables(store)
    results = _kept(output, own)
    weights = {name: area if set(store["cell_area"].dims) <= set(store[name].dims) else np.ones(()) for name in moving}
    pairs, count = list(zip(series, opened, strict=True)), sum(len(one.times) for one in series)
    tasks = {
        name: [task for one, group in pairs for task in _tasks(one, group, name, weights[name], count)]
        for name in moving
        if name not in results
    }
    done, total = 0, sum(map(len, tasks.values()))
    for name, own_tasks in tasks.items():
        parts = over(_call, own_tasks, lambda count, done=done: report(done + count, total, ""))
        done += len(own_tasks)
        results[name] = found(parts, weights[name])
        _keep(output, own, name, results[name])
    for name in variables_by_role(store)["static"]:
        values, has_level = cut(store[name].values, domain_of(store, name)), vertical_of(store[name].dims) is not None
        results[name] = Found(table(Moments.of(values, area, has_level), None))
    if empty := [name for name in moving if not np.isfinite(results[name].table[:4]).all()]:
        raise ValueError(
            f"Expected values of {', '.join(empty)} on every level of {groups[0][0]}, got missing ones alone"
        )
    attributes = {
        "emulator_schema": SCHEMA,
        "period_start": str(min(one.times[0] for one in series)),
        "period_end": str(max(one.times[-1] for one in series)),
        "samples": count,
        "time_step_seconds": store.attrs["time_step_seconds"],
        "store_fingerprint": ", ".join(mark for group in marks for mark in group),
        "fingerprint": own,
    }
    write_netcdf(_as_dataset(results, store, attributes), output)
    shutil.rmtree(_folder(output), ignore_errors=True)
    log.info("%s: %d fields, %s to %s", output, len(results), attributes["period_start"], attributes["period_end"])


def _fingerprints(stores: Sequence[xr.Dataset]) -> list[str]:
    return [str(each.attrs.get("fingerprint")) for each in stores]


def _check(series: Sequence[AnalysisSeries], groups: Sequence[Sequence]) -> None:
    """Raises `ValueError` for a series of one time, and for scenarios that are not like the first store."""
    first = series[0]
    for one, group in zip(series, groups, strict=True):
        if len(one.times) < 2:
            raise ValueError(f"Expected at least 2 times of {group[0]} in the period, got 1: {one.times[0]}")
        if one is not first:
            check_alike(first.stretches[0].dataset, one.stretches[0].dataset, None)
            if abs(one.step_seconds - first.step_seconds) > 1e-3:
                steps = f"{first.step_seconds / 3600:g} h and {one.step_seconds / 3600:g} h"
                raise ValueError(f"Expected scenarios of one time step, got {steps} ({groups[0][0]} and {group[0]})")


def _call(function: Callable, *arguments) -> Part:
    return function(*arguments)


def _tasks(series: AnalysisSeries, stores: Sequence[xr.Dataset], name: str, area: np.ndarray, count: int) -> list:
    """A field's runs of times, store by store, and the changes from a store to the next where the two meet.

    `count`: times of all series together, which say how long a run is: what all of them return has to fit in memory.
    """
    tasks: list[tuple] = []
    before, exists = None, domain_of(stores[0], name)
    for stretch, start in zip(series.stretches, series.edges, strict=False):
        array, last = stores[stretch.store][name], stretch.first + stretch.dataset.sizes["time"]
        if before is not None and not series.breaks[start - 1]:
            tasks.append((of_seam, *before, array.variable, stretch.first, area, exists))
        one = 4 * array[0].size
        length = min(64, max(1, BLOCK_BYTES // one))
        blocks = _edges(stretch.first, last, length)
        most = max(8, MERGED_BYTES // (10 * one))
        together = -(-count // (length * most))
        for n in range(0, len(blocks) - 1, together):
            tasks.append((of_run, array.variable, blocks[n : n + together + 1], last, area, exists))
        before = array.variable, last - 1
    return tasks


def _edges(first: int, last: int, length: int) -> list[int]:
    """Edges of blocks of times from `first` to `last`: multiples of their length, as the store's files begin."""
    return [first, *range((first // length + 1) * length, last, length), last]


def _as_dataset(results: Mapping[str, Found], store: xr.Dataset, attributes: Mapping) -> xr.Dataset:
    """What is written: `(statistic, <vertical>)` or `(statistic,)`, float64, and the envelope of what moves, float32."""
    variables: dict[str, tuple] = {}
    for name, result in sorted(results.items()):
        units, members = {"units": store[name].attrs.get("units", "")}, store[name].sizes.get("member", 1)
        own = units | ({"fewest_values": result.fewest} if 0 <= result.fewest < attributes["samples"] * members else {})
        variables[name] = ("statistic", vertical_of(store[name].dims))[: result.table.ndim], result.table, own
        dims = [dim for dim in store[name].dims if dim not in ("time", "member")]
        variables |= {f"{name}:{label}": (dims, values, units) for label, values in result.cells.items()}
    coordinates: dict = {"statistic": list(STATISTICS)}
    coordinates |= {
        axis: store[axis].variable for axis in (*VERTICAL, "latitude", "longitude", "y", "x") if axis in store.coords
    }
    return xr.Dataset(variables, coordinates, dict(attributes))


def _finished_fingerprint(output: Path) -> str | None:
    """The fingerprint of a file that holds all that is found now."""
    try:
        with xr.open_dataset(output) as dataset:
            complete = set(STATISTICS) <= set(dataset.get("statistic", xr.DataArray([])).values.tolist())
            return dataset.attrs.get("fingerprint") if complete else None
    except (OSError, ValueError):
        return None


def _folder(output: Path) -> Path:
    """Where fields that are done are kept until the file is written."""
    return output.with_name(output.name + ".progress")


def _kept(output: Path, own: str) -> dict[str, Found]:
    """What an earlier start has finished, for the same stores and settings, by field."""
    results = {}
    for file in _folder(output).glob("*.npz"):
        with np.load(file) as entry:
            if str(entry["fingerprint"]) == own:
                cells = {label: entry[label] for label in ENVELOPE}
                results[str(entry["name"])] = Found(entry["table"], cells, int(entry.get("fewest", -1)))
    return results


def _keep(output: Path, own: str, name: str, result: Found) -> None:
    """Keeps a field that is done."""
    with whole_file(_folder(output) / f"{name}.npz") as partial, open(partial, "wb") as stream:
        np.savez(stream, name=name, fingerprint=own, table=result.table, fewest=result.fewest, **result.cells)
