"""Simulate: the embedded general circulation model writes CF NetCDF chunks, restartable at any moment."""

import json
import logging
from datetime import datetime, time, timedelta
from pathlib import Path

import numpy as np

from emulator.whole_file import whole_file
from pipelines.config import ConfigError, SimulateConfig
from pipelines.progress import progress

SPIN_UP_CHECKPOINT_DAYS = 30
log = logging.getLogger(__name__)


def simulate(config: SimulateConfig) -> None:
    """Simulate `spin_up_days`, then write `days` in chunks of `chunk_days` as `speedy_<first day>.nc` to `directory`.

    Killed at any moment and started again, it goes on from the last complete chunk and ends with the same values: a
    restart file is written after its chunk, so it never speaks of days that are not there. Raises `ConfigError` when the
    folder holds another simulation.
    """
    config.directory.mkdir(parents=True, exist_ok=True)
    _claim(config)
    stops = _stops(config)
    done, restart = _latest_restart(config.directory)
    if done >= stops[-1]:
        log.info("%s is complete", config.directory)
        return
    from emulator.reference_model import Settings, build

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
            before, restart = restart, config.directory / f"restart_{stop:06d}.npz"
            with whole_file(restart) as partial:
                model.save_state(state, partial)
            if before:
                before.unlink(missing_ok=True)
            done = stop


def _stops(config: SimulateConfig) -> list[int]:
    """Days after the start at which a restart file is written: within the spin-up, and at the end of every chunk."""
    spin_up, end = config.spin_up_days, config.spin_up_days + config.days
    early = [*range(SPIN_UP_CHECKPOINT_DAYS, spin_up, SPIN_UP_CHECKPOINT_DAYS), *([spin_up] if spin_up else [])]
    return [*early, *range(spin_up + config.chunk_days, end, config.chunk_days), end]


def _latest_restart(directory: Path) -> tuple[int, Path | None]:
    files = sorted(directory.glob("restart_*.npz"))
    return (int(files[-1].stem.removeprefix("restart_")), files[-1]) if files else (0, None)


def _write_chunk(model, days: list[dict[str, np.ndarray]], first: int, config: SimulateConfig) -> None:
    from emulator.reference_output import to_dataset, write

    fields = {name: np.concatenate([day[name] for day in days]) for name in days[0]}
    begin = datetime.combine(config.start, time()) + timedelta(days=first)
    count = len(fields["surface_pressure"])
    times = [begin + timedelta(hours=config.step_hours) * (index + 1) for index in range(count)]
    write(to_dataset(model, fields, times), config.directory / f"speedy_{begin:%Y%m%d}.nc")


def _claim(config: SimulateConfig) -> None:
    """Record what the folder holds, or refuse when it holds something else."""
    path = config.directory / "simulation.json"
    wanted = json.loads(config.model_dump_json(exclude={"directory"}))
    if not path.exists():
        with whole_file(path) as partial:
            partial.write_text(json.dumps(wanted, indent=2, sort_keys=True) + "\n")
        return
    held = json.loads(path.read_text())
    for name in sorted(wanted.keys() | held.keys()):
        if wanted.get(name) != held.get(name):
            raise ConfigError(
                f"Expected a simulation with {name} = {wanted.get(name)} in {config.directory}, it holds one with "
                f"{held.get(name)}: choose another directory, or delete this one"
            )
