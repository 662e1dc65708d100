"""Departures from climatology: do forecast and truth agree in their pattern, and are they of one size?"""

import numpy as np

from emulator.verify.metric import Interval, Metric, Sample, Statistics, area_means, by_rows, ratio, register


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
ANOMALIES = Statistics((*_SQUARES, "anomaly_correlation"), _of, vector=_SQUARES)

register(
    Metric(
        "acc",
        "ACC",
        "anomaly correlation, WeatherBench 2 form: ratio per initial time, then mean; anomalies not centred",
        (ANOMALIES,),
        lambda mean: mean["anomaly_correlation"],
        better="higher",
        interval=Interval("anomaly_correlation"),
    )
)
register(
    Metric(
        "acc_pooled",
        "ACC, pooled",
        "anomaly correlation, pooled form: covariance and variances averaged over initial times, then the ratio",
        (ANOMALIES,),
        lambda mean: ratio(
            mean["anomaly_product"], np.sqrt(mean["forecast_anomaly_squared"] * mean["truth_anomaly_squared"])
        ),
        better="higher",
    )
)
register(
    Metric(
        "activity",
        "Activity",
        "standard deviation of the anomaly relative to the truth's; below 1 the forecast is too smooth",
        (ANOMALIES,),
        lambda mean: np.sqrt(ratio(mean["forecast_anomaly_squared"], mean["truth_anomaly_squared"])),
        better="one",
    )
)
