"""Simulate: the embedded general circulation model writes CF NetCDF chunks, restartable at any moment."""

import json
import logging
from datetime import datetime, time, timedelta
from pathlib import Path

import numpy as np

from emulator.files.whole_file import whole_file
from pipelines.config import ConfigError, SimulateConfig
from pipelines.progress import progress

SPIN_UP_CHECKPOINT_DAYS = 30
RECORD = "simulation.json"
log = logging.getLogger(__name__)


def simulate(config: SimulateConfig) -> None:
    """Simulate `spin_up_days`, then write `days` in chunks of `chunk_days` as `speedy_<first day>.nc` to `directory`.

    Killed at any moment and started again, it goes on from the last complete chunk and ends with the same values: a
    restart file is written after its chunk, so it never speaks of days that are not there. A simulation that is there
    already goes on to more `days`, and ends with the files of one that was that long from the start. Raises `ConfigError`
    when the folder holds another simulation, or a longer one.
    """
    config.directory.mkdir(parents=True, exist_ok=True)
    _claim(config)
    stops, done, restart = _stops(config), 0, None
    if _restarts(config.directory):
        done, restart = _latest(config)
    if done >= stops[-1]:
        log.info("%s is complete", config.directory)
        return
    from emulator.embedded.speedy import Settings, build

    names = ("truncation", "time_step_minutes", "step_hours", "start")
    model = build(Settings(**{name: getattr(config, name) for name in names}))
    state = model.load_state(restart) if restart else model.initial_state()
    with progress("simulate", stops[-1], start=done) as report:
        for stop in (stop for stop in stops if stop > done):
            kept, days = stop > config.spin_up_days, []
            for day in range(done, stop):
                state, fields = model.advance_day(state)
                days += [fields] if kept else []
                report(day + 1, "" if kept else "spin-up")
            if kept:
                _write_chunk(model, days, done, config)
            with whole_file(config.directory / f"restart_{stop:06d}.npz") as partial:
                model.save_state(state, partial)
            whole = not kept or stop - done == config.chunk_days
            for day, old in _restarts(config.directory).items():  # a longer simulation writes a short last chunk anew
                if day != stop and (whole or day != done):
                    old.unlink(missing_ok=True)
            done = stop


def files(config: SimulateConfig) -> list[Path]:
    """All that a complete simulation leaves."""
    last = config.directory / f"restart_{config.spin_up_days + config.days:06d}.npz"
    return [config.directory / RECORD, last, *_chunks(config).values()]


def _stops(config: SimulateConfig) -> list[int]:
    """Days after the start at which a restart file is written: within the spin-up, and at the end of every chunk."""
    spin_up, end = config.spin_up_days, config.spin_up_days + config.days
    early = [*range(SPIN_UP_CHECKPOINT_DAYS, spin_up, SPIN_UP_CHECKPOINT_DAYS), *([spin_up] if spin_up else [])]
    return [*early, *range(spin_up + config.chunk_days, end, config.chunk_days), end]


def _restarts(directory: Path) -> dict[int, Path]:
    """Days after the start -> restart file, latest first."""
    found = {int(path.stem.removeprefix("restart_")): path for path in directory.glob("restart_*.npz")}
    return dict(sorted(found.items(), reverse=True))


def _latest(config: SimulateConfig) -> tuple[int, Path | None]:
    """The latest day, with its restart file, that chunks of this simulation end at and all files before it are there."""
    stops, chunks = _stops(config), _chunks(config)
    for day, path in _restarts(config.directory).items():
        if day in stops and all(chunk.exists() for first, chunk in chunks.items() if first < day):
            return day, path
    log.warning("%s lacks chunks before its restart file, or ends inside one; simulated anew", config.directory)
    return 0, None


def _chunks(config: SimulateConfig) -> dict[int, Path]:
    """First day after the start -> file of every chunk."""
    first, end = config.spin_up_days, config.spin_up_days + config.days
    return {day: _chunk(config, day) for day in range(first, end, config.chunk_days)}


def _chunk(config: SimulateConfig, first: int) -> Path:
    return config.directory / f"speedy_{config.start + timedelta(days=first):%Y%m%d}.nc"


def _write_chunk(model, days: list[dict[str, np.ndarray]], first: int, config: SimulateConfig) -> None:
    from emulator.embedded.speedy_output import to_dataset, write

    fields = {name: np.concatenate([day[name] for day in days]) for name in days[0]}
    begin = datetime.combine(config.start, time()) + timedelta(days=first)
    count = len(fields["surface_pressure"])
    times = [begin + timedelta(hours=config.step_hours) * (index + 1) for index in range(count)]
    write(to_dataset(model, fields, times), _chunk(config, first))


def _claim(config: SimulateConfig) -> None:
    """Record what the folder holds, or refuse when it holds something else."""
    path = config.directory / RECORD
    wanted = json.loads(config.model_dump_json(exclude={"directory"}))
    if path.exists():
        held = _record(path)
        for name in sorted(wanted.keys() | held.keys()):
            longer = name == "days" and isinstance(held.get(name), int) and wanted[name] > held[name]
            if wanted.get(name) != held.get(name) and not longer:
                raise ConfigError(
                    f"Expected a simulation with {name} = {wanted.get(name)} in {config.directory}, it holds one with "
                    f"{held.get(name)}: choose another directory, or delete this one"
                )
        if wanted == held:
            return
    with whole_file(path) as partial:
        partial.write_text(json.dumps(wanted, indent=2, sort_keys=True) + "\n")


def _record(path: Path) -> dict:
    try:
        held = json.loads(path.read_text())
    except ValueError:
        held = None
    if not isinstance(held, dict):
        raise ConfigError(f"Expected the settings of a simulation in {path}, it is damaged: delete {path.parent}")
    return held
