"""Scores as functions of mean statistics. The root is taken after the mean over initial times (ECMWF, WeatherBench 2)."""

import numpy as np
import xarray as xr

METRICS = {
    "rmse": "root mean square error, root after the mean over initial times",
    "bias": "mean error, forecast minus truth",
    "mae": "mean absolute error",
    "acc": "anomaly correlation, WeatherBench 2 form: ratio per initial time, then mean; anomalies not centred",
    "acc_pooled": "anomaly correlation, pooled form: covariance and variances averaged over initial times, then the ratio",
    "activity": "standard deviation of the anomaly relative to the truth's; below 1 the forecast is too smooth",
    "crps": "fair continuous ranked probability score of the ensemble",
    "crps_ecdf": "continuous ranked probability score of the empirical distribution; larger than the fair one",
    "rmse_unbiased": "rmse of the ensemble mean without the part that is due to the number of members",
    "energy_score": "fair energy score, norm: root of the area mean of the square",
    "spread": "ensemble standard deviation, root of the mean variance (ddof 1)",
    "spread_skill": "sqrt((M + 1) / M) spread / rmse of the ensemble mean; 1 for a reliable ensemble of M members",
}


def scores(mean: xr.Dataset, members: xr.DataArray) -> xr.Dataset:
    """Metrics of `METRICS` from the means of `statistics.STATISTICS` over initial times.

    `members` is the ensemble size of each forecast; the ensemble's scores are NaN where it is 1.
    """
    rmse = np.sqrt(mean["squared_error"])
    result = {
        "rmse": rmse,
        "bias": mean["error"],
        "mae": mean["absolute_error"],
        "acc": mean["anomaly_correlation"],
        "acc_pooled": _ratio(
            mean["anomaly_product"], np.sqrt(mean["forecast_anomaly_squared"] * mean["truth_anomaly_squared"])
        ),
        "activity": np.sqrt(_ratio(mean["forecast_anomaly_squared"], mean["truth_anomaly_squared"])),
    }
    if "crps" in mean:
        several = members > 1
        spread = np.sqrt(mean["variance"]).where(several)
        result |= {
            "crps": mean["crps"],
            "crps_ecdf": mean["crps"] + mean["mean_difference"] / (2 * members),
            "rmse_unbiased": np.sqrt((mean["squared_error"] - mean["variance"] / members).clip(0)).where(several),
            "energy_score": mean["energy_score"],
            "spread": spread,
            "spread_skill": _ratio(np.sqrt((members + 1) / members) * spread, rmse),
        }
    return xr.Dataset({name: array.assign_attrs(long_name=METRICS[name]) for name, array in result.items()})


def _ratio(numerator, denominator):
    return numerator / denominator.where(denominator > 0)
