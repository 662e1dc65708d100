"""How sure the scores are: bootstrap intervals, and paired differences to every baseline with their significance."""

import numpy as np
import xarray as xr

from emulator.verify import significance
from emulator.verify.sample import BASELINES

DIMS = ("forecast", "channel", "region", "lead_time")
MAP_DIMS = ("forecast", "map_channel", "region", "lead_time")


def references(data: xr.Dataset) -> list[str]:
    """What differences are taken to: the baselines, and the first forecast where there are several."""
    names = [str(name) for name in data["forecast"].values]
    forecasts = [name for name in names if name not in BASELINES]
    return [name for name in BASELINES if name in names] + (forecasts[:1] if len(forecasts) > 1 else [])


def intervals(data: xr.Dataset) -> dict:
    """Bootstrap interval of the RMSE; difference to each reference in percent of its RMSE with interval and p-value.

    From the mean difference D of squared errors: RMSE - RMSE_0 = D / (RMSE + RMSE_0), whose denominator is held fixed in
    the interval.
    """
    error = data["squared_error"].transpose("init_time", *DIMS).values
    rmse = data["rmse"].transpose(*DIMS).values
    result = _ends("rmse", DIMS, rmse, complete(error, significance.bootstrap_rmse))
    result |= _differences(data, error, rmse, DIMS, lambda ours, theirs: (ours + theirs) * theirs, "RMSE")
    return result | {"baseline": ("baseline", references(data))}


def intervals_of_means(data: xr.Dataset) -> dict:
    """Bootstrap intervals of ACC and CRPS, and where there is an ensemble differences in CRPS, at the channels of maps.

    A single forecast's CRPS is its mean absolute error, so that an ensemble is held against single forecasts too. Nothing
    from scores that lack the values of every initial time.
    """
    result = {}
    for score, statistic in (("acc", "anomaly_correlation"), ("crps", "crps")):
        if f"each_{statistic}" not in data or score not in data:
            continue
        each = data[f"each_{statistic}"].transpose("init_time", *MAP_DIMS).values
        mean = data[score].sel(channel=data["map_channel"].values).transpose(*DIMS).values
        result |= _ends(score, MAP_DIMS, mean, complete(each, significance.bootstrap_mean))
        if score == "crps":
            found = _differences(data, each, mean, MAP_DIMS, lambda ours, theirs: theirs, "CRPS")
            result |= {f"crps_{name}": entry for name, entry in found.items()}
    return result


def _ends(score: str, dims, mean, values) -> dict:
    """Both ends of the interval of a score whose values are `mean`: none where that is missing."""
    notes = [f"{end} end of the 95 % interval of the {score.upper()}, block bootstrap" for end in ("lower", "upper")]
    return {
        f"{score}_{end}": (dims, np.where(np.isfinite(mean), value, np.nan), {"long_name": note})
        for end, value, note in zip(("low", "high"), values, notes, strict=True)
    }


def _differences(data, each, score, dims, scale, name) -> dict:
    """Differences of `score` `dims` to each reference from its values at every initial time, `(init, *dims)`.

    `scale`: our score, the reference's -> what the mean difference of `each` is divided by to be relative.
    """
    baselines = references(data)
    shape = (len(baselines), *score.shape)
    difference, half, p_value = (np.full(shape, np.nan) for _ in range(3))
    for row, reference in enumerate(baselines):
        at = int(np.flatnonzero(data["forecast"].values == reference)[0])
        middle, width, p = complete(each - each[:, at : at + 1], significance.mean_interval)
        with np.errstate(invalid="ignore", divide="ignore"):
            factor = 100 / np.where(score[at] > 0, scale(score, score[at]), np.nan)
            difference[row], half[row], p_value[row] = middle * factor, width * factor, p
        p_value[row, at] = np.nan
    dims = ("baseline", *dims)
    return {
        "difference": (dims, difference, {"units": "%", "long_name": f"{name} minus the baseline's, relative to it"}),
        "difference_half_width": (
            dims,
            half,
            {"units": "%", "long_name": "half-width of the 95 % interval, Geer (2016)"},
        ),
        "p_value": (dims, p_value, {"long_name": "two-sided p-value of no difference"}),
        "significant": (
            dims,
            significance.false_discovery(p_value),
            {"long_name": "difference significant at a false discovery rate of 5 % (Benjamini-Hochberg)"},
        ),
    }


def complete(series, function):
    """`function` over initial times, cell by cell where some cells lack some initial times."""
    missing = np.isnan(series)
    if not missing.any() or np.all(missing.all(axis=0) | ~missing.any(axis=0)):
        return function(series)
    count = missing.sum(axis=0)
    results: list[np.ndarray] = []
    for gaps in np.unique(count):
        # Cells with the same number of initial times are worked out together: gaps are squeezed out in order of time.
        cells = np.flatnonzero(count.ravel() == gaps)
        columns = series.reshape(len(series), -1)[:, cells]
        order = np.argsort(np.isnan(columns), axis=0, kind="stable")
        part = (
            function(np.take_along_axis(columns, order, axis=0)[: len(series) - gaps]) if gaps < len(series) else None
        )
        if part is None:
            continue
        results = results or [np.full(count.size, np.nan) for _ in part]
        for values, found in zip(results, part, strict=True):
            values[cells] = found
    return tuple(values.reshape(count.shape) for values in results)
