"""Negative values of what cannot be negative, such as precipitation: how much of the area, and how much they are together.

A network without a scheme that keeps it from it makes them, and the RMSE hardly tells.
"""

import numpy as np

from emulator.planet.variables import known
from emulator.verify.metric import CHANNEL, Sample, Statistics, area_means, metric

MIXING_RATIOS = ("kg kg-1", "mol mol-1")  # the table lets some of them be a little below zero, as spectral models do


def is_positive(variable: str, binning=None) -> bool:
    """Whether the variable table says that values of zero and more alone can be; mixing ratios are none below zero."""
    entry = known(variable)
    return entry is not None and (entry.minimum == 0 or entry.units in MIXING_RATIOS)


def below_zero_statistics(members: np.ndarray, weights: np.ndarray, mask: np.ndarray | None = None) -> dict:
    """Share of the area below zero, and mean of `min(x, 0)`, both of the mean over members: `(lead, level, region)`.

    `members` `(member, lead, level, cell)` in one unit, `weights` and `mask` as in `metric.area_means`. NaN where a cell
    that counts is NaN.
    """
    if members.min(initial=0.0) >= 0:  # nearly always: one pass in place of several
        zero = np.zeros((*members.shape[1:-1], len(weights)))
        return {"below_zero_share": zero, "below_zero_mean": zero}
    broken = np.where(np.isnan(members).any(axis=0), np.nan, 0.0)
    share = (members < 0).mean(axis=0) + broken
    part = np.minimum(members, 0.0).mean(axis=0)
    return {
        "below_zero_share": area_means(share, weights, mask),
        "below_zero_mean": area_means(part, weights, mask),
    }


def _of(sample: Sample) -> dict:
    return below_zero_statistics(sample.members, sample.weights, sample.mask)


BELOW_ZERO = Statistics(("below_zero_share", "below_zero_mean"), _of, wanted=is_positive, order=40)


@metric("Share below zero", (BELOW_ZERO,), better="lower")
def below_zero_share(mean):
    """share of the area with negative values of what cannot be negative, mean over members"""
    return mean["below_zero_share"]


@metric("Mean below zero", (BELOW_ZERO,), CHANNEL, "zero")
def below_zero_mean(mean):
    """mean of min(f, 0) over all of the area: what the negative values are together, mean over members"""
    return mean["below_zero_mean"]
