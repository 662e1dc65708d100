"""Scores of forecasts against a truth: every variable, level, lead and region, with baselines, as one dataset."""

import dataclasses
import logging
from collections.abc import Callable

import dask
import numpy as np
import xarray as xr

from emulator.planet.grid import Grid
from emulator.verify import climatology, spectra
from emulator.verify.align import Alignment, valid_times
from emulator.verify.channels import ScoredVariable, headline_ranks
from emulator.verify.precipitation import PRECIPITATION, dry_rate, seeps_climate
from emulator.verify.sample import Reference, Setting, sample
from emulator.verify.seasonal_slots import SlotFields, Slots, quantiles
from emulator.verify.sums import Sums, add_up, stack_levels

log = logging.getLogger(__name__)

SPECTRUM_HOURS = (6, 24, 72, 120, 240)
MAP_HOURS = (24, 72, 120, 240)
EVENTS = (0.05, 0.95)  # climatological probabilities of the thresholds
PARTS = 8  # fewest tasks per variable; each holds one sum in memory
CLIMATOLOGY_BYTES = 2**29  # of the levels that are scored together


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


def setting(
    grid: Grid,
    weights: np.ndarray,
    alignment: Alignment,
    events: tuple[float, ...] = EVENTS,
    members: int = 1,
    step_seconds: float = 0.0,
) -> Setting:
    """The shared setting of all samples; `weights` `(region, *grid.shape)`, the rest as in `Setting`."""
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
        tuple(events),
        members,
        step_seconds,
    )


def score_variables(
    variables: list[ScoredVariable],
    plan: climatology.Recipe,
    shared: Setting,
    done: Callable[[int, str], None] = lambda count, name: None,
    threads: int = 1,
) -> list[VariableScores]:
    """Scores one variable after the other, the initial times of each in parallel by Dask's current scheduler.

    `threads`: tasks that go on at a time; twice as many are made, and at least `PARTS`.
    """
    results = []
    for variable in variables:
        results.append(_score_variable(variable, plan, shared, max(PARTS, 2 * threads)))
        log.debug("scored %s", variable.name)
        done(len(results), variable.name)
    return results


def _score_variable(variable, plan, shared, parts=PARTS) -> VariableScores:
    inits = np.arange(len(shared.alignment.init_time))
    inits = inits[(shared.alignment.truth_valid >= 0).any(axis=1)]
    groups = np.array_split(inits, min(parts, len(inits)))
    task = dask.delayed(_group, pure=False, traverse=False)
    headline, found, known = tuple(sorted(headline_ranks(variable))), [], []
    for levels in _level_groups(variable, plan, shared):
        part = variable.at_levels(levels)
        map_levels = tuple(levels.index(level) for level in headline if level in levels)
        reference = _reference(part, plan, shared, map_levels)
        held = dask.delayed(reference, traverse=False)
        found.append(add_up(list(dask.compute(*[task(group, part, held, shared, map_levels) for group in groups]))))
        known.append(reference.climatology)
        reference.climatology.forget()
    known = [
        np.concatenate([getattr(k, name) for k in known], -1) for name in ("mean", "deviation", "extreme", "series")
    ]
    return VariableScores(variable, stack_levels(found), *known, headline)


def _level_groups(variable, plan, shared) -> list[list[int]]:
    """Levels that are scored together: as many as keep the climatology within `CLIMATOLOGY_BYTES`."""
    cells = int(np.prod(shared.grid.shape))
    valid = shared.alignment.truth_valid >= 0
    size = 8 * cells * climatology.slots(plan, (shared.hour[valid], shared.day[valid]))
    count = variable.truth.level_count
    step = max(1, CLIMATOLOGY_BYTES // size)
    return [list(range(start, min(start + step, count))) for start in range(0, count, step)]


def _reference(variable, plan, shared, map_levels) -> Reference:
    """Climatology of some levels, and what events and rain need at those of `map_levels`."""
    area = shared.grid.area.ravel()
    valid = shared.alignment.truth_valid >= 0
    when = shared.hour[valid], shared.day[valid]
    expected = climatology.Climatology(variable.truth.analysis, plan, area, map_levels, when)
    rainy = variable.name == PRECIPITATION and shared.step_seconds > 0
    if not map_levels or not (shared.events or rainy):
        return Reference(expected)

    def read(index):
        if expected.record is not None:
            return expected.record[index]
        return variable.truth.analysis(plan.positions[index])[:, list(map_levels)].astype(np.float32)

    slots = Slots(plan, read)
    thresholds = SlotFields(slots, *when, lambda s: quantiles(s, shared.events)) if shared.events else None
    dry = dry_rate(shared.step_seconds) if rainy else 0.0
    rain = SlotFields(slots, *when, lambda s: seeps_climate(s, dry)) if rainy else None
    return Reference(expected, thresholds, rain)


def _group(inits, variable, reference, shared, map_levels) -> Sums:
    result = None
    for init in inits:
        part = sample(int(init), variable.forecasts, variable.truth, reference, shared, map_levels)
        result = part if result is None else result + part
    return result


def _leads_near(lead_time: np.ndarray, hours: tuple[int, ...]) -> tuple[int, ...]:
    """Positions of the leads of exactly these hours; the last lead where it has none of them."""
    held = lead_time / np.timedelta64(1, "h")
    found = [int(np.flatnonzero(held == hour)[0]) for hour in hours if np.any(held == hour)]
    return tuple(found or [len(held) - 1])
