"""Two long runs against one truth: which climate is nearer, and which are not to be compared."""

import numpy as np
import xarray as xr
from scipy import stats

from emulator.verify.long_runs import DESCRIBED, climate_differences, comparable, described

CHANNELS = ["temperature", "surface_pressure"]


def climate(squared, samples) -> xr.Dataset:
    """`squared` `(run, channel, month)`."""
    runs = [f"run {i}" for i in range(len(squared))]
    return xr.Dataset(
        {
            "climate_month_bias_squared": (("climate_run", "climate_channel", "month"), np.array(squared)),
            "climate_sample": ("climate_run", list(samples)),
        },
        {"climate_run": runs, "climate_channel": CHANNELS, "month": np.arange(1, 13)},
    )


def test_the_difference_is_that_of_root_mean_squares_and_its_test_is_paired():
    rng = np.random.default_rng(0)
    one = rng.uniform(1, 2, (2, 12))
    other = one + np.array([[0.5], [0.0]]) + 0.05 * rng.standard_normal((2, 12))
    found = xr.Dataset(climate_differences(climate([one, other], "aa")))
    expected = 100 * (np.sqrt(other.mean(1) / one.mean(1)) - 1)
    np.testing.assert_allclose(found["climate_difference"][1], expected, rtol=1e-12)
    np.testing.assert_allclose(found["climate_difference"][0], 0, atol=1e-12)
    plain = stats.ttest_rel(other, one, axis=1).pvalue  # the inflation can only make a difference less sure
    assert (found["climate_p_value"].values[1] >= plain * (1 - 1e-6)).all()
    assert found["climate_significant"].values[1].tolist() == [True, False]
    assert not found["climate_significant"].values[0].any()
    low = found["climate_difference"] - found["climate_difference_half_width"]
    assert low[1, 0] > 0 > low[1, 1]


def test_months_that_no_run_has_do_not_count():
    one, other = np.full((2, 12), np.nan), np.full((2, 12), np.nan)
    one[:, 3:9], other[:, 3:9] = 4.0, 1.0
    found = xr.Dataset(climate_differences(climate([one, other], "aa")))
    np.testing.assert_allclose(found["climate_difference"][1], -50.0)


def test_runs_over_other_times_are_not_compared():
    squared = np.ones((3, 2, 12)) * np.arange(1, 4)[:, None, None]
    runs = climate(squared, ["365 days", "100 days", "365 days"])
    assert comparable(runs).tolist() == [True, False, True]
    found = xr.Dataset(climate_differences(runs))
    assert np.isnan(found["climate_difference"][1]).all() and np.isfinite(found["climate_difference"][2]).all()


def test_one_run_has_nothing_to_be_compared_with():
    assert climate_differences(climate(np.ones((1, 2, 12)), "a")) == {}
    assert climate_differences(xr.Dataset()) == {}


def test_what_a_field_is_is_told_by_whichever_run_has_it():
    """Of models verified apart, the second with a field more; of one that no scores tell there is nothing but its name."""
    both = climate(np.ones((1, 2, 12)), ["a"])
    told = [("temperature", "500 hPa", "K", 3), ("surface_pressure", "", "Pa", 5)]
    columns = {
        name: ("climate_channel", list(column)) for name, column in zip(DESCRIBED, zip(*told, strict=True), strict=True)
    }
    second = both.assign_coords(columns)
    first = second.isel(climate_channel=[0])
    older = both.isel(climate_channel=[1])
    found = described(both, [first, second])
    for name in DESCRIBED:
        assert found[name].values.tolist() == second[name].values.tolist()
    found = described(both, [first, older])
    assert found["climate_variable"].values.tolist() == ["temperature", ""]
    assert np.isnan(found["climate_rank"].values[1])
    assert described(older, [older]) is older
