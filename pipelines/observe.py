"""Observe: a nature run and tables of reports to one Parquet file of observations."""

from pathlib import Path

from emulator.assimilation import observing
from emulator.assimilation.geometry import Geometry
from emulator.assimilation.options import ObserveOptions
from emulator.files.column_table import pyarrow_for
from emulator.store.analysis import open_analysis
from pipelines.config import ConfigError, ObserveConfig
from pipelines.on_demand import reporting


def observe(config: ObserveConfig) -> None:
    """Writes the observations, whole or not at all. Raises `ValueError` in one sentence on bad input."""
    with reporting("observe") as report:
        period = config.period.start, config.period.end
        observing.observe(_options(config), config.store, period, config.output, report)


def _options(config: ObserveConfig) -> ObserveOptions:
    return ObserveOptions.of(config.model_dump(include=set(ObserveOptions.__dataclass_fields__)))


def check(config: ObserveConfig, made: set[Path]) -> str:
    """What would be observed, in words; of tables `made` by other stages none is looked for. Raises `ValueError`."""
    pyarrow_for(config.output)
    for table in config.tables:
        if not table.path.is_file() and table.path not in made:
            raise ConfigError(f"Expected a table of observe.tables at {table.path}, got nothing there")
    if config.networks and config.store is None:
        raise ConfigError("Expected observe.store for the networks to observe, got none")
    if config.networks:
        Geometry.of(
            open_analysis(config.store), sorted({name for network in config.networks for name in network.errors})
        )
    named = [network.name for network in config.networks] + [str(table.path) for table in config.tables]
    return f"{', '.join(named)} into {config.output}"
