"""Statistics of one variable at one initial time: forecasts and baselines against the truth, as `Sums` to add up."""

import dataclasses

import numpy as np

from emulator.grid import Grid
from emulator.verify import spectra
from emulator.verify.align import Alignment
from emulator.verify.climatology import Climatology
from emulator.verify.fields import Field
from emulator.verify.statistics import ENSEMBLE_STATISTICS, STATISTICS, ensemble_statistics, error_statistics
from emulator.verify.sums import Sums

BASELINES = ("persistence", "climatology")
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
    """

    grid: Grid
    weights: np.ndarray
    alignment: Alignment
    hour: np.ndarray
    day: np.ndarray
    spectrum_leads: tuple[int, ...]
    map_leads: tuple[int, ...]


def sample(
    init: int,
    forecasts: dict[str, Field],
    truth: Field,
    climatology: Climatology,
    setting: Setting,
    map_levels: tuple[int, ...] = (),
) -> Sums:
    """The statistics of initial time number `init`. Sources in order: `forecasts`, persistence, climatology.

    Works through the leads in blocks of bounded memory. An ensemble is scored by its mean, and by its fair CRPS and
    variance; a truth with members gives persistence as an ensemble. Error maps are
    kept at `map_levels`, positions among the variable's levels.
    """
    alignment = setting.alignment
    leads = np.flatnonzero(alignment.truth_valid[init] >= 0)
    result = _empty(init, len(forecasts) + len(BASELINES), truth, setting, map_levels)
    start = truth.analysis_members(alignment.truth_init[init])  # (member, level, cell)
    members = max([start.shape[0], *(field.array.sizes.get("member", 1) for field in forecasts.values())])
    block = max(1, BLOCK_BYTES // (8 * members * start[0].size))
    for first in range(0, len(leads), block):
        part = leads[first : first + block]
        observed = truth.analysis(alignment.truth_valid[init, part])  # (lead, level, cell)
        expected = climatology.at(setting.hour[init, part], setting.day[init, part])
        present = np.isfinite(observed) & np.isfinite(start.mean(axis=0)) & np.isfinite(expected)
        sources = [field.forecast(alignment.init_time[init], alignment.lead_time[part]) for field in forecasts.values()]
        sources += [np.broadcast_to(start[:, None], (len(start), *observed.shape)), expected[None]]
        seen = present.any(axis=-1)
        count = (present.astype(np.float64) @ (setting.weights > 0).T) > 0  # (lead, level, region)
        result.count[:, :, part] += np.moveaxis(count, 0, -1)
        for index, source in enumerate(sources):
            _score(result, index, source, observed, expected, present, part, setting)
            _draw(result, index, source, observed, present, part, setting, map_levels)
        if setting.spectrum_leads:
            _analyse(result, [*sources, observed[None]], seen & present.all(axis=-1), part, setting)
    return result


def _score(result, index, source, observed, expected, present, part, setting):
    mask = None if present.all() else present
    statistics = error_statistics(source.mean(axis=0), observed, expected, setting.weights, mask)
    if len(source) > 1:
        statistics |= ensemble_statistics(source, observed, setting.weights, mask)
    else:
        statistics |= {"crps": statistics["absolute_error"], "variance": np.zeros_like(statistics["error"])}
    counted = result.count[:, :, part] > 0
    for name, values in statistics.items():
        values = np.moveaxis(values, 0, -1)  # (level, region, lead)
        result.totals[name][index][:, :, part] += np.where(counted, values, 0.0)
        if name == "squared_error":
            result.squared_error[0, index][:, :, part] = np.where(counted, values, np.nan)


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


def _analyse(result, sources, whole, part, setting):
    for place, lead in enumerate(setting.spectrum_leads):
        found = np.flatnonzero(part == lead)
        if not len(found):
            continue
        at = found[0]
        result.power_count[:, place] += whole[at]
        for index, source in enumerate(sources):
            fields = source[:, at].reshape(*source.shape[:1], -1, *setting.grid.shape)
            power = spectra.power_spectrum(fields, setting.grid).mean(
                axis=0
            )  # over members: each has a member's spectrum
            result.power[index, :, place] += np.where(whole[at][:, None], power, 0.0)


def _empty(init, sources, truth, setting, map_levels) -> Sums:
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
    )
