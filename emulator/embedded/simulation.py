"""A simulation of an embedded model as CF NetCDF chunks, restartable at any moment."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from emulator.embedded import MODELS, TIME_BOUNDS, Depths, Embedded, EmbeddedModel
from emulator.files.whole_file import whole_file, write_netcdf
from emulator.parallel.tasks import Report, silent
from emulator.planet.grid import CLOSED
from emulator.planet.variables import COORDINATES, variable

SPIN_UP_CHECKPOINT_DAYS = 30
RECORD = "simulation.json"
DEFAULT_MODEL = "speedy"
LEVEL = {"units": "1", "standard_name": "atmosphere_sigma_coordinate", "positive": "down", "axis": "Z"}
DEPTH = {"units": "m", "standard_name": "depth", "positive": "down", "axis": "Z", "bounds": "depth_bounds"}
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class SimulationOptions:
    """What to simulate, and where.

    Attributes:
      directory: of the chunks, `<model>_<first day>.nc`, and of the restart files.
      days: to write, after `spin_up_days` that are not written; chunk_days: in a file.
      start: first day, at 0 UTC; step_hours: spacing of the output, unless the model gives its own.
      model: name of the embedded model; settings: its other settings.
    """

    directory: Path
    days: int = 420
    spin_up_days: int = 60
    chunk_days: int = 15
    start: date = date(2001, 1, 1)
    step_hours: int = 6
    model: str = DEFAULT_MODEL
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def stops(self) -> list[int]:
        """Days after the start at which a restart file is written: within the spin-up, and at the end of every chunk."""
        spin_up, end = self.spin_up_days, self.spin_up_days + self.days
        early = [*range(SPIN_UP_CHECKPOINT_DAYS, spin_up, SPIN_UP_CHECKPOINT_DAYS), *([spin_up] if spin_up else [])]
        return [*early, *range(spin_up + self.chunk_days, end, self.chunk_days), end]

    def chunks(self) -> dict[int, Path]:
        """First day after the start -> file of every chunk."""
        first, end = self.spin_up_days, self.spin_up_days + self.days
        return {day: self.chunk(day) for day in range(first, end, self.chunk_days)}

    def chunk(self, first: int) -> Path:
        """The file that begins at a day after the start."""
        return self.directory / f"{self.model}_{self.start + timedelta(days=first):%Y%m%d}.nc"

    def restart(self, day: int) -> Path:
        """The restart file at the end of a day after the start."""
        return self.directory / f"restart_{day:06d}.npz"

    def files(self) -> list[Path]:
        """All that a complete simulation leaves."""
        return [self.directory / RECORD, self.restart(self.spin_up_days + self.days), *self.chunks().values()]

    def record(self) -> dict[str, Any]:
        """What tells the simulation from others in its folder; of a file its content, wherever it lies.

        Raises `ValueError` for a file that cannot be read.
        """
        names = ("days", "spin_up_days", "chunk_days", "step_hours")
        settings = {name: _told(value) for name, value in self.settings.items()}
        own = {name: getattr(self, name) for name in names} | {"start": self.start.isoformat(), **settings}
        return own if self.model == DEFAULT_MODEL else own | {"model": self.model}


def simulate(options: SimulationOptions, report: Report = silent) -> None:
    """Simulates `spin_up_days`, then writes `days` in chunks of `chunk_days`.

    Killed at any moment and started again, it goes on from the last complete chunk and ends with the same values: a
    restart file is written after its chunk, so it never speaks of days that are not there. A simulation that is there
    already goes on to more `days`, and ends with the files of one that was that long from the start. Raises `ValueError`
    when the folder holds another simulation, or a longer one, and when a chunk would hold nothing.
    """
    options.directory.mkdir(parents=True, exist_ok=True)
    _claim(options)
    stops, done, restart = options.stops(), 0, None
    if _restarts(options.directory):
        done, restart = _latest(options)
    if done >= stops[-1]:
        log.info("%s is complete", options.directory)
        return
    try:
        entry, settings = checked(options)
        model = entry.build(settings)
    except ValueError:
        if not done:  # what cannot be simulated has left nothing else, and claims no folder
            (options.directory / RECORD).unlink()
        raise
    state = model.load_state(restart) if restart else model.initial_state()
    report(done, stops[-1], "")
    for stop in (stop for stop in stops if stop > done):
        kept, days = stop > options.spin_up_days, []
        for day in range(done, stop):
            state, fields = model.advance_day(state)
            days += [fields] if kept and fields else []
            report(day + 1, stops[-1], "" if kept else "spin-up")
        if kept:
            _write_chunk(model, days, done, options)
        with whole_file(options.restart(stop)) as partial:
            model.save_state(state, partial)
        whole = not kept or stop - done == options.chunk_days
        for day, old in _restarts(options.directory).items():  # a longer simulation writes a short last chunk anew
            if day != stop and (whole or day != done):
                old.unlink(missing_ok=True)
        done = stop


def checked(options: SimulationOptions) -> tuple[Embedded, Any]:
    """The model's entry and its settings. Raises `ValueError` for settings that cannot be, and files that do not serve."""
    entry, settings = MODELS[options.model], settings_of(options)
    entry.check(settings, options.spin_up_days + options.days)
    return entry, settings


