"""Areas of cells on the unit sphere: of polygons, of whole reduced grids, and whether points cover the sphere at all."""

import functools

import numpy as np

GAUSSIAN_TOLERANCE = 2e-3  # degrees; GRIB1 rounds latitudes to 1e-3
COVER_TOLERANCE = 0.02  # about the share of the sphere that may lack before points are those of a region


def unit_vectors(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Points on the unit sphere, `(..., 3)` float64, from degrees."""
    phi, lam = np.radians(latitude), np.radians(longitude)
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)


def polygon_areas(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Areas on the unit sphere of polygons with corners in degrees, `(cell, corner)` -> `(cell,)`.

    A polygon is cut into triangles from its first corner.
    """
    points = unit_vectors(latitude, longitude)
    total = np.zeros(len(points))
    for second in range(1, points.shape[1] - 1):
        total += _solid_angle(points[:, 0], points[:, second], points[:, second + 1])
    return np.abs(total)


def mesh_areas(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Areas on the unit sphere of the cells between the corners of a mesh, degrees, `(y + 1, x + 1)` -> `(y, x)`.

    Neighbours share their sides, arcs of great circles, so that areas add up to that of the whole.
    """
    points = unit_vectors(latitude, longitude)
    first, opposite = points[:-1, :-1], points[1:, 1:]
    total = _solid_angle(first, points[:-1, 1:], opposite) + _solid_angle(first, opposite, points[1:, :-1])
    return np.abs(total)


def _solid_angle(a, b, c):
    """Signed solid angles of triangles (Van Oosterom and Strackee 1983), which stay exact for small ones."""
    triple = np.sum(a * np.cross(b, c), axis=-1)
    return 2 * np.arctan2(triple, 1 + np.sum(a * b + b * c + c * a, axis=-1))


def covers_sphere(latitude: np.ndarray, longitude: np.ndarray, area: np.ndarray) -> bool:
    """Whether points with their areas, each `(cell,)`, make up a sphere.

    Over a sphere a place `p` has the mean 0 and `p p^T` the mean of a third of the unit matrix. A part of it that is
    missing shows in either by about its share.
    """
    points, weight = unit_vectors(latitude, longitude), area / area.sum()
    middle, spread = weight @ points, (points * weight[:, None]).T @ points
    return bool(max(np.abs(middle).max(), np.abs(spread - np.eye(3) / 3).max()) < COVER_TOLERANCE)


@functools.lru_cache(maxsize=8)
def gauss_legendre(nlat: int) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian latitudes in degrees from the north, and their shares of the sphere, each `(nlat,)`."""
    nodes, weights = np.polynomial.legendre.leggauss(nlat)
    return np.degrees(np.arcsin(nodes))[::-1], weights[::-1] / 2


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
