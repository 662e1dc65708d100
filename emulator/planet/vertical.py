"""Vertical coordinates: which dimension of a field is one; layer thickness on pressure, sigma and hybrid levels.

The kinds of axes are files of `emulator.planet.vertical_axes`. Every function on layers takes NumPy arrays or torch tensors
alike, since it uses only operators, indexing and `clip`.
"""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from emulator.planet.vertical_axes.registry import AXES, VerticalAxis

VERTICAL: Mapping[str, VerticalAxis] = AXES.all()


def vertical_of(dims: Iterable) -> str | None:
    """The vertical dimension among those of a field; None for a field without one, which has at most one."""
    return next((str(dim) for dim in dims if dim in VERTICAL), None)


@dataclasses.dataclass(frozen=True, eq=False)
class Levels:
    """Levels from the top of the atmosphere to the surface.

    Attributes:
      kind: "pressure", "sigma" or "hybrid".
      values: the store's `level` coordinate, `(level,)`, increasing: hPa on pressure levels, sigma, or model level number.
      half_a: Pa, `(level + 1,)`, and half_b: 1, `(level + 1,)`. Interfaces are at `half_a + half_b * surface_pressure`.
        On pressure levels `half_b` is zero and the interfaces lie half-way between levels: the trapezoidal rule written
        with one weight per level.
    """

    kind: str
    values: np.ndarray
    half_a: np.ndarray
    half_b: np.ndarray

    def __post_init__(self):
        count = len(self.values)
        if self.kind not in ("pressure", "sigma", "hybrid"):
            raise ValueError(f"Expected levels of kind pressure, sigma or hybrid, got {self.kind!r}")
        if len(self.half_a) != count + 1 or len(self.half_b) != count + 1:
            raise ValueError(
                f"Expected {count + 1} interface coefficients for {count} levels, got {len(self.half_a)} and "
                f"{len(self.half_b)}"
            )
        if not np.all(np.diff(self.values) > 0):
            raise ValueError(f"Expected levels increasing from the top to the surface, got {list(self.values)}")
        if not np.all(np.diff(self.half_a + self.half_b * 1e5) > 0):
            raise ValueError("Expected interface pressures increasing from the top to the surface at 1000 hPa")

    @classmethod
    def sigma(cls, interfaces) -> "Levels":
        """Sigma levels between the given interfaces, `(level + 1,)`, from 0 or the model top to 1."""
        interfaces = np.asarray(interfaces, np.float64)
        return cls("sigma", (interfaces[1:] + interfaces[:-1]) / 2, np.zeros_like(interfaces), interfaces)

    @classmethod
    def hybrid(cls, half_a, half_b, values=None) -> "Levels":
        """Hybrid levels from interface coefficients in Pa and 1; `values` defaults to 1 ... level."""
        half_a, half_b = np.asarray(half_a, np.float64), np.asarray(half_b, np.float64)
        values = np.arange(1.0, len(half_a)) if values is None else np.asarray(values, np.float64)
        return cls("hybrid", values, half_a, half_b)

    @classmethod
    def pressure(cls, values_hpa) -> "Levels":
        """Pressure levels in hPa; the column runs from the top level to the bottom level, or to the surface pressure."""
        values = np.asarray(values_hpa, np.float64)
        if len(values) < 2:
            raise ValueError(f"Expected at least 2 pressure levels for a column, got {list(values)}")
        half = np.concatenate([values[:1], (values[1:] + values[:-1]) / 2, values[-1:]]) * 100.0
        return cls("pressure", values, half, np.zeros_like(half))

    def to_json(self) -> dict:
        """For a checkpoint; `from_json` is the inverse."""
        values = dataclasses.asdict(self)
        return {name: value if isinstance(value, str) else value.tolist() for name, value in values.items()}

    @classmethod
    def from_json(cls, saved: dict) -> "Levels":
        """Levels as `to_json` gave them."""
        return cls(saved["kind"], *(np.asarray(saved[name]) for name in ("values", "half_a", "half_b")))

    def __len__(self) -> int:
        return len(self.values)

    def same_as(self, other: "Levels") -> bool:
        """Whether both are the same levels between the same interfaces, to the rounding of files."""
        if self.kind != other.kind or len(self) != len(other):
            return False
        pairs = ((self.values, other.values, 0), (self.half_a, other.half_a, 1.0), (self.half_b, other.half_b, 1e-5))
        return all(np.allclose(own, their, rtol=1e-4, atol=atol) for own, their, atol in pairs)

    def describe(self) -> str:
        """One phrase for messages; sigma and hybrid levels by the interfaces that define them."""
        if self.kind == "pressure":
            return f"{len(self)} pressure at {', '.join(f'{value:.4g}' for value in self.values)} hPa"
        interfaces = (self.half_a + self.half_b * 1e5) / 100
        return f"{len(self)} {self.kind} between {', '.join(f'{p:.4g}' for p in interfaces)} hPa (surface at 1000 hPa)"

    def thickness(self, surface_pressure, cut: bool = True):
        """Layer thickness in Pa, non-negative: `(..., *space)` -> `(level, ..., *space)`.

        On pressure levels with `cut`, layers end at the surface pressure: those below it vanish, and the lowest one
        extends down to it, so that air below the last level over the sea counts and air inside mountains does not.
        """
        half = self.interfaces(surface_pressure, cut)
        return [lower - upper for upper, lower in zip(half[:-1], half[1:], strict=True)]

    def interfaces(self, surface_pressure, cut: bool = True) -> list:
        """Interface pressures in Pa, a list of `level + 1` arrays of the shape of `surface_pressure`."""
        half = [float(a) + float(b) * surface_pressure for a, b in zip(self.half_a, self.half_b, strict=True)]
        if self.kind == "pressure" and cut:
            top = float(self.half_a[0])
            ground = surface_pressure.clip(top, None)
            half = (
                [h + 0 * surface_pressure for h in half[:1]]
                + [ground.clip(None, float(a)) for a in self.half_a[1:-1]]
                + [ground]
            )
        return half

    def places(self) -> tuple[float, ...]:
        """Where the levels lie under a surface at 1000 hPa, in hPa: pressure levels as they are, others by their middle."""
        if self.kind == "pressure":
            return tuple(map(float, self.values))
        half = self.interfaces(1e5)
        return tuple(float(upper + lower) / 200 for upper, lower in zip(half[:-1], half[1:], strict=True))

    def label(self, index: int) -> str:
        """A level as a person writes it: `500 hPa`, `510 hPa (sigma 0.51)`, `level 60`."""
        return VERTICAL["level"].label_of(self.values[index], self.kind)


def interfaces_around(half_a, half_b, numbers) -> tuple[np.ndarray, np.ndarray]:
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
