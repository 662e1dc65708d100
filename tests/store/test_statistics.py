"""Statistics: equal to NumPy's, independent of the split, and right on processes whose moments are known."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.planet.grid import Grid
from emulator.store.moments import Cells, Moments
from emulator.store.statistics import STATISTICS, found, merged, of_run, table

GRID = Grid.gaussian(6)


def random(shape, seed=0, offset=1e5):
    return (offset + np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def direct(values, has_level):
    """The definition, all at once, from float64 values `(time, [level,] latitude, longitude)`."""
    x = values.astype(np.float64)
    axes = (0, 2, 3) if has_level else (0, 1, 2)

    def moments(y):
        weights = np.broadcast_to(GRID.area, y.shape) * np.isfinite(y)
        y = np.where(np.isfinite(y), y, 0)
        mean = (y * weights).sum(axes, keepdims=True) / weights.sum(axes, keepdims=True)
        std = np.sqrt((weights * (y - mean) ** 2).sum(axes) / weights.sum(axes))
        return mean.squeeze(axes), std

    about = np.sqrt((np.nanvar(x, axis=0) * GRID.area).sum((-2, -1)))
    return np.stack([*moments(x), np.nanmin(x, axes), np.nanmax(x, axes), *moments(np.diff(x, axis=0)), about])


def of_runs(values, edges, has_level, together=1):
    """Statistics of blocks with some edges, so many together in a run."""
    dims = ("time", "level", "latitude", "longitude") if has_level else ("time", "latitude", "longitude")
    array, runs = xr.Variable(dims, values), range(0, len(edges) - 1, together)
    return found([of_run(array, edges[n : n + together + 1], len(values), GRID.area) for n in runs], GRID.area)


def by_blocks(values, edges, has_level, together=1):
    return of_runs(values, edges, has_level, together).table


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.sets(st.integers(1, 19)),
    has_level=st.booleans(),
    offset=st.sampled_from([0.0, 1e5, -3e7]),
    missing=st.sampled_from([0.0, 0.3]),
    seed=st.integers(0, 10),
    together=st.integers(1, 4),
)
def test_any_split_is_the_definition(cuts, has_level, offset, missing, seed, together):
    values = random((20, 3, 6, 12) if has_level else (20, 6, 12), seed, offset)
    values[np.random.default_rng(seed).random(values.shape) < missing] = np.nan
    result = of_runs(values, [0, *sorted(cuts), 20], has_level, together)
    scale = np.abs(direct(values, has_level)[[1]]).max()  # of the deviations, not of the offset
    rounding = np.finfo(float).eps * abs(offset)  # of the means, which the deviations inherit
    np.testing.assert_allclose(result.table, direct(values, has_level), rtol=1e-10, atol=1e-10 * scale + rounding)
    mean = np.nanmean(values.astype(np.float64), axis=0)
    np.testing.assert_allclose(result.cells["time_mean"], mean.astype(np.float32), rtol=2e-7)
    np.testing.assert_array_equal(result.cells["lowest"], np.nanmin(values, axis=0))
    np.testing.assert_array_equal(result.cells["highest"], np.nanmax(values, axis=0))


def test_the_order_of_merging_does_not_matter():
    parts = [Moments.of(random((4, 6, 12), seed, 1e6), GRID.area, False) for seed in range(5)]
    forwards, backwards = parts[0], parts[-1]
    for one, other in zip(parts[1:], parts[-2::-1], strict=True):
        forwards, backwards = forwards.merge(one), backwards.merge(other)
    np.testing.assert_allclose(forwards.std, backwards.std, rtol=1e-10)
    nothing = Moments.none(None)
    for both in (forwards.merge(nothing), nothing.merge(forwards)):
        np.testing.assert_array_equal([both.mean, both.std], [forwards.mean, forwards.std])


def test_cells_that_begin_late_or_never_have_a_value():
    """Of a cell counts what is there: ice that comes, land that stays masked, whatever stands in the other cells."""
    values = random((12, 6, 12), 3, 250.0).astype(np.float64)
    values[:7, 0] = np.nan
    values[:, 1] = np.nan
    cells = Cells((6, 12))
    for start, stop in ((0, 3), (3, 8), (8, 12)):
        cells.add(values[start:stop])
    result = cells.moments()
    np.testing.assert_array_equal(result.weight[:3, 0], [5, 0, 12])
    np.testing.assert_allclose(result.mean[0], values[7:, 0].mean(0), rtol=1e-14)
    np.testing.assert_allclose(result.squares[0] / 5, values[7:, 0].var(0), rtol=1e-9)
    assert np.isnan(result.or_nan(result.minimum)[1]).all() and np.isnan(result.or_nan(result.maximum)[1]).all()
    parts = found(
        [of_run(xr.Variable(("time", "latitude", "longitude"), values), [0, 5, 12], 12, GRID.area)], GRID.area
    )
    there = GRID.area * (result.weight > 0)
    expected = np.sqrt(
        (np.where(there > 0, result.squares / np.maximum(result.weight, 1), 0) * there).sum() / there.sum()
    )
    assert parts.table[STATISTICS.index("std_about_time_mean")] == pytest.approx(expected, rel=1e-12)
    for label, field in parts.cells.items():
        assert np.isnan(field[1]).all() and np.isfinite(np.delete(field, 1, axis=0)).all(), label


def test_a_random_walk_changes_by_its_step():
    """x_t = sum of N(drift, s^2): the change has that mean and spread, whatever the walk itself does."""
    steps = np.random.default_rng(1).normal(0.2, 3.0, (4001, 6, 12))
    seen = dict(zip(STATISTICS, by_blocks(np.cumsum(steps, axis=0), [0, 1000, 2500, 4001], False), strict=True))
    error = 3.0 / np.sqrt(4000 * 72)
    assert seen["difference_mean"] == pytest.approx(0.2, abs=5 * error)
    assert seen["difference_std"] == pytest.approx(3.0, rel=0.01)


def test_an_annual_cycle():
    """A sin(2 pi t / P) over whole periods: std A / sqrt 2, and its change has std sqrt 2 A sin(pi / P)."""
    period, amplitude = 365, 10.0
    cycle = 280 + amplitude * np.sin(2 * np.pi * np.arange(4 * period + 1) / period)
    values = cycle[:, None, None] * np.ones((1, 6, 12))
    seen = dict(zip(STATISTICS, by_blocks(values, [0, 64, 700, len(cycle)], False), strict=True))
    assert seen["difference_std"] == pytest.approx(np.sqrt(2) * amplitude * np.sin(np.pi / period), rel=1e-9)
    assert seen["difference_mean"] == pytest.approx(0, abs=1e-12)
    assert seen["std"] == pytest.approx(amplitude / np.sqrt(2), rel=1e-3)
    assert seen["maximum"] == pytest.approx(290, rel=1e-5)


def test_the_mean_is_over_the_area():
    """cos(latitude) over the sphere has the mean pi / 4, and its mean square is 2 / 3."""
    grid = Grid.gaussian(64)
    cosine = np.cos(np.radians(grid.mesh()[0]))
    seen = table(Moments.of(cosine, grid.area, False), None)
    assert seen[0] == pytest.approx(np.pi / 4, rel=1e-4)
    assert seen[1] == pytest.approx(np.sqrt(2 / 3 - (np.pi / 4) ** 2), rel=1e-3)
    assert np.isnan(seen[4:]).all()


def test_a_change_next_to_a_gap_does_not_count():
    values = np.arange(10.0)[:, None, None] * np.ones((1, 6, 12))
    values[4] = np.nan
    values[5:] += 100
    seen = dict(zip(STATISTICS, by_blocks(values, [0, 4, 5, 10], False), strict=True))
    assert (seen["difference_mean"], seen["difference_std"]) == pytest.approx((1.0, 0.0))


def test_the_change_at_the_end_of_the_period_does_not_count():
    values = xr.Variable(
        ("time", "latitude", "longitude"), np.array([0.0, 1, 2, 50])[:, None, None] * np.ones((1, 6, 12))
    )
    _, changes = merged(of_run(values, [0, 2, 3], 3, GRID.area).blocks)
    assert (changes.mean, changes.maximum) == pytest.approx((1.0, 1.0))


def test_nothing_at_all_is_nan_and_not_zero():
    assert np.isnan(table(*(2 * [Moments.of(np.full((3, 6, 12), np.nan), GRID.area, False)]))).all()


def test_members_are_samples():
    values = random((5, 4, 3, 6, 12))
    array = xr.Variable(("time", "member", "level", "latitude", "longitude"), values)
    seen = table(*of_run(array, [0, 5], 5, GRID.area).blocks[0])
    each = np.stack([by_blocks(values[:, m], [0, 5], True) for m in range(4)])
    np.testing.assert_allclose(seen[0], each[:, 0].mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(seen[3], each[:, 3].max(axis=0))
    assert seen.shape == (len(STATISTICS), 3)
