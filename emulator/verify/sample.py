"""What one initial time contributes to every metric: forecasts and baselines against the truth, as sums that add up."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from emulator.planet.grid import Grid
from emulator.verify.align import Alignment
from emulator.verify.channels import ScoredVariable
from emulator.verify.climatology import Climatology, SlotFields
from emulator.verify.metric import REGIONS, Sample, Statistics, all_statistics, with_interval

BASELINES = ("persistence", "climatology")
BLOCK_BYTES = 2**27


@dataclasses.dataclass(frozen=True, eq=False)
class Binning:
    """What scores are kept apart by, the same for all variables.

    Attributes:
      grid: of all stores.
      weights: `(region, cell)`.
      alignment: initial times, leads and their places in the truth.
      hour, day: hour and day of year (1 ... 366) of the valid times, `(init, lead)`.
      spectrum_leads, map_leads: positions among the leads; no spectra on grids without any.
      events: climatological probability of staying below the threshold, for every event; beyond 0.5 the event is what
        lies above the threshold.
      members: of the largest ensemble.
      step_seconds: of the truth's fluxes.
      overlap: whether the climatology's record holds verified times.
    """

    grid: Grid
    weights: np.ndarray
    alignment: Alignment
    hour: np.ndarray
    day: np.ndarray
    spectrum_leads: tuple[int, ...]
    map_leads: tuple[int, ...]
    events: tuple[float, ...] = ()
    members: int = 1
    step_seconds: float = 0.0
    overlap: bool = False

    @property
    def upper(self) -> np.ndarray:
        """Which events lie above their threshold, `(event,)`."""
        return np.array(self.events) >= 0.5

    def leads(self, axis: str) -> np.ndarray:
        """Positions among the leads of an axis of leads."""
        chosen = {"map_lead": self.map_leads, "spectrum_lead": self.spectrum_leads}
        return np.array(chosen.get(axis, range(len(self.alignment.lead_time))), np.int64)

    def statistics(self, variable: str, headline: bool) -> list[Statistics]:
        """What is worked out for a variable; without channels of the headline what belongs to them is left out."""
        groups = [group for group in all_statistics() if headline or not group.headline]
        return [group for group in groups if group.wanted(variable, self)]


@dataclasses.dataclass(frozen=True, eq=False)
class Normals:
    """What the truth's record knows of one variable: its climatology, and at the channels of maps fields by hour and season
    that statistics ask for, by name."""

    climatology: Climatology
    fields: Mapping[str, SlotFields] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Sums:
    """Sums of linear statistics of one variable over some initial times. Parts add up in any order.

    Attributes:
      init: positions of the initial times summed here, increasing.
      totals: statistic -> array over the `dims` of its `Statistics`, summed over `init`.
      counts: name of a `Sampling`'s count -> initial times that count, over the channels, places and leads.
      series: name of an `Interval`'s series -> `(init, forecast, channel, region, lead)`, NaN where nothing counts.
      gaps: `(forecast + 1,)`, cells without a finite forecast where there is truth, and last those without truth.
    """

    init: np.ndarray
    totals: dict[str, np.ndarray]
    counts: dict[str, np.ndarray]
    series: dict[str, np.ndarray]
    gaps: np.ndarray

    def __add__(self, other: "Sums") -> "Sums":
        """The sums over both sets of initial times. Raises `ValueError` when they share one."""
        if shared := np.intersect1d(self.init, other.init).tolist():
            raise ValueError(f"Expected parts without common initial times, got {shared} in both")
        init = np.concatenate([self.init, other.init])
        order = np.argsort(init)
        return Sums(
            init[order],
            {name: total + other.totals[name] for name, total in self.totals.items()},
            {name: count + other.counts[name] for name, count in self.counts.items()},
            {name: np.concatenate([values, other.series[name]])[order] for name, values in self.series.items()},
            self.gaps + other.gaps,
        )


def add_up(parts: list[Sums]) -> Sums:
    """The sum of parts, taken pairwise so that rounding does not grow with their number. Raises `ValueError` for none."""
    if not parts:
        raise ValueError("Expected at least one part to add up, got none")
    while len(parts) > 1:
        parts = [a + b for a, b in zip(parts[::2], parts[1::2], strict=False)] + (parts[-1:] if len(parts) % 2 else [])
    return parts[0]


def stack_levels(parts: list[Sums]) -> Sums:
    """Sums of different levels of one variable, over the same initial times, as one."""
    if len(parts) == 1:
        return parts[0]

    def stacked(attribute: str, axis: int) -> dict:
        arrays = [getattr(part, attribute) for part in parts]
        names = dict.fromkeys(name for known in arrays for name in known)
        return {n: np.concatenate([known[n] for known in arrays if n in known], axis=axis) for n in names}

    gaps = sum(part.gaps for part in parts)
    return Sums(parts[0].init, stacked("totals", 1), stacked("counts", 0), stacked("series", 2), gaps)


def accumulate(
    init: int, variable: ScoredVariable, normals: Normals, binning: Binning, headline: tuple[int, ...] = ()
) -> Sums:
    """The statistics of initial time number `init`. Sources in order: the forecasts, persistence, climatology.

    Works through the leads in blocks of bounded memory. An ensemble is scored by its mean and as a distribution; a truth
    with members gives persistence as an ensemble. `headline`: positions among the variable's levels of the channels of maps.
    """
    alignment, forecasts, truth, exists = binning.alignment, variable.forecasts, variable.truth, variable.exists
    leads = np.flatnonzero(alignment.truth_valid[init] >= 0)
    groups = binning.statistics(variable.name, bool(headline))
    result = _zeros(init, variable, groups, binning, headline)
    start = truth.analysis_members(alignment.truth_init[init])  # (member, level, cell)
    members = max([start.shape[0], *(field.array.sizes.get("member", 1) for field in forecasts.values())])
    block = max(1, BLOCK_BYTES // (8 * members * start[0].size))
    for first in range(0, len(leads), block):
        part = leads[first : first + block]
        observed = truth.analysis(alignment.truth_valid[init, part])  # (lead, level, cell)
        when = binning.hour[init, part], binning.day[init, part]
        expected = normals.climatology.at(*when)
        present = np.isfinite(observed) & np.isfinite(start.mean(axis=0)) & np.isfinite(expected)
        sources = [field.forecast(alignment.init_time[init], alignment.lead_time[part]) for field in forecasts.values()]
        sources += [np.broadcast_to(start[:, None], (len(start), *observed.shape)), expected[None]]
        result.gaps[-1] += np.count_nonzero(~np.isfinite(observed) & (True if exists is None else exists))
        for index, source in enumerate(sources):
            finite = np.isfinite(source)
            if not finite.all():
                result.gaps[index] += np.count_nonzero(present & ~finite.all(axis=0))
                sources[index] = np.where(finite, source, np.nan)  # infinite is no number either
        known = {name: fields.at(*when) for name, fields in normals.fields.items()}
        whole = _Block(sources, observed, expected, present, part, {}, exists)
        _add(result, [group for group in groups if not group.headline], whole, binning, headline)
        if headline:
            _add(result, [group for group in groups if group.headline], whole.at_levels(headline, known), binning)
    return result


@dataclasses.dataclass(frozen=True, eq=False)
class _Block:
    """All sources `(member, lead, level, cell)` at some leads, by position, of one initial time; the rest `(lead, level,
    cell)`, what the record knows `(lead, ..., level, cell)` by name, and where the variable exists, `(level, cell)`."""

    sources: list[np.ndarray]
    observed: np.ndarray
    expected: np.ndarray
    present: np.ndarray
    leads: np.ndarray
    normals: Mapping[str, np.ndarray]
    exists: np.ndarray | None

    def at_levels(self, levels: tuple[int, ...], normals: Mapping[str, np.ndarray]) -> "_Block":
        chosen = list(levels)
        fields = (array[:, chosen] for array in (self.observed, self.expected, self.present))
        exists = None if self.exists is None else self.exists[chosen]
        return _Block([source[:, :, chosen] for source in self.sources], *fields, self.leads, normals, exists)

    def at_leads(self, at: np.ndarray) -> "_Block":
        if len(at) == len(self.leads):
            return self
        fields = (array[at] for array in (self.observed, self.expected, self.present, self.leads))
        normals = {name: array[at] for name, array in self.normals.items()}
        return _Block([source[:, at] for source in self.sources], *fields, normals, self.exists)

    def sample(self, source: np.ndarray, binning: Binning) -> Sample:
        mask = None if self.present.all() else self.present
        fields = (source, self.observed, self.expected, mask)
        return Sample(*fields, binning.weights, binning, self.normals, self.exists)


def _add(result: Sums, groups: list[Statistics], block: _Block, binning: Binning, headline=()) -> None:
    """Adds the statistics of a block of leads, source by source, so that one source's fields are alive at a time."""
    for sampling in dict.fromkeys(group.sampling for group in groups):
        _, places, at = np.intersect1d(binning.leads(sampling.lead), block.leads, return_indices=True)
        if not len(at):
            continue
        part, own = block.at_leads(at), [group for group in groups if group.sampling == sampling]
        counted = sampling.counted(part.present, binning.weights, part.exists)
        if own[0].headline == sampling.headline:
            axis = sampling.count_dims.index(sampling.lead)
            count = np.moveaxis(counted, 0, axis)
            result.counts[sampling.count][_place(count, axis, places)] += count
        if sampling.source == "source":
            samples = [part.sample(source, binning) for source in (*part.sources, part.observed[None])]
            for group in own:
                for name, values in group.of(samples).items():
                    for total, of_source in zip(result.totals[name], values, strict=True):
                        _accumulate(total, group, of_source, counted, places)
            continue
        for index, source in enumerate(part.sources):
            sample = part.sample(source, binning)
            for group in own:
                statistics = group.of(sample)
                sample.statistics.update(statistics)
                for name, values in statistics.items():
                    _accumulate(result.totals[name][index], group, values, counted, places)
            if sampling == REGIONS and not own[0].headline:
                _keep(result, index, sample.statistics, counted, places, headline)


