"""Verify: forecast stores and a truth to one file of scores; in parts, and with later initial times added."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from emulator.verify.budgets import EnergyForm
from emulator.verify.inputs import Inputs, Options, open_inputs
from emulator.verify.stations import Observations
from emulator.verify.verification import verify_to_file
from pipelines.config import VerifyConfig
from pipelines.engine import scheduler
from pipelines.progress import progress
from pipelines.run import provenance


def verify(config: VerifyConfig, part: tuple[int, int] | None = None, append: bool = False) -> None:
    """Score the forecasts and audit their budgets, as `verify_to_file` has it. Raises `ValueError` in one sentence."""
    notes = {"config": config.model_dump_json(), "run": json.dumps(provenance())}
    verify_to_file(inputs(config), config.output, part, append, notes, lambda steps: _engine(config, steps))


def inputs(config: VerifyConfig) -> Inputs:
    """What the configuration names, opened and checked."""
    observations = config.observations
    options = Options(
        _tuple(config.variables),
        _tuple(config.levels),
        _tuple(config.regions),
        tuple(config.events),
        (config.period.start, config.period.end),
        (config.climatology.start, config.climatology.end),
        tuple(config.persistence_lead_hours),
        EnergyForm(config.energy, config.heat_capacity, config.kinetic),
        tuple(config.persistence_lead_months),
    )
    truth = config.truth if observations is None else Observations(**dict(observations))
    return open_inputs(truth, config.forecasts, options, config.audit, config.long_runs)


def _tuple(values: list | None) -> tuple | None:
    return None if values is None else tuple(values)


@contextmanager
def _engine(config: VerifyConfig, steps: int) -> Iterator[tuple[int, Callable]]:
    with scheduler(config.dask) as threads, progress("verify", steps) as report:
        yield threads, report
