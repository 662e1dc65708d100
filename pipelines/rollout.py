"""Forecasts from many initial times, written as a Zarr store that other tools open."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.files.background import BackgroundWriter
from emulator.forecast.thinning import month_ends, thinned
from emulator.kernels import freed_memory
from emulator.model.step import Step
from emulator.parallel.processes import world_of
from emulator.planet.calendar import select_period
from emulator.store.analysis import open_analysis
from emulator.store.forecast import create_forecast, finish_forecast, open_forecast, write_forecast_init
from emulator.store.marks import marks, progress_path
from pipelines import checkpoints
from pipelines.build import STATIC
from pipelines.config import ConfigError, RolloutConfig, ThinConfig
from pipelines.exporting import check_formats, export
from pipelines.forecasting import Position, Run, Schedule
from pipelines.progress import progress

log = logging.getLogger(__name__)
RESTART = "restart-{:06d}-{:d}.safetensors"  # first initial time and batch size of a group


def rollout(config: RolloutConfig, part: tuple[int, int] | None = None) -> None:
    """Write the forecasts, those of the uncorrected network, and the long run, as far as the configuration asks.

    Each initial time is written once; a stopped stage goes on where it was, also inside a forecast, and ends with the same
    numbers. With `part` `(i, N)`, or as one of several processes that a launcher has started, only every N-th group of
    initial times is computed; whoever writes the last one finishes the store. Raises `ConfigError` when a checkpoint does
    not match the store.
    """
    check_formats(config.also)
    freed_memory.keep()
    world = world_of(os.environ)
    share = part or (world.rank + 1, world.size)
    dataset = open_analysis(config.store)
    models, weights, metadata = load_models(config, dataset)
    steps = round(config.lead_days * 86400 / metadata["step_seconds"])
    inits = initial_times(dataset, config, steps)
    attributes = forecast_attributes(dataset, metadata)
    run = Run(models, dataset, config.batch_size, config.ensemble)
    own = attributes | ({"ensemble": config.ensemble.model_dump_json()} if config.ensemble else {})
    _write(config.output, run, weights, inits, schedule_of(config, run, inits, steps), own, share, config.thin)
    if config.uncorrected_inits:
        chosen = np.unique(
            np.linspace(0, len(inits) - 1, min(config.uncorrected_inits, len(inits))).round().astype(int)
        )
        plain = Run([[(0, Step.without_scheme(run.step))]], dataset, config.batch_size)
        some, own = [inits[i] for i in chosen], attributes | {"conservation": "none"}
        _write(config.uncorrected, plain, [weights[0][:1]], some, Schedule.every(steps), own, share)
    if config.long_run_days:
        every = max(1, round(86400 / metadata["step_seconds"]))
        alone = Run(models[:1], dataset, config.batch_size)
        daily = Schedule.every(every * config.long_run_days, every)
        _write(config.long_run, alone, weights[:1], inits[:1], daily, attributes, share)
    for kind in config.also:
        if Path(config.output).exists():
            export(config.output, kind)


def load_models(config: RolloutConfig, dataset: xr.Dataset) -> tuple[list[list[tuple[int, Step]]], list[list], dict]:
    """The models of the members, each a cascade by lead; as many digests of weights; the first checkpoint's metadata.

    Raises `ConfigError`.
    """
    first, metadata = checkpoints.load_step(config.checkpoint)
    checkpoints.check_match(metadata, dataset, config.checkpoint, config.store)

    def load(path, from_days=0.0):
        step, saved = checkpoints.load_step(path)
        checkpoints.check_match(saved, dataset, path, config.store)
        if step.layout != first.layout:
            raise ConfigError(f"Expected {path} with the channels of {config.checkpoint}, got others")
        start = round(from_days * 86400 / metadata["step_seconds"])
        return (start, step), (start, saved["sha256"])

    cascade = [((0, first), (0, metadata["sha256"])), *(load(c.checkpoint, c.from_days) for c in config.cascade)]
    starts = [start for (start, _), _ in cascade]
    if starts != sorted(set(starts)):
        raise ConfigError(f"Expected cascade.from_days to increase, got {[c.from_days for c in config.cascade]}")
    found = [cascade, *([load(path)] for path in config.member_checkpoints)]
    members = config.ensemble.members if config.ensemble else 1
    if len(found) > members:
        raise ConfigError(f"Expected at least {len(found)} members for {len(found)} checkpoints, got {members}")
    models, weights = ([[pair[part] for pair in model] for model in found] for part in (0, 1))
    alike = config.ensemble is not None and config.ensemble.kind == "none" and len(models) == 1
    if alike and all(step.noise is None for _, step in models[0]):
        raise ConfigError(
            f"Expected a network with noise, or member_checkpoints, for an ensemble of kind none; {config.checkpoint} has no "
            "noise, and all members would be the same"
        )
    return models, weights, metadata


def schedule_of(config: RolloutConfig, run: Run, inits: list, steps: int) -> Schedule:
    """The steps to write. Raises `ConfigError` for a spacing that is not whole steps, or months that differ."""
    thin = config.thin
    if thin.mean == "monthly":
        found = {month_ends(init, steps, run.forcing.step_seconds, run.forcing.later) for init in inits}
        if len(found) > 1 or not next(iter(found)):
            raise ConfigError(
                "Expected forecasts over whole calendar months that start together for monthly means, got "
                f"{len(inits)} initial times of {config.lead_days:g} days"
            )
        return Schedule(next(iter(found)), mean=True)
    stride = 1.0 if thin.every_hours is None else thin.every_hours * 3600 / run.forcing.step_seconds
    if stride < 1 or abs(stride - round(stride)) > 1e-9:
        raise ConfigError(
            f"Expected thin.every_hours as a multiple of {run.forcing.step_seconds / 3600:g}, got {thin.every_hours:g}"
        )
    return Schedule.every(steps, round(stride), mean=thin.mean == "every")


def initial_times(dataset: xr.Dataset, config: RolloutConfig, steps: int) -> list:
    """Initial times of the period, `every_hours` apart, whose whole forecast lies within the store unless `beyond_store`."""
    times = select_period(dataset, config.period.start, config.period.end)["time"].values
    all_times = dataset["time"].values
    step_hours = dataset.attrs["time_step_seconds"] / 3600
    stride = round(config.every_hours / step_hours)
    if stride < 1 or abs(stride * step_hours - config.every_hours) > 1e-9:
        raise ConfigError(f"Expected every_hours as a multiple of {step_hours:g}, got {config.every_hours}")
    last = len(all_times) - 1 - (0 if config.beyond_store else steps)
    first = int(np.searchsorted(all_times, times[0]))
    missing = dataset["missing"].values if "missing" in dataset else np.zeros(len(all_times), bool)
    chosen = [i for i in range(first, first + len(times), stride) if i <= last and not missing[i]]
    if not chosen:
        raise ConfigError(
            f"Expected initial times from {times[0]} to {times[-1]} with {config.lead_days:g} days of {config.store} after "
            f"them, which ends at {all_times[-1]}; got none"
        )
    return [all_times[i] for i in chosen[: config.maximum_inits]]


def forecast_attributes(dataset: xr.Dataset, metadata: dict) -> dict:
    kept = ("vertical_coordinate", "constants", "source", "history")
    attributes = {name: dataset.attrs[name] for name in kept if name in dataset.attrs}
    return attributes | {
        "title": "emulator forecast",
        "time_step_seconds": metadata["step_seconds"],
        "checkpoint": metadata["sha256"],
        "conservation": metadata["config"]["conservation"]["kind"],
        "training_period": " to ".join(metadata["period"]),
        **{name: value for name, value in metadata["scheme"].items() if name.startswith("unaccounted")},
    }


def _write(
    path: Path,
    run: Run,
    weights: list[list],
    inits: list,
    schedule: Schedule,
    attributes: dict,
    share: tuple[int, int],
    thin: ThinConfig | None = None,
) -> None:
    mark = _mark(run, weights, inits, schedule, attributes, thin)
    if _is_complete(path, mark):
        log.info("%s is complete", path)
        return
    leads = np.round(np.array(schedule.numbers) * run.forcing.step_seconds * 1e9).astype("timedelta64[ns]")
    shape = Schedule(schedule.ends[:1], schedule.mean)
    first: dict[str, np.ndarray] = {}
    for _, block in run.blocks(inits[:1], shape):  # the records of a step are not in the block of lead 0
        first |= block
    template = _dataset(run, {name: field[0] for name, field in first.items()}, leads, thin, schedule.mean)
    told = {"prescribed": ", ".join(run.forcing.channels.names)}  # of the mark the checkpoint tells it
    done = create_forecast(path, template, inits, leads, attributes | told | {"fingerprint": mark})
    size, (number, count) = run.group_size, share
    groups = [list(range(start, min(start + size, len(inits)))) for start in range(0, len(inits), size)]
    mine = groups[number - 1 :: count]
    left = [group for group in mine if not done.issuperset(group)]
    with progress(Path(path).stem, sum(map(len, left)) * len(leads)) as report, BackgroundWriter() as writer:
        finished = 0
        for group in left:
            restart = progress_path(path) / RESTART.format(group[0], run.batch_size)
            position, at = Position.load(restart), 0
            if position is not None:
                at = schedule.numbers.index(position.number) + 1
                log.info("%s: going on from lead %s", path, leads[at - 1].astype("timedelta64[h]"))
            for here, block in run.blocks([inits[i] for i in group], schedule, position):
                length = next(iter(block.values())).shape[1]
                last = at + length == len(leads)
                writer.submit(_store, run, path, group, block, leads[at : at + length], (thin, schedule.mean), last)
                writer.submit(restart.unlink, True) if last else writer.submit(here.save, restart)
                at += length
                finished += length * len(group)
                report(finished, f"{len(inits)} initial times")
    _finish(path, len(inits))


def _mark(run: Run, weights, inits, schedule: Schedule, attributes: dict, thin) -> str:
    """Hash of what decides the numbers in a store: not where things lie, how much is done at a time, or the other stores."""
    ends, thinning = [*schedule.ends, schedule.mean], thin and thin.model_dump_json()
    content = [run.dataset.attrs.get("fingerprint"), weights, [str(init) for init in inits], ends, attributes, thinning]
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:16]


def _store(run, path, group, block, leads, options, last) -> None:
    for row, index in enumerate(group):
        part = {name: field[row] for name, field in block.items()}
        write_forecast_init(path, _dataset(run, part, leads, *options), index, done=last)


def _finish(path: Path, count: int) -> None:
    """Makes the store whole when all is written, by whichever process is the last."""
    if not progress_path(path).exists() or len(marks(path)) < count:
        log.info("%s: other parts are still to be written", path)
        return
    try:
        (progress_path(path) / "finishing").mkdir()
    except FileExistsError:
        if Path(path).exists():
            return
        log.warning("%s: another process was finishing it, and is taken to have stopped", path)
    except FileNotFoundError:
        return  # another process has just finished it
    finish_forecast(path)


def _dataset(
    run: Run, fields: Mapping[str, np.ndarray], leads: np.ndarray, thin=None, mean: bool = False
) -> xr.Dataset:
    """Fields `(lead, [member,] ..., *space)` of one forecast with the store's coordinates, static fields and attributes."""
    source = run.dataset
    front = ("lead_time", "member") if run.ensemble else ("lead_time",)
    data = {}
    for name, values in fields.items():
        if name in source:
            dims = (*front, *(d for d in source[name].dims if d not in ("time", "member")))
            attributes = source[name].attrs | ({"cell_methods": "time: mean"} if mean else {})
            data[name] = (dims, values, attributes)
        else:
            data[name] = (front, values, {"units": _record_units(name, source), "long_name": name.replace("_", " ")})
    static = ["half_level_a", "half_level_b", "cell_area", *STATIC]
    data |= {n: source[n].variable for n in static if n in source and n not in data}
    coordinates = {n: source[n].variable for n in ("level", "latitude", "longitude") if n in source.coords}
    length = next(iter(fields.values())).shape[0]
    coordinates["lead_time"] = leads[:length]
    if run.ensemble:
        coordinates["member"] = np.arange(run.members)
    dataset = xr.Dataset(data, coordinates)
    if mean:
        dataset.attrs["time_mean"] = 1
    if thin is None:
        return dataset
    return thinned(dataset, thin.variables, thin.levels, _inside(run.forcing.grid, thin.region))


def _record_units(name: str, source: xr.Dataset) -> str:
    """Units of what the conservation scheme records: corrections in their variable's, residuals and saturations in shares."""
    changed = name.removeprefix("correction_rms_")
    return source[changed].attrs["units"] if changed != name else "1"


def _inside(grid, name: str | None) -> np.ndarray | None:
    if name is None:
        return None
    from emulator.planet.regions import REGIONS

    if name not in REGIONS:
        raise ConfigError(f"Expected thin.region among {', '.join(REGIONS)}, got {name!r}")
    inside = REGIONS[name].contains(*grid.mesh())
    if not inside.any():
        raise ConfigError(f"Expected cells in the region {name!r}, got none on {grid.describe()}")
    return inside


def _is_complete(path: Path, mark: str) -> bool:
    if not Path(path).exists():
        return False
    with open_forecast(path) as store:
        return store.attrs.get("fingerprint") == mark