def _accumulate(total, group, values, counted, places) -> None:
    """Adds the values of one source `(lead, [front,] channel[, place][, back])` where they count."""
    front = len(group.front)
    shape = (len(counted), *[1] * front, *counted.shape[1:], *[1] * (values.ndim - front - counted.ndim))
    values = group.arranged(np.where(counted.reshape(shape), values, 0.0))
    total[_place(values, group.dims.index(group.sampling.lead) - 1, places)] += values


def _place(values: np.ndarray, axis: int, places: np.ndarray) -> tuple:
    """Where values whose leads lie along `axis` belong in a sum: at `places`, and at the beginning of longer axes behind."""
    return (*[slice(None)] * axis, places, *(slice(0, size) for size in values.shape[axis + 1 :]))


def _keep(result, index, statistics, counted, places, headline) -> None:
    """The statistics of this initial time that intervals are made from, at the channels that keep them."""
    for interval in (metric.interval for metric in with_interval(list(statistics))):
        if interval.series in result.series:
            values = np.moveaxis(np.where(counted, statistics[interval.statistic], np.nan), 0, -1)
            chosen = slice(None) if interval.everywhere else list(headline)
            result.series[interval.series][0, index][:, :, places] = values[chosen]


def _zeros(init, variable, groups, binning, headline) -> Sums:
    forecasts = len(variable.forecasts) + len(BASELINES)
    regions, cells = binning.weights.shape
    sizes = {"forecast": forecasts, "source": forecasts + 1, "region": regions, "cell": cells}
    sizes |= {"channel": variable.truth.level_count, "map_channel": len(headline)}
    sizes |= {group.sampling.lead: len(binning.leads(group.sampling.lead)) for group in groups}
    totals, counts = {}, {}
    for group in groups:
        known = sizes | group.sizes(binning)
        totals |= {name: np.zeros([known[d] for d in group.dims]) for name in group.names}
        counts[group.sampling.count] = np.zeros([known[d] for d in group.sampling.count_dims], np.int64)
    series = {}
    for interval in (metric.interval for metric in with_interval(list(totals))):
        if interval.everywhere or headline:
            series[interval.series] = np.full([1, *(sizes[d] for d in interval.dims)], np.nan)
    return Sums(np.array([init]), totals, counts, series, np.zeros(forecasts + 1, np.int64))
