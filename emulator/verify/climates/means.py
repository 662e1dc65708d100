"""Bias of the time mean beside the reference's own spread from year to year."""

import numpy as np

from emulator.verify.long_climate import RECORD, Pair, climate_score
from emulator.verify.yearly import Years, spread


@climate_score
def mean_bias(pair: Pair) -> dict[str, tuple]:
    """Maps and sizes of bias and spread, and in how much of the area the bias is more than chance.

    The mean of N years of a run differs from that of n years of the same climate by chance with the standard deviation
    s sqrt(1/n + 1/N), s the spread from year to year: `bias_beyond_chance` is the share of the area where the bias is
    more than twice that. Members that start alike count as years of their own. `global_*`: of the area mean.
    `pattern_noise`: variance over the area, about the area mean, that the time means of run and reference have by chance; a
    run of one year is taken to have the reference's.
    """
    reference = pair.reference
    bias = pair.mean - reference.mean.mean(axis=0)
    count = len(pair.members) * len(pair.label)
    chance = pair.spread * np.sqrt(1 / len(reference.label) + 1 / count)
    whole = spread(pair.whole.mean @ pair.area, pair.whole.label)
    noise = _pattern_variance([pair.whole], pair.area)
    own = _pattern_variance(pair.members, pair.area)
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
        "pattern_noise": ((RECORD,), [(own if np.isfinite(own) else noise) / count, noise / len(reference.label)]),
    }


def _pattern_variance(records: list[Years], area: np.ndarray) -> float:
    """Area mean of the variance from year to year of departures from the area mean; NaN of one year.

    `<s^2>` less the variance of the area mean, which moves no pattern; the mean over records.
    """
    cells = [spread(one.mean, one.label) ** 2 @ area for one in records]
    whole = [spread(one.mean @ area, one.label) ** 2 for one in records]
    return float(np.mean(cells) - np.mean(whole))
