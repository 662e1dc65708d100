"""How sure the scores are: bootstrap intervals of RMSE, and paired differences to every baseline with their significance."""

import numpy as np
import xarray as xr

from emulator.verify import significance
from emulator.verify.sample import BASELINES

DIMS = ("forecast", "channel", "region", "lead_time")


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
    low, high = complete(error, significance.bootstrap_rmse)
    rmse = data["rmse"].transpose(*DIMS).values
    baselines = references(data)
    shape = (len(baselines), *rmse.shape)
    difference, half, p_value = (np.full(shape, np.nan) for _ in range(3))
    for row, name in enumerate(baselines):
        at = int(np.flatnonzero(data["forecast"].values == name)[0])
        middle, width, p = complete(error - error[:, at : at + 1], significance.mean_interval)
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = 100 / np.where(rmse[at] > 0, (rmse + rmse[at]) * rmse[at], np.nan)
            difference[row], half[row], p_value[row] = middle * scale, width * scale, p
        p_value[row, at] = np.nan
    dims = ("baseline", *DIMS)
    note = {"units": "%", "long_name": "RMSE minus the baseline's, relative to the baseline's"}
    return {
        "rmse_low": (DIMS, low, {"long_name": "lower end of the 95 % interval of the RMSE, block bootstrap"}),
        "rmse_high": (DIMS, high, {"long_name": "upper end of the 95 % interval of the RMSE, block bootstrap"}),
        "difference": (dims, difference, note),
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
        "baseline": ("baseline", baselines),
    }


def complete(series, function):
    """`function` over initial times, cell by cell where some cells lack some initial times."""
    missing = np.isnan(series)
    if not missing.any() or np.all(missing.all(axis=0) | ~missing.any(axis=0)):
        return function(series)
    count = missing.sum(axis=0)
    results = None
    for gaps in np.unique(count):
        # Cells with the same number of initial times are worked out together: gaps are squeezed out in order of time.
        cells = np.flatnonzero(count.ravel() == gaps)
        columns = series.reshape(len(series), -1)[:, cells]
        order = np.argsort(np.isnan(columns), axis=0, kind="stable")
        part = (
            function(np.take_along_axis(columns, order, axis=0)[: len(series) - gaps]) if gaps < len(series) else None
        )
        if results is None:
            results = [np.full(count.size, np.nan) for _ in range(3)]
        for index in range(0 if part is None else len(part)):
            results[index][cells] = part[index]
    used = 2 if function is significance.bootstrap_rmse else 3
    return tuple(values.reshape(count.shape) for values in results[:used])
