"""Forecasts as datasets: in memory, or in a store that is filled group by group and can be stopped anywhere."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.files.background import BackgroundWriter
from emulator.forecasting.beyond_training import Note, beyond_training, noted
from emulator.forecasting.blocks import Block
from emulator.forecasting.datasets import cells_in, dataset_of
from emulator.forecasting.forecaster import Forecaster
from emulator.forecasting.ocean_store import OceanStore
from emulator.forecasting.options import ThinOptions
from emulator.forecasting.schedule import Schedule
from emulator.forecasting.sea import PRECISE
from emulator.forecasting.sharing import Restarts, Rows, agreed, anywhere, part_key, settle, wait
from emulator.model.coupled import SEA_TEMPERATURE
from emulator.options import as_before
from emulator.planet.calendar import lead_text
from emulator.store.forecast import (
    create_forecast,
    finish_forecast,
    open_forecast,
    whole_inits,
    write_forecast_init,
)
from emulator.store.marks import mark, progress_path

log = logging.getLogger(__name__)
Progress = Callable[[str, int], contextlib.AbstractContextManager]


@contextlib.contextmanager
def silent(name: str, total: int):
    """Progress that nobody watches: yields a function of (done, text, seconds left)."""
    yield lambda done, text="", left=None: None


@dataclasses.dataclass(frozen=True)
class Output:
    """A forecast store to be written.

    Attributes:
      path: where the finished store will be.
      attributes: of the store.
      weights: digests of the models' weights, which decide with the store and the initial times what is in it.
      thin: what is written; None: everything.
      share: `(i, n)`: of n processes or jobs, counted from 1, this one computes every n-th group of initial times.
    """

    path: Path
    attributes: Mapping = dataclasses.field(default_factory=dict)
    weights: Sequence = ()
    thin: ThinOptions | None = None
    share: tuple[int, int] = (1, 1)


def in_memory(
    forecaster: Forecaster, times: Sequence, schedule: Schedule, attributes: Mapping, thin: ThinOptions | None = None
) -> xr.Dataset:
    """Forecasts `(init_time, lead_time, [member,] level, latitude, longitude)`, with the bits that a store would hold.

    Raises `ValueError` for initial times whose states the analysis lacks.
    """
    forecaster.check(times)
    leads, size, forecasts = schedule.leads(forecaster.forcing.step), forecaster.group_size, []
    for first in range(0, len(times), size):
        group = times[first : first + size]
        blocks = [block.fields() for _, block in forecaster.blocks(group, schedule)]
        for row in range(len(group)):
            # the first block does not know yet what steps record
            names = dict.fromkeys(name for block in blocks for name in block)
            fields = {name: _along_leads(blocks, name, row) for name in names}
            forecaster.see({name: field[None] for name, field in fields.items()}, [group[row]], leads)
            forecasts.append(dataset_of(forecaster, fields, leads, thin, schedule.mean))
    static = [name for name, field in forecasts[0].data_vars.items() if "lead_time" not in field.dims]
    whole = xr.concat([one.drop_vars(static) for one in forecasts], "init_time")
    whole = whole.assign_coords(init_time=list(times)).assign({name: forecasts[0][name] for name in static})
    beyond = beyond_training([forecaster.forcing.trained.beyond, forecaster.trained_sea.beyond])
    return whole.assign_attrs({**forecasts[0].attrs, **attributes, **_of_ocean(forecaster), **beyond})


def _of_ocean(forecaster: Forecaster) -> dict[str, str]:
    """What a store's attributes say of the ocean that its forecasts are coupled with."""
    return {} if forecaster.sea is None else {"ocean": json.dumps(forecaster.sea.record, sort_keys=True)}


def _along_leads(blocks: Sequence[Mapping], name: str, row: int) -> np.ndarray:
    shape = next(block[name] for block in blocks if name in block)[row].shape[1:]
    parts = []
    for block in blocks:
        length = next(iter(block.values())).shape[1]
        parts.append(block[name][row] if name in block else np.zeros((length, *shape), np.float32))
    return np.concatenate(parts)


