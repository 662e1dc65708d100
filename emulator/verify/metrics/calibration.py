"""Whether whole fields of the truth could be one more member: ranks of fields, and the coverage test TARP.

A field has no rank by itself. A pre-rank makes a number of each of the M + 1 fields in a way that does not ask which of them
is the truth; where the truth's number stands among the others' is then as likely at every place. TARP (Lemos et al. 2023)
asks how many members lie nearer to a reference than the truth, which the forecast does not know of: here fields of the
truth's record at the same hour and season, draws of the climatology.
"""

import dataclasses
import functools

import numpy as np
import xarray as xr

from emulator.verify.metric import Sample, Statistics, metric
from emulator.verify.metrics.ensemble import distances
from emulator.verify.metrics.variogram import known_at_points

PRE_RANKS = ("average rank", "band depth", "variogram", "energy")
REFERENCES = 8  # fields of the record for each hour and season
LEVEL = 0.95
LEAST = 4  # initial times to judge from, as for every other interval


def truth_ranks(values: np.ndarray) -> np.ndarray:
    """Which place the last of M + 1 numbers `(..., M + 1)` takes among the others: shares `(..., M + 1)` that sum to 1.

    Ties share the places. NaN where a number is not finite.
    """
    others, truth = values[..., :-1], values[..., -1:]
    below, equal = (others < truth).sum(axis=-1), (others == truth).sum(axis=-1)
    rank = np.arange(values.shape[-1])
    share = ((below[..., None] <= rank) & (rank <= (below + equal)[..., None])) / (equal + 1)[..., None]
    return share + np.where(np.isfinite(values).all(axis=-1), 0.0, np.nan)[..., None]


