"""Quantiles and diurnal cycles of fields that come one after the other, without keeping them.

Quantiles are from a histogram in which bins are an eightieth of the distance from the climatological mean wide, or less.
"""

import numpy as np

PER_OCTAVE, NEAREST, OCTAVES = 64, 1e-3, 20  # bins; distance from the mean in standard deviations at which they begin


class Histogram:
    """Values by their distance from a mean, in bins that widen with it."""

    def __init__(self, mean: float, std: float):
        self.mean, self.std, self.half = mean, std, PER_OCTAVE * OCTAVES
        self.weight = np.zeros(2 * self.half + 1)

    def add(self, field: np.ndarray, weights: np.ndarray) -> None:
        """Fields `(member, lead, cell)` and their weights `(lead, cell)`, 0 where a value is not finite."""
        away = (field - self.mean) / self.std
        octave = np.log2(1 + np.abs(away) / NEAREST) * PER_OCTAVE
        place = np.sign(away) * np.minimum(np.round(octave), self.half) + self.half
        known = np.isfinite(place)
        weights = np.broadcast_to(weights, field.shape)[known]
        self.weight += np.bincount(place[known].astype(np.int64), weights, len(self.weight))

    def quantiles(self, levels) -> np.ndarray:
        """Linear within a bin; NaN without values."""
        if not self.weight.any():
            return np.full(len(levels), np.nan)
        place = np.arange(-self.half, self.half + 1)
        edges = place[1:] - 0.5
        away = np.sign(edges) * NEAREST * (2 ** (np.abs(edges) / PER_OCTAVE) - 1)
        share = np.cumsum(self.weight)[:-1] / self.weight.sum()
        return self.mean + self.std * np.interp(levels, share, away)


class Days:
    """Mean fields by hour of the day."""

    def __init__(self):
        self.sums, self.counts = {}, {}

    def add(self, hours: np.ndarray, fields: np.ndarray, known: np.ndarray) -> None:
        """Fields `(lead, cell)`, and which of their values count."""
        for hour, field, counts in zip(hours, fields, known, strict=True):
            self.sums[hour] = self.sums.get(hour, 0) + np.where(counts, field, 0)
            self.counts[hour] = self.counts.get(hour, 0) + counts

    def cycle(self) -> np.ndarray:
        """Departures from the mean over the hours, `(hour, cell)`; NaN in a cell without a value at some hour."""
        with np.errstate(invalid="ignore"):
            means = np.stack([self.sums[hour] / self.counts[hour] for hour in sorted(self.sums)])
        return means - means.mean(0)


def root_mean_square(cycle: np.ndarray, area: np.ndarray) -> float:
    """Of fields `(hour, cell)`, by area."""
    return float(np.sqrt((cycle**2 @ area).mean()))
