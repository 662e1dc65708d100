"""Departures from climatology: do forecast and truth agree in their pattern, and are they of one size?"""

import numpy as np

from emulator.verify.metric import Interval, Sample, Statistics, area_means, by_rows, metric, ratio


def anomaly_statistics(forecast, truth, climatology, weights, mask=None) -> dict[str, np.ndarray]:
    """Mean squares and product of anomalies, not centred, and their ratio: `(..., cell)` -> `(..., region)` each.

    `anomaly_correlation` is WeatherBench 2's form: the ratio within each sample; NaN for a forecast without anomalies.
    """
    return by_rows(_anomalies, (forecast, truth, climatology), weights, mask)


def _anomalies(forecast, truth, climatology, weights, mask):
    ours, theirs = forecast - climatology, truth - climatology
    product = area_means(ours * theirs, weights, mask)
    ours_squared, theirs_squared = area_means(ours**2, weights, mask), area_means(theirs**2, weights, mask)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = product / np.sqrt(ours_squared * theirs_squared)
    return {
        "forecast_anomaly_squared": ours_squared,
        "truth_anomaly_squared": theirs_squared,
        "anomaly_product": product,
        "anomaly_correlation": correlation,
    }


def _of(sample: Sample) -> dict:
    return anomaly_statistics(sample.mean, sample.truth, sample.climatology, sample.weights, sample.mask)


_SQUARES = ("forecast_anomaly_squared", "truth_anomaly_squared", "anomaly_product")
ANOMALIES = Statistics((*_SQUARES, "anomaly_correlation"), _of, vector=_SQUARES, order=20)


@metric("ACC", (ANOMALIES,), better="higher", interval=Interval("anomaly_correlation"))
def acc(mean):
    """anomaly correlation, WeatherBench 2 form: ratio per initial time, then mean; anomalies not centred"""
    return mean["anomaly_correlation"]


@metric("ACC, pooled", (ANOMALIES,), better="higher")
def acc_pooled(mean):
    """anomaly correlation, pooled form: covariance and variances averaged over initial times, then the ratio"""
    both = mean["forecast_anomaly_squared"] * mean["truth_anomaly_squared"]
    return ratio(mean["anomaly_product"], np.sqrt(both))


@metric("Activity", (ANOMALIES,), better="one")
def activity(mean):
    """standard deviation of the anomaly relative to the truth's; below 1 the forecast is too smooth"""
    return np.sqrt(ratio(mean["forecast_anomaly_squared"], mean["truth_anomaly_squared"]))
