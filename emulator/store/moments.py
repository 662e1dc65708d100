"""Weighted moments that merge, of all values together or of every cell by itself; float64, in any split.

Sums of squared deviations are merged by Chan, Golub and LeVeque (1979), "Updating formulae and a pairwise algorithm for
computing sample variances", here with weights; nothing large is ever subtracted from a large sum of squares.
"""

import dataclasses

import numpy as np

CHUNK_BYTES = 1 << 20  # of float64, which the processor's cache holds


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Weighted moments of some values: arrays `([level])` of all cells together, or `([level,] *space)` of each; float64.

    Attributes:
      weight: sum of the weights of the values that are not missing.
      mean: weighted mean; squares: weighted sum of squared deviations from it.
      minimum, maximum: of the values, infinite where there is none.
    """

    weight: np.ndarray
    mean: np.ndarray
    squares: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, area: np.ndarray, has_level: bool) -> "Moments":
        """Moments of `(..., [level,] *space)`; `area` `(*space)` weighs the cells, NaN are left out, all else is averaged."""
        values = np.asarray(values, np.float64)
        space = tuple(range(-area.ndim, 0))
        others = tuple(range(values.ndim - area.ndim - has_level))
        axes = others + space
        good = np.isfinite(values)
        if good.all():
            count = np.prod([values.shape[axis] for axis in others], dtype=np.float64)
            shape = [values.shape[axis] for axis in range(values.ndim) if axis - values.ndim not in space]
            weight = np.full(shape[len(others) :], count * area.sum())
            weights, low, high = area, values, values
        else:
            weights = good * area
            weight = weights.sum(axis=axes)
            low, high = (np.where(good, values, sign * np.inf) for sign in (1, -1))
            values = np.where(good, values, 0.0)
        work = values * weights
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(weight > 0, work.sum(axis=axes) / weight, 0.0)
        np.subtract(values, mean.reshape(-1, *[1] * area.ndim) if has_level else mean, out=work)
        work *= work
        work *= weights
        squares = work.sum(axis=axes)
        return cls(weight, mean, squares, low.min(axis=axes), high.max(axis=axes))

    @classmethod
    def none(cls, levels: int | None) -> "Moments":
        """Moments of no values."""
        shape = () if levels is None else (levels,)
        zero, infinite = np.zeros(shape), np.full(shape, np.inf)
        return cls(zero, zero, zero, infinite, -infinite)

    def merge(self, other: "Moments") -> "Moments":
        """Moments of the values of both."""
        weight = self.weight + other.weight
        share = np.divide(other.weight, weight, out=np.zeros_like(weight), where=weight > 0)
        apart = other.mean - self.mean
        return Moments(
            weight,
            self.mean + apart * share,
            self.squares + other.squares + apart * apart * self.weight * share,
            np.minimum(self.minimum, other.minimum),
            np.maximum(self.maximum, other.maximum),
        )

    @property
    def std(self) -> np.ndarray:
        """Population standard deviation; NaN where there are no values."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.sqrt(self.squares / self.weight)

    def or_nan(self, values: np.ndarray) -> np.ndarray:
        """The values, NaN where there are none to speak of."""
        return np.where(self.weight > 0, values, np.nan)


class Cells:
    """Adds up the moments of every cell over blocks of times, in memory of a few fields.

    Sums are of departures from the cell's first value, which lie as close together as its values do.

    Args:
      shape: `([level,] *space)`.
    """

    def __init__(self, shape: tuple[int, ...]):
        self._shape, size = shape, int(np.prod(shape))
        self._count, self._first, self._sum, self._square = (np.zeros(size) for _ in range(4))
        self._low, self._high = np.full(size, np.inf), np.full(size, -np.inf)

    def add(self, values: np.ndarray) -> None:
        """A block `(..., [level,] *space)`, float64; NaN are left out."""
        rows = values.reshape(-1, len(self._sum))
        if not len(rows):
            return
        length = max(1, CHUNK_BYTES // (8 * len(rows)))
        for start in range(0, rows.shape[1], length):
            self._add(slice(start, start + length), rows[:, start : start + length])

    def _add(self, cells: slice, rows: np.ndarray) -> None:
        if (new := self._count[cells] == 0).any():
            good = np.isfinite(rows)
            first = np.take_along_axis(rows, good.argmax(axis=0)[None], axis=0)[0]
            self._first[cells] = np.where(new & good.any(axis=0), first, self._first[cells])
        low, high = rows.min(axis=0), rows.max(axis=0)
        departures = rows - self._first[cells]
        if np.isfinite(low).all() and np.isfinite(high).all():
            self._count[cells] += len(rows)
        else:
            good = np.isfinite(rows)
            low, high = (np.where(good, rows, sign * np.inf) for sign in (1, -1))
            low, high, departures = low.min(axis=0), high.max(axis=0), np.where(good, departures, 0.0)
            self._count[cells] += good.sum(axis=0)
        self._sum[cells] += departures.sum(axis=0)
        departures *= departures
        self._square[cells] += departures.sum(axis=0)
        np.minimum(self._low[cells], low, out=self._low[cells])
        np.maximum(self._high[cells], high, out=self._high[cells])

    def moments(self) -> Moments:
        """What has been added, each cell `([level,] *space)` by itself."""
        mean = np.divide(self._sum, self._count, out=np.zeros_like(self._sum), where=self._count > 0)
        squares = np.maximum(self._square - self._sum * mean, 0.0)
        parts = self._count, self._first + mean, squares, self._low, self._high
        return Moments(*(part.reshape(self._shape) for part in parts))


def std_about_mean(cells: Moments, area: np.ndarray) -> np.ndarray:
    """Standard deviation in time about each cell's own mean, in the root mean square over the area, `([level])`.

    Cells without values do not count; NaN where there is none with values.
    """
    space = tuple(range(-area.ndim, 0))
    weights = area * (cells.weight > 0)
    variance = np.divide(cells.squares, cells.weight, out=np.zeros_like(cells.squares), where=cells.weight > 0)
    total = weights.sum(axis=space)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt((variance * weights).sum(axis=space) / total)
