"""The climatology store of an analysis store: hour and day of the year, 61-day triangular window."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.store.analysis import open_analysis
from emulator.store.climatology import DAYS, Sums, hour_and_day
from emulator.store.marks import mark, marks
from emulator.store.record import Record
from emulator.store.regions import create, finish, finished_fingerprint, write_region
from emulator.store.schema import variables_by_role
from pipelines.config import DaskConfig, StatsConfig
from pipelines.engine import workers
from pipelines.load import fingerprint
from pipelines.progress import progress

log = logging.getLogger(__name__)
BLOCK_BYTES = 32 << 20  # of float32 that are read at once
SCHEMA = "climatology-1"


def climatology(config: StatsConfig) -> None:
    """Write `config.climatology`, field by field and level by level as memory allows; a killed run goes on where it was.

    Every value of the store is read once where the sums of a whole field fit into `memory_gigabytes`. Raises `ValueError`
    for a period that covers less than a year.
    """
    stores = [open_analysis(path) for path in (config.store, *config.later_stores)]
    store, origin = stores[0], ", ".join(str(each.attrs.get("fingerprint")) for each in stores)
    output, window = config.climatology, config.climatology_window
    paths = {"output": Path("s"), "store": Path("s"), "later_stores": [], "climatology": Path("c")}
    plain = config.model_copy(update={"dask": DaskConfig(), "memory_gigabytes": 1.0, **paths})
    own = fingerprint(plain, origin)
    if finished_fingerprint(output) == own:
        log.info("%s is complete for this store and period", output)
        return
    record = Record.of(stores, config.period.start, config.period.end)
    parts = [stretch.dataset for stretch in record.stretches]
    hours, days = hour_and_day(record.times)
    if len(np.unique(days)) < 355:  # 360-day calendars lack six days of a leap year
        raise ValueError(
            f"Expected a period of at least a year for a climatology of {config.store}, got {len(np.unique(days))} days of "
            f"the year from {record.times[0]} to {record.times[-1]}"
        )
    hours = np.unique(hours)
    roles = variables_by_role(store)
    names = [name for role in ("prognostic", "forcing", "diagnostic") for name in roles[role]]
    template = _template(parts[0], names, hours)
    template.attrs = {
        "emulator_schema": SCHEMA,
        "fingerprint": own,
        "window_days": window,
        "period_start": str(record.times[0]),
        "period_end": str(record.times[-1]),
        "store_fingerprint": origin,
    }
    create(output, template, {"dayofyear": 1, "level": 1}, {"dayofyear": DAYS, "level": 1})
    pieces = [piece for name in names for piece in _pieces(parts[0][name], len(hours), config.memory_gigabytes)]
    done = marks(output)
    left = [piece for piece in pieces if _key(*piece) not in done]
    with workers(config.dask) as over, progress("climatology", len(pieces), len(pieces) - len(left)) as report:
        for number, (name, levels) in enumerate(left, start=len(pieces) - len(left) + 1):
            chosen = {} if levels is None else {"level": levels}
            values = (
                _sums([part[name].isel(chosen) for part in parts], hours, over).climatology(window).astype(np.float32)
            )
            start = {} if levels is None else {"level": levels.start}
            write_region(output, name, values, start)
            mark(output, _key(name, levels))
            report(number, name)
    finish(output, [_key(*piece) for piece in pieces])
    log.info("%s: %d fields, %s to %s", output, len(names), record.times[0], record.times[-1])


def _pieces(field: xr.DataArray, hours: int, gigabytes: float) -> list[tuple[str, slice | None]]:
    """A field whole, or some of its levels at a time: sums in float64, twice, and their smoothed means at once."""
    if "level" not in field.dims:
        return [(str(field.name), None)]
    one = 3 * 8 * hours * DAYS * field.isel(time=0, level=0).size
    step = int(np.clip(gigabytes * 1e9 // one, 1, field.sizes["level"]))
    return [
        (str(field.name), slice(n, min(n + step, field.sizes["level"]))) for n in range(0, field.sizes["level"], step)
    ]


def _key(name: str, levels: slice | None) -> str:
    return name if levels is None else f"{name}.{levels.start:04d}-{levels.stop:04d}"


def _sums(fields: Sequence[xr.DataArray], hours: np.ndarray, over) -> Sums:
    """Blocks are read by the workers and added up here, in their order: the result does not depend on who read what."""
    rest = fields[0].isel(time=0).shape
    found = Sums(hours, np.zeros((len(hours), DAYS, *rest)), np.zeros((len(hours), DAYS, *[1] * len(rest)), np.int32))
    for field in fields:
        found = _added_field(found, field, over)
    return found


def _added_field(found: Sums, field: xr.DataArray, over) -> Sums:
    times = field["time"].values
    length = max(1, BLOCK_BYTES // (4 * field.isel(time=0).size))
    for first in range(0, len(times), 4 * length):
        edges = range(first, min(first + 4 * length, len(times)), length)
        tasks = [(field.variable, start, min(start + length, len(times))) for start in edges]
        for (_, start, stop), values in zip(tasks, over(_read, tasks, lambda count: None), strict=True):
            found = _added(found, values, times[start:stop])
    return found


def _read(array: xr.Variable, start: int, stop: int) -> np.ndarray:
    return np.asarray(array.isel(time=slice(start, stop)).values, np.float32)


def _added(sums: Sums, values: np.ndarray, times: np.ndarray) -> Sums:
    """In place where every value is there: a new array of sums for every block would cost more than reading it."""
    if not np.isfinite(values).all():
        return sums.merge(Sums.of(values, times, sums.hours))
    hour, day = hour_and_day(times)
    for slot, at, value in zip(np.searchsorted(sums.hours, hour), day - 1, values, strict=True):
        sums.total[slot, at] += value
        sums.count[slot, at] += 1
    return sums


def _template(part: xr.Dataset, names, hours) -> xr.Dataset:
    fields = {}
    for name in names:
        dims = ("hour", "dayofyear", *part[name].dims[1:])
        shape = (len(hours), DAYS, *part[name].shape[1:])
        attributes = {"units": part[name].attrs.get("units", ""), "cell_methods": "time: mean over years"}
        fields[name] = (dims, np.broadcast_to(np.float32(0), shape), attributes)
    fields["cell_area"] = part["cell_area"].variable
    kept = {n: c.variable for n, c in part.coords.items() if n != "time" and "time" not in c.dims}
    coordinates = {"hour": hours.astype(np.int64), "dayofyear": np.arange(1, DAYS + 1), **kept}
    return xr.Dataset(fields, coordinates)
