"""Scores of forecasts against a truth: every variable, level, lead and region, with baselines, as one dataset."""

import dataclasses
import logging
from collections.abc import Callable

import dask
import numpy as np
import xarray as xr

from emulator.grid import Grid
from emulator.verify import climatology, spectra
from emulator.verify.align import Alignment, valid_times
from emulator.verify.channels import ScoredVariable, headline_ranks
from emulator.verify.sample import Setting, sample
from emulator.verify.sums import Sums, add_up

log = logging.getLogger(__name__)

SPECTRUM_HOURS = (6, 24, 72, 120, 240)
MAP_HOURS = (24, 72, 120, 240)
PARTS = 8  # tasks per variable; each holds one sum in memory


@dataclasses.dataclass(frozen=True, eq=False)
class VariableScores:
    """What was found for one variable: its sums and what its climatology knows."""

    variable: ScoredVariable
    sums: Sums
    mean: np.ndarray
    deviation: np.ndarray
    extreme: np.ndarray
    series: np.ndarray
    map_levels: tuple[int, ...]


def setting(grid: Grid, weights: np.ndarray, alignment: Alignment) -> Setting:
    """The shared setting of all samples; `weights` `(region, *grid.shape)`."""
    valid = valid_times(alignment.init_time, alignment.lead_time)
    flat = xr.DataArray(valid.ravel(), dims="time")
    hour, day = climatology.hour_of_day(flat), climatology.day_of_year(flat)
    return Setting(
        grid,
        weights.reshape(len(weights), -1),
        alignment,
        hour.reshape(valid.shape),
        day.reshape(valid.shape),
        _leads_near(alignment.lead_time, SPECTRUM_HOURS) if spectra.spectrum_kind(grid) else (),
        _leads_near(alignment.lead_time, MAP_HOURS),
    )


def score_variables(
    variables: list[ScoredVariable],
    plan: climatology.Recipe,
    shared: Setting,
    done: Callable[[int, str], None] = lambda count, name: None,
) -> list[VariableScores]:
    """Scores one variable after the other, the initial times of each in parallel by Dask's current scheduler."""
    results = []
    for variable in variables:
        results.append(_score_variable(variable, plan, shared))
        log.debug("scored %s", variable.name)
        done(len(results), variable.name)
    return results


def _score_variable(variable, plan, shared) -> VariableScores:
    area = shared.grid.area.ravel()
    expected = climatology.Climatology(variable.truth.analysis, plan, area)
    map_levels = tuple(headline_ranks(variable))
    inits = np.arange(len(shared.alignment.init_time))
    inits = inits[(shared.alignment.truth_valid >= 0).any(axis=1)]
    groups = np.array_split(inits, min(PARTS, len(inits)))
    held = dask.delayed(expected, traverse=False)
    task = dask.delayed(_group, pure=False, traverse=False)
    parts = dask.compute(*[task(group, variable, held, shared, map_levels) for group in groups])
    return VariableScores(
        variable, add_up(list(parts)), expected.mean, expected.deviation, expected.extreme, expected.series, map_levels
    )


def _group(inits, variable, expected, shared, map_levels) -> Sums:
    result = None
    for init in inits:
        part = sample(int(init), variable.forecasts, variable.truth, expected, shared, map_levels)
        result = part if result is None else result + part
    return result


def _leads_near(lead_time: np.ndarray, hours: tuple[int, ...]) -> tuple[int, ...]:
    """Positions of the leads of exactly these hours; the last lead where it has none of them."""
    held = lead_time / np.timedelta64(1, "h")
    found = [int(np.flatnonzero(held == hour)[0]) for hour in hours if np.any(held == hour)]
    return tuple(found or [len(held) - 1])
