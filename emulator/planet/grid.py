"""Horizontal grids: coordinates and their order, exact cell areas, global mean.

Areas are exact on every grid: Gauss-Legendre quadrature weights on Gaussian latitudes, differences of sines between
cell edges elsewhere. cos(latitude) is not used: it gives pole rows no weight and is up to 1.8 % wrong in the polar row
of a Gaussian grid.
"""

import dataclasses
import functools

import numpy as np

GAUSSIAN_TOLERANCE = 2e-3  # degrees; GRIB1 rounds latitudes to 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """A latitude-longitude or Gaussian grid, or a list of points.

    Attributes:
      latitude: degrees north. `(nlat,)`, strictly decreasing; `(cell,)` for a point grid.
      longitude: degrees east in [0, 360). `(nlon,)`, strictly increasing; `(cell,)` for a point grid.
      kind: "gaussian", "equiangular" (constant spacing, poles included or not), "regular" (other latitudes) or "points".
      area: cell areas as fractions of the covered area, float64, of shape `shape`, summing to 1.
    """

    latitude: np.ndarray
    longitude: np.ndarray
    kind: str
    area: np.ndarray

    @classmethod
    def from_coordinates(cls, latitude, longitude) -> "Grid":
        """Grid with the given cell centres, in degrees. Raises `ValueError` for any order but the convention's."""
        latitude, longitude = np.asarray(latitude, np.float64), np.asarray(longitude, np.float64)
        _check_coordinates(latitude, longitude)
        kind, weights = _latitude_weights(latitude)
        area = np.repeat(weights[:, None] / len(longitude), len(longitude), axis=1)
        return cls(latitude, longitude, kind, area)

    @classmethod
    def gaussian(cls, nlat: int, nlon: int | None = None) -> "Grid":
        """Gaussian grid with `nlat` latitudes and `nlon` (default `2 nlat`) longitudes from 0."""
        nlon = nlon or 2 * nlat
        nodes = np.polynomial.legendre.leggauss(nlat)[0]
        return cls.from_coordinates(np.degrees(np.arcsin(nodes))[::-1], np.arange(nlon) * (360.0 / nlon))

    @classmethod
    def equiangular(cls, nlat: int, nlon: int | None = None, poles: bool = False) -> "Grid":
        """Equal-angle grid, rows at the poles or half a cell away from them."""
        nlon = nlon or 2 * (nlat - poles)
        latitude = np.linspace(90, -90, nlat) if poles else 90 - (np.arange(nlat) + 0.5) * (180.0 / nlat)
        return cls.from_coordinates(latitude, np.arange(nlon) * (360.0 / nlon))

    @classmethod
    def points(cls, latitude, longitude, area) -> "Grid":
        """Point grid (reduced Gaussian, HEALPix, ICON) with the given positive cell areas in any unit, all `(cell,)`."""
        latitude, longitude, area = (np.asarray(a, np.float64) for a in (latitude, longitude, area))
        if not latitude.ndim == 1 or not latitude.shape == longitude.shape == area.shape:
            raise ValueError(
                f"Expected latitude, longitude and area of one shape (cell,), got {latitude.shape}, {longitude.shape} "
                f"and {area.shape}"
            )
        if not (np.all(np.isfinite(area)) and np.all(area > 0)):
            raise ValueError(f"Expected positive cell areas, got a minimum of {np.nanmin(area)}")
        if np.abs(latitude).max() > 90:
            raise ValueError(f"Expected latitudes within -90 to 90, got {latitude.min()} to {latitude.max()}")
        return cls(latitude, longitude % 360, "points", area / area.sum())

    @property
    def shape(self) -> tuple[int, ...]:
        return self.area.shape

    @property
    def dims(self) -> tuple[str, ...]:
        return ("cell",) if self.kind == "points" else ("latitude", "longitude")

    def mesh(self) -> tuple[np.ndarray, np.ndarray]:
        """Latitude and longitude of every cell, degrees, each of shape `shape`."""
        if self.kind == "points":
            return self.latitude, self.longitude
        return tuple(np.meshgrid(self.latitude, self.longitude, indexing="ij"))

    def open_mesh(self) -> tuple[np.ndarray, np.ndarray]:
        """As `mesh`, but only broadcasting to `shape`: functions of one of them are computed once a row or column."""
        if self.kind == "points":
            return self.latitude, self.longitude
        return self.latitude[:, None], self.longitude[None]

    def mean(self, field: np.ndarray) -> np.ndarray:
        """Area-weighted mean over the trailing spatial axes, in float64: `(..., *shape)` -> `(...)`."""
        axes = tuple(range(-len(self.shape), 0))
        return np.sum(np.asarray(field, np.float64) * self.area, axis=axes)

    def is_global(self) -> bool:
        """Whether the cells cover the sphere in longitude and reach both poles."""
        if self.kind in ("points", "gaussian"):
            return True
        spacing = 360.0 / len(self.longitude)
        wraps = np.allclose(np.diff(self.longitude), spacing, rtol=1e-3)
        step = np.abs(np.diff(self.latitude)).max()
        return bool(wraps and 90 - self.latitude[0] <= step and self.latitude[-1] + 90 <= step)

    @property
    def has_poles(self) -> bool:
        """Whether a latitude-longitude grid has rows at the poles."""
        return self.kind == "equiangular" and bool(abs(self.latitude[0]) > 90 - 1e-6)

    def same_as(self, other: "Grid", tolerance: float = GAUSSIAN_TOLERANCE) -> bool:
        """Whether both grids have the same cells, to a tolerance in degrees."""
        return (
            self.shape == other.shape
            and np.allclose(self.latitude, other.latitude, rtol=0, atol=tolerance)
            and np.allclose(self.longitude, other.longitude, rtol=0, atol=tolerance)
        )

    def describe(self) -> str:
        """One phrase for messages and reports."""
        if self.kind == "points":
            return f"{len(self.latitude)} points"
        spacing = np.abs(np.diff(self.latitude)).mean()
        return (
            f"{self.shape[0]} x {self.shape[1]} {self.kind} ({spacing:.3g} degrees, latitude {self.latitude[0]:.5g} to "
            f"{self.latitude[-1]:.5g}, longitude {self.longitude[0]:.5g} to {self.longitude[-1]:.5g})"
        )


