"""ClimateBench's scores of annual fields under a scenario, with the true areas of the cells.

Watson-Parris et al. (2022, JAMES 14, doi:10.1029/2021MS002954), equations 1 to 3, where areas are cosines of latitude.
"""

from typing import NamedTuple

import numpy as np

GLOBAL_WEIGHT = 5.0  # of the global error in the total


class NRMSE(NamedTuple):
    """Root mean square errors over the size of the truth's mean.

    `spatial`: of the time mean over cells; `whole`: of the global mean over years; `total`: spatial + 5 whole.
    """

    spatial: float
    whole: float

    @property
    def total(self) -> float:
        return self.spatial + GLOBAL_WEIGHT * self.whole


def nrmse(prediction: np.ndarray, truth: np.ndarray, area: np.ndarray) -> NRMSE:
    """Of fields `(year, cell)` against the truth, the mean over its members; `area` `(cell,)` sums to 1.

    spatial = sqrt(<(mean_t x - mean_t y)^2>) / |<mean_t y>|, global = sqrt(mean_t (<x> - <y>)^2) / |<mean_t y>|.
    Fields are departures from a control climate: of absolute temperatures the denominator is nearly 288 K, and all
    errors are small.
    """
    size = norm(truth, area)
    spatial = np.sqrt((prediction.mean(axis=0) - truth.mean(axis=0)) ** 2 @ area)
    whole = np.sqrt(np.mean(((prediction - truth) @ area) ** 2))
    return NRMSE(float(spatial) / size, float(whole) / size)


def norm(truth: np.ndarray, area: np.ndarray) -> float:
    """Size of the truth's mean over years and the globe; NaN where that is 0."""
    return abs(float(truth.mean(axis=0) @ area)) or float("nan")


def noise_floor(members: np.ndarray, area: np.ndarray) -> NRMSE:
    """What the forced response itself would score against the mean of `members` `(member, year, cell)`.

    That mean still holds internal variability: its variance is that between members over their number. NaN for one member.
    """
    count, size = len(members), norm(members.mean(axis=0), area)
    if count < 2:
        return NRMSE(float("nan"), float("nan"))
    spatial = members.mean(axis=1).var(axis=0, ddof=1) @ area / count
    whole = (members @ area).var(axis=0, ddof=1).mean() / count
    return NRMSE(float(np.sqrt(spatial)) / size, float(np.sqrt(whole)) / size)


def another_member(members: np.ndarray, area: np.ndarray) -> NRMSE:
    """Root mean square over members of what each scores against the mean of the others; NaN for one member."""
    count, size = len(members), norm(members.mean(axis=0), area)
    if count < 2:
        return NRMSE(float("nan"), float("nan"))
    total = members.sum(axis=0)
    each = [nrmse(one, (total - one) / (count - 1), area) for one in members]
    sizes = [norm((total - one) / (count - 1), area) for one in members]
    parts = np.array([[e.spatial * s, e.whole * s] for e, s in zip(each, sizes, strict=True)])
    return NRMSE(*(float(v) / size for v in np.sqrt(np.mean(parts**2, axis=0))))
