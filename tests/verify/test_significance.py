import numpy as np
import pytest

from emulator.verify.significance import (
    bootstrap_mean,
    bootstrap_rmse,
    false_discovery,
    inflation,
    mean_interval,
    student_cdf,
    student_quantile,
)


def autoregression(count, phi, columns, seed=0):
    rng = np.random.default_rng(seed)
    values = np.zeros((count + 200, columns))
    for step in range(2, len(values)):
        values[step] = phi[0] * values[step - 1] + phi[1] * values[step - 2] + rng.standard_normal(columns)
    return values[200:]


def test_student_distribution_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    values = np.array([-40.0, -3, -1, -0.1, 0, 0.5, 2, 7, 200])
    for freedom in (1, 3, 10, 33, 500):
        np.testing.assert_allclose(student_cdf(values, freedom), stats.t.cdf(values, freedom), rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(student_quantile(0.975, freedom), stats.t.ppf(0.975, freedom), rtol=1e-9)


@pytest.mark.parametrize("phi", [(0.6, 0.0), (0.5, 0.3), (0.0, 0.0)])
def test_inflation_is_that_of_the_process(phi):
    long = autoregression(20000, phi, 8)
    # Variance of a long mean over that of independent samples: spectrum at zero over variance.
    spectrum = 1 / (1 - sum(phi)) ** 2
    variance = (1 - phi[1]) / ((1 + phi[1]) * ((1 - phi[1]) ** 2 - phi[0] ** 2))
    np.testing.assert_allclose(inflation(long).mean(), np.sqrt(spectrum / variance), rtol=0.03)


def test_intervals_of_correlated_differences_cover_the_truth():
    series = autoregression(60, (0.5, 0.2), 4000, seed=1)
    mean, half, p_value = mean_interval(series)
    covered = np.mean(np.abs(mean) <= half)
    naive = np.mean(np.abs(mean) <= 2.0 * series.std(axis=0, ddof=1) / np.sqrt(60))
    assert naive < 0.75 < 0.86 < covered < 0.97
    assert np.all((p_value < 0.05) == (np.abs(mean) > half))


def test_few_samples_have_no_interval_and_equal_forecasts_no_difference():
    assert np.isnan(mean_interval(np.ones((3, 2)))[1]).all()
    _, half, p_value = mean_interval(np.zeros((9, 2)))
    np.testing.assert_array_equal(p_value, 1.0)
    np.testing.assert_array_equal(half, 0.0)


def test_bootstrap_of_independent_errors_is_the_normal_interval():
    errors = np.random.default_rng(0).gamma(4.0, 1.0, (400, 3))
    low, high = bootstrap_rmse(errors)
    spread = 1.96 * errors.std(axis=0, ddof=1) / np.sqrt(400)
    np.testing.assert_allclose(high**2 - low**2, 2 * spread, rtol=0.15)
    assert np.all(low < np.sqrt(errors.mean(axis=0))) and np.all(high > np.sqrt(errors.mean(axis=0)))
    np.testing.assert_array_equal(bootstrap_rmse(errors), (low, high))  # seeded
    assert np.isnan(bootstrap_rmse(errors[:3])).all()


@pytest.mark.parametrize("count", range(1, 16))
def test_intervals_of_too_few_blocks_are_students_t(count):
    series = np.random.default_rng(count).standard_normal((count, 5)) ** 2
    low, high = bootstrap_mean(series)
    middle, half, _ = mean_interval(series)
    if count >= 11:  # 5.5 blocks, whose percentiles are among the draws
        assert (low < middle).all() and (middle < high).all() and not np.allclose(high - middle, half, rtol=1e-6)
        return
    np.testing.assert_array_equal([low, high], [middle - half, middle + half])
    assert np.isnan(low).all() == (count < 4)
    root = bootstrap_rmse(series)
    np.testing.assert_allclose(root**2, np.maximum([low, high], 0), atol=1e-15)  # no error is below 0


def test_false_discovery_by_hand():
    # Benjamini and Hochberg (1995), their example: 4 of 15 are rejected at 5 %.
    p = np.array([1, 4, 19, 95, 201, 278, 298, 344, 459, 3240, 4262, 5719, 6528, 7590, 10000]) / 1e4
    np.testing.assert_array_equal(false_discovery(p), np.arange(15) < 4)
    assert not false_discovery(np.full((2, 2), np.nan)).any()


FALSE_ALARMS = {  # of equal forecasts at a level of 5 %, as in docs/verification.md: by correlation and initial times
    0.0: dict.fromkeys(range(4, 11), 0.04) | {12: 0.04, 20: 0.04, 60: 0.04, 200: 0.05},
    0.3: dict.fromkeys(range(4, 11), 0.08) | {12: 0.08, 20: 0.08, 60: 0.07, 200: 0.06},
    0.6: dict.fromkeys(range(4, 11), 0.18) | {12: 0.14, 20: 0.13, 60: 0.08, 200: 0.06},
}
MISSES = {  # of the bootstrap's interval of 95 %
    0.0: dict.fromkeys(range(4, 11), 0.04) | {12: 0.06, 20: 0.05, 60: 0.05, 200: 0.05},
    0.3: dict.fromkeys(range(4, 11), 0.08) | {12: 0.11, 20: 0.09, 60: 0.07, 200: 0.07},
    0.6: dict.fromkeys(range(4, 11), 0.18) | {12: 0.23, 20: 0.18, 60: 0.13, 200: 0.11},
}


def within(share: float, stated: float, series: int) -> bool:
    """Whether a share of series is the stated one: within three standard errors and the half per cent of its rounding."""
    return abs(share - stated) < 3 * np.sqrt(stated * (1 - stated) / series) + 0.005


@pytest.mark.parametrize(("correlation", "count"), [(0.0, 20), (0.3, 60), (0.6, 12)])
def test_equal_forecasts_differ_as_often_as_the_documentation_says(correlation, count):
    p_value = mean_interval(autoregression(count, (correlation, 0.0), 1000, seed=count))[2]
    assert within(np.mean(p_value < 0.05), FALSE_ALARMS[correlation][count], 1000)


@pytest.mark.parametrize(
    ("correlation", "count"), [(0.0, 4), (0.0, 5), (0.3, 6), (0.0, 8), (0.6, 10), (0.0, 20), (0.3, 60)]
)
def test_bootstrapped_intervals_miss_as_often_as_the_documentation_says(correlation, count):
    low, high = bootstrap_mean(autoregression(count, (correlation, 0.0), 1000, seed=count + 1))
    assert within(np.mean((low > 0) | (high < 0)), MISSES[correlation][count], 1000)


@pytest.mark.slow
@pytest.mark.parametrize("correlation", sorted(FALSE_ALARMS))
def test_every_rate_of_the_documentation_over_4000_series(correlation):
    for count, stated in FALSE_ALARMS[correlation].items():
        series = autoregression(count, (correlation, 0.0), 4000, seed=100 + count)
        assert within(np.mean(mean_interval(series)[2] < 0.05), stated, 4000), count
        low, high = bootstrap_mean(series)
        assert within(np.mean((low > 0) | (high < 0)), MISSES[correlation][count], 4000), count


def test_lags_of_a_short_series_are_those_of_its_process():
    short = autoregression(20, (0.6, 0.0), 4000, seed=3)
    # Variance of a mean of 20 over that of independent samples: 1 + 2 sum (1 - k / n) r^k.
    lags = np.arange(1, 20)
    expected = np.sqrt(1 + 2 * ((1 - lags / 20) * 0.6**lags).sum())
    np.testing.assert_allclose(np.median(inflation(short)), expected, rtol=0.03)
    # No series is worth fewer than two independent samples: a trend would leave none.
    np.testing.assert_allclose(inflation(np.arange(6.0)), np.sqrt(6 / 2))


def test_families_of_null_hypotheses_are_rejected_in_5_percent():
    families = np.random.default_rng(4).random((1000, 20))
    assert 0.03 < np.mean([false_discovery(p).any() for p in families]) < 0.07
