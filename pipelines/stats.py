"""Statistics, and a climatology where one is asked for, of analysis stores over the training period."""

import json
from pathlib import Path

from emulator.planet.quantities.registry import quantities
from emulator.store.analysis import AnalysisSeries, open_analysis
from emulator.store.climatology import ClimatologyOptions, write_climatology
from emulator.store.statistics import write_statistics
from pipelines.config import ConservationConfig, DaskConfig, StatsConfig
from pipelines.on_demand import working

# What a result does not depend on, as fingerprints of finished files have it.
NO_STORES = {"later_stores": [], "scenarios": []}
PLACES = {"output": Path("statistics"), "store": Path("store"), "climatology": None} | NO_STORES
NO_CLIMATOLOGY = PLACES | {"climatology_window": 61, "memory_gigabytes": 2.0}
CLIMATOLOGY = {"output": Path("s"), "store": Path("s"), "climatology": Path("c")} | NO_STORES


def stats(config: StatsConfig) -> None:
    """Writes the statistics, and the climatology where one is asked for; both go on where an earlier start was killed.

    Raises `ValueError` when the period holds no times, or a network's field no values at all.
    """
    stores = [config.store, *config.later_stores]
    start, end = config.period.start, config.period.end
    with working(config.dask, "stats") as (over, report):
        settings = _settings(config, NO_CLIMATOLOGY)
        write_statistics(stores, config.output, start, end, settings, over, report, config.scenarios)
    _find_residuals(config, stores)
    if config.climatology is not None:
        with working(config.dask, "climatology") as (over, report):
            settings = _settings(config, CLIMATOLOGY | {"memory_gigabytes": 1.0})
            options = ClimatologyOptions(start, end, config.climatology_window, config.memory_gigabytes, settings)
            write_climatology(stores, config.climatology, options, over, report)


def _find_residuals(config: StatsConfig, stores: list[Path]) -> None:
    """How far the data's own budgets fail to close, which a training with the usual ones then does not wait for."""
    known = quantities()
    budgets = [known[name] for name in ConservationConfig.model_fields["budgets"].default]
    if {name for budget in budgets for name in budget.needed} <= set(open_analysis(config.store).data_vars):
        from emulator.model.conserving import find_residuals  # with torch, for which others have no need

        period = config.period.start, config.period.end
        find_residuals(stores, config.output, *period, config.dask.threads, config.scenarios)


def _settings(config: StatsConfig, plain: dict) -> str:
    """The configuration as text, without what a result does not depend on."""
    text = config.model_copy(update={"dask": DaskConfig(), **plain}).model_dump_json()
    return json.dumps(json.loads(text), sort_keys=True)


def check(config: StatsConfig, made: set[Path]) -> str:
    """How many times it would read, in words. Raises `ValueError`."""
    stores = [config.store, *config.later_stores]
    record = AnalysisSeries.of(list(map(open_analysis, stores)), config.period.start, config.period.end)
    scenarios = f" and {len(config.scenarios)} scenarios" if config.scenarios else ""
    return f"{len(record.times)} times of {', '.join(map(str, stores))}{scenarios}"
