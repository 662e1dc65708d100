"""Simulate: the embedded general circulation model writes CF NetCDF chunks, restartable at any moment."""

import json
import logging
import os
from collections.abc import Callable
from datetime import datetime, time, timedelta
from pathlib import Path

import numpy as np

from pipelines.config import ConfigError, SimulateConfig

SPIN_UP_CHECKPOINT_DAYS = 30
log = logging.getLogger(__name__)


def simulate(config: SimulateConfig, progress: Callable[[int, int], None] | None = None) -> None:
    """Simulate `spin_up_days`, then write `days` in chunks of `chunk_days` to `directory`.

    `progress` is called with the simulated days done and to do. Killed at any moment and started again, it goes on from
    the last complete chunk and ends with the same values. Raises `ConfigError` when the folder holds another simulation.
    """
    config.directory.mkdir(parents=True, exist_ok=True)
    _claim(config)
    stops = _stops(config)
    done, restart = _latest_restart(config.directory)
    if done == stops[-1]:
        log.info("%s is complete", config.directory)
        return
    from emulator.reference_model import ReferenceModel, Settings
    from emulator.reference_output import to_dataset, write

    names = ("truncation", "time_step_minutes", "step_hours", "start")
    model = ReferenceModel(Settings(**{name: getattr(config, name) for name in names}))
    state = model.load_state(restart) if restart else model.initial_state()
    begin, step = datetime.combine(config.start, time()), timedelta(hours=config.step_hours)
    for stop in (stop for stop in stops if stop > done):
        days = []
        for day in range(done, stop):
            state, fields = model.advance_day(state)
            if stop > config.spin_up_days:
                days.append(fields)
            if progress:
                progress(day + 1, stops[-1])
        if days:
            joined = {name: np.concatenate([fields[name] for fields in days]) for name in days[0]}
            count = len(days) * 24 // config.step_hours
            times = [begin + timedelta(days=done) + step * (index + 1) for index in range(count)]
            write(to_dataset(model, joined, times), config.directory / f"speedy_{times[0]:%Y%m%d}.nc")
        restart, previous = config.directory / f"restart_{stop:06d}.npz", restart
        partial = restart.with_name(restart.name + ".partial")
        model.save_state(state, partial)
        os.replace(partial, restart)
        if previous:
            previous.unlink(missing_ok=True)
        done = stop
        log.info("simulated day %d of %d", done, stops[-1])


def _stops(config: SimulateConfig) -> list[int]:
    """Days after the start at which a restart file is written: within the spin-up, and at the end of every chunk."""
    spin_up, end = config.spin_up_days, config.spin_up_days + config.days
    return [
        *range(SPIN_UP_CHECKPOINT_DAYS, spin_up, SPIN_UP_CHECKPOINT_DAYS),
        *([spin_up] if spin_up else []),
        *range(spin_up + config.chunk_days, end, config.chunk_days),
        end,
    ]


def _latest_restart(directory: Path) -> tuple[int, Path | None]:
    files = sorted(directory.glob("restart_*.npz"))
    return (int(files[-1].stem.removeprefix("restart_")), files[-1]) if files else (0, None)


def _claim(config: SimulateConfig) -> None:
    """Record what the folder holds, or refuse when it holds something else."""
    path = config.directory / "simulation.json"
    wanted = json.loads(config.model_dump_json(exclude={"directory"}))
    if path.exists():
        held = json.loads(path.read_text())
        for name in sorted(wanted.keys() | held.keys()):
            if wanted.get(name) != held.get(name):
                raise ConfigError(
                    f"{config.directory} holds a simulation with {name} = {held.get(name)}, not {wanted.get(name)}: "
                    "choose another directory, or delete this one"
                )
        return
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(json.dumps(wanted, indent=2, sort_keys=True) + "\n")
    os.replace(temporary, path)
