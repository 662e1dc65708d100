"""Verify: forecast stores and a truth to one file of scores; in parts, and with later initial times added."""

import dataclasses
import glob
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from emulator.sources.foreign import open_any_forecast, open_truth
from emulator.store.analysis import open_analysis
from emulator.store.schema import grid_of
from emulator.verify.downscaled import check_coarse, with_coarse
from emulator.verify.driving import Driving
from emulator.verify.held import Held
from emulator.verify.inputs import Inputs, open_inputs
from emulator.verify.options import VerifyOptions
from emulator.verify.stations import Observations
from emulator.verify.verification import verify_to_file
from pipelines.config import ConfigError, VerifyConfig
from pipelines.engine import scheduler
from pipelines.progress import progress
from pipelines.run import provenance


def verify(config: VerifyConfig, part: tuple[int, int] | None = None, append: bool = False) -> None:
    """Score the forecasts and audit their budgets, as `verify_to_file` has it. Raises `ValueError` in one sentence."""
    notes = {"config": config.model_dump_json(), "run": json.dumps(provenance())}
    verify_to_file(inputs(config), config.output, part, append, notes, lambda steps: _engine(config, steps))


def inputs(config: VerifyConfig) -> Inputs:
    """What the configuration names, opened and checked."""
    given = config.model_dump(include=set(VerifyOptions.__dataclass_fields__))
    periods = {name: (p.start, p.end) for name, p in (("period", config.period), ("climatology", config.climatology))}
    options, observations = VerifyOptions.of(given | periods), config.observations
    truth = config.truth if observations is None else Observations(**dict(observations))
    scenarios = config.scenarios and config.scenarios.model_dump()
    more = config.audit, config.long_runs, config.references, scenarios, config.oceans
    judged = config.forecasts | {name: Driving(path) for name, path in config.driving.items()}
    judged |= {name: Held(path) for name, path in config.held.items()}
    found = open_inputs(truth, judged, options, *more)
    found = dataclasses.replace(found, feedback=config.feedback)
    return found if config.coarse is None else with_coarse(found, config.coarse)


@contextmanager
def _engine(config: VerifyConfig, steps: int) -> Iterator[tuple[int, Callable]]:
    with scheduler(config.dask) as threads, progress("verify", steps) as report:
        yield threads, report


def check(config: VerifyConfig, made: set[Path]) -> str:
    """What would be judged against what, in words. Raises `ValueError`."""
    if config.observations is not None:
        stations = len(inputs(config).grid.latitude)
        return f"{', '.join(config.forecasts)} against {stations} stations of {config.observations.path}"
    truth = grid_of(open_truth(config.truth))
    opened = {name: (path, open_any_forecast(path)) for name, path in config.forecasts.items()}
    opened |= {name: (path, open_analysis(path)) for name, path in config.held.items()}
    for name, (path, dataset) in opened.items():
        grid = grid_of(dataset)
        if not grid.same_as(truth):
            raise ConfigError(f"Expected {name} ({path}) on the truth's grid {truth.describe()}, got {grid.describe()}")
    if config.coarse is not None:
        try:
            check_coarse(config.coarse, truth)
        except ValueError as error:
            raise ConfigError(f"The grid of verify.coarse ({config.coarse}) does not fit: {error}") from None
    said = f"{', '.join(config.forecasts) or 'persistence'} against {config.truth}"
    if config.scenarios is None:
        return said
    stores = config.scenarios
    paths = [p for group in (stores.train, stores.held_out) for own in group.values() for p in own]
    paths += [*(stores.control or ()), *(p for own in stores.forecasts.values() for p in own.values())]
    for path in paths:
        if "://" not in str(path) and not glob.glob(str(path)) and Path(path) not in made:
            raise ConfigError(f"Expected a store of verify.scenarios at {path}, got nothing there")
    return f"{said}, and the scenarios {', '.join(stores.held_out)}"
