"""Forecasts of events: the field beyond a climatological quantile of its hour, season and place.

A forecast is a probability, the share of members beyond the threshold; a single forecast says 0 or 1. Everything here is
an area mean of one sample, so that it adds up over initial times; the scores are functions of the means.
"""

import dataclasses

import numpy as np
import xarray as xr

from emulator.verify.metric import Sample, Statistics, area_means, metric, ratio

EVENT_STATISTICS = ("hit", "miss", "false_alarm", "brier", "brier_correction")
RELIABILITY = ("reliability_weight", "reliability_probability", "reliability_event")
CONSISTENCIES = ("reliability_square", "reliability_shared", "reliability_variance", "reliability_filled")
NORMAL = 1.6448536269514722  # half-width of the range that holds 90 % of a normal distribution
LEAST = 4  # initial times that a probability was given at for a bar
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
    """Statistics of `EVENT_STATISTICS`, `(lead, event, level, region)`.

    `probability` and `happened` from `event_fields`, `members` their number, `weights` `(region, cell)`, `mask` `(lead,
    level, cell)`. `hit`, `miss` and `false_alarm` are area shares, of an ensemble those of a member drawn at random.
    """
    marks = None if mask is None else np.broadcast_to(mask[:, None], happened.shape)

    def mean(values):
        return area_means(values, weights, marks)

    both, said, was = mean(probability * happened), mean(probability), mean(happened)
    squared = said if members == 1 else mean(probability**2)
    return {
        "hit": both,
        "miss": _not_rounding(was - both),
        "false_alarm": _not_rounding(said - both),
        "brier": squared - 2 * both + was,
        "brier_correction": _not_rounding(said - squared) / max(members - 1, 1),
    }


def reliability_statistics(probability, happened, weights, mask=None) -> dict[str, np.ndarray]:
    """Statistics of `RELIABILITY`, `(lead, event, level, region, bin)`; arguments as in `event_statistics`."""
    marks = None if mask is None else np.broadcast_to(mask[:, None], happened.shape)

    def mean(values):
        return area_means(values, weights, marks)

    place = np.nan_to_num(np.floor(probability * (BINS - 1) + 0.5), nan=-1).astype(np.int64)
    rows = [place == index for index in range(BINS)]
    return {
        "reliability_weight": np.stack([mean(row.astype(np.float64)) for row in rows], axis=-1),
        "reliability_probability": np.stack([mean(np.where(row, probability, 0.0)) for row in rows], axis=-1),
        "reliability_event": np.stack([mean(row * happened) for row in rows], axis=-1),
    }


def consistency_statistics(weight, probability, event) -> dict[str, np.ndarray]:
    """Statistics of `CONSISTENCIES` from those of `RELIABILITY`, of one initial time, all of one shape.

    By bin, with w the weight, p and o its mean probability and frequency: the square of the excess w (o - p); what it would
    be in the mean if each cell spoke for all of them, w^2 times the mean of (event - p)^2; the variance of a reliable
    forecast that all cells share, w^2 p (1 - p); and w^2.
    """
    variance = probability * (weight - probability)
    return {
        "reliability_square": (event - probability) ** 2,
        "reliability_shared": variance + (weight - 2 * probability) * (event - probability),
        "reliability_variance": variance,
        "reliability_filled": weight**2,
    }


def _not_rounding(share):
    """A share of the area, which is never negative, without the rounding of a difference of equal sums."""
    return np.where(share < 1e-14, 0.0 * share, share)


