"""Statistics of one variable at one initial time: forecasts and baselines against the truth, as `Sums` to add up."""

import dataclasses

import numpy as np

from emulator.planet.grid import Grid
from emulator.verify import spectra
from emulator.verify.align import Alignment
from emulator.verify.climatology import Climatology
from emulator.verify.ensemble import ENSEMBLE_STATISTICS, ensemble_statistics, rank_counts
from emulator.verify.events import BINS, EVENT_STATISTICS, RELIABILITY, event_fields, event_statistics
from emulator.verify.fields import Field
from emulator.verify.precipitation import WINDOWS, dry_rate, fss_statistics, seeps_mean
from emulator.verify.seasonal_slots import SlotFields
from emulator.verify.statistics import STATISTICS, error_statistics
from emulator.verify.sums import Sums

BASELINES = ("persistence", "climatology")
EACH = ("anomaly_correlation", "crps")  # kept apart for every initial time at the levels of maps, for their intervals
BLOCK_BYTES = 2**27


@dataclasses.dataclass(frozen=True, eq=False)
class Setting:
    """What the samples of all variables share.

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

    @property
    def upper(self) -> np.ndarray:
        return np.array(self.events) >= 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """What the truth's record knows of one variable: its climatology, and for the levels of maps the events' thresholds
    `(event, level, cell)` by hour and season, and the climate of rain `(2, level, cell)`; None where not wanted."""

    climatology: Climatology
    thresholds: SlotFields | None = None
    rain: SlotFields | None = None


def sample(
    init: int,
    forecasts: dict[str, Field],
    truth: Field,
    reference: Reference,
    setting: Setting,
    map_levels: tuple[int, ...] = (),
) -> Sums:
    """The statistics of initial time number `init`. Sources in order: `forecasts`, persistence, climatology.

    Works through the leads in blocks of bounded memory. An ensemble is scored by its mean, and by its fair CRPS and
    variance; a truth with members gives persistence as an ensemble. Error maps, events and ranks are kept at
    `map_levels`, positions among the variable's levels.
    """
    alignment = setting.alignment
    leads = np.flatnonzero(alignment.truth_valid[init] >= 0)
    result = _empty(init, len(forecasts) + len(BASELINES), truth, setting, map_levels, reference)
    start = truth.analysis_members(alignment.truth_init[init])  # (member, level, cell)
    members = max([start.shape[0], *(field.array.sizes.get("member", 1) for field in forecasts.values())])
    block = max(1, BLOCK_BYTES // (8 * members * start[0].size))
    for first in range(0, len(leads), block):
        part = leads[first : first + block]
        observed = truth.analysis(alignment.truth_valid[init, part])  # (lead, level, cell)
        when = setting.hour[init, part], setting.day[init, part]
        expected = reference.climatology.at(*when)
        present = np.isfinite(observed) & np.isfinite(start.mean(axis=0)) & np.isfinite(expected)
        sources = [field.forecast(alignment.init_time[init], alignment.lead_time[part]) for field in forecasts.values()]
        sources += [np.broadcast_to(start[:, None], (len(start), *observed.shape)), expected[None]]
        result.gaps[-1] += np.count_nonzero(~np.isfinite(observed))
        for index, source in enumerate(sources):
            finite = np.isfinite(source)
            if not finite.all():
                result.gaps[index] += np.count_nonzero(present & ~finite.all(axis=0))
                sources[index] = np.where(finite, source, np.nan)  # infinite is no number either
        inside = setting.weights > 0
        every = present.all()
        count = np.ones((*present.shape[:2], len(inside)), bool) if every else present.astype(float) @ inside.T > 0
        result.count[:, :, part] += np.moveaxis(count, 0, -1)
        for index, source in enumerate(sources):
            _score(result, index, source, observed, expected, present, part, setting, map_levels)
            _draw(result, index, source, observed, present, part, setting, map_levels)
        if map_levels:
            levels = list(map_levels)
            picked = [source[:, :, levels] for source in sources]
            _judge(result, picked, observed[:, levels], present[:, levels], (part, levels, when), setting, reference)
        if setting.spectrum_leads:
            whole = np.ones(present.shape[:2], bool) if every else present.all(axis=-1)
            _analyse(result, [*sources, observed[None]], whole, part, setting)
    return result


def _score(result, index, source, observed, expected, present, part, setting, map_levels):
    mask = None if present.all() else present
    statistics = error_statistics(source.mean(axis=0), observed, expected, setting.weights, mask)
    if len(source) > 1:
        statistics |= ensemble_statistics(source, observed, setting.weights, mask)
    else:
        none = np.zeros_like(statistics["error"])
        statistics |= {"crps": statistics["absolute_error"], "mean_difference": none, "variance": none}
        statistics["energy_score"] = np.sqrt(statistics["squared_error"])
    counted = result.count[:, :, part] > 0
    for name, values in statistics.items():
        values = np.moveaxis(values, 0, -1)  # (level, region, lead)
        result.totals[name][index][:, :, part] += np.where(counted, values, 0.0)
        if name == "squared_error":
            result.squared_error[0, index][:, :, part] = np.where(counted, values, np.nan)
        if name in EACH and map_levels:
            chosen = list(map_levels)
            result.each[name][0, index][:, :, part] = np.where(counted[chosen], values[chosen], np.nan)


def _draw(result, index, source, observed, present, part, setting, map_levels):
    chosen = list(map_levels)
    for place, lead in enumerate(setting.map_leads):
        found = np.flatnonzero(part == lead)
        if not len(found):
            continue
        at = found[0]
        result.error_map[index, :, place] += np.where(
            present[at, chosen], source[:, at, chosen].mean(axis=0) - observed[at, chosen], 0.0
        )
        if index == 0:
            result.map_count[:, place] += present[at, chosen]


def _judge(result, sources, observed, present, where, setting, reference):
    """Events, rain and ranks at the levels of maps; `where`: leads, levels, and hours and days of the valid times."""
    part, levels, when = where
    mask = None if present.all() else present
    counted = result.count[levels][:, :, part] > 0  # (level, region, lead)
    limits = reference.thresholds.at(*when) if reference.thresholds is not None else None
    climate = reference.rain.at(*when) if reference.rain is not None else None
    for index, source in enumerate(sources):
        found = {}
        if limits is not None:
            probability, happened = event_fields(source, observed, limits, setting.upper)
            statistics = event_statistics(probability, happened, len(source), setting.weights, mask)
            if "fss_power" in result.extra:
                both = (x if mask is None else np.where(mask[:, None], x, 0.0) for x in (probability, happened))
                wet = [x[:, setting.upper] for x in both]  # the lack of rain is no event that has a place
                for name, values in fss_statistics(*wet, setting.grid, setting.weights).items():
                    statistics[name] = np.full((*values.shape[:1], len(setting.events), *values.shape[2:]), np.nan)
                    statistics[name][:, setting.upper] = values
            # (lead, event, level, region, ...) -> (level, event, region, lead, ...)
            found |= {n: np.moveaxis(v, (2, 1, 3, 0), (0, 1, 2, 3)) for n, v in statistics.items()}
        if climate is not None:
            rain = seeps_mean(source, observed, climate, dry_rate(setting.step_seconds), setting.weights, mask)
            found["seeps"] = np.moveaxis(rain, 0, -1)
        if len(source) > 1:
            ranks = rank_counts(source, observed, setting.weights, mask)  # (lead, level, region, rank)
            found["rank"] = np.moveaxis(ranks, 0, 2)
        for name, values in found.items():
            target = result.extra[name][index]
            seen = counted if values.ndim == 3 or name == "rank" else counted[:, None]
            seen = seen.reshape(*seen.shape, *[1] * (values.ndim - seen.ndim))
            if name == "rank":
                target[:, :, part, : values.shape[-1]] += np.where(seen, values, 0.0)
            elif values.ndim == 3:
                target[:, :, part] += np.where(seen, values, 0.0)
            else:
                target[:, :, :, part] += np.where(seen, values, 0.0)


def _analyse(result, sources, whole, part, setting):
    """Spectra of all sources at those leads of a block that have them, by one transform."""
    found = [
        (place, int(at)) for place, lead in enumerate(setting.spectrum_leads) for at in np.flatnonzero(part == lead)
    ]
    if not found:
        return
    places, at = map(list, zip(*found, strict=True))
    fields = np.concatenate([source[:, at] for source in sources])  # (member of any source, place, level, cell)
    power = spectra.power_spectrum(fields.reshape(*fields.shape[:-1], *setting.grid.shape), setting.grid)
    result.power_count[:, places] += whole[at].T
    first = 0
    for index, source in enumerate(sources):
        members = power[first : first + len(source)]
        first += len(source)
        mean = members.mean(axis=0)  # each has a member's spectrum
        result.power[index][:, places] += np.moveaxis(np.where(whole[at][..., None], mean, 0.0), 0, 1)


def _empty(init, sources, truth, setting, map_levels, reference) -> Sums:
    levels, regions, cells = truth.level_count, *setting.weights.shape
    leads, maps, waves = len(setting.alignment.lead_time), len(setting.map_leads), len(setting.spectrum_leads)
    shape = (sources, levels, regions, leads)
    wavenumbers = spectra.wavenumber_count(setting.grid) if waves else 0
    return Sums(
        np.array([init]),
        {name: np.zeros(shape) for name in (*STATISTICS, *ENSEMBLE_STATISTICS)},
        np.zeros(shape[1:], np.int64),
        np.full((1, *shape), np.nan),
        np.zeros((sources + 1, levels, waves, wavenumbers)) if waves else None,
        np.zeros((levels, waves), np.int64),
        np.zeros((sources, len(map_levels), maps, cells)),
        np.zeros((len(map_levels), maps, cells), np.int64),
        np.zeros(sources + 1, np.int64),
        _empty_extra((sources, len(map_levels)), (regions, leads), setting, reference) if map_levels else {},
        {name: np.full((1, sources, len(map_levels), regions, leads), np.nan) for name in EACH if map_levels},
    )


def _empty_extra(front, back, setting, reference) -> dict[str, np.ndarray]:
    extra, events = {}, (*front, len(setting.events), *back)
    if reference.thresholds is not None:
        extra |= {name: np.zeros(events) for name in EVENT_STATISTICS}
        if setting.members > 1:
            extra |= {name: np.zeros((*events, BINS)) for name in RELIABILITY}
    if reference.rain is not None:
        extra["seeps"] = np.zeros((*front, *back))
        if reference.thresholds is not None and setting.grid.kind != "points" and setting.grid.is_global():
            extra |= {name: np.zeros((*events, len(WINDOWS))) for name in ("fss_difference", "fss_power")}
    if setting.members > 1:
        extra["rank"] = np.zeros((*front, *back, setting.members + 1))
    return extra
