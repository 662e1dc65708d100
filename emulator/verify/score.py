"""The sums of every variable over all initial times, in parallel tasks; and of the wind as a vector."""

import dataclasses
import logging
from collections.abc import Callable

import dask
import numpy as np

from emulator.planet.calendar import hour_and_leap_day, valid_times
from emulator.planet.grid import Grid
from emulator.verify import climatology
from emulator.verify.align import Alignment
from emulator.verify.channels import ScoredVariable, headline_ranks
from emulator.verify.climatology import SlotFields
from emulator.verify.metric import all_statistics
from emulator.verify.metrics.spectra import spectrum_kind
from emulator.verify.options import VerifyOptions
from emulator.verify.sample import Binning, Normals, Sums, accumulate, add_up, stack_levels

log = logging.getLogger(__name__)

SPECTRUM_HOURS = (6, 24, 72, 120, 240)
MAP_HOURS = (24, 72, 120, 240)
EVENTS = VerifyOptions.events  # climatological probabilities of the thresholds
SHOWN_MONTHS = (1, 3, 6, 12)  # in place of both, where leads are months
PARTS = 8  # fewest tasks per variable; each holds one sum in memory
CLIMATOLOGY_BYTES = 2**29  # of the levels that are scored together
VECTORS = (
    ("wind_vector", "u_component_of_wind", "v_component_of_wind"),
    ("10m_wind_vector", "10m_u_component_of_wind", "10m_v_component_of_wind"),
)


@dataclasses.dataclass(frozen=True, eq=False)
class VariableScores:
    """Sums of one variable over all initial times, and what its climatology knows of the record.

    Attributes:
      mean, deviation, extreme, series: as of `climatology.Climatology`, over all levels.
      headline: positions of the levels that are channels of maps.
    """

    variable: ScoredVariable
    sums: Sums
    mean: np.ndarray
    deviation: np.ndarray
    extreme: np.ndarray
    series: np.ndarray
    headline: tuple[int, ...]


def binning(
    grid: Grid,
    weights: np.ndarray,
    alignment: Alignment,
    events: tuple[float, ...] = EVENTS,
    members: int = 1,
    step_seconds: float = 0.0,
    overlap: bool = False,
) -> Binning:
    """The binning of all samples; `weights` `(region, *grid.shape)`, the rest as in `Binning`."""
    valid = valid_times(alignment.init_time, alignment.lead_time)
    hour, day = hour_and_leap_day(valid.ravel())
    return Binning(
        grid,
        weights.reshape(len(weights), -1),
        alignment,
        hour.reshape(valid.shape),
        day.reshape(valid.shape),
        _leads_near(alignment.lead_time, SPECTRUM_HOURS) if spectrum_kind(grid) else (),
        _leads_near(alignment.lead_time, MAP_HOURS),
        tuple(events),
        members,
        step_seconds,
        overlap,
    )


def score_variables(
    variables: list[ScoredVariable],
    recipe: climatology.Recipe,
    bins: Binning,
    done: Callable[[int, str], None] = lambda count, name: None,
    threads: int = 1,
) -> list[VariableScores]:
    """Scores one variable after the other, the initial times of each in parallel by Dask's current scheduler.

    `threads`: tasks that go on at a time; twice as many are made, and at least `PARTS`. Vectors of the wind come last.
    """
    results = []
    for variable in variables:
        results.append(_score_variable(variable, recipe, bins, max(PARTS, 2 * threads)))
        log.debug("scored %s", variable.name)
        done(len(results), variable.name)
    return results + wind_vectors(results)


def _score_variable(variable, recipe, bins, parts) -> VariableScores:
    inits = np.arange(len(bins.alignment.init_time))
    inits = inits[(bins.alignment.truth_valid >= 0).any(axis=1)]
    groups = np.array_split(inits, min(parts, len(inits)))
    task = dask.delayed(_sums_of, pure=False, traverse=False)
    ranked, sums, climates = tuple(sorted(headline_ranks(variable))), [], []
    for levels in _level_groups(variable, recipe, bins):
        part = variable.at_levels(levels)
        headline = tuple(levels.index(level) for level in ranked if level in levels)
        normals = _normals(part, recipe, bins, headline)
        shared = dask.delayed(normals, traverse=False)
        sums.append(add_up(list(dask.compute(*[task(group, part, shared, bins, headline) for group in groups]))))
        climates.append(normals.climatology)
        normals.climatology.forget()
    record = [
        np.concatenate([getattr(climate, name) for climate in climates], -1)
        for name in ("mean", "deviation", "extreme", "series")
    ]
    return VariableScores(variable, stack_levels(sums), *record, ranked)


