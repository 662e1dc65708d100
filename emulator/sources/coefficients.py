"""Interface coefficients of hybrid and sigma levels, from the ways in which files record them."""

import numpy as np
import xarray as xr

NAMES = (("half_level_a", "half_level_b"), ("a_half", "b_half"), ("hyai", "hybi"))


def interfaces(dataset: xr.Dataset) -> tuple[np.ndarray, np.ndarray] | None:
    """`(a in Pa, b)` of all interfaces, from the top down, each `(level + 1,)` float64; None where none are recorded.

    Read from variables `half_level_a`, `half_level_b` (this project, and GRIB's `pv`), `a_half`, `b_half` (IFS tables),
    `hyai`, `hybi` with `P0` (CESM), or the bounds of a CF coordinate's `formula_terms` (`ap`, `b` or `a`, `b`, `p0`).
    """
    for name_a, name_b in NAMES:
        if name_a in dataset and name_b in dataset:
            half_a, half_b = (np.asarray(dataset[n].values, np.float64) for n in (name_a, name_b))
            if name_a == "hyai":
                half_a = half_a * float(dataset["P0"]) if "P0" in dataset else half_a * 1e5
            return _from_the_top(half_a, half_b)
    for coordinate in dataset.variables.values():
        terms = _terms(dataset, coordinate)
        if terms and "b" in terms and ("ap" in terms or "a" in terms):
            half_b = _edges(dataset[terms["b"]])
            half_a = _edges(dataset[terms["ap"]]) if "ap" in terms else _edges(dataset[terms["a"]])
            if "ap" not in terms:
                half_a = half_a * (float(dataset[terms["p0"]]) if terms.get("p0") in dataset else 1e5)
            if half_a is not None and half_b is not None:
                return _from_the_top(half_a, half_b)
    return None


def of_selection(half_a, half_b, numbers) -> tuple[np.ndarray, np.ndarray]:
    """Interfaces around some of the model levels, by their numbers from 1, so that the layers still fill the column.

    Between two selected levels i < j the interface is the half level `(i + j) // 2`, the nearest to the middle; the
    outermost are the top and the surface. With all levels selected these are all interfaces.

    Raises `ValueError` when the numbers are not whole or reach beyond the coefficients.
    """
    numbers = np.asarray(numbers, np.float64)
    count = len(half_a) - 1
    if np.any(numbers != np.round(numbers)) or numbers.min() < 1 or numbers.max() > count:
        if len(numbers) == count:
            return half_a, half_b  # levels that are numbered otherwise, all of them
        raise ValueError(
            f"Expected model level numbers within 1 to {count}, for which there are coefficients, got {list(numbers)}"
        )
    inner = (numbers[1:].astype(int) + numbers[:-1].astype(int)) // 2
    chosen = np.concatenate([[0], inner, [count]])
    return half_a[chosen], half_b[chosen]


def _terms(dataset, coordinate) -> dict[str, str] | None:
    """`formula_terms` of the bounds of a hybrid coordinate: term -> variable."""
    bounds = dataset.variables.get(coordinate.attrs.get("bounds"))
    text = None if bounds is None else bounds.attrs.get("formula_terms")
    if text is None:
        return None
    words = text.replace(":", " ").split()
    terms = dict(zip(words[::2], words[1::2], strict=False))
    return {key: name for key, name in terms.items() if name in dataset.variables or key == "ps"}


def _edges(bounds) -> np.ndarray:
    """`(level, 2)` bounds as `(level + 1,)` edges. Raises `ValueError` when neighbours do not touch."""
    values = np.asarray(bounds.values, np.float64)
    if values.ndim != 2 or values.shape[1] != 2 or not np.allclose(values[1:, 0], values[:-1, 1], rtol=1e-5, atol=1e-6):
        raise ValueError(
            f"Expected bounds of {bounds.name} that touch each other, (level, 2), got shape {values.shape}"
        )
    return np.concatenate([values[:, 0], values[-1:, 1]])


def _from_the_top(half_a, half_b):
    """Reversed where the surface comes first."""
    pressure = half_a + half_b * 1e5
    return (half_a, half_b) if pressure[0] < pressure[-1] else (half_a[::-1], half_b[::-1])
