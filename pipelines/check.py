"""What can be checked before anything is queued: files, shapes, periods, and whether the outputs can be written."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from pipelines.config import STAGES, ConfigError, Experiment, Model
from pipelines.outputs import files

INPUTS = {
    "simulate": (),
    "ingest": (),
    "stats": ("store", "later_stores", "scenarios"),
    "train": ("store", "later_stores", "statistics"),
    "rollout": ("store", "checkpoint"),
    "verify": ("truth", "forecasts", "audit", "long_runs"),
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
        from emulator.forecasting.export import check_formats

        check_formats(config.also)
    pending = []
    for name in INPUTS[stage]:
        value = getattr(config, name)
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
    yield f"{stage}: {_LOOK[stage](config, made)}"


def _outputs(stage: str, config: Model) -> list[Path]:
    return [Path(config.directory if stage == "simulate" else config.output), *files(stage, config)]


def _check_writable(stage: str, output: Path) -> None:
    folder = output.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"Expected a folder that {stage} can write {output} into, {folder} is not writable")


def _simulate(config, made) -> str:
    try:
        import jcm  # noqa: F401
    except ImportError:
        raise ConfigError("Expected JAX-GCM for the stage simulate; install the extra emulator[gcm]") from None
    return f"{config.spin_up_days} + {config.days} days at T{config.truncation} into {config.directory}"


def _ingest(config, made) -> str:
    count = 0
    for source in config.sources:
        for pattern in [source.path] if isinstance(source.path, str) else source.path:
            if "://" in pattern or any(parent in made for parent in Path(pattern).parents):
                continue
            found = glob.glob(pattern)
            if not found:
                raise ConfigError(f"Expected files at {pattern}, got none")
            count += len(found)
    return f"{count} source files into {config.output}" if count else f"sources into {config.output}"


def _stats(config, made) -> str:
    from emulator.store.analysis import AnalysisSeries, open_analysis

    stores = [config.store, *config.later_stores]
    record = AnalysisSeries.of(list(map(open_analysis, stores)), config.period.start, config.period.end)
    scenarios = f" and {len(config.scenarios)} scenarios" if config.scenarios else ""
    return f"{len(record.times)} times of {', '.join(map(str, stores))}{scenarios}"


def _train(config, made) -> str:
    from emulator.training.run import Training
    from pipelines.train import options_of

    return Training(options_of(config)).describe()


def _rollout(config, made) -> str:
    from emulator.data.channels import Layout
    from emulator.forecasting.run import step_length
    from emulator.forecasting.schedule import count_steps
    from emulator.model.checkpoint import describe
    from emulator.model.saved_model import check_match
    from emulator.planet.calendar import TimeStep
    from emulator.store.analysis import open_analysis
    from pipelines.rollout import checkpoints_of, starts_of

    dataset = open_analysis(config.store)
    for path in checkpoints_of(config):
        check_match(describe(path), dataset, path, config.store)
    layout = Layout.from_json(describe(config.checkpoint)["layout"])
    length = step_length(layout, dataset, config.step_hours)
    steps = count_steps(TimeStep.of(dataset).times(length), config.lead_days, config.lead)
    count = len(starts_of(config, length, layout.history).of(dataset, steps, str(config.store)))
    return f"{count} forecasts of {config.lead or f'{config.lead_days:g} days'} into {config.output}"


def _verify(config, made) -> str:
    from emulator.sources.foreign import open_any_forecast, open_truth
    from emulator.store.schema import grid_of

    if config.observations is not None:
        from pipelines.verify import inputs as open_inputs

        inputs = open_inputs(config)
        return (
            f"{', '.join(config.forecasts)} against {len(inputs.grid.latitude)} stations of {config.observations.path}"
        )
    truth = grid_of(open_truth(config.truth))
    for name, path in config.forecasts.items():
        grid = grid_of(open_any_forecast(path))
        if not grid.same_as(truth):
            raise ConfigError(f"Expected {name} ({path}) on the truth's grid {truth.describe()}, got {grid.describe()}")
    return f"{', '.join(config.forecasts) or 'persistence'} against {config.truth}"


def _report(config, made) -> str:
    return f"page into {config.output}"


_LOOK = {
    "simulate": _simulate,
    "ingest": _ingest,
    "stats": _stats,
    "train": _train,
    "rollout": _rollout,
    "verify": _verify,
    "report": _report,
}
