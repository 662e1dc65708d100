"""Trends by least squares, and the drift of the global mean beside the spread from year to year."""

import numpy as np

from emulator.verify.long_climate import MEMBER, RECORD, YEAR, Pair, climate_score
from emulator.verify.yearly import line, spread

LEAST = 3  # years of a trend


@climate_score
def trends(pair: Pair) -> dict[str, tuple]:
    """Slopes per decade of the members' mean and of the reference, their pattern, and the reference's own standard error.

    `drift`: change of the global mean over the run's years by its line, less the reference's where that has these years;
    `drift_error` its standard error from the run's members and years, `own_drift_spread` the run's own spread from
    year to year.
    """
    series = pair.of_members("mean") @ pair.area
    of_reference = pair.whole.mean @ pair.area
    found = {
        "year_series": ((MEMBER, YEAR), pair.by_year(series, pair.label)),
        "year_series_reference": ((YEAR,), pair.by_year(of_reference, pair.whole.label)),
    }
    if len(pair.label) < LEAST:
        return found
    length = len(pair.label) - 1
    slopes, errors = zip(*(line(one, pair.label)[1:] for one in series), strict=True)
    drift, error = np.mean(slopes), np.sqrt(np.mean(np.square(errors)) / len(errors))
    reference = pair.reference
    if pair.same_years:
        drift -= line(reference.mean @ pair.area, reference.label)[1]
    found |= {
        "drift": ((), float(drift * length)),
        "drift_error": ((), float(error * length)),
        "own_spread": ((), float(np.sqrt(np.mean([spread(one, pair.label) ** 2 for one in series])))),
    }
    if len(reference.label) < LEAST:
        return found
    ours = line(pair.of_members("mean").mean(axis=0), pair.label)[1] * 10
    theirs, own = (part * 10 for part in line(reference.mean, reference.label)[1:])
    return found | {
        "trend_map": pair.map(ours, theirs),
        "trend_rmse": ((), pair.size(ours - theirs)),
        "trend_size": ((RECORD,), np.array([pair.size(ours), pair.size(theirs)])),
        "trend_error_rmse": ((), pair.size(own)),
        "trend_correlation": ((), pair.correlation(ours, theirs)),
    }
