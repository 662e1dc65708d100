"""Power spectra in the plane of a limited area by the discrete cosine transform (Denis, Cote and Laprise 2002).

A Fourier transform takes the jump between opposite sides of a domain for small scales, a cosine transform does not: it goes
on evenly beyond each side. `F(m, n)` of an orthonormal DCT-II has the variance `F^2 / (rows * columns)`, and belongs to the
normalised wavenumber `alpha = sqrt((m / rows)^2 + (n / columns)^2)`; the variances of a ring of `alpha`, one half-wave along
the shorter side wide, are added up. They sum to the mean square of the field; ring 0 holds the mean and what is longer than
two domains.
"""

import functools

import numpy as np

from emulator.planet.plane_waves import cosines


def ring_count(shape: tuple[int, int]) -> int:
    """Half-waves along the shorter side: 0 to so many less one; beyond, corners of the spectrum hold one direction alone."""
    return min(shape)


def plane_spectrum(field: np.ndarray) -> np.ndarray:
    """Variance by half-waves along the shorter side, `(..., row, column)` -> `(..., min(row, column))`.

    What lies beyond the last ring, in the corners of the spectrum, is added to it.
    """
    rows, columns = field.shape[-2:]
    coefficients = cosines(rows) @ np.asarray(field, np.float64) @ cosines(columns).T
    variance = (coefficients**2 / (rows * columns)).reshape(*field.shape[:-2], -1)
    return variance @ _rings(rows, columns)


@functools.lru_cache(maxsize=8)
def _rings(rows: int, columns: int) -> np.ndarray:
    """Which ring each pair of waves counts to, `(pair, ring)`."""
    count = ring_count((rows, columns))
    alpha = np.hypot(np.arange(rows)[:, None] / rows, np.arange(columns) / columns)
    ring = np.minimum(np.floor(alpha * count + 1e-9).astype(int), count - 1).ravel()
    return np.eye(count)[ring]
