"""CRPS of one tail: errors beyond a climatological quantile alone, which the CRPS of all values drowns.

Of the forecast and the truth after the chaining function `max(x, t)` of an upper event, `min(x, t)` of a lower one: the CRPS
weighted by whether the threshold of its integral lies beyond t (Gneiting and Ranjan 2011, eq. 18; chaining by Allen et al.
2023, SIAM/ASA J. Uncertainty Quantification 11, 906).
"""

import numpy as np

from emulator.verify.metric import CHANNEL, Sample, Statistics, area_means, metric
from emulator.verify.metrics import events
from emulator.verify.metrics.ensemble import ascending, sorted_crps_terms


def tail_scores(
    members: np.ndarray, truth: np.ndarray, thresholds: np.ndarray, upper, weights, mask=None
) -> np.ndarray:
    """Fair threshold-weighted CRPS, of one member the absolute error: `(lead, event, level, region)`.

    `members` `(member, lead, level, cell)` in ascending order, `truth` `(lead, level, cell)`; `thresholds` `(lead, event,
    level, cell)` and `upper` `(event,)` as of events, `weights` `(region, cell)`, `mask` as the truth.
    """
    count, scores = len(members), []
    for event, above in enumerate(upper):
        chain, limit = np.maximum if above else np.minimum, thresholds[:, event]
        absolute, pairs = sorted_crps_terms((chain(member, limit) for member in members), count, chain(truth, limit))
        scores.append(area_means(absolute - pairs / 2, weights, mask))
    return np.stack(scores, axis=1)


def _of(sample: Sample) -> dict:
    ordered = ascending(sample.members) if len(sample.members) > 1 else sample.members
    limits = sample.normals["thresholds"].astype(np.float64)
    return {"tail_crps": tail_scores(ordered, sample.truth, limits, sample.binning.upper, sample.weights, sample.mask)}


TAILS = Statistics(
    ("tail_crps",),
    _of,
    order=41,
    front=events.AXIS,
    headline=True,
    wanted=lambda variable, binning: bool(binning.events) and binning.members > 1,
    normals=events.THRESHOLDS,
)


@metric("CRPS of the tail", (TAILS,), CHANNEL, "lower")
def twcrps(mean):
    """fair threshold-weighted CRPS: of values beyond the event's threshold alone"""
    return mean["tail_crps"]
