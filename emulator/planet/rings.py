"""Areas of the cells of point grids that lie in rings of one latitude: reduced Gaussian grids and HEALPix."""

import numpy as np

from emulator.planet.grid import GAUSSIAN_TOLERANCE, gauss_legendre


def ring_areas(latitude: np.ndarray) -> np.ndarray | None:
    """Shares of the sphere of the cells of a whole reduced Gaussian or HEALPix grid, in any order, summing to 1.

    The cells of a Gaussian row share its quadrature weight; those of HEALPix are equally large (Gorski et al. 2005, "HEALPix:
    a framework for high-resolution discretization"). None for any other points.

    Args:
      latitude: of the cells in degrees, `(cell,)`.
    """
    rows, row, count = np.unique(np.round(latitude, 6), return_inverse=True, return_counts=True)
    side = round((len(latitude) / 12) ** 0.5)
    if 12 * side**2 == len(latitude) and len(rows) == 4 * side - 1 and np.array_equal(count, _healpix_counts(side)):
        if np.abs(np.sin(np.radians(rows)) - _healpix_heights(side)).max() < 1e-4:
            return np.full(len(latitude), 1 / len(latitude))
    nodes, weights = gauss_legendre(len(rows))
    if len(rows) >= 4 and np.abs(rows - nodes[::-1]).max() < GAUSSIAN_TOLERANCE:
        return (weights[::-1] / count)[row]
    return None


def _healpix_counts(side: int) -> np.ndarray:
    ring = np.arange(1, 4 * side)
    return 4 * np.minimum(np.minimum(ring, 4 * side - ring), side)


def _healpix_heights(side: int) -> np.ndarray:
    """Sines of the rings' latitudes, from the south."""
    ring = np.arange(1, 4 * side)
    polar = np.minimum(ring, 4 * side - ring)
    cap = (1 - polar**2 / (3 * side**2)) * np.sign(ring - 2 * side)
    return np.where(polar < side, cap, (ring - 2 * side) * 2 / (3 * side))
