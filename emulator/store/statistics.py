"""Mean, spread, extremes and step differences of fields: area-weighted, in float64, in one pass, in any split.

Sums of squared deviations are merged by Chan, Golub and LeVeque (1979), "Updating formulae and a pairwise algorithm for
computing sample variances", here with weights; nothing is ever subtracted from a large sum of squares.
"""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np
import xarray as xr

STATISTICS = ("mean", "std", "minimum", "maximum", "difference_mean", "difference_std")
SCHEMA = "statistics-1"


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Weighted moments of some values, per level: arrays `(level,)` or `()`, float64.

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
            weights = area
        else:
            weights = good * area
            weight = weights.sum(axis=axes)
            low, high = (np.where(good, values, sign * np.inf) for sign in (1, -1))
            values = np.where(good, values, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(weight > 0, (values * weights).sum(axis=axes) / weight, 0.0)
        deviations = values - (mean.reshape(-1, *[1] * area.ndim) if has_level else mean)
        squares = (deviations * deviations * weights).sum(axis=axes)
        low, high = (values, values) if good.all() else (low, high)
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


def of_block(array: xr.Variable, start: int, stop: int, end: int, area: np.ndarray) -> tuple[Moments, Moments]:
    """Moments of the times `start` to `stop` of a field, and of the changes that begin there.

    Args:
      array: `(time, [member,] [level,] *space)`, lazy.
      start, stop: the block; `end` is the end of the period: the change from `stop - 1` to `stop` counts if it is within.
      area: `(*space)`.
    """
    has_level = "level" in array.dims
    values = np.asarray(array.isel(time=slice(start, min(stop + 1, end))).values, np.float64)
    return Moments.of(values[: stop - start], area, has_level), _of_changes(array, values, area)


def of_seam(before: xr.Variable, last: int, after: xr.Variable, first: int, area: np.ndarray):
    """Moments of no values, and of the change from the time `last` of one store to the time `first` of the next."""
    values = [np.asarray(array.isel(time=[at]).values) for array, at in ((before, last), (after, first))]
    changes = _of_changes(before, np.concatenate(values).astype(np.float64), area)
    return Moments.none(before.sizes.get("level")), changes


def _of_changes(array, values, area):
    if len(values) < 2:
        return Moments.none(array.sizes.get("level"))
    return Moments.of(np.diff(values, axis=0), area, "level" in array.dims)


def merged(parts: Iterable[tuple[Moments, Moments]]) -> tuple[Moments, Moments]:
    """Moments of values and of changes over all blocks."""
    first, *rest = parts
    for part in rest:
        first = first[0].merge(part[0]), first[1].merge(part[1])
    return first


def table(values: Moments, changes: Moments | None) -> np.ndarray:
    """The statistics in their order, `(statistic, [level])`; differences are NaN for a static field (no `changes`)."""
    absent = np.full_like(values.mean, np.nan)
    rows = [
        values.or_nan(values.mean),
        values.std,
        values.or_nan(values.minimum),
        values.or_nan(values.maximum),
        absent if changes is None else changes.or_nan(changes.mean),
        absent if changes is None else changes.std,
    ]
    return np.stack(rows)


def as_dataset(tables: Mapping[str, np.ndarray], store: xr.Dataset, attributes: Mapping) -> xr.Dataset:
    """The statistics of all fields as the dataset that is written: `(statistic, level)` or `(statistic,)`, float64."""
    variables = {
        name: (("statistic", "level")[: values.ndim], values, {"units": store[name].attrs.get("units", "")})
        for name, values in tables.items()
    }
    coordinates: dict = {"statistic": list(STATISTICS)}
    if "level" in store.dims:
        coordinates["level"] = ("level", store["level"].values, store["level"].attrs)
    return xr.Dataset(variables, coordinates, {"emulator_schema": SCHEMA, **attributes})