def _level_groups(variable, recipe, bins) -> list[list[int]]:
    """Levels that are scored together: as many as keep the climatology within `CLIMATOLOGY_BYTES`."""
    cells = int(np.prod(bins.grid.shape))
    valid = bins.alignment.truth_valid >= 0
    size = 8 * cells * climatology.slots(recipe, (bins.hour[valid], bins.day[valid]))
    count = variable.truth.level_count
    step = max(1, CLIMATOLOGY_BYTES // size)
    return [list(range(start, min(start + step, count))) for start in range(0, count, step)]


def _normals(variable, recipe, bins, headline) -> Normals:
    """Climatology of some levels, and what the statistics ask of the record at those of `headline`."""
    valid = bins.alignment.truth_valid >= 0
    when = bins.hour[valid], bins.day[valid]
    expected = climatology.Climatology(variable.truth.analysis, recipe, bins.grid.area.ravel(), headline, when)
    asked = {}
    for group in bins.statistics(variable.name, bool(headline)):
        asked |= {name: make(bins) for name, make in group.normals.items() if name not in asked}

    def read(index):
        if expected.record is not None:
            return expected.record[index]
        return variable.truth.analysis(recipe.positions[index])[:, list(headline)].astype(np.float32)

    return Normals(expected, {name: SlotFields(recipe, read, *when, make) for name, make in asked.items()})


def _sums_of(inits, variable, normals, bins, headline) -> Sums:
    result = None
    for init in inits:
        part = accumulate(int(init), variable, normals, bins, headline)
        result = part if result is None else result + part
    return result


def _leads_near(lead_time: np.ndarray, hours: tuple[int, ...]) -> tuple[int, ...]:
    """Positions of the leads of exactly these hours, or of `SHOWN_MONTHS`; the last lead where it has none of them."""
    months = lead_time.dtype.kind in "iu"
    known, wanted = (lead_time, SHOWN_MONTHS) if months else (lead_time / np.timedelta64(1, "h"), hours)
    places = [int(np.flatnonzero(known == lead)[0]) for lead in wanted if np.any(known == lead)]
    return tuple(places or [len(known) - 1])


def wind_vectors(results: list[VariableScores]) -> list[VariableScores]:
    """Vector scores of every pair of components that was scored on the same levels and the same samples.

    The squared error is that of the vector, `(u_f - u_o)^2 + (v_f - v_o)^2`, not of the speed; power is twice the kinetic
    energy's. What does not add up over components, as the bias or the CRPS, is NaN.
    """
    known = {result.variable.name: result for result in results}
    pairs = [(name, known[u], known[v]) for name, u, v in VECTORS if u in known and v in known]
    return [
        _vector(name, u, v) for name, u, v in pairs if np.array_equal(u.sums.counts["count"], v.sums.counts["count"])
    ]


def _vector(name: str, u: VariableScores, v: VariableScores) -> VariableScores:
    groups = [group for group in all_statistics() if not group.headline]
    added = {statistic for group in groups for statistic in group.vector}
    totals = {}
    for statistic in (s for group in groups for s in group.names if s in u.sums.totals):
        one, other = u.sums.totals[statistic], v.sums.totals[statistic]
        totals[statistic] = one + other if statistic in added else np.full_like(one, np.nan)
    counts = {group.sampling.count: u.sums.counts[group.sampling.count] for group in groups if group.names[0] in totals}
    series = {n: values + v.sums.series[n] for n, values in u.sums.series.items() if n in added}
    sums = Sums(u.sums.init, totals, counts, series, np.zeros_like(u.sums.gaps))
    missing = np.full_like(u.mean, np.nan)
    variable = dataclasses.replace(u.variable, name=name, ranks={})
    return VariableScores(variable, sums, missing, missing, missing, np.full_like(u.series, np.nan), ())
