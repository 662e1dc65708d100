"""Regression on the tropical Pacific's sea temperature, where that varies."""

import numpy as np

from emulator.verify.long_climate import Pair, climate_score


@climate_score
def regression(pair: Pair) -> dict[str, tuple]:
    """Fields per kelvin of the index, `emulator.verify.sea_index`, by least squares over all times of whole years.

    The index's monthly departures sum to nothing in every calendar month, so that the field's own annual cycle drops out.
    `sea_regression_error`: root mean square of the reference's standard error, with years as independent clusters
    (Liang and Zeger 1986).
    """
    if any(record.along is None for record in (*pair.members, pair.whole)):
        return {}
    ours = np.mean([_slope(*member.along) for member in pair.members], axis=0)
    along, squares = pair.reference.along
    theirs = _slope(along, squares)
    count = len(squares)
    scatter = ((along - squares[:, None] * theirs) ** 2).sum(axis=0)
    error = np.sqrt(count / max(count - 1, 1) * scatter) / squares.sum()
    return {
        "sea_regression_map": pair.map(ours, theirs),
        "sea_regression_rmse": ((), pair.size(ours - theirs)),
        "sea_regression_error": ((), pair.size(error)),
        "sea_regression_correlation": ((), pair.correlation(ours, theirs)),
    }


def _slope(along: np.ndarray, squares: np.ndarray) -> np.ndarray:
    return along.sum(axis=0) / squares.sum()
