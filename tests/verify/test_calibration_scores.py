"""Whole fields as ensembles see them: variogram score, ranks of fields and TARP, against definitions and closed forms."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import xarray as xr

from emulator.planet.grid import Grid
from emulator.verify.metric import Sample, scores_of
from emulator.verify.metrics import calibration, variogram
from emulator.verify.metrics.variogram import depths, even_points, variogram_score, variograms
from emulator.verify.sample import Binning

GRID = Grid.equiangular(6, 12)
CELLS = int(np.prod(GRID.shape))
GLOBAL = GRID.area.reshape(1, -1)
TWO = np.concatenate([GLOBAL, np.where(GRID.mesh()[0].ravel() > 0, GLOBAL, 0) * 2])
PATTERNS = np.random.default_rng(9).standard_normal((5, CELLS))  # what smooth fields are made of


def binned(members: int, weights=GLOBAL) -> Binning:
    return Binning(GRID, weights, None, None, None, (), (), members=members)


def sample_of(members, truth, references=None, mask=None, weights=GLOBAL) -> Sample:
    """Of fields `(member, case, cell)` and `(case, cell)`: cases stand for leads."""
    drawn = truth[:, None] if references is None else references
    normals = {"references": drawn[:, :, None]}
    marks = None if mask is None else mask[:, None]
    bins = binned(len(members), weights)
    return Sample(members[:, :, None], truth[:, None], truth[:, None], marks, weights, bins, normals)


def drawn(cases: int, members: int, spread: float, seed: int = 0):
    """Members, truths and references of the record: the truth is a member's equal where `spread` is 1."""
    rng = np.random.default_rng(seed)
    centre, others = rng.standard_normal((cases, 5)), rng.standard_normal((cases, calibration.REFERENCES, 5))
    noise = 0.5 * rng.standard_normal((members + 1, cases, 5))
    noise[:-1] *= spread
    return [coefficients @ PATTERNS for coefficients in (centre + noise[:-1], centre + noise[-1], 1.2 * others)]


def means(groups, sample: Sample, shares: int = 1) -> xr.Dataset:
    """Mean statistics of groups over cases, in `shares` equal shares of them, as `derive` makes them."""
    named = {}
    for group, (name, values) in ((one, known) for one in groups for known in one.of(sample).items()):
        values = values.reshape(shares, -1, *values.shape[1:]).mean(axis=1)
        named[name] = (("map_channel", *group.front, "level", "region", *group.back), values)
    cases = sample.truth.shape[0] // shares
    count = ("map_channel", np.full(shares, cases))
    mean = xr.Dataset(named).isel(level=0, region=0)
    return mean.assign(members=len(sample.members), initial_times=count)


def test_points_are_spread_as_evenly_as_the_greedy_rule_promises():
    latitude, longitude = (x.ravel() for x in Grid.equiangular(24, 48).mesh())
    chosen = even_points(latitude, longitude, 40)
    assert len(set(chosen.tolist())) == 40
    places = variogram._unit_vectors(latitude, longitude)
    apart = np.arccos(np.clip(places @ places[chosen].T, -1, 1))
    between = apart[chosen][np.triu_indices(40, 1)].min()
    assert 0.9 * between <= apart.min(axis=1).max() <= between  # no hole is wider than the points are apart
    # as many points in each hemisphere and in the tropics as their areas hold
    assert 18 <= (latitude[chosen] > 0).sum() <= 22 and 16 <= (np.abs(latitude[chosen]) < 30).sum() <= 24
    np.testing.assert_array_equal(np.sort(even_points(latitude[:5], longitude[:5], 40)), np.arange(5))


