import numpy as np
import pytest
import xarray as xr

from emulator.verify.significance import (
    bootstrap_rmse,
    false_discovery,
    half_width,
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


def test_false_discovery_by_hand():
    # Benjamini and Hochberg (1995), their example: 4 of 15 are rejected at 5 %.
    p = np.array([1, 4, 19, 95, 201, 278, 298, 344, 459, 3240, 4262, 5719, 6528, 7590, 10000]) / 1e4
    np.testing.assert_array_equal(false_discovery(p), np.arange(15) < 4)
    assert not false_discovery(np.full((2, 2), np.nan)).any()


@pytest.mark.parametrize(
    ("phi", "count", "low", "high"),
    [
        ((0, 0), 20, 0.012, 0.065),
        ((0, 0), 200, 0.025, 0.065),
        ((0.3, 0), 60, 0.03, 0.10),
        ((0.5, 0.2), 200, 0.03, 0.09),
    ],
)
def test_equal_forecasts_differ_as_often_as_the_documentation_says(phi, count, low, high):
    """Over 1000 series at a level of 5 %: independent differences, and those of correlated errors."""
    p_value = mean_interval(autoregression(count, phi, 1000, seed=count))[2]
    assert low < np.mean(p_value < 0.05) < high


def test_the_mean_that_is_taken_out_of_a_short_series_is_put_back():
    short = autoregression(20, (0.6, 0.0), 2000, seed=3)
    mean, half, _ = mean_interval(short)
    error = inflation(short) * short.std(axis=0, ddof=1) / np.sqrt(20)
    np.testing.assert_allclose(half, student_quantile(0.975, 19) * error)
    # twice as many as there should be are outside; of the lag correlations as they are, four times as many
    assert 0.08 < np.mean(np.abs(mean) > half) < 0.165


def test_families_of_null_hypotheses_are_rejected_in_5_percent():
    families = np.random.default_rng(4).random((1000, 20))
    assert 0.03 < np.mean([false_discovery(p).any() for p in families]) < 0.07


def test_half_widths_from_sums_are_those_of_the_series():
    series = np.random.default_rng(5).standard_normal((9, 3))
    count = xr.DataArray([9, 9, 3], dims="x")
    square, mean = (xr.DataArray((series**power).mean(axis=0), dims="x") for power in (2, 1))
    found = half_width(square, mean, count, 0.9)
    expected = student_quantile(0.95, 8) * series.std(axis=0, ddof=1) / 3
    np.testing.assert_allclose(found[:2], expected[:2])
    assert np.isnan(found[2])