def write(
    output: Output, forecaster: Forecaster, times: Sequence, schedule: Schedule, progress: Progress = silent
) -> None:
    """Write the forecasts from all initial times, or this process's share; whoever writes the last finishes the store.

    Each initial time is written once; a stopped call goes on where it was, also inside a forecast, and ends with the same
    numbers. A store that is complete for the same models, times and options is left alone. Raises `ValueError` for initial
    times whose states the analysis lacks.
    """
    path, thin, space = Path(output.path), output.thin, forecaster.space
    output = dataclasses.replace(output, attributes={**output.attributes, **_of_ocean(forecaster)})
    fingerprint = _fingerprint(output, forecaster, times, schedule)
    ocean = None if forecaster.sea is None else OceanStore.of(forecaster.sea.output, schedule)
    paths = [path] if ocean is None else [ocean.path, path]
    if anywhere(all(is_complete(one, fingerprint) for one in paths), space):
        log.info("%s is complete", path)
        return
    forecaster.check(times)
    leads = schedule.leads(forecaster.forcing.step)
    rows = _share_rows(forecaster, thin)
    done = _begun(output, forecaster, times, schedule, rows, ocean, fingerprint)
    size, (number, count) = forecaster.group_size, output.share
    groups = [list(range(start, min(start + size, len(times)))) for start in range(0, len(times), size)]
    left = [group for group in groups[number - 1 :: count] if not done.issuperset(group)]
    process = f"{number}-{space.rank}"
    note = Note.begin(progress_path(path), process, forecaster.forcing.trained)
    of_sea = Note.begin(
        progress_path(path), f"{process}-sea", forecaster.trained_sea
    )  # the writer's, as its leads arrive
    with progress(path.stem, sum(map(len, left)) * len(leads)) as report, BackgroundWriter() as writer:
        finished = 0
        for group in left:
            restarts = Restarts(path, space, group[0], forecaster.batch_size)
            position, at, ocean_at = restarts.load(), 0, 0
            if position is not None:
                at = schedule.numbers.index(position.number) + 1
                ocean_at = ocean.begin(position.number) if ocean else 0
                log.info("%s: resuming after lead %s", path, lead_text(leads[at - 1]))
            inits = [times[i] for i in group]
            for here, block in forecaster.blocks(inits, schedule, position):
                length = block.leads
                last = at + length == len(leads)
                options = leads[at : at + length], thin, schedule.mean
                note.write()
                if ocean:
                    named = functools.partial(dataset_of, ocean.fields)
                    writer.submit(ocean.write, block.ocean, group, ocean_at, last, named)
                    ocean_at += block.ocean.leads if block.ocean else 0
                writer.submit(_write_block, forecaster, rows, path, group, inits, block, options, last, of_sea)
                if last:
                    writer.submit(restarts.remove)
                else:
                    writer.submit(restarts.save, here.towards_host(forecaster.copies))
                at += length
                finished += length * len(group)
                report(finished, f"{len(times)} initial times")
    settle(path, space, len(times))
    if space.rank == 0:
        for one in paths:
            _finish(one, len(times))
    wait(space)


def _begun(
    output: Output, forecaster: Forecaster, times, schedule: Schedule, rows, ocean, fingerprint: str
) -> set[int]:
    """Makes the stores or goes on with them; the numbers of the initial times that are whole in all."""
    path, space, leads = Path(output.path), forecaster.space, schedule.leads(forecaster.forcing.step)
    template = _template(forecaster, times, schedule, leads, output.thin)
    # the checkpoint's digest in the fingerprint says already what is prescribed
    stepped = [SEA_TEMPERATURE] if forecaster.sea else []
    stepped += [] if forecaster.restoring is None else forecaster.restoring.fluxes
    given = [name for name in forecaster.forcing.channels.names if name not in stepped]
    attributes = {**output.attributes, "prescribed": ", ".join(given), "fingerprint": fingerprint}
    making = path, template, times, leads, attributes
    how = {"rows": rows and rows.chunk, "precise": PRECISE if forecaster.sea else ()}
    if space.rank == 0:  # which alone starts another one over
        create_forecast(*making, **how)
    settle(path, space, len(times))
    done = agreed(create_forecast(*making, **how), len(times), space)
    if ocean and not (is_complete(ocean.path, fingerprint) and len(done) == len(times)):
        done &= ocean.create(_ocean_template(forecaster, ocean, times), times, attributes)
    return done


