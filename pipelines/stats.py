"""Statistics of an analysis store over the training period."""

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.files.netcdf import write_netcdf
from emulator.files.whole_file import whole_file
from emulator.store.analysis import open_analysis
from emulator.store.record import Record
from emulator.store.schema import variables_by_role
from emulator.store.statistics import Moments, as_dataset, merged, of_block, of_seam, table
from pipelines.climatology import climatology
from pipelines.config import DaskConfig, StatsConfig
from pipelines.engine import workers
from pipelines.load import fingerprint
from pipelines.progress import progress

log = logging.getLogger(__name__)
BLOCK_BYTES = 32 << 20  # of float32; a block takes a few times that as float64


def stats(config: StatsConfig) -> None:
    """Write the statistics, and the climatology where one is asked for.

    Fields that are done are kept beside the output, so a killed stage goes on with the next. Raises `ValueError` when the
    period holds no times, or a network's field no values at all.
    """
    _statistics(config)
    if config.climatology is not None:
        climatology(config)


def _statistics(config: StatsConfig) -> None:
    stores = [open_analysis(path) for path in (config.store, *config.later_stores)]
    store = stores[0]
    paths = {"output": Path("statistics"), "store": Path("store"), "later_stores": [], "climatology": None}
    plain = config.model_copy(update={"dask": DaskConfig(), "climatology_window": 61, "memory_gigabytes": 2.0, **paths})
    mark = fingerprint(plain, *(str(each.attrs.get("fingerprint")) for each in stores))
    if _mark(config.output) == mark:
        log.info("%s is complete for this store and period", config.output)
        return
    record = Record.of(stores, config.period.start, config.period.end)
    period = record.times
    if len(period) < 2:
        raise ValueError(f"Expected at least 2 times of {config.store} in the period, got {len(period)}: {period[0]}")
    area = store["cell_area"].values
    roles = variables_by_role(store)
    moving = [name for role in ("prognostic", "forcing", "diagnostic") for name in roles[role]]
    done = _kept(config.output, mark)
    tasks = {name: _tasks(record, stores, name, area) for name in moving if name not in done}
    with workers(config.dask) as over, progress("stats", sum(map(len, tasks.values()))) as report:
        before = 0
        for name, own in tasks.items():
            parts = over(_moments, own, lambda count, before=before: report(before + count, ""))
            before += len(own)
            _keep(config.output, mark, name, table(*merged(parts)))
    tables = _kept(config.output, mark)
    for name in roles["static"]:
        tables[name] = table(Moments.of(store[name].values, area, "level" in store[name].dims), None)
    if empty := [name for name in moving if not np.isfinite(tables[name][:4]).all()]:
        raise ValueError(
            f"Expected values of {', '.join(empty)} on every level of {config.store}, got missing ones alone"
        )
    write_netcdf(
        as_dataset({n: tables[n] for n in sorted(tables)}, store, _attributes(stores, period, mark)), config.output
    )
    shutil.rmtree(_folder(config.output), ignore_errors=True)
    log.info("%s: %d fields, %s to %s", config.output, len(tables), period[0], period[-1])


def _moments(function: Callable, *arguments) -> tuple[Moments, Moments]:
    return function(*arguments)


def _tasks(record: Record, stores: Sequence[xr.Dataset], name: str, area: np.ndarray) -> list[tuple]:
    """A field's blocks of times, store by store, and the changes from a store to the next where the two meet."""
    tasks: list[tuple] = []
    before = None
    for stretch, start in zip(record.stretches, record.edges, strict=False):
        array, last = stores[stretch.store][name], stretch.first + stretch.dataset.sizes["time"]
        if before is not None and not record.breaks[start - 1]:
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


def _attributes(stores: Sequence[xr.Dataset], period: np.ndarray, mark: str) -> dict:
    return {
        "period_start": str(period[0]),
        "period_end": str(period[-1]),
        "samples": len(period),
        "time_step_seconds": stores[0].attrs["time_step_seconds"],
        "store_fingerprint": ", ".join(str(each.attrs.get("fingerprint")) for each in stores),
        "fingerprint": mark,
    }


def _mark(output: Path) -> str | None:
    try:
        with xr.open_dataset(output) as dataset:
            return dataset.attrs.get("fingerprint")
    except (OSError, ValueError):
        return None


def _folder(output: Path) -> Path:
    return output.with_name(output.name + ".progress")


def _kept(output: Path, mark: str) -> dict[str, np.ndarray]:
    """Tables of the fields that an earlier start has finished for the same store and period."""
    files = _folder(output).glob("*.json")
    found = [json.loads(file.read_text()) for file in files]
    return {entry["name"]: np.array(entry["table"]) for entry in found if entry["mark"] == mark}


def _keep(output: Path, mark: str, name: str, values: np.ndarray) -> None:
    with whole_file(_folder(output) / f"{name}.json") as partial:
        partial.write_text(json.dumps({"name": name, "mark": mark, "table": values.tolist()}))
