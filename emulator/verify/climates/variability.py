"""Variability from year to year, of the run's members and of the reference."""

import numpy as np

from emulator.verify.long_climate import Pair, climate_score
from emulator.verify.yearly import spread


@climate_score
def year_to_year(pair: Pair) -> dict[str, tuple]:
    """Ratio of the standard deviations of annual means, as a map and of the area means of the variances.

    `year_deviation_ratio_error`: the standard error of the latter that the reference's years give by leaving out one after
    another (jackknife), with the run's taken as known: the reference's own spread.
    """
    if min(len(pair.label), len(pair.whole.label)) < 3:
        return {}
    ours = np.mean([spread(member.mean, member.label) ** 2 for member in pair.members], axis=0)
    theirs = pair.spread**2
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(theirs > 0, np.sqrt(ours / theirs), np.nan)
        whole = float(np.sqrt((ours @ pair.area) / (theirs @ pair.area)))
        each = np.sqrt((ours @ pair.area) / np.array([_without(pair, n) for n in range(len(pair.whole.label))]))
    error = np.sqrt((len(each) - 1) / len(each) * ((each - each.mean()) ** 2).sum())
    return {
        "year_deviation_ratio_map": pair.map(ratio),
        "year_deviation_ratio": ((), whole),
        "year_deviation_ratio_error": ((), float(error)),
    }


def _without(pair: Pair, year: int) -> float:
    left = np.arange(len(pair.whole.label)) != year
    return float(spread(pair.whole.mean[left], pair.whole.label[left]) ** 2 @ pair.area)