def roc(mean: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Hit rate and false alarm rate at falling thresholds of the probability, from (0, 0) to (1, 1) along the bins."""
    events, total = mean["reliability_event"], mean["reliability_weight"]
    others = total - events
    backwards = slice(None, None, -1)

    def curve(values):
        rising = values.isel(probability_bin=backwards).cumsum("probability_bin")
        return ratio(rising, values.sum("probability_bin", skipna=False)).pad(
            probability_bin=(1, 0), constant_values=0.0
        )

    return curve(events), curve(others)


def quantiles(samples: np.ndarray, probabilities) -> np.ndarray:
    """Quantiles over samples `(n, level, cell)` -> `(probability, level, cell)`, linear between order statistics."""
    if np.isfinite(samples).all():
        return np.quantile(samples, probabilities, axis=0)
    filled = np.isfinite(samples).any(axis=0)
    kept = np.where(filled, samples, 0.0)
    return np.where(filled, np.nanquantile(kept, probabilities, axis=0), np.nan)


def fields_of(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """`event_fields` of a sample."""
    return event_fields(sample.members, sample.truth, sample.normals["thresholds"], sample.binning.upper)


def _events(sample: Sample) -> dict:
    return event_statistics(*sample.once(fields_of), len(sample.members), sample.weights, sample.mask)


def _reliability(sample: Sample) -> dict:
    if len(sample.members) < 2:
        return {}
    return reliability_statistics(*sample.once(fields_of), sample.weights, sample.mask)


def _squares(sample: Sample) -> dict:
    known = sample.statistics
    return consistency_statistics(*(known[name] for name in RELIABILITY)) if "reliability_event" in known else {}


AXIS = {"event": lambda binning: binning.events}
THRESHOLDS = {"thresholds": lambda binning: lambda samples: quantiles(samples, binning.events)}
EVENTS = Statistics(
    EVENT_STATISTICS,
    _events,
    order=40,
    front=AXIS,
    headline=True,
    wanted=lambda variable, binning: bool(binning.events),
    normals=THRESHOLDS,
)
PROBABILITIES = Statistics(
    RELIABILITY,
    _reliability,
    order=40,
    front=AXIS,
    back={"probability_bin": lambda binning: np.linspace(0, 1, BINS)},
    headline=True,
    wanted=lambda variable, binning: bool(binning.events) and binning.members > 1,
    normals=THRESHOLDS,
)

CONSISTENCY = dataclasses.replace(PROBABILITIES, names=CONSISTENCIES, of=_squares)


@metric("Base rate", (EVENTS,))
def base_rate(mean):
    """share of cells and times at which the event happened"""
    return mean["hit"] + mean["miss"]


@metric("Frequency bias", (EVENTS,), better="one")
def frequency_bias(mean):
    """how often the event was forecast over how often it happened"""
    return ratio(mean["hit"] + mean["false_alarm"], base_rate(mean))


@metric("Hit rate", (EVENTS,), better="higher")
def hit_rate(mean):
    """share of the events that were forecast"""
    return ratio(mean["hit"], base_rate(mean))


@metric("False alarm rate", (EVENTS,), better="lower")
def false_alarm_rate(mean):
    """share of the non-events that were forecast as events"""
    return ratio(mean["false_alarm"], 1 - base_rate(mean))


@metric("SEDI", (EVENTS,), better="higher")
def sedi(mean):
    """symmetric extremal dependence index (Ferro and Stephenson 2011)"""
    # (ln F - ln H + ln(1-H) - ln(1-F)) / (ln F + ln H + ln(1-H) + ln(1-F)); none where either rate is 0 or 1
    hits, false = hit_rate(mean), false_alarm_rate(mean)
    with np.errstate(divide="ignore", invalid="ignore"):
        h, f, miss, correct = (np.log(x) for x in (hits, false, 1 - hits, 1 - false))
        value = (f - h + miss - correct) / (f + h + miss + correct)
    return value.where(np.isfinite(value))


@metric("Brier score", (EVENTS,), better="lower")
def brier(mean):
    """Brier score"""
    return mean["brier"]


@metric("Brier score, fair", (EVENTS,), better="lower")
def brier_fair(mean):
    """Brier score without the part that is due to the small number of members (Ferro 2014)"""
    return mean["brier"] - mean["brier_correction"]


@metric("Brier skill", (EVENTS,), better="higher")
def brier_skill(mean):
    """1 minus the Brier score over that of the climatological probability"""
    level, base = mean["event"], base_rate(mean)
    probability = xr.where(level >= 0.5, 1 - level, level)
    return 1 - ratio(mean["brier"], base * (1 - probability) ** 2 + (1 - base) * probability**2)


@metric("ROC area", (EVENTS, PROBABILITIES), better="higher")
def roc_area(mean):
    """area under the curve of hit rate against false alarm rate, by trapezoids"""
    hit, false = roc(mean)

    def part(curve, bounds):
        return curve.isel(probability_bin=bounds).drop_vars("probability_bin", errors="ignore")

    first, second = slice(None, -1), slice(1, None)
    width, height = part(false, second) - part(false, first), part(hit, second) + part(hit, first)
    return (width * height / 2).sum("probability_bin", skipna=False)


@metric("Reliability bar", (PROBABILITIES, CONSISTENCY))
def reliability_bar(mean):
    """half-width around the mean probability of the range that holds 90 % of a reliable forecast's frequencies, by bin"""
    # Broecker and Smith (2007) draw independent cases. Cells of one field are not: initial times are the cases, each with the
    # variance p (1 - p) of an event that all its cells share, times how much of that their excesses have. The ratio is made
    # with what the cells have been seen to do, so that few events, or none, do not make it too small.
    shared = ratio(mean["reliability_square"], mean["reliability_shared"])
    variance = shared * mean["reliability_variance"] / mean["initial_times"]
    times = mean["initial_times"] * ratio(mean["reliability_weight"] ** 2, mean["reliability_filled"])
    deviation = np.sqrt(variance.where((mean["reliability_variance"] > 0) & (times > LEAST - 1e-9)))
    return ratio(NORMAL * deviation, mean["reliability_weight"]).transpose(*mean["reliability_event"].dims)
