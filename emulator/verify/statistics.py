"""Linear statistics of one verification sample: what is summed over initial times before any root or ratio is taken.

All area means are float64. A cell where the truth is missing has no weight; a cell where the truth is present and the
forecast is not finite makes the statistic NaN, so that a forecast that has failed cannot score well.
"""

import numpy as np

STATISTICS = (
    "squared_error",
    "error",
    "absolute_error",
    "forecast_anomaly_squared",
    "truth_anomaly_squared",
    "anomaly_product",
    "anomaly_correlation",
)
ROW_BYTES = 2**19  # of each field worked on at a time: what stays in a core's cache


def area_means(field: np.ndarray, weights: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Weighted means over cells: `(..., cell)` and weights `(region, cell)` summing to 1 -> `(..., region)`.

    `mask`, `(..., cell)`, marks the cells that count; the weights are renormalised over them, and a region without any
    gives NaN. A cell that counts and is NaN makes the regions that hold it NaN, and no others.
    """
    if mask is None or mask.all():
        means, share = field @ weights.T, 1.0
    else:
        field = np.where(mask, field, 0.0)
        means, share = field @ weights.T, mask.astype(np.float64) @ weights.T
    if not np.isfinite(means).all():  # a product takes 0 times NaN for NaN: also where a region ends far from the cell
        broken = ~np.isfinite(field)
        means = np.where(broken, 0.0, field) @ weights.T
        means[broken.astype(np.float64) @ (weights > 0).T > 0] = np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        return means / share


def error_statistics(forecast, truth, climatology, weights, mask=None) -> dict[str, np.ndarray]:
    """Every statistic of `STATISTICS` for one forecast.

    `forecast`, `truth`, `climatology`: `(..., cell)`, float64, one unit; `weights`: `(region, cell)`; `mask` as in
    `area_means`. Returns `(..., region)` each. `anomaly_correlation` is WeatherBench 2's form: the ratio within each
    sample, not centred; it is NaN for a forecast without anomalies.
    """
    shape = truth.shape[:-1]
    rows = [np.broadcast_to(a, truth.shape).reshape(-1, truth.shape[-1]) for a in (forecast, truth, climatology)]
    rows.append(None if mask is None else mask.reshape(rows[0].shape))
    step = max(1, ROW_BYTES // (8 * truth.shape[-1]))
    parts = [
        _row_statistics(*(None if row is None else row[start : start + step] for row in rows), weights)
        for start in range(0, len(rows[0]), step)
    ]
    return {name: np.concatenate([p[name] for p in parts]).reshape(*shape, -1) for name in STATISTICS}


def _row_statistics(forecast, truth, climatology, mask, weights):
    error = forecast - truth
    ours, theirs = forecast - climatology, truth - climatology
    product = area_means(ours * theirs, weights, mask)
    ours_squared, theirs_squared = area_means(ours**2, weights, mask), area_means(theirs**2, weights, mask)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = product / np.sqrt(ours_squared * theirs_squared)
    return {
        "squared_error": area_means(error**2, weights, mask),
        "error": area_means(error, weights, mask),
        "absolute_error": area_means(np.abs(error), weights, mask),
        "forecast_anomaly_squared": ours_squared,
        "truth_anomaly_squared": theirs_squared,
        "anomaly_product": product,
        "anomaly_correlation": correlation,
    }
