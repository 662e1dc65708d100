"""How sure scores and differences between forecasts are, from their values at each initial time."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from emulator.verify.sample import BASELINES

LEVEL = 0.95
LEAST_INDEPENDENT = 2  # samples that a series is worth: fewer would have no variance


def references(scores: xr.Dataset) -> list[str]:
    """What differences are taken to: the baselines, and the first forecast where there are several."""
    names = [str(name) for name in scores["forecast"].values]
    forecasts = [name for name in names if name not in BASELINES]
    return [name for name in BASELINES if name in names] + (forecasts[:1] if len(forecasts) > 1 else [])


def interval_ends(series: np.ndarray, root: bool) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of the interval of the mean, or of its root, of `(init, ...)`; initial times may be missing."""
    return complete(series, bootstrap_rmse if root else bootstrap_mean)


def differences(series: np.ndarray, score: np.ndarray, references: Sequence[int], root: bool) -> tuple[np.ndarray, ...]:
    """Difference to each reference in percent, half-width of its interval, p-value, and whether it is significant.

    `series` `(init, forecast, ...)`, `score` `(forecast, ...)` their mean, or its root; `references` among the forecasts.
    Each result is `(reference, forecast, ...)`. From the mean difference D of the series: a mean differs by D, and of
    roots RMSE - RMSE_0 = D / (RMSE + RMSE_0), whose denominator is held fixed in the interval.
    """
    difference, half, p_value = (np.full((len(references), *score.shape), np.nan) for _ in range(3))
    for row, at in enumerate(references):
        middle, width, p = complete(series - series[:, at : at + 1], mean_interval)
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = (score + score[at]) * score[at] if root else score[at]
            factor = 100 / np.where(score[at] > 0, scale, np.nan)
            difference[row], half[row], p_value[row] = middle * factor, width * factor, p
        p_value[row, at] = np.nan
    return difference, half, p_value, false_discovery(p_value)


def complete(series: np.ndarray, function: Callable[[np.ndarray], tuple]) -> tuple[np.ndarray, ...]:
    """`function` over initial times, cell by cell where some cells lack some initial times."""
    missing = np.isnan(series)
    if not missing.any() or np.all(missing.all(axis=0) | ~missing.any(axis=0)):
        return function(series)
    count = missing.sum(axis=0)
    results: list[np.ndarray] = []
    for gaps in np.unique(count[count < len(series)]):
        # Cells with the same number of initial times are worked out together: gaps are squeezed out in order of time.
        cells = np.flatnonzero(count.ravel() == gaps)
        columns = series.reshape(len(series), -1)[:, cells]
        order = np.argsort(np.isnan(columns), axis=0, kind="stable")
        part = function(np.take_along_axis(columns, order, axis=0)[: len(series) - gaps])
        results = results or [np.full(count.size, np.nan) for _ in part]
        for values, known in zip(results, part, strict=True):
            values[cells] = known
    return tuple(values.reshape(count.shape) for values in results)


