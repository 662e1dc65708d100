"""Bias of the time mean beside the reference's own spread from year to year."""

import numpy as np

from emulator.verify.long_climate import Pair, climate_score
from emulator.verify.yearly import spread


@climate_score
def mean_bias(pair: Pair) -> dict[str, tuple]:
    """Maps and sizes of bias and spread, and in how much of the area the bias is more than chance.

    The mean of N years of a run differs from that of n years of the same climate by chance with the standard deviation
    s sqrt(1/n + 1/N), s the spread from year to year: `bias_beyond_chance` is the share of the area where the bias is
    more than twice that. Members that start alike count as years of their own. `global_*`: of the area mean.
    """
    reference = pair.reference
    bias = pair.mean - reference.mean.mean(axis=0)
    count = len(pair.members) * len(pair.label)
    chance = pair.spread * np.sqrt(1 / len(reference.label) + 1 / count)
    whole = spread(pair.whole.mean @ pair.area, pair.whole.label)
    known = np.isfinite(chance).all()
    return {
        "year_mean_map": pair.map(pair.mean, reference.mean.mean(axis=0)),
        "year_bias_map": pair.map(bias),
        "year_spread_map": pair.map(pair.spread),
        "year_bias_rmse": ((), pair.size(bias)),
        "year_spread_rmse": ((), pair.size(pair.spread)),
        "bias_beyond_chance": ((), float((np.abs(bias) > 2 * chance) @ pair.area) if known else np.nan),
        "global_bias": ((), float(bias @ pair.area)),
        "global_spread": ((), float(whole)),
    }
