"""Outflow: what leaves a limited area by its sides, from driving data, with which conservation closes its budgets."""

from pathlib import Path

from emulator.store.analysis import open_analysis
from emulator.store.either import open_either
from emulator.store.schema import grid_of
from emulator.verify.options import OutflowOptions
from emulator.verify.outflow import write_outflow
from pipelines.config import ConfigError, OutflowConfig
from pipelines.on_demand import reporting


def outflow(config: OutflowConfig) -> None:
    """Writes it, whole or not at all. Raises `ValueError` in one sentence on bad input."""
    period = config.period.start, config.period.end
    with reporting("outflow") as report:
        options = OutflowOptions.of(config.model_dump(include=set(OutflowOptions.__dataclass_fields__)))
        write_outflow(config.store, config.domain, config.output, options, config.static, period, report)


def check(config: OutflowConfig, made: set[Path]) -> str:
    """Of which domain it would be made, in words. Raises `ConfigError` for a globe."""
    open_either(config.store)
    if (domain := grid_of(open_analysis(config.domain))).is_global():
        raise ConfigError(f"Expected a limited area as outflow.domain, got {domain.describe()}")
    return f"{', '.join(config.budgets)} of {domain.describe()} from {config.store}"
