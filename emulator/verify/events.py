"""Forecasts of events: the field beyond a climatological quantile of its hour, season and place.

A forecast is a probability, the share of members beyond the threshold; a single forecast says 0 or 1. Everything here is
an area mean of one sample, so that it adds up over initial times; the scores are functions of the means.
"""

import numpy as np
import xarray as xr

from emulator.verify.statistics import area_means

EVENT_STATISTICS = ("hit", "miss", "false_alarm", "brier", "brier_correction")
RELIABILITY = ("reliability_weight", "reliability_probability", "reliability_event")
BINS = 11  # probabilities 0, 0.1, ..., 1: exact for 10 members


def exceeds(field: np.ndarray, thresholds: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Whether the event happens: field `(..., lead, level, cell)`, thresholds `(lead, event, level, cell)`.

    Above the threshold where `upper` `(event,)`, below it elsewhere; a value at the threshold is no event. Returns
    `(..., lead, event, level, cell)`.
    """
    values = field[..., :, None, :, :]
    side = np.asarray(upper)[:, None, None]
    return np.where(side, values > thresholds, values < thresholds)


def event_fields(members, truth, thresholds, upper) -> tuple[np.ndarray, np.ndarray]:
    """Forecast probability of each event and whether it happened, float64 `(lead, event, level, cell)`.

    `members` `(member, lead, level, cell)`, `truth` `(lead, level, cell)`, `thresholds` and `upper` as in `exceeds`. The
    probability is NaN where a member is not finite.
    """
    happened = exceeds(truth, thresholds, upper).astype(np.float64)
    probability = np.zeros(happened.shape)
    for member in members:
        probability += exceeds(member, thresholds, upper)
    probability /= len(members)
    broken = ~np.isfinite(members).all(axis=0)
    if broken.any():
        probability += np.where(broken, np.nan, 0.0)[:, None]
    return probability, happened


def event_statistics(probability, happened, members: int, weights, mask=None) -> dict[str, np.ndarray]:
    """Statistics of `EVENT_STATISTICS`, and for an ensemble of `RELIABILITY`, `(lead, event, level, region[, bin])`.

    `probability` and `happened` from `event_fields`, `members` their number, `weights` `(region, cell)`, `mask` `(lead,
    level, cell)`. `hit`, `miss` and `false_alarm` are area shares, of an ensemble those of a member drawn at random.
    """
    marks = None if mask is None else np.broadcast_to(mask[:, None], happened.shape)

    def mean(values):
        return area_means(values, weights, marks)

    both, said, was = mean(probability * happened), mean(probability), mean(happened)
    squared = said if members == 1 else mean(probability**2)
    result = {
        "hit": both,
        "miss": _not_rounding(was - both),
        "false_alarm": _not_rounding(said - both),
        "brier": squared - 2 * both + was,
        "brier_correction": _not_rounding(said - squared) / max(members - 1, 1),
    }
    if members > 1:
        place = np.nan_to_num(np.floor(probability * (BINS - 1) + 0.5), nan=-1).astype(np.int64)
        rows = [place == index for index in range(BINS)]
        result["reliability_weight"] = np.stack([mean(row.astype(np.float64)) for row in rows], axis=-1)
        result["reliability_probability"] = np.stack([mean(np.where(r, probability, 0.0)) for r in rows], axis=-1)
        result["reliability_event"] = np.stack([mean(row * happened) for row in rows], axis=-1)
    return result


def _not_rounding(share):
    """A share of the area, which is never negative, without the rounding of a difference of equal sums."""
    return np.where(share < 1e-14, 0.0 * share, share)


EVENT_METRICS = {
    "base_rate": "share of cells and times at which the event happened",
    "frequency_bias": "how often the event was forecast over how often it happened",
    "hit_rate": "share of the events that were forecast",
    "false_alarm_rate": "share of the non-events that were forecast as events",
    "sedi": "symmetric extremal dependence index (Ferro and Stephenson 2011)",
    "brier": "Brier score",
    "brier_fair": "Brier score without the part that is due to the small number of members (Ferro 2014)",
    "brier_skill": "1 minus the Brier score over that of the climatological probability",
    "roc_area": "area under the curve of hit rate against false alarm rate, by trapezoids",
}


def event_scores(mean: xr.Dataset, probability: xr.DataArray) -> xr.Dataset:
    """Metrics of `EVENT_METRICS` from means over initial times of the statistics above.

    `probability`: of the event in the climatology, `(event,)`.
    """
    base = mean["hit"] + mean["miss"]
    rate, false = _over(mean["hit"], base), _over(mean["false_alarm"], 1 - base)
    reference = base * (1 - probability) ** 2 + (1 - base) * probability**2
    result = {
        "base_rate": base,
        "frequency_bias": _over(mean["hit"] + mean["false_alarm"], base),
        "hit_rate": rate,
        "false_alarm_rate": false,
        "sedi": sedi(rate, false),
        "brier": mean["brier"],
        "brier_fair": mean["brier"] - mean["brier_correction"],
        "brier_skill": 1 - _over(mean["brier"], reference),
    }
    if "reliability_weight" in mean:
        result["roc_area"] = roc_area(mean)
    return xr.Dataset({name: array.assign_attrs(long_name=EVENT_METRICS[name]) for name, array in result.items()})


def sedi(hit_rate, false_alarm_rate):
    """`(ln F - ln H + ln(1-H) - ln(1-F)) / (ln F + ln H + ln(1-H) + ln(1-F))`; NaN where either rate is 0 or 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        h, f, miss, correct = (np.log(x) for x in (hit_rate, false_alarm_rate, 1 - hit_rate, 1 - false_alarm_rate))
        value = (f - h + miss - correct) / (f + h + miss + correct)
    return value.where(np.isfinite(value)) if isinstance(value, xr.DataArray) else value


def roc(mean: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Hit rate and false alarm rate at falling thresholds of the probability, from (0, 0) to (1, 1) along the bins."""
    events, total = mean["reliability_event"], mean["reliability_weight"]
    others = total - events
    backwards = slice(None, None, -1)

    def curve(values):
        rising = values.isel(probability_bin=backwards).cumsum("probability_bin")
        return _over(rising, values.sum("probability_bin", skipna=False)).pad(
            probability_bin=(1, 0), constant_values=0.0
        )

    return curve(events), curve(others)


def roc_area(mean: xr.Dataset) -> xr.DataArray:
    hit, false = roc(mean)
    first, second = slice(None, -1), slice(1, None)
    width = false.isel(probability_bin=second).drop_vars("probability_bin", errors="ignore") - false.isel(
        probability_bin=first
    ).drop_vars("probability_bin", errors="ignore")
    height = hit.isel(probability_bin=second).drop_vars("probability_bin", errors="ignore") + hit.isel(
        probability_bin=first
    ).drop_vars("probability_bin", errors="ignore")
    return (width * height / 2).sum("probability_bin", skipna=False)


def _over(numerator, denominator):
    return numerator / denominator.where(denominator > 0)