def references(samples: np.ndarray) -> np.ndarray:
    """`REFERENCES` of the record's fields `(n, level, cell)`, spread evenly in time; fewer are repeated."""
    return samples[np.arange(REFERENCES) * len(samples) // REFERENCES]


def far_apart(sample: Sample) -> np.ndarray:
    """Distances between all fields, root of the area mean of the square: `(lead, level, region, n, n)`, n of the members, the
    truth and the references."""
    drawn = np.moveaxis(sample.normals["references"], 1, 0)  # (reference, lead, level, cell)
    fields = np.concatenate([sample.members, sample.truth[None], drawn])
    shape, cells = fields.shape[1:3], fields.shape[-1]
    mask = None if sample.mask is None else sample.mask.reshape(-1, cells)
    centre = sample.mean.reshape(-1, cells)
    found = distances(fields.reshape(len(fields), -1, cells), centre, sample.weights, mask)
    return found.reshape(*shape, *found.shape[1:])


def _ranks(sample: Sample) -> dict:
    if len(sample.members) < 2:
        return {}
    ends = len(sample.members) + 1
    apart = sample.once(far_apart)[..., :ends, :ends]
    energy = apart.sum(axis=-1)  # the energy score of each field against the others rises with it
    ranks = truth_ranks(np.concatenate([sample.once(known_at_points)["ranks"], energy[None]]))
    return {"field_rank": np.moveaxis(ranks, 0, 1) + 0.0 * energy.sum(axis=-1)[:, None, ..., None]}


def _tarp(sample: Sample) -> dict:
    if len(sample.members) < 2:
        return {}
    return {"tarp": truth_ranks(_to_references(sample)).mean(axis=-2)}


def _to_references(sample: Sample) -> np.ndarray:
    """Distances of the members and the truth to every reference: `(lead, level, region, reference, M + 1)`."""
    ends = len(sample.members) + 1
    return np.swapaxes(sample.once(far_apart)[..., :ends, ends:], -1, -2)


def _variance(sample: Sample) -> dict:
    if len(sample.members) < 2:
        return {}
    return {"tarp_variance": relative_variance(_to_references(sample))}


def relative_variance(distances: np.ndarray) -> np.ndarray:
    """Variance of the coverages as means over R references, relative to a single one's: distances `(..., reference, M + 1)`
    -> `(...)`, 1 where all references order the fields alike, 1/R where none knows of another.

    Over which of the M + 1 fields is the truth, each as likely in a calibrated ensemble. A single reference has p (1 - p) at
    a credibility of p. The inverse is how many independent draws an initial time is worth.
    """
    ends = distances.shape[-1]
    rank = np.argsort(np.argsort(distances, axis=-1), axis=-1)
    share = np.arange(1, ends) / ends
    within = (rank[..., None] < np.arange(1, ends)).mean(axis=-3)  # (..., field, credibility)
    variance = ((within - share) ** 2).mean(axis=-2).sum(axis=-1)
    return variance / (share * (1 - share)).sum() + np.where(np.isfinite(distances).all(axis=(-2, -1)), 0.0, np.nan)


@functools.lru_cache(maxsize=64)
def bridge_quantile(count: int, level: float = LEVEL) -> float:
    """Below which the largest of |B(k/(M + 1))|, k = 1 ... M = `count`, lies at this level, B a Brownian bridge.

    What `sqrt(n)` times the largest departure of n draws tends to; Kolmogorov's for many members (1.358). The bridge is a
    walk of M + 1 normal steps that ends at 0: how likely it stays within bounds is an integral over its places, one after
    the other, by Gauss-Legendre quadrature, to 1e-6.
    """
    low, high = 0.5, 1.5
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if _stays(middle, count) < level else (low, middle)
    return (low + high) / 2


def _stays(bound: float, count: int) -> float:
    """Probability that a Brownian bridge lies within +-`bound` at k/(M + 1), k = 1 ... M = `count`."""
    reach = bound * np.sqrt(count + 1)  # in steps of the walk
    nodes, weights = np.polynomial.legendre.leggauss(24 + int(3 * reach))
    places, roots = reach * nodes, np.sqrt(reach * weights)
    step = np.exp(-((places[:, None] - places) ** 2) / 2) / np.sqrt(2 * np.pi)
    values, vectors = np.linalg.eigh(roots[:, None] * step * roots)
    ends = vectors.T @ (roots * np.exp(-(places**2) / 2) / np.sqrt(2 * np.pi))
    return float((ends**2 * values ** (count - 1)).sum() * np.sqrt(2 * np.pi * (count + 1)))


RANK = {"rank": lambda binning: binning.members + 1}
REFERENCE_FIELDS = {"references": lambda binning: references}
FIELD_RANKS = Statistics(
    ("field_rank",),
    _ranks,
    order=31,
    front={"pre_rank": lambda binning: list(PRE_RANKS)},
    back=RANK,
    headline=True,
    wanted=lambda variable, binning: binning.members > 1,
    normals=REFERENCE_FIELDS,
)
TARP = Statistics(
    ("tarp",),
    _tarp,
    order=31,
    back=RANK,
    headline=True,
    wanted=lambda variable, binning: binning.members > 1 and not binning.overlap,
    normals=REFERENCE_FIELDS,
)
TARP_VARIANCE = dataclasses.replace(TARP, names=("tarp_variance",), of=_variance, back={})


@metric("Rank histogram of fields", (FIELD_RANKS,))
def field_rank_histogram(mean):
    """share of times at which the truth's field has each rank among the members' by a pre-rank, ties shared"""
    return mean["field_rank"]


@metric("TARP coverage", (TARP,))
def tarp_coverage(mean):
    """share of times at which at most as many members as the rank are nearer to a field of the record than the truth"""
    return mean["tarp"].cumsum("rank", skipna=False).where(_credibility(mean) <= 1)


@metric("TARP bar", (TARP, TARP_VARIANCE))
def tarp_bar(mean):
    """half-width of the range that all coverages of a calibrated ensemble keep to in 95 % of verifications"""
    # Stephens (1970, J. R. Stat. Soc. B 32, 115): draws of a finite number, here as many as the references are worth.
    draws = mean["initial_times"].where(mean["initial_times"] >= LEAST) / mean["tarp_variance"]
    root = np.sqrt(draws)
    several = mean["members"].where(mean["members"] > 1)
    quantile = xr.apply_ufunc(np.vectorize(_quantile, otypes=[np.float64]), several)
    return (quantile / (root + 0.12 + 0.11 / root)).transpose(*mean["tarp_variance"].dims)


def _quantile(members: float) -> float:
    return bridge_quantile(int(members)) if np.isfinite(members) else np.nan


@metric("TARP departure", (TARP,), better="zero")
def tarp_departure(mean):
    """largest difference of the coverage from that of a calibrated ensemble"""
    return np.abs(tarp_coverage(mean) - _credibility(mean)).max("rank")


@metric("TARP flag", (TARP, TARP_VARIANCE), better="zero")
def tarp_flag(mean):
    """1 where the coverage leaves the range of calibrated ensembles, which happens to 5 % of these, else 0"""
    departure, bar = tarp_departure(mean), tarp_bar(mean)
    return (departure > bar).where(departure.notnull() & bar.notnull()).astype(np.float64)


def _credibility(mean) -> xr.DataArray:
    """Of every rank: coverage of a calibrated ensemble, `(k + 1) / (M + 1)`."""
    return (xr.DataArray(np.arange(1, mean.sizes["rank"] + 1), dims="rank")) / (mean["members"] + 1)
