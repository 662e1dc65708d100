"""Linear pattern scaling: the global mean follows the forcing, and every cell follows the global mean.

The baseline that emulators of scenarios have to beat (Lütjens et al. 2025, JAMES 17, doi:10.1029/2024MS004619; Santer
et al. 1990): two straight lines, fitted by least squares over all years of all training scenarios, each year with the
same weight.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class PatternScaling:
    """`T = a + b f` of the global mean by the forcing, `y = c + d T` of every cell by the global mean.

    Attributes:
      line: `(a, b)`. offset, slope: c and d, `(cell,)`.
    """

    line: tuple[float, float]
    offset: np.ndarray
    slope: np.ndarray

    @classmethod
    def fit(cls, forcing: np.ndarray, scale: np.ndarray, fields: np.ndarray) -> "PatternScaling":
        """From `forcing` and the global mean `scale`, `(year,)`, and `fields` `(year, cell)`, of all scenarios together.

        Raises `ValueError` where the forcing or the global mean does not vary, or where there are less than two years.
        """
        a, b = _line(forcing, scale[:, None], "the forcing")
        offset, slope = _line(scale, fields, "the global mean")
        return cls((float(a[0]), float(b[0])), offset, slope)

    def scale(self, forcing: np.ndarray) -> np.ndarray:
        """Global mean at a forcing, `(year,)`."""
        return self.line[0] + self.line[1] * np.asarray(forcing)

    def __call__(self, forcing: np.ndarray) -> np.ndarray:
        """Fields under a forcing `(year,)`, `(year, cell)`."""
        return self.offset + np.multiply.outer(self.scale(forcing), self.slope)


def _line(x: np.ndarray, y: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Intercept and slope of `(year, cell)` on `(year,)`, `(cell,)` each."""
    x = np.asarray(x, np.float64)
    departure = x - x.mean()
    size = float(departure @ departure)
    if not size > 1e-18 * max(float(x @ x), 1e-300):
        raise ValueError(
            f"Expected {what} to vary over the years of the training scenarios, got {len(x)} years without"
        )
    slope = departure @ y / size
    return y.mean(axis=0) - slope * x.mean(), slope
