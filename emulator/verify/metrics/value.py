"""What a forecast of an event is worth to a user who can protect himself: the cost-loss model (Richardson 2000)."""

import numpy as np
import xarray as xr

from emulator.verify.metric import metric, ratio
from emulator.verify.metrics.events import EVENTS, PROBABILITIES, base_rate, false_alarm_rate, hit_rate, roc

COST_LOSS = np.array([0.01, 0.02, 0.05, *np.arange(0.1, 0.95, 0.1).round(1), 0.95, 0.98, 0.99])


@metric("Economic value", (EVENTS, PROBABILITIES), better="higher")
def economic_value(mean):
    """relative economic value by cost-loss ratio, of the best probability to act from (Richardson 2000)"""
    # V = (min(a, s) - F a (1 - s) + H s (1 - a) - s) / (min(a, s) - s a), eq. 8: s base rate, a cost over loss. Protecting
    # never and always are the ends of the curve, so that the best choice is worth nothing at least.
    hits, false = roc(mean)
    single = mean["members"] == 1
    hits, false = (
        xr.where(single, _single(one, curve), curve)
        for one, curve in ((hit_rate(mean), hits), (false_alarm_rate(mean), false))
    )
    ratios, rate = xr.DataArray(COST_LOSS, {"cost_loss": COST_LOSS}, "cost_loss"), base_rate(mean)
    best = None
    for act in range(hits.sizes["probability_bin"]):
        hit, alarm = (curve.isel(probability_bin=act, drop=True) for curve in (hits, false))
        saved = hit * rate * (1 - ratios) - alarm * ratios * (1 - rate)
        best = saved if best is None else xr.where(saved > best, saved, best)
    climate = np.minimum(ratios, rate)
    value = ratio(climate + best - rate, climate - rate * ratios)
    return value.transpose(*mean["hit"].dims, "cost_loss")


def _single(rate: xr.DataArray, curve: xr.DataArray) -> xr.DataArray:
    """The curve of a forecast that says yes or no: never, when it says so, always."""
    never, always = xr.zeros_like(rate).where(rate.notnull()), xr.ones_like(rate).where(rate.notnull())
    return xr.concat([never, *[rate] * (curve.sizes["probability_bin"] - 2), always], "probability_bin")