def inflation(series: np.ndarray) -> np.ndarray:
    """Factor by which autocorrelation widens the error of a mean, `(n, ...)` -> `(...)`, at least 1.

    Second-order autoregression, Geer (2016, Tellus A 68, 30229): with lag correlations r1, r2,
    phi1 = r1 (1 - r2) / (1 - r1^2), phi2 = (r2 - r1^2) / (1 - r1^2),
    k^2 = (1 - r1 phi1 - r2 phi2) / (1 - phi1 - phi2)^2. A fit that is not stationary falls back to first order.

    Short series give correlations that are too small, since their own mean is taken out: of a first-order process with
    correlation r by ((1 + r) / (1 - r) (1 - r^k) + 2 k r^k) / (n - k) at lag k (Kendall 1954, Biometrika 41, 403), which
    is put back. As much as leaves two independent samples, and no more.
    """
    count, anomaly = len(series), series - series.mean(axis=0)
    variance = np.mean(anomaly**2, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        first, second = (
            np.sum(anomaly[lag:] * anomaly[:-lag], axis=0) / variance / max(count - lag, 1) for lag in (1, 2)
        )
        first = np.clip(first, -0.99, 0.99)
        first = np.clip(first + (1 + 3 * first) / max(count - 1, 1), -0.99, 0.99)
        second = np.clip(second + ((1 + first) ** 2 + 4 * first**2) / max(count - 2, 1), -0.99, 0.99)
        phi1 = first * (1 - second) / (1 - first**2)
        phi2 = (second - first**2) / (1 - first**2)
        squared = (1 - first * phi1 - second * phi2) / (1 - phi1 - phi2) ** 2
        stationary = (np.abs(phi2) < 1) & (phi1 + phi2 < 1) & (phi2 - phi1 < 1)
        squared = np.where(stationary, squared, (1 + first) / (1 - first))
    squared = np.nan_to_num(squared, nan=1.0, posinf=1.0)
    return np.sqrt(np.clip(squared, 1.0, max(1.0, count / LEAST_INDEPENDENT)))


def mean_interval(series: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, half-width of its interval, and p-value of "the mean is zero", of differences in order of initial time.

    `(n, ...)` -> three arrays `(...)`. Student t with n - 1 degrees of freedom and the AR(2) inflation. Fewer than 4
    samples give NaN half-widths and p-values: two lag correlations cannot be had from them.
    """
    count, mean = len(series), series.mean(axis=0)
    if count < 4:
        missing = np.full_like(mean, np.nan)
        return mean, missing, missing.copy()
    error = inflation(series) * series.std(axis=0, ddof=1) / np.sqrt(count)
    half = student_quantile(0.5 + level / 2, count - 1) * error
    with np.errstate(invalid="ignore", divide="ignore"):
        statistic = np.abs(mean) / error
    p_value = 2 * (1 - student_cdf(np.where(np.isfinite(statistic), statistic, 0.0), count - 1))
    return mean, half, np.where(error > 0, p_value, np.where(mean == 0, 1.0, 0.0))


def bootstrap_rmse(squared_error: np.ndarray, level: float = LEVEL, draws: int = 1000, seed: int = 0) -> np.ndarray:
    """Interval of the root mean square error: squared errors `(n, ...)` -> `(2, ...)`, lower and upper.

    That of the mean, and then the root: sums are drawn, not roots.
    """
    return np.sqrt(np.maximum(bootstrap_mean(squared_error, level, draws, seed), 0.0))


def bootstrap_mean(series: np.ndarray, level: float = LEVEL, draws: int = 1000, seed: int = 0) -> np.ndarray:
    """Interval of the mean of `(n, ...)` in order of initial time -> `(2, ...)`, lower and upper.

    Moving circular blocks of n^(1/3) initial times are drawn and averaged. The percentiles lie further out than the level
    by what Student's t is wider than what is drawn (Hesterberg 2015, Am. Stat. 69, 371). Where those are ends that fewer
    than one of the draws lies beyond, which are no percentiles, the interval is that of `mean_interval`: of 1000 draws and
    95 %, below 11 samples. NaN for fewer than 4.
    """
    count = len(series)
    length = max(1, round(count ** (1 / 3)))
    blocks = count / length
    tail = _tail(blocks, level) if blocks > 1 else 0.0
    if tail < 1 / draws:
        middle, half, _ = mean_interval(series, level)
        return np.stack([middle - half, middle + half])
    starts = np.random.default_rng(seed).integers(0, count, (draws, -(-count // length)))
    picks = ((starts[..., None] + np.arange(length)) % count).reshape(draws, -1)[:, :count]
    share = np.zeros((draws, count))
    np.add.at(share, (np.arange(draws)[:, None], picks), 1.0 / count)
    flat = series.reshape(count, -1)
    result = np.empty((2, flat.shape[1]))
    for start in range(0, flat.shape[1], 4096):  # bounded memory: draws x 4096
        means = share @ flat[:, start : start + 4096]
        result[:, start : start + 4096] = np.quantile(means, [tail, 1 - tail], axis=0)
    return result.reshape(2, *series.shape[1:])


def _tail(blocks: float, level: float) -> float:
    """Share of the draws of so many blocks beyond either end of the interval."""
    wide = student_quantile(0.5 + level / 2, blocks - 1) * math.sqrt(blocks / (blocks - 1))
    return 0.5 * math.erfc(wide / math.sqrt(2))


def false_discovery(p_values: np.ndarray, rate: float = 0.05) -> np.ndarray:
    """Which hypotheses to reject so that the expected share of false ones is at most `rate` (Benjamini-Hochberg 1995)."""
    flat = np.where(np.isfinite(p_values), p_values, np.inf).ravel()
    order = np.argsort(flat)
    count = int(np.isfinite(flat).sum())
    passed = np.flatnonzero(flat[order][:count] <= rate * np.arange(1, count + 1) / max(count, 1))
    rejected = np.zeros(flat.shape, bool)
    if len(passed):
        rejected[order[: passed[-1] + 1]] = True
    return rejected.reshape(p_values.shape)


def student_cdf(value: np.ndarray, freedom: float) -> np.ndarray:
    """Distribution function of Student's t. Through the incomplete beta function (Press et al. 2007, 6.4)."""
    value = np.asarray(value, np.float64)
    tail = 0.5 * _incomplete_beta(freedom / (freedom + value**2), freedom / 2, 0.5)
    return np.where(value >= 0, 1 - tail, tail)


def student_quantile(probability: float, freedom: float) -> float:
    """The value below which Student's t lies with this probability, by bisection."""
    low, high = -1e3, 1e3
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if student_cdf(middle, freedom) < probability else (low, middle)
    return (low + high) / 2


def _incomplete_beta(x: np.ndarray, a: float, b: float) -> np.ndarray:
    """Regularised incomplete beta function, by its continued fraction (modified Lentz)."""
    x = np.asarray(x, np.float64)
    swap = x >= (a + 1) / (a + b + 2)  # where the fraction converges fast
    return np.where(
        swap, 1 - _beta_fraction(np.where(swap, 1 - x, 0.5), b, a), _beta_fraction(np.where(swap, 0.5, x), a, b)
    )


def _beta_fraction(x, a, b):
    tiny = 1e-300
    c, d = np.ones_like(x), 1 / _away(1 - (a + b) * x / (a + 1), tiny)
    fraction = d
    for m in range(1, 300):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d, c = 1 / _away(1 + even * d, tiny), _away(1 + even / c, tiny)
        fraction = fraction * d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d, c = 1 / _away(1 + odd * d, tiny), _away(1 + odd / c, tiny)
        fraction = fraction * d * c
        if np.all(np.abs(d * c - 1) < 1e-15):
            break
    with np.errstate(divide="ignore"):
        front = np.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * np.log(x) + b * np.log1p(-x))
    return front * fraction / a


def _away(value, tiny):
    return np.where(np.abs(value) < tiny, tiny, value)