def _share_rows(forecaster: Forecaster, thin: ThinOptions | None) -> Rows | None:
    """Which rows each process writes, where several hold a forecast together; the forecaster gives these from now on."""
    if forecaster.space.size == 1:
        return None
    inside = cells_in(forecaster.forcing.grid, thin and thin.region)
    kept = np.arange(forecaster.forcing.grid.shape[0]) if inside is None else np.flatnonzero(inside.any(axis=1))
    rows = Rows(forecaster.space, kept)
    forecaster.give_rows(rows.of)
    return rows


def _template(forecaster: Forecaster, times, schedule: Schedule, leads, thin) -> xr.Dataset:
    """The first lead of the first forecast with the records of a step, which are not in the block of lead 0."""
    first: dict[str, np.ndarray] = {}
    for _, block in forecaster.blocks(times[:1], Schedule(schedule.ends[:1], schedule.mean)):
        first |= block.fields()
    fields = {name: field[0] for name, field in first.items()}
    if forecaster.rows is not None:  # of whole fields, whose values are not asked for
        shape = forecaster.forcing.grid.shape
        fields = {
            name: np.broadcast_to(np.zeros((), x.dtype), (*x.shape[:-2], *shape)) if _has_rows(name, forecaster) else x
            for name, x in fields.items()
        }
    return dataset_of(forecaster, fields, leads, thin, schedule.mean)


def _ocean_template(forecaster: Forecaster, ocean: OceanStore, times) -> xr.Dataset:
    """As `_template`, of the first forecast of an ocean's network."""
    first: dict[str, np.ndarray] = {}
    steps = ocean.fields.every * min(1, len(ocean.leads) - 1)
    for _, block in forecaster.blocks(times[:1], Schedule((steps,) * bool(steps))):
        first |= block.ocean.fields() if block.ocean else {}
    return dataset_of(ocean.fields, {name: field[0] for name, field in first.items()}, ocean.leads)


def _fingerprint(output: Output, forecaster: Forecaster, times, schedule: Schedule) -> str:
    """Hash of what decides the numbers in a store: not where things lie, how much is done at a time, or other stores."""
    ends = [*schedule.ends, schedule.mean]
    thinning = output.thin and compact_json(output.thin)
    store, starts = forecaster.dataset.attrs.get("fingerprint"), [str(time) for time in times]
    content = [store, output.weights, starts, ends, output.attributes, thinning]
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:16]


def compact_json(options) -> str:
    """Options as JSON in one line, which stores and fingerprints keep; without new ones at their default."""
    return json.dumps(as_before(options), separators=(",", ":"), default=str)


def _write_block(forecaster, rows: Rows | None, path, group, inits, block: Block, options, last, of_sea: Note) -> None:
    fields = block.fields()  # waits for the device in the writer's thread, while the next block is computed
    if rows is None or len(forecaster.rows):
        forecaster.see(fields, inits, options[0])
        of_sea.write()
    space = forecaster.space
    if space.rank:  # what has no rows, the first process writes
        fields = {name: field for name, field in fields.items() if _has_rows(name, forecaster)}
    for row, index in enumerate(group):
        done = last and part_key(index, space)
        if rows is not None and not len(forecaster.rows):
            if done:
                mark(path, done)
            continue
        part = {name: field[row] for name, field in fields.items()}
        dataset = dataset_of(forecaster, part, *options, rows=forecaster.rows)
        write_forecast_init(path, dataset, index, done, rows.first if rows else 0)


def _has_rows(name: str, forecaster: Forecaster) -> bool:
    """Whether it is a field of the forecast, or of its ocean, and not what a step records."""
    return name in forecaster.dataset or (forecaster.sea is not None and name in forecaster.sea.attributes)


def _finish(path: Path, count: int) -> None:
    """Makes the store whole when all is written, by whichever process is the last."""
    if not progress_path(path).exists() or len(whole_inits(path)) < count:
        log.info("%s: other parts are still to be written", path)
        return
    try:
        (progress_path(path) / "finishing").mkdir()
    except FileExistsError:
        if path.exists():
            return
        log.warning("%s: another process was finishing it, and is taken to have stopped", path)
    except FileNotFoundError:
        return  # another process has just finished it
    finish_forecast(path, beyond_training(noted(progress_path(path))))


def is_complete(path: Path, fingerprint: str) -> bool:
    """Whether a finished store with this fingerprint lies there."""
    if not Path(path).exists():
        return False
    with open_forecast(path) as store:
        return store.attrs.get("fingerprint") == fingerprint
