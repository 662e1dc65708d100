"""Scores of ensembles against brute force, scores and xskillscore."""

import itertools

import numpy as np
import pytest
import scores
import xarray as xr
import xskillscore
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.planet.grid import Grid
from emulator.verify.metrics.ensemble import (
    ENSEMBLE_STATISTICS,
    ascending,
    crps_terms,
    ensemble_statistics,
    fair_energy_score,
    rank_counts,
)

GRID = Grid.equiangular(6, 12)
CELLS = int(np.prod(GRID.shape))
GLOBAL = GRID.area.reshape(1, -1)
TWO = np.concatenate([GLOBAL, np.where(GRID.mesh()[0].ravel() > 0, GLOBAL, 0) * 2])


def made(members, rows=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((members, rows, CELLS)), rng.standard_normal((rows, CELLS))


@settings(deadline=None, max_examples=30)
@given(count=st.integers(2, 30), seed=st.integers(0, 99))
def test_members_come_out_sorted(count, seed):
    fields = np.random.default_rng(seed).integers(0, 5, (count, 7)).astype(float)
    np.testing.assert_array_equal(np.stack(ascending(fields)), np.sort(fields, axis=0))


def test_every_pattern_of_zeros_and_ones_is_sorted_and_so_is_everything():
    """The zero-one principle (Knuth): a network that sorts these sorts all."""
    for count in range(2, 12):
        bits = np.array(list(itertools.product([0.0, 1.0], repeat=count))).T
        np.testing.assert_array_equal(np.stack(ascending(bits)), np.sort(bits, axis=0))


@settings(deadline=None, max_examples=15)
@given(members=st.integers(2, 12), seed=st.integers(0, 999))
def test_both_forms_of_crps(members, seed):
    ensemble, truth = made(members, 1, seed)
    absolute, pairs = crps_terms(ensemble, truth)
    e, o = xr.DataArray(ensemble[:, 0], dims=("member", "cell")), xr.DataArray(truth[0], dims="cell")
    fair = scores.probability.crps_for_ensemble(e, o, "member", method="fair", preserve_dims="cell")
    np.testing.assert_allclose((absolute - pairs / 2)[0], fair, rtol=1e-10, atol=1e-13)
    ecdf = scores.probability.crps_for_ensemble(e, o, "member", method="ecdf", preserve_dims="cell")
    ours = (absolute - pairs / 2 + pairs / (2 * members))[0]
    np.testing.assert_allclose(ours, ecdf, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(ours, xskillscore.crps_ensemble(o, e, member_dim="member", dim=[]), rtol=1e-10)


def test_energy_score_is_its_double_sum_in_every_region_with_gaps():
    members, truth = made(5)
    members += 1e4  # norms of departures must survive a large mean
    truth += 1e4
    mask = np.random.default_rng(1).random(truth.shape) < 0.8
    for marks in (None, mask):
        found = fair_energy_score(members, truth, TWO, marks)
        for row, region in itertools.product(range(len(truth)), range(2)):
            weight = TWO[region] * (1 if marks is None else marks[row])
            weight = weight / weight.sum()

            def norm(x, weight=weight):
                return np.sqrt((x**2) @ weight)

            first = np.mean([norm(m - truth[row]) for m in members[:, row]])
            second = sum(norm(a - b) for a in members[:, row] for b in members[:, row]) / (2 * 5 * 4)
            np.testing.assert_allclose(found[row, region], first - second, rtol=1e-9)


def test_energy_score_of_one_cell_is_the_crps():
    members, truth = made(6)
    weights = np.zeros((1, CELLS))
    weights[0, 7] = 1.0
    absolute, pairs = crps_terms(members, truth)
    np.testing.assert_allclose(
        fair_energy_score(members, truth, weights)[:, 0], (absolute - pairs / 2)[:, 7], rtol=1e-12
    )


def test_blocks_of_rows_do_not_change_statistics(monkeypatch):
    members, truth = made(4, 7)
    whole = ensemble_statistics(members, truth, TWO)
    monkeypatch.setattr("emulator.verify.metrics.ensemble.ROW_BYTES", 1)
    pieces = ensemble_statistics(members, truth, TWO)
    for name in ENSEMBLE_STATISTICS:
        np.testing.assert_allclose(pieces[name], whole[name], rtol=1e-13)
        assert whole[name].shape == (7, 2)


def test_ranks_are_xskillscores_without_ties():
    members, truth = made(5)
    equal = np.full((1, CELLS), 1 / CELLS)
    ours = rank_counts(members, truth, equal).sum(axis=(0, 1)) * CELLS
    f, o = xr.DataArray(members, dims=("member", "row", "cell")), xr.DataArray(truth, dims=("row", "cell"))
    np.testing.assert_allclose(ours, xskillscore.rank_histogram(o, f).values, rtol=1e-12)


def test_tied_ranks_share_the_cell_and_the_histogram_sums_to_one():
    members, truth = np.array([0.0, 1.0, 1.0, 2.0])[:, None, None], np.array([[1.0]])
    found = rank_counts(members, truth, np.ones((1, 1)))[0, 0]
    np.testing.assert_allclose(found, [0, 1 / 3, 1 / 3, 1 / 3, 0])
    dry = np.zeros((3, 2, CELLS))
    np.testing.assert_allclose(rank_counts(dry, dry[0], TWO), 0.25)
    members, truth = made(4)
    np.testing.assert_allclose(rank_counts(members, truth, TWO).sum(axis=-1), 1.0)
    members[2, 1, 3] = np.nan
    assert np.isnan(rank_counts(members, truth, TWO)[1, 0]).all()


def test_one_distribution_gives_a_flat_histogram_and_a_spread_that_matches():
    rng = np.random.default_rng(5)
    drawn = rng.standard_normal((9, 400, CELLS))
    members, truth = drawn[:8], drawn[8]
    histogram = rank_counts(members, truth, GLOBAL).mean(axis=(0, 1))
    np.testing.assert_allclose(histogram, 1 / 9, rtol=0.06)
    found = ensemble_statistics(members, truth, GLOBAL)
    mean_square = ((members.mean(axis=0) - truth) ** 2 @ GLOBAL.T).mean()
    np.testing.assert_allclose(9 / 8 * found["variance"].mean(), mean_square, rtol=0.02)
    # the fair score of a standard normal distribution by one of its own: 1 / sqrt(pi)
    np.testing.assert_allclose(found["crps"].mean(), 1 / np.sqrt(np.pi), rtol=0.01)


def test_one_member_is_no_ensemble():
    with pytest.raises(ValueError, match="at least 2 members"):
        ensemble_statistics(np.zeros((1, 2, CELLS)), np.zeros((2, CELLS)), GLOBAL)