def settings_of(options: SimulationOptions) -> Any:
    """The model's settings. Raises `ValueError` for unknown or impossible ones, and for chunks that would hold nothing."""
    entry = MODELS[options.model]
    known = {field.name for field in dataclasses.fields(entry.settings)}
    if odd := sorted(set(options.settings) - known):
        raise ValueError(f"Expected settings of {options.model} among {', '.join(sorted(known))}, got {', '.join(odd)}")
    settings = entry.settings(start=options.start, step_hours=options.step_hours, **options.settings)
    first, end = options.spin_up_days, options.spin_up_days + options.days
    for begin in range(first, end, options.chunk_days) if entry.ends else ():
        stop = min(begin + options.chunk_days, end)
        if not any(entry.ends(settings, day) for day in range(begin, stop)):
            raise ValueError(
                f"Expected a mean to end in every chunk, none does from day {begin + 1} to {stop} after the start: "
                f"change chunk_days = {options.chunk_days} or days = {options.days}"
            )
    return settings


def _told(value: Any) -> Any:
    """A setting as a record has it: of options their values, of a simulation what it is of, however long it goes on."""
    if dataclasses.is_dataclass(value):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {name: _told(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_told(each) for each in value]
    if isinstance(value, Path) and (value / RECORD).exists():
        text = json.dumps(
            {name: each for name, each in _recorded(value / RECORD).items() if name != "days"}, sort_keys=True
        )
        return f"simulation sha256 {hashlib.sha256(text.encode()).hexdigest()}"
    if not isinstance(value, Path) or value.is_dir():
        return str(value) if isinstance(value, Path) else value
    try:
        with open(value, "rb") as file:
            return f"sha256 {hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise ValueError(f"Expected a file that can be read at {value}, got: {error.strerror}") from None


def _restarts(directory: Path) -> dict[int, Path]:
    """Days after the start -> restart file, latest first."""
    files = {int(path.stem.removeprefix("restart_")): path for path in directory.glob("restart_*.npz")}
    return dict(sorted(files.items(), reverse=True))


def _latest(options: SimulationOptions) -> tuple[int, Path | None]:
    """The latest day, with its restart file, that chunks of this simulation end at and all files before it are there."""
    stops, chunks = options.stops(), options.chunks()
    for day, path in _restarts(options.directory).items():
        if day in stops and all(chunk.exists() for first, chunk in chunks.items() if first < day):
            return day, path
    log.warning("%s lacks chunks before its restart file, or ends inside one; simulated anew", options.directory)
    return 0, None


def _claim(options: SimulationOptions) -> None:
    """Records what the folder holds, or refuses when it holds something else."""
    path, wanted = options.directory / RECORD, options.record()
    if path.exists():
        there = _recorded(path)
        for name in sorted(wanted.keys() | there.keys()):
            longer = name == "days" and isinstance(there.get(name), int) and wanted[name] > there[name]
            if wanted.get(name) != there.get(name) and not longer:
                raise ValueError(
                    f"Expected a simulation with {name} = {wanted.get(name)} in {options.directory}, it holds one with "
                    f"{there.get(name)}: choose another directory, or delete this one"
                )
        if wanted == there:
            return
    with whole_file(path) as partial:
        partial.write_text(json.dumps(wanted, indent=2, sort_keys=True) + "\n")


def _recorded(path: Path) -> dict:
    try:
        there = json.loads(path.read_text())
    except ValueError:
        there = None
    if not isinstance(there, dict):
        raise ValueError(f"Expected the settings of a simulation in {path}, it is damaged: delete {path.parent}")
    return there


def _write_chunk(model: EmbeddedModel, days: list[dict[str, np.ndarray]], first: int, options) -> None:
    """Uncompressed: deflate at its lowest level makes the file a third smaller and costs an eighth of the time.

    A simulation that goes on writes the fields of its first chunk: an earlier version may have written fewer, and a field
    that begins in the middle of a series cannot be ingested.
    """
    names, before = list(days[0]), options.chunk(options.spin_up_days)
    if first > options.spin_up_days:
        names = [name for name in names if name in _written(before)]
    fields = {name: np.concatenate([day[name] for day in days]) for name in names}
    if TIME_BOUNDS in fields:
        times = fields[TIME_BOUNDS][:, 1]
    else:
        steps = np.arange(1, len(next(iter(fields.values()))) + 1) * np.timedelta64(options.step_hours, "h")
        times = np.datetime64(options.start, "ns") + np.timedelta64(first, "D") + steps
    dataset = to_dataset(model, fields, times, options.step_hours)
    time = {"units": "hours since 1970-01-01 00:00:00", "calendar": "proleptic_gregorian", "dtype": "int64"}
    clocks = {name: time for name in ("time", TIME_BOUNDS) if name in dataset.variables}
    encoding = {name: {"_FillValue": None} for name in dataset.variables} | clocks
    write_netcdf(dataset, options.chunk(first), encoding)


def _written(path: Path) -> set[str]:
    """Names of the fields in a chunk."""
    import xarray as xr

    with xr.open_dataset(path, decode_times=False) as dataset:
        return set(map(str, dataset.data_vars))


def to_dataset(model: EmbeddedModel, fields: Mapping[str, np.ndarray], times: np.ndarray, step_hours: int):
    """One chunk as a CF dataset: `fields` as `advance_day` returns them, joined along time `(time,)`, with coordinates.

    Static fields and the bounds of levels come with every chunk, so that each file can be read alone.
    """
    import xarray as xr  # half a second, only where chunks are written

    bounded, attributes = TIME_BOUNDS in fields, _attributes(model)
    if not bounded:
        attributes["time_step_seconds"] = step_hours * 3600
    vertical, data, level = _vertical(model.levels)
    space = ("latitude", "longitude")
    for name, value in fields.items():
        if name != TIME_BOUNDS:
            data[name] = ("time", *([vertical] if value.ndim == 4 else []), *(space if value.ndim > 1 else ())), value
    data |= {name: ((vertical, *space)[-value.ndim :], value) for name, value in model.static.items()}
    named = [name for name in (*fields, *model.static) if name != TIME_BOUNDS]
    if bounded:
        data[TIME_BOUNDS] = ("time", "bounds"), fields[TIME_BOUNDS]
    coords = {
        "time": ("time", times, COORDINATES["time"] | ({"bounds": TIME_BOUNDS} if bounded else {})),
        vertical: (vertical, *level),
        "latitude": ("latitude", model.grid.latitude, COORDINATES["latitude"]),
        "longitude": ("longitude", model.grid.longitude, COORDINATES["longitude"]),
    }
    dataset = xr.Dataset(data, coords, attributes)
    for name in named:
        entry = variable(name)
        cell = {"point": "time: point", "mean": f"time: mean (interval: {step_hours} hours)"}.get(entry.cell)
        cell = getattr(model, "cell_methods", {}).get(name, cell)
        known = {"units": entry.units, "standard_name": entry.standard_name, "cell_methods": cell}
        known["domain"] = getattr(model, "domains", {}).get(name)
        dataset[name].attrs = {key: value for key, value in known.items() if value}
    return dataset


def _attributes(model: EmbeddedModel) -> dict[str, Any]:
    versions = ", ".join(f"{name} {version}" for name, version in model.provenance["versions"].items())
    scenario = [model.provenance["scenario"]] if "scenario" in model.provenance else []
    kind = {} if isinstance(model.levels, Depths) else {"vertical_coordinate": model.levels.kind}
    return {
        "Conventions": "CF-1.11",
        "title": model.title,
        "source": "; ".join([model.provenance["model"], versions, *scenario]),
        "provenance": json.dumps(model.provenance, sort_keys=True),
        **kind,
        **({CLOSED: 1} if getattr(model, "closed", False) else {}),
        "constants": model.constants.to_json(),
    }


def _vertical(levels) -> tuple[str, dict[str, tuple], tuple]:
    """The vertical dimension, variables that say where its layers end, and its values with their attributes."""
    if isinstance(levels, Depths):
        return "depth", {"depth_bounds": (("depth", "bounds"), levels.bounds)}, (levels.values, DEPTH)
    meaning = {"units": "Pa", "long_name": "a in p = a + b * p_surface"}
    half = {
        "half_level_a": ("half_level", levels.half_a, meaning),
        "half_level_b": ("half_level", levels.half_b, {"units": "1", "long_name": "b in p = a + b * p_surface"}),
    }
    return "level", half, (levels.values, LEVEL)
