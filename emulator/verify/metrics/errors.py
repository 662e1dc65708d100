"""Errors of one forecast, or of an ensemble's mean: root mean square, mean, mean absolute, and their map."""

import numpy as np

from emulator.verify.metric import CELLS, CHANNEL, Interval, Sample, Statistics, area_means, by_rows, metric


def error_statistics(forecast, truth, weights, mask=None) -> dict[str, np.ndarray]:
    """Mean square, mean and mean absolute error: `(..., cell)`, float64, one unit -> `(..., region)` each.

    `weights` `(region, cell)` and `mask` as in `metric.area_means`.
    """
    return by_rows(_errors, (forecast, truth), weights, mask)


def _errors(forecast, truth, weights, mask):
    error = forecast - truth
    return {
        "squared_error": area_means(error**2, weights, mask),
        "error": area_means(error, weights, mask),
        "absolute_error": area_means(np.abs(error), weights, mask),
    }


def _of(sample: Sample) -> dict:
    return error_statistics(sample.mean, sample.truth, sample.weights, sample.mask)


ERRORS = Statistics(("squared_error", "error", "absolute_error"), _of, vector=("squared_error",), order=10)
ERROR_MAP = Statistics(
    ("error_map",), lambda sample: {"error_map": sample.mean - sample.truth}, sampling=CELLS, headline=True, order=10
)
_RMSE = Interval("squared_error", everywhere=True, root=True, differences=True)


@metric("RMSE", (ERRORS,), CHANNEL, "lower", _RMSE)
def rmse(mean):
    """root mean square error, root after the mean over initial times"""
    return np.sqrt(mean["squared_error"])


@metric("Bias", (ERRORS,), CHANNEL, "zero")
def bias(mean):
    """mean error, forecast minus truth"""
    return mean["error"]


@metric("MAE", (ERRORS,), CHANNEL, "lower")
def mae(mean):
    """mean absolute error"""
    return mean["absolute_error"]


@metric("Mean error", (ERROR_MAP,), CHANNEL, "zero")
def mean_error_map(mean):
    """mean error"""
    return mean["error_map"].astype(np.float32)