def test_variogram_score_by_hand_and_by_its_double_sum():
    fields = np.array([[0.0, 0.0, 9.0], [0.0, 4.0, 0.0], [0.0, 1.0, 0.0]])  # two members, the truth
    first, second = np.triu_indices(3, 1)
    # roots of differences: members (0, 3, 3) and (2, 0, 2), truth (1, 0, 1): errors 0, -1.5, -1.5
    found, few = variogram_score(
        *np.split(variograms(fields, first, second), [2])[:1], variograms(fields, first, second)[2], np.full(3, 1 / 3)
    )
    np.testing.assert_allclose([found, few], [1.5, (2 + 4.5 + 0.5) / 3 / 2])
    rng = np.random.default_rng(0)
    members, truth = rng.standard_normal((4, 3, CELLS)), rng.standard_normal((3, CELLS))
    mask = rng.random(truth.shape) < 0.7
    for marks in (None, mask):
        sample = sample_of(members, truth, mask=marks, weights=TWO)
        score = variogram.VARIOGRAM.of(sample)["variogram_score"]
        assert score.shape == (3, 1, 2)
        latitude, longitude = (np.radians(x.ravel()) for x in GRID.mesh())
        for case, region in itertools.product(range(3), range(2)):
            cells = [c for c in variogram.points(sample.binning)[region][0] if marks is None or marks[case, c]]
            assert len(cells) > 20 and (TWO[region][cells] > 0).all()
            total = weights = 0.0
            for a, b in itertools.combinations(cells, 2):
                cosine = np.sin(latitude[a]) * np.sin(latitude[b])
                cosine += np.cos(latitude[a]) * np.cos(latitude[b]) * np.cos(longitude[a] - longitude[b])
                said = np.mean(np.abs(members[:, case, a] - members[:, case, b]) ** 0.5)
                weight = 1 / np.arccos(np.clip(cosine, -1, 1))
                total += weight * (np.abs(truth[case, a] - truth[case, b]) ** 0.5 - said) ** 2
                weights += weight
            np.testing.assert_allclose(score[case, 0, region], total / weights, rtol=1e-9)


def test_the_fair_variogram_score_does_not_know_the_number_of_members():
    few, many = (
        {n: x.mean() for n, x in variogram.VARIOGRAM.of(sample_of(*drawn(200, members, 1.0)[:2])).items()}
        for members in (3, 15)
    )
    fair = [known["variogram_score"] - known["variogram_correction"] for known in (few, many)]
    np.testing.assert_allclose(*fair, rtol=0.06)
    assert few["variogram_score"] > 1.15 * many["variogram_score"]


def test_depths_are_counts_of_bands_and_mean_ranks():
    fields = np.random.default_rng(2).standard_normal((6, 15))
    mean_rank, depth = depths(fields)
    order = np.argsort(np.argsort(fields, axis=0), axis=0) + 1
    np.testing.assert_allclose(mean_rank, order.mean(axis=1))
    for one in range(6):
        # pairs of fields whose band holds the field, those with itself left out
        bands = [
            (np.minimum(fields[i], fields[j]) <= fields[one]) & (fields[one] <= np.maximum(fields[i], fields[j]))
            for i, j in itertools.combinations([k for k in range(6) if k != one], 2)
        ]
        np.testing.assert_allclose(depth[one], np.mean(bands, axis=1).sum())
    np.testing.assert_allclose(depths(np.zeros((4, 3)))[0], 2.5)  # ties share the middle


def test_energy_and_variogram_pre_ranks_order_fields_by_the_scores_of_each_against_the_others():
    members, truth, others = drawn(4, 5, 1.3)
    sample = sample_of(members, truth, others)
    apart, ranks = calibration.far_apart(sample)[:, 0, 0], sample.once(variogram.known_at_points)["ranks"][2, :, 0, 0]
    cells, closeness = variogram.points(sample.binning)[0]
    first, second = np.triu_indices(len(cells), 1)
    share = closeness[first, second]
    for case in range(4):
        fields = np.concatenate([members[:, case], truth[None, case]])
        energy, by_variogram = [], []
        for one in range(6):
            rest = [k for k in range(6) if k != one]

            def norm(x):
                return np.sqrt(x**2 @ GLOBAL[0])

            pairs = np.mean([norm(fields[i] - fields[j]) for i in rest for j in rest])
            energy.append(np.mean([norm(fields[i] - fields[one]) for i in rest]) - pairs / 2)
            roots = variograms(fields[:, cells], first, second)
            by_variogram.append(variogram_score(roots[rest], roots[one], share)[0])
        np.testing.assert_array_equal(np.argsort(energy), np.argsort(apart[case, :6, :6].sum(axis=-1)))
        np.testing.assert_array_equal(np.argsort(by_variogram), np.argsort(ranks[case]))
        np.testing.assert_allclose(apart[case, 5, 6], norm(truth[case] - others[case, 0]), rtol=1e-9)


