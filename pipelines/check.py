"""What can be checked before anything is queued: that files are there, outputs can be written, and each stage's `check`."""

import glob
import importlib
import os
from collections.abc import Iterator
from pathlib import Path

from pipelines.config import STAGES, ConfigError, Experiment, Model
from pipelines.outputs import files

INPUTS = {
    "simulate": (),
    "ingest": (),
    "stats": ("store", "later_stores", "scenarios"),
    "outflow": ("store", "domain", "static"),
    "train": ("store", "later_stores", "scenarios", "statistics", "boundary.outflow"),
    "observe": ("store",),
    "learn": ("store", "checkpoint"),
    "assimilate": ("store", "checkpoint", "observations", "background", "analysis.checkpoint"),
    "cycle": ("store", "checkpoint", "observations", "analysis.checkpoint"),
    "rollout": ("store", "checkpoint", "boundary.outflow"),
    "train_downscaling": ("fine", "coarse", "mean"),
    "downscale": ("store", "checkpoint"),
    "verify": ("truth", "forecasts", "audit", "long_runs", "references", "feedback", "held", "coarse"),
    "report": ("scores",),
}


def check_experiment(experiment: Experiment) -> Iterator[str]:
    """One line per stage; inputs that an earlier stage will make need not be there yet. Raises `ConfigError`."""
    made: set[Path] = set()
    for stage in STAGES:
        config = getattr(experiment, stage)
        if config is None:
            continue
        yield from check_stage(stage, config, made)
        made |= {Path(p) for p in _outputs(stage, config)}


def check_stage(stage: str, config: Model, made: set[Path] = frozenset()) -> Iterator[str]:
    """Lines on a stage that can run. `made` are paths that earlier stages will have made. Raises `ConfigError`."""
    for output in _outputs(stage, config):
        _check_writable(stage, output)
    if stage == "rollout":
        from emulator.exports.export import check_formats

        check_formats(config.also)
    if stage == "train" and (config.start is not None or "interpolator" in config.objective):
        importlib.import_module("pipelines.train").check_start(config)
    pending = []
    for name in INPUTS[stage]:
        if name == "mean" and importlib.import_module("emulator.downscaling.mean").held_mean(config.output):
            continue  # a finished training has no more need of the file
        value = _value(config, name)
        for path in value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]:
            if path is None:
                continue
            if not Path(path).exists() and "://" not in str(path) and not glob.glob(str(path)):
                if not any(parent in made for parent in (Path(path), *Path(path).parents)):
                    raise ConfigError(f"Expected {stage}.{name} at {path}, got nothing there")
                pending.append(str(path))
    if pending:
        yield f"{stage}: configuration is right; {', '.join(pending)} will come from an earlier stage"
        return
    yield f"{stage}: {importlib.import_module(f'pipelines.{stage}').check(config, made)}"


def _value(config: Model, name: str):
    """Of a key, or of one of a section `section.key`, which only some kinds of it may have."""
    section, _, key = name.rpartition(".")
    return getattr(getattr(config, section), key, None) if section else getattr(config, key)


def _outputs(stage: str, config: Model) -> list[Path]:
    return [Path(config.directory if stage == "simulate" else config.output), *files(stage, config)]


def _check_writable(stage: str, output: Path) -> None:
    folder = output.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"Expected a folder that {stage} can write {output} into, {folder} is not writable")
