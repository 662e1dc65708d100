"""Scores of an ensemble as a distribution: CRPS in both forms, energy score, variance, and where the truth ranks.

Members come first, `(member, ..., cell)`. All are functions of one verification sample, to be averaged over initial times.
"""

import functools
from collections.abc import Iterable

import numpy as np
import xarray as xr

from emulator.verify.metric import CHANNEL, Interval, Sample, Statistics, area_means, metric, ratio
from emulator.verify.metrics.errors import ERRORS

ENSEMBLE_STATISTICS = ("crps", "mean_difference", "variance", "energy_score")
NETWORK_MEMBERS = 24  # above, numpy's sort is faster than a sorting network
ROW_BYTES = 2**21  # of all members of the rows worked on at a time


def ensemble_statistics(members: np.ndarray, truth: np.ndarray, weights: np.ndarray, mask=None) -> dict:
    """Every statistic of `ENSEMBLE_STATISTICS`: members `(member, ..., cell)`, truth `(..., cell)` -> `(..., region)` each.

    `weights` `(region, cell)` and `mask` `(..., cell)` as in `metric.area_means`. Raises `ValueError` for one member.
    """
    shape, cells = truth.shape[:-1], truth.shape[-1]
    flat, observed = members.reshape(len(members), -1, cells), truth.reshape(-1, cells)
    marks = None if mask is None or mask.all() else mask.reshape(-1, cells)
    step = max(1, ROW_BYTES // (8 * cells * len(members)))
    parts = []
    for start in range(0, len(observed), step):
        rows = slice(start, start + step)
        part, counted = flat[:, rows], None if marks is None else marks[rows]
        absolute, pairs = crps_terms(part, observed[rows])
        parts.append(
            (
                area_means(absolute - pairs / 2, weights, counted),
                area_means(pairs, weights, counted),
                area_means(part.var(axis=0, ddof=1), weights, counted),
                fair_energy_score(part, observed[rows], weights, counted),
            )
        )
    return {
        name: np.concatenate([part[index] for part in parts]).reshape(*shape, -1)
        for index, name in enumerate(ENSEMBLE_STATISTICS)
    }


def crps_terms(members: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`(1/M) sum |x_m - o|` and `1/(M(M-1)) sum sum |x_i - x_j|`, `(member, ...)` and `(...)` -> `(...)` each.

    The double sum by ranks: `sum_k (2k - M - 1) x_(k)` over the sorted members is half of it. Raises `ValueError` for
    fewer than 2 members.
    """
    if len(members) < 2:
        raise ValueError(f"Expected at least 2 members for the fair CRPS, got {len(members)}")
    return sorted_crps_terms(ascending(members), len(members), truth)


def sorted_crps_terms(ordered: Iterable[np.ndarray], count: int, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`crps_terms` of `count` members in ascending order, one field after the other; of a single one the second is 0."""
    pairs, absolute = np.zeros(truth.shape), np.zeros(truth.shape)
    for index, member in enumerate(ordered):
        pairs += (2.0 * index + 1 - count) * member
        absolute += np.abs(member - truth)
    return absolute / count, pairs * (2.0 / max(count * (count - 1), 1))


def fair_energy_score(members: np.ndarray, truth: np.ndarray, weights: np.ndarray, mask=None) -> np.ndarray:
    """Fair energy score of the fields of a region: `(member, row, cell)` and `(row, cell)` -> `(row, region)`.

    `(1/M) sum |x_m - o| - 1/(2M(M-1)) sum sum |x_i - x_j|` with the root of the area mean of the squared difference as norm
    (Gneiting and Raftery 2007, eq. 21, in the fair form).
    """
    count = len(members)
    distance = distances(np.concatenate([members, truth[None]]), members.mean(axis=0), weights, mask)
    first, second = np.triu_indices(count, 1)
    apart = distance[..., first, second].sum(axis=-1)
    return distance[..., :-1, -1].mean(axis=-1) - apart / (count * (count - 1))


def distances(fields: np.ndarray, centre: np.ndarray, weights: np.ndarray, mask=None) -> np.ndarray:
    """Root of the area mean of the squared difference of any two of n fields `(n, row, cell)`: `(row, region, n, n)`.

    All from one product of departures from a `centre` `(row, cell)` amid them, which keeps the precision that fields with a
    large mean would lose. NaN where a field that counts is not finite.
    """
    vectors = fields - centre
    share = weights if mask is None else None
    result = np.empty((vectors.shape[1], len(weights), len(vectors), len(vectors)))
    for row in range(vectors.shape[1]):
        fields = vectors[:, row]
        if mask is not None:
            fields = np.where(mask[row], fields, 0.0)
            total = (weights * mask[row]).sum(axis=1, keepdims=True)
            with np.errstate(invalid="ignore", divide="ignore"):
                share = weights * mask[row] / total
        for region, weight in enumerate(share):
            inside = np.flatnonzero(weight) if np.isfinite(weight).all() else slice(None)
            kept = fields[:, inside]
            gram = (kept * weight[inside]) @ kept.T
            square = np.diag(gram)[:, None] + np.diag(gram)[None] - 2 * gram
            result[row, region] = np.sqrt(np.maximum(square, 0.0))
    return result


def rank_counts(members: np.ndarray, truth: np.ndarray, weights: np.ndarray, mask=None) -> np.ndarray:
    """How often the truth takes each rank among the members: `(..., region, M + 1)`, area shares that sum to 1.

    Where the truth equals members, the ranks that it could take share the cell equally: the expectation of random ties,
    without a seed. NaN where a member is not finite.
    """
    below, equal = np.zeros(truth.shape), np.zeros(truth.shape)
    for member in members:
        below += member < truth
        equal += member == truth
    shares = [
        area_means(((below <= rank) & (rank <= below + equal)) / (equal + 1), weights, mask)
        for rank in range(len(members) + 1)
    ]
    return np.stack(shares, axis=-1) + broken(members, weights, mask)[..., None]


def broken(members: np.ndarray, weights: np.ndarray, mask=None) -> np.ndarray:
    """NaN in the regions where a member `(member, ..., cell)` that counts is not finite, 0 elsewhere: `(..., region)`."""
    return area_means(np.where(np.isfinite(members).all(axis=0), 0.0, np.nan), weights, mask)


def ascending(members: np.ndarray) -> list[np.ndarray]:
    """The members sorted cell by cell: a list of fields, lowest first.

    A sorting network of whole-field minima and maxima: for 10 members 1.6 times as fast as a sort along the first axis.
    """
    count = len(members)
    if count > NETWORK_MEMBERS or not np.isfinite(members).all():
        return list(np.sort(members, axis=0))
    wires, spare = [member.copy() for member in members], np.empty_like(members[0])
    for low, high in _network(count):
        np.minimum(wires[low], wires[high], out=spare)
        np.maximum(wires[low], wires[high], out=wires[high])
        wires[low], spare = spare, wires[low]
    return wires


@functools.lru_cache(maxsize=64)
def _network(count: int) -> tuple[tuple[int, int], ...]:
    """Comparators of Batcher's odd-even merge sort (Knuth 1998, 5.2.2 algorithm M) for any number of wires."""
    pairs = []
    top = 1
    while top < count:
        top *= 2
    step = top // 2
    while step > 0:
        gap, offset, distance = top // 2, 0, step
        while True:
            pairs += [(i, i + distance) for i in range(count - distance) if (i & step) == offset]
            if gap == step:
                break
            distance, gap, offset = gap - step, gap // 2, step
        step //= 2
    return tuple(pairs)


def of_single_forecast(scores: xr.Dataset) -> xr.Dataset:
    """A dataset of scores without an ensemble as one with: the distribution of a single forecast is a step."""
    if "sum_crps" in scores:
        return scores
    zero = xr.zeros_like(scores["sum_error"])
    scores = scores.assign(sum_crps=scores["sum_absolute_error"], sum_mean_difference=zero, sum_variance=zero)
    return scores.assign(sum_energy_score=xr.full_like(zero, np.nan))


def _of(sample: Sample) -> dict:
    if len(sample.members) > 1:
        return ensemble_statistics(sample.members, sample.truth, sample.weights, sample.mask)
    known = sample.statistics
    none = np.zeros_like(known["error"])
    energy = np.sqrt(known["squared_error"])
    return {"crps": known["absolute_error"], "mean_difference": none, "variance": none, "energy_score": energy}


def _ranks(sample: Sample) -> dict:
    if len(sample.members) < 2:
        return {}
    return {"rank": rank_counts(sample.members, sample.truth, sample.weights, sample.mask)}


ENSEMBLE = Statistics(ENSEMBLE_STATISTICS, _of, ensemble=True, vector=("variance",), order=30)
RANKS = Statistics(
    ("rank",),
    _ranks,
    order=30,
    back={"rank": lambda binning: binning.members + 1},
    headline=True,
    wanted=lambda variable, binning: binning.members > 1,
)


@metric("CRPS", (ERRORS, ENSEMBLE), CHANNEL, "lower", Interval("crps", differences=True))
def crps(mean):
    """fair continuous ranked probability score of the ensemble"""
    return mean["crps"]


@metric("CRPS, empirical", (ENSEMBLE,), CHANNEL, "lower")
def crps_ecdf(mean):
    """continuous ranked probability score of the empirical distribution; larger than the fair one"""
    return mean["crps"] + mean["mean_difference"] / (2 * mean["members"])


@metric("RMSE, unbiased", (ERRORS, ENSEMBLE), CHANNEL, "lower")
def rmse_unbiased(mean):
    """rmse of the ensemble mean without the part that is due to the number of members"""
    square = mean["squared_error"] - mean["variance"] / mean["members"]
    return np.sqrt(square.clip(0)).where(mean["members"] > 1)


@metric("Energy score", (ENSEMBLE,), CHANNEL, "lower")
def energy_score(mean):
    """fair energy score, norm: root of the area mean of the square"""
    return mean["energy_score"]


@metric("Spread", (ENSEMBLE,), CHANNEL)
def spread(mean):
    """ensemble standard deviation, root of the mean variance (ddof 1)"""
    return np.sqrt(mean["variance"]).where(mean["members"] > 1)


@metric("Spread over error", (ERRORS, ENSEMBLE), better="one")
def spread_skill(mean):
    """sqrt((M + 1) / M) spread / rmse of the ensemble mean; 1 for a reliable ensemble of M members"""
    return ratio(np.sqrt((mean["members"] + 1) / mean["members"]) * spread(mean), np.sqrt(mean["squared_error"]))


@metric("Rank histogram", (RANKS,))
def rank_histogram(mean):
    """share of cells and times at which the truth has each rank among the members, ties shared"""
    return mean["rank"]