def test_ranks_by_hand_with_ties_and_gaps():
    values = np.array([[3.0, 1.0, 2.0, 2.5], [1.0, 1.0, 0.0, 1.0], [1.0, np.nan, 0.0, 1.0]])
    expected = [[0, 0, 1, 0], [0, 1 / 3, 1 / 3, 1 / 3], [np.nan] * 4]
    np.testing.assert_allclose(calibration.truth_ranks(values), expected)


def test_fields_of_one_distribution_have_flat_histograms_and_others_tell_why_not():
    cases, members = 500, 4
    flat = 1 / (members + 1)
    error = np.sqrt(flat * (1 - flat) / cases)
    by_spread = {}
    for spread in (1.0, 0.7):
        found = scores_of(means([calibration.FIELD_RANKS], sample_of(*drawn(cases, members, spread))))
        by_spread[spread] = found["field_rank_histogram"].isel(map_channel=0)
    np.testing.assert_allclose(by_spread[1.0], flat, atol=4 * error)
    np.testing.assert_allclose(by_spread[1.0].sum("rank"), 1.0)
    narrow = dict(zip(calibration.PRE_RANKS, by_spread[0.7].values, strict=True))
    assert narrow["energy"][-1] > flat + 5 * error  # the truth lies outside of the members
    assert narrow["band depth"][0] > flat + 5 * error  # and is the least central of all


@pytest.mark.parametrize("spread", [1.0, 0.7, 1.4])
def test_ranks_of_fields_of_one_pattern_are_those_of_a_number(spread):
    """Then the average rank is the number's own rank, and the last energy that of the number farthest out."""
    cases, members = 300, 4
    rng = np.random.default_rng(6)
    pattern = np.abs(PATTERNS[:1]) + 0.1
    fields = spread ** (np.arange(members + 1) < members)[:, None, None] * rng.standard_normal((members + 1, cases, 1))
    fields = fields @ pattern
    found = scores_of(means([calibration.FIELD_RANKS], sample_of(fields[:-1], fields[-1])))["field_rank_histogram"]
    # The truth x lies below k of the members s e where k of these are below: binomial in Phi(x / s), over all x.
    x, width = np.linspace(-8, 8, 4001), 16 / 4000
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi) * width
    below = 0.5 * (1 + np.vectorize(math.erf)(x / spread / np.sqrt(2)))
    expected = [
        math.comb(members, k) * (density * below**k * (1 - below) ** (members - k)).sum() for k in range(members + 1)
    ]
    error = np.sqrt(np.multiply(expected, np.subtract(1, expected)) / cases)
    average = found.isel(map_channel=0).isel(pre_rank=calibration.PRE_RANKS.index("average rank"))
    assert (np.abs(average - expected) < 4 * error).all()


def tarp_of(sample: Sample, shares: int = 1) -> xr.Dataset:
    return scores_of(means([calibration.TARP, calibration.TARP_VARIANCE], sample, shares))


@pytest.mark.parametrize(("spread", "shift"), [(0.7, 0.0), (1.4, 0.0), (1.0, 0.7)])
def test_tarp_passes_calibrated_ensembles_within_3_percent_and_flags_others(spread, shift):
    members, truth, others = drawn(2000, 8, 1.0)
    found = tarp_of(sample_of(members, truth, others))
    assert 0 < found["tarp_departure"] < 0.03 and found["tarp_flag"] == 0
    np.testing.assert_allclose(found["tarp_coverage"].isel(rank=-1), 1.0)
    members, truth, others = drawn(2000, 8, spread)
    found = tarp_of(sample_of(members + shift * members[0], truth, others))
    assert found["tarp_departure"] > 0.05 and found["tarp_flag"] == 1


@pytest.mark.slow
def test_tarp_flags_5_percent_of_calibrated_ensembles_over_1000_verifications():
    flags = tarp_of(sample_of(*drawn(1000 * 12, 4, 1.0)), 1000)["tarp_flag"]
    assert 0.03 < float(flags.mean()) < 0.07  # 5 % with 2.9 standard errors to both sides


