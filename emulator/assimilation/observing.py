"""Observations of a nature run and from tables of reports, in memory or as a Parquet file."""

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.assimilation.observations import Observations
from emulator.assimilation.options import ObserveOptions
from emulator.assimilation.simulate import simulated
from emulator.assimilation.tables import read_reports
from emulator.parallel.tasks import Report
from emulator.planet.calendar import select_period, within
from emulator.store.analysis import open_analysis

log = logging.getLogger(__name__)


def observe(
    options: ObserveOptions | Mapping,
    nature=None,
    period: tuple = (None, None),
    output: Path | None = None,
    report: Report = lambda done, total, remark="": None,
) -> Observations:
    """Observations of docs/assimilation.md, of every time of a period.

    Args:
      options: networks and tables, or a mapping of those. nature: an analysis store or its path, for networks.
      period: first and last time; None is open. output: Parquet file that is written. report: takes each time as it ends.
    Raises `ValueError` in one sentence for what the store or a table lacks, and where nothing is observed in the period.
    """
    options = options if isinstance(options, ObserveOptions) else ObserveOptions.of(options)
    parts = [_during(read_reports(table), period) for table in options.tables]
    if options.networks:
        if nature is None:
            raise ValueError("Expected a nature run for networks to observe, got none")
        store = nature if isinstance(nature, xr.Dataset) else open_analysis(nature)
        store = select_period(store, *period)
        times = store["time"].values
        for done, found in enumerate(simulated(store, options)):
            parts.append(found)
            report(done + 1, len(times))
    found = Observations.concat(parts)
    if not len(found):
        raise ValueError(f"Expected observations from {period[0] or 'the start'} to {period[1] or 'the end'}, got none")
    found = found.where(np.argsort(found.time, kind="stable"))
    for system, count in zip(*np.unique(found.system, return_counts=True), strict=True):
        log.info("%s: %d observations", system, count)
    if output is not None:
        found.write(output, {"options": json.dumps(dataclasses.asdict(options), default=str)})
    return found


def _during(observations: Observations, period: tuple) -> Observations:
    """The rows of a period, and those without a time, which quality control counts."""
    undated = np.isnat(observations.time)
    chosen = undated.copy()
    if not undated.all():
        chosen[~undated] = within(observations.time[~undated], *period)
    return observations.where(chosen)