def _check_coordinates(latitude, longitude):
    if latitude.ndim != 1 or longitude.ndim != 1 or len(latitude) < 2 or len(longitude) < 2:
        raise ValueError(
            f"Expected latitude and longitude as vectors of at least 2 values, got shapes {latitude.shape} and "
            f"{longitude.shape}"
        )
    for name, values in (("latitude", latitude), ("longitude", longitude)):
        if not np.all(np.isfinite(values)):
            raise ValueError(f"Expected finite values of {name}, got {values[~np.isfinite(values)][:3]}")
    if np.abs(latitude).max() > 90 + 1e-6:
        raise ValueError(f"Expected latitudes within -90 to 90, got {latitude.min()} to {latitude.max()}")
    if not np.all(np.diff(latitude) < 0):
        raise ValueError(
            f"Expected strictly decreasing latitudes (north to south), got {latitude[0]:.6g}, {latitude[1]:.6g}, ..., "
            f"{latitude[-1]:.6g}; ingest puts a source in order"
        )
    if not np.all(np.diff(longitude) > 0):
        raise ValueError(
            f"Expected strictly increasing longitudes, got {longitude[0]:.6g}, {longitude[1]:.6g}, ..., "
            f"{longitude[-1]:.6g}; ingest puts a source in order"
        )
    if longitude[0] < 0 or longitude[-1] >= 360:
        raise ValueError(f"Expected longitudes in [0, 360), got {longitude[0]:.6g} to {longitude[-1]:.6g}")


def longitude_east(longitude: np.ndarray) -> np.ndarray:
    """Longitudes in degrees as they are in [0, 360), of the same type."""
    east = np.asarray(longitude % 360, longitude.dtype)
    return np.where(east >= 360 - 1e-9, np.zeros((), east.dtype), east)  # float32 rounds -1e-8 % 360 up to 360


def positions_in_order(name: str, values: np.ndarray) -> np.ndarray:
    """Positions that put a coordinate in the convention's order: latitude from the north, all others increasing."""
    return np.argsort(-values if name == "latitude" else values, kind="stable")


@functools.lru_cache(maxsize=8)
def gauss_legendre(nlat: int) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian latitudes in degrees from the north, and their shares of the sphere, each `(nlat,)`."""
    nodes, weights = np.polynomial.legendre.leggauss(nlat)
    return np.degrees(np.arcsin(nodes))[::-1], weights[::-1] / 2


def row_edges(latitude: np.ndarray) -> np.ndarray:
    """Sines of the latitudes between which the rows lie, `(nlat + 1,)`, decreasing: their differences are exact areas.

    On Gaussian latitudes those that give every row its quadrature weight; elsewhere half-way between rows, and the poles
    where the outermost row is within one spacing of them (WeatherBench 2's rule).
    """
    nodes, weights = gauss_legendre(len(latitude))
    if len(latitude) >= 4 and np.abs(latitude - nodes).max() < GAUSSIAN_TOLERANCE:
        edges = 1 - 2 * np.concatenate([[0.0], np.cumsum(weights)])
        edges[-1] = -1.0
        return edges
    inner = (latitude[1:] + latitude[:-1]) / 2
    north = latitude[0] + (latitude[0] - latitude[1]) / 2
    south = latitude[-1] - (latitude[-2] - latitude[-1]) / 2
    edges = np.clip(np.concatenate([[north], inner, [south]]), -90, 90)
    spacing = -np.diff(latitude)
    if 90 - latitude[0] <= spacing[0] * 1.001:
        edges[0] = 90
    if latitude[-1] + 90 <= spacing[-1] * 1.001:
        edges[-1] = -90
    return np.sin(np.radians(edges))


def _latitude_weights(latitude) -> tuple[str, np.ndarray]:
    """Kind of grid and the rows' shares of the covered area, `(nlat,)`, summing to 1."""
    nodes, weights = gauss_legendre(len(latitude))
    if len(latitude) >= 4 and np.abs(latitude - nodes).max() < GAUSSIAN_TOLERANCE:
        return "gaussian", weights
    weights = -np.diff(row_edges(latitude))
    spacing = -np.diff(latitude)
    kind = "equiangular" if np.allclose(spacing, spacing.mean(), rtol=1e-3, atol=1e-4) else "regular"
    return kind, weights / weights.sum()


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