def test_tarp_flags_some_calibrated_ensembles_and_none_of_three_initial_times():
    flags = tarp_of(sample_of(*drawn(200 * 12, 4, 1.0)), 200)["tarp_flag"]
    assert 0.005 < float(flags.mean()) < 0.1  # 5 %, three standard errors of 200
    few = tarp_of(sample_of(*drawn(30, 5, 1.0)), 10)
    assert few["tarp_flag"].isnull().all() and few["tarp_bar"].isnull().all()  # three initial times tell nothing


@pytest.mark.slow
@pytest.mark.parametrize("inits", [4, 8, 20, 60])
@pytest.mark.parametrize("members", [2, 5, 10])
@pytest.mark.parametrize("fixed", [False, True])
def test_tarp_flags_5_percent_whatever_the_number_of_initial_times(inits, members, fixed):
    """`fixed`: the same references at every initial time, as within a season."""
    flags = []
    for seed in range(10):
        fields, truth, others = drawn(100 * inits, members, 1.0, seed)
        others = np.broadcast_to(others[:1], others.shape) if fixed else others
        flags.append(tarp_of(sample_of(fields, truth, others), 100)["tarp_flag"])
    assert 0.025 < np.mean(flags) < 0.075  # 3.6 standard errors: one of 24 leaves it once in a hundred runs


def test_references_that_order_fields_alike_are_worth_one():
    rng = np.random.default_rng(7)
    apart = rng.random((3000, 8, 6))
    np.testing.assert_allclose(calibration.relative_variance(apart).mean(), 1 / 8, rtol=0.02)
    alike = np.broadcast_to(apart[:, :1], apart.shape)
    np.testing.assert_allclose(calibration.relative_variance(alike), 1.0, rtol=1e-12)
    assert np.isnan(calibration.relative_variance(np.where(apart > 0.9999, np.nan, apart))).any()


def test_the_bridges_quantile_is_that_of_a_normal_number_and_of_kolmogorov():
    np.testing.assert_allclose(calibration.bridge_quantile(1), 1.959964 / 2, rtol=1e-5)
    rising = [calibration.bridge_quantile(members) for members in (1, 2, 5, 20, 50, 150, 1000)]
    assert rising == sorted(rising)
    # Between points the bridge goes on: by 0.5826 of a step's deviation at either bound (Siegmund 1979).
    np.testing.assert_allclose(rising[-3:], 1.358099 - 0.5826 / np.sqrt([51, 151, 1001]), rtol=3e-4)


@pytest.mark.parametrize("members", [2, 10])
def test_the_bridges_quantile_is_that_of_drawn_bridges(members):
    steps = np.random.default_rng(0).standard_normal((40_000, members + 1)).cumsum(axis=1) / np.sqrt(members + 1)
    bridge = steps[:, :-1] - steps[:, -1:] * np.arange(1, members + 1) / (members + 1)
    above = np.mean(np.abs(bridge).max(axis=1) > calibration.bridge_quantile(members))
    assert abs(above - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 40_000)


def test_there_is_no_coverage_against_references_that_are_verified_themselves():
    assert calibration.TARP.wanted("temperature", binned(3))
    assert not calibration.TARP.wanted("temperature", dataclasses.replace(binned(3), overlap=True))


def test_a_failed_member_has_no_ranks_and_a_single_forecast_none():
    members, truth, others = drawn(3, 4, 1.0)
    members[2, 1, 7] = np.nan
    sample = sample_of(members, truth, others)
    for group, name in (
        (calibration.FIELD_RANKS, "field_rank"),
        (calibration.TARP, "tarp"),
        (variogram.VARIOGRAM, "variogram_score"),
    ):
        values = group.of(sample)[name]
        assert np.isnan(values[1]).all() and np.isfinite(values[[0, 2]]).all(), name
    alone = sample_of(members[:1], truth, others)
    assert calibration.FIELD_RANKS.of(alone) == {} == calibration.TARP.of(alone)
    assert np.isfinite(variogram.VARIOGRAM.of(alone)["variogram_score"]).all()
