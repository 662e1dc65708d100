"""Variogram score (Scheuerer and Hamill 2015): are differences between places as large as they should be?

At points spread evenly over each region, since pairs of all cells would be too many; the literature uses some tens too.
"""

import functools

import numpy as np

from emulator.verify.metric import Sample, Statistics, metric
from emulator.verify.metrics.ensemble import broken

ORDER = 0.5  # of the variogram, as in Scheuerer and Hamill (2015), who find it to tell most
POINTS = 64  # of a region: 2016 pairs
MOST_INSIDE = 0.5  # of a cell, relative to the region's most: where a coast cuts cells


def even_points(latitude: np.ndarray, longitude: np.ndarray, count: int) -> np.ndarray:
    """Positions of at most `count` of the places `(n,)`, degrees: each as far as can be from those before it.

    The first is the first place (Gonzalez 1985: within a factor of 2 of the best cover).
    """
    places = _unit_vectors(latitude, longitude)
    chosen = [0]
    nearness = places @ places[0]
    while len(chosen) < min(count, len(places)):
        chosen.append(int(np.argmin(nearness)))
        nearness = np.maximum(nearness, places @ places[chosen[-1]])
    return np.array(chosen)


@functools.lru_cache(maxsize=8)
def points(binning) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Of each region: cells `(point,)`, and how much each pair of them counts, `(point, point)`: by the inverse of its
    great-circle distance, as in Scheuerer and Hamill (2015)."""
    latitude, longitude = (x.ravel() for x in binning.grid.mesh())
    result = []
    for weight in binning.weights:
        density = weight / binning.grid.area.ravel()
        inside = np.flatnonzero(density >= MOST_INSIDE * density.max())
        cells = inside[even_points(latitude[inside], longitude[inside], POINTS)]
        places = _unit_vectors(latitude[cells], longitude[cells])
        apart = 2 * np.arcsin(np.clip(np.linalg.norm(places[:, None] - places[None], axis=-1) / 2, 0, 1))
        with np.errstate(divide="ignore"):
            result.append((cells, np.where(apart > 0, 1 / apart, 0.0)))
    return tuple(result)


def _unit_vectors(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    phi, lam = np.radians(latitude), np.radians(longitude)
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)


def variograms(fields: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """`|x_a - x_b|^0.5` of fields `(..., point)` and pairs `(pair,)` -> `(..., pair)`."""
    return np.abs(fields[..., first] - fields[..., second]) ** ORDER


def variogram_score(members: np.ndarray, truth: np.ndarray, share: np.ndarray) -> tuple[float, float]:
    """`sum_ab w_ab (|y_a - y_b|^p - mean_m |x_ma - x_mb|^p)^2` (eq. 9), and by how much few members raise it.

    Variograms of the members `(member, pair)` and of the truth `(pair,)`; `share` `(pair,)`. The second is the variance
    over members (ddof 1) over their number, 0 of a single one.
    """
    error = truth - members.mean(axis=0)
    count = len(members)
    return float(share @ error**2), float(share @ members.var(axis=0, ddof=1)) / count if count > 1 else 0.0


def at_points(sample: Sample):
    """Row by row and region by region of a sample: lead, level, region, fields at the points that count `(M + 1, point)`, the
    truth last, their pairs, and these pairs' shares, which sum to 1; nothing where there are fewer than two."""
    for region, (cells, closeness) in enumerate(points(sample.binning)):
        fields = np.concatenate([sample.members[..., cells], sample.truth[None][..., cells]])
        for lead, level in np.ndindex(*sample.truth.shape[:2]):
            known = slice(None) if sample.mask is None else np.flatnonzero(sample.mask[lead, level, cells])
            chosen = fields[:, lead, level, known]
            first, second = _pairs(chosen.shape[-1])
            if len(first):
                share = closeness[known][:, known][first, second]
                yield lead, level, region, chosen, (first, second), share / share.sum()


@functools.lru_cache(maxsize=POINTS)
def _pairs(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.triu_indices(count, 1)


def known_at_points(sample: Sample) -> dict:
    """Variogram score, its correction `(lead, level, region)`, and three pre-ranks of every field `(3, lead, level, region,
    M + 1)`, the truth last: mean rank, band depth, and distance from the others' mean variogram. NaN where there are none."""
    shape = (*sample.truth.shape[:2], len(sample.weights))
    score, correction = np.full(shape, np.nan), np.full(shape, np.nan)
    ranks = np.full((3, *shape, len(sample.members) + 1), np.nan)
    for lead, level, region, fields, pairs, share in at_points(sample):
        place = lead, level, region
        of_pairs = variograms(fields, *pairs)
        score[place], correction[place] = variogram_score(of_pairs[:-1], of_pairs[-1], share)
        if len(sample.members) > 1:
            ranks[(slice(None), *place)] = *depths(fields), (of_pairs - of_pairs.mean(axis=0)) ** 2 @ share
    return {"variogram_score": score, "variogram_correction": correction, "ranks": ranks}


def depths(fields: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean rank and band depth of each of n fields `(n, point)` among all: `(n,)` each; ties share their ranks.

    With r the rank at a point, `mean r` and `mean (n - r)(r - 1)` (Thorarinsdottir, Scheuerer and Heinz 2016, eqs. 2 and 4).
    """
    count = len(fields)
    rank = np.ones(fields.shape)
    for one in range(count):
        rank += (fields[one] < fields) + 0.5 * (fields[one] == fields)
    rank -= 0.5  # itself
    return rank.mean(axis=-1), ((count - rank) * (rank - 1)).mean(axis=-1)


def _of(sample: Sample) -> dict:
    found, gaps = sample.once(known_at_points), broken(sample.members, sample.weights, sample.mask)
    return {name: found[name] + gaps for name in ("variogram_score", "variogram_correction")}


VARIOGRAM = Statistics(
    ("variogram_score", "variogram_correction"),
    _of,
    order=31,
    headline=True,
    wanted=lambda variable, binning: binning.members > 1,
)


@metric("Variogram score", (VARIOGRAM,), better="lower")
def variogram(mean):
    """variogram score of order 0.5 at points spread over the region, pairs by inverse distance; in the channel's units"""
    return mean["variogram_score"]


@metric("Variogram score, fair", (VARIOGRAM,), better="lower")
def variogram_fair(mean):
    """variogram score without the part that is due to the small number of members; in the channel's units"""
    return mean["variogram_score"] - mean["variogram_correction"]
