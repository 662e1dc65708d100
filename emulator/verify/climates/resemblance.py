"""Which year of the reference the run's mean resembles (Landsberg and Barnes 2025).

An emulator that was trained on a warming past may forecast the climate of the past: its mean then resembles that of years
before its own.
"""

import numpy as np

from emulator.verify.long_climate import YEAR, Pair, climate_score
from emulator.verify.yearly import DETRENDED, line


@climate_score
def resembled_year(pair: Pair) -> dict[str, tuple]:
    """The year on the reference's line nearest to the run's mean, and the distance to every year of the reference.

    With r(y) = a + b (y - y0) the least-squares line of every cell, the mean m lies nearest, in the area mean of
    squares, to the year y0 + <b (m - a)> / <b^2>. The same projection of the reference's own years scatters about them
    by `s`: with a run of N years the standard error is s sqrt(1/N + 1/n). `own_year` is the middle of the run's years.
    """
    label, reference = pair.whole.label, pair.whole
    if len(label) < DETRENDED:
        return {}
    middle, slope, _ = line(reference.mean, label)
    size = float(slope**2 @ pair.area)
    if size == 0:
        return {}
    found = label.mean() + ((pair.mean - middle) * slope) @ pair.area / size
    each = label.mean() + ((reference.mean - middle) * slope) @ pair.area / size
    scatter = np.sqrt(((each - label) ** 2).sum() / (len(label) - 2))
    error = scatter * np.sqrt(1 / (len(pair.members) * len(pair.label)) + 1 / len(label))
    distance = np.array([pair.size(pair.mean - year) for year in reference.mean])
    return {
        "resembled_year": ((), float(found)),
        "resembled_year_error": ((), float(error)),
        "own_year": ((), float(pair.label.mean())),
        "distance_to_year": ((YEAR,), pair.by_year(distance, label)),
        "distance_by_chance": ((), pair.size(pair.spread) * float(np.sqrt(1 + 1 / len(pair.label)))),
    }
