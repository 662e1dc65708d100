"""Horizontal grids: coordinates and their order, exact cell areas, global mean.

Areas are exact on every grid: Gauss-Legendre quadrature weights on Gaussian latitudes, differences of sines between
cell edges elsewhere, polygons on the sphere under a map projection. cos(latitude) is not used: it gives pole rows no weight
and is up to 1.8 % wrong in the polar row of a Gaussian grid.

A grid that does not cover the sphere is a region, of a kind of its own: a box of latitudes and longitudes, a projected grid,
or points. Longitudes of a box are contiguous: from its west, at least -180, to its east, as in -10 to 20; those of a box that
does not cross Greenwich lie in [0, 360), like a globe's.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping

import numpy as np

from emulator.planet.cell_areas import GAUSSIAN_TOLERANCE, covers_sphere, gauss_legendre, mesh_areas
from emulator.planet.coordinates import check_coordinates, column_edges, contiguous, edges, goes_round
from emulator.planet.projection import is_rotated, mapping_from, mapping_name, to_sphere

REGIONAL = ("box", "projected", "region_points")  # kinds of grids that are no globe
CLOSED = "closed"  # attribute of a region's files: nothing passes its sides but what comes back at another one
POLE = 0.01  # spacings: a row nearer than that to a pole lies at it
WHOLE = 0.999  # share of the sphere from which on points of a region have areas that were divided by their sum


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """A latitude-longitude or Gaussian grid, a box of one, a projected grid, or a list of points.

    Attributes:
      latitude: degrees north. `(nlat,)`, strictly decreasing; `(y, x)` projected; `(cell,)` for points.
      longitude: degrees east in [0, 360). `(nlon,)`, strictly increasing, of a box contiguous and from -180 on; `(y, x)`
        projected; `(cell,)` for points.
      kind: of a globe "gaussian", "equiangular" (constant spacing, with rows at both poles or half a cell away from both),
        "regular" (other latitudes) or "points"; of a region "box", "projected" or "region_points".
      area: cell areas as fractions of the covered area, float64, of shape `shape`, summing to 1.
      share: of the sphere that the cells cover: 1 for a globe, NaN where it is not known (points of old stores).
      x, y: places on the map, `(x,)` increasing and `(y,)` decreasing, in m, or degrees of a rotated pole; else None.
      mapping: CF attributes of the grid mapping of a projected grid, else None.
    """

    latitude: np.ndarray
    longitude: np.ndarray
    kind: str
    area: np.ndarray
    share: float = 1.0
    x: np.ndarray | None = None
    y: np.ndarray | None = None
    mapping: Mapping | None = None

    @classmethod
    def from_coordinates(cls, latitude, longitude) -> "Grid":
        """Grid with the given cell centres, in degrees. Raises `ValueError` for any order but the convention's."""
        latitude, longitude = np.asarray(latitude, np.float64), np.asarray(longitude, np.float64)
        check_coordinates(latitude, longitude)
        kind, weights = _latitude_weights(latitude)
        if goes_round(longitude) and (kind == "gaussian" or _reaches_poles(latitude)):
            return cls(latitude, longitude, kind, np.repeat(weights[:, None] / len(longitude), len(longitude), axis=1))
        order, values = contiguous(longitude)
        widths = np.empty(len(longitude))
        widths[order] = np.diff(column_edges(values))
        outer = row_edges(latitude)[[0, -1]]
        share = (outer[0] - outer[1]) / 2 * widths.sum() / 360
        return cls(latitude, longitude, "box", weights[:, None] * (widths / widths.sum()), float(share))

    @classmethod
    def box(cls, rows: int, columns: int, edges: tuple[float, float, float, float]) -> "Grid":
        """Box of equal angles between `edges` (south, north, west, east) in degrees; west may exceed east.

        Raises `ValueError` for edges that enclose nothing.
        """
        south, north, west, east = edges
        width = (east - west) % 360 or 360.0
        if not -90 <= south < north <= 90:
            raise ValueError(f"Expected a box from a south to a north within -90 to 90, got {south} and {north}")
        latitude = north - (np.arange(rows) + 0.5) * ((north - south) / rows)
        longitude = west + (np.arange(columns) + 0.5) * (width / columns)
        return cls.from_coordinates(latitude, contiguous(longitude)[1])

    @classmethod
    def projected(cls, x, y, mapping: Mapping) -> "Grid":
        """Grid on a map, cells around `x` (increasing) and `y` (decreasing), in m, or degrees of a rotated pole.

        Args:
          mapping: attributes of a CF grid mapping variable.
        Raises `ValueError` for an unknown mapping, and for any order but the convention's.
        """
        x, y = (np.asarray(values, np.float64) for values in (x, y))
        for name, values, sign in (("x", x, 1), ("y", y, -1)):
            if values.ndim != 1 or len(values) < 2 or not np.all(sign * np.diff(values) > 0):
                order = "increasing" if sign > 0 else "decreasing"
                raise ValueError(f"Expected at least 2 strictly {order} values of {name}, got {values[:3]}")
        return _projected(x.tobytes(), y.tobytes(), json.dumps(mapping_from(mapping), sort_keys=True))

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
        """Point grid (reduced Gaussian, HEALPix, ICON) with the given positive cell areas, all `(cell,)`.

        Areas of a globe are in any unit, those of a region shares of the sphere. Which of the two it is follows from where
        the points lie.
        """
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
        total = float(area.sum())
        if covers_sphere(latitude, longitude, area):
            return cls(latitude, longitude % 360, "points", area / total)
        share = total if total < WHOLE else float("nan")
        return cls(latitude, longitude % 360, "region_points", area / total, share)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.area.shape

    @property
    def dims(self) -> tuple[str, ...]:
        return ("cell",) if self.is_points else ("y", "x") if self.kind == "projected" else ("latitude", "longitude")

    @property
    def is_points(self) -> bool:
        """Whether the cells are a list."""
        return self.latitude.ndim == 1 and self.area.ndim == 1

    @property
    def has_rows(self) -> bool:
        """Whether the cells lie in rows of one latitude and columns of one longitude."""
        return not self.is_points and self.kind != "projected"

    @property
    def goes_round(self) -> bool:
        """Whether rows go round the sphere, so that the last cell of each is a neighbour of the first."""
        return self.has_rows and goes_round(self.longitude)

    @property
    def cell_area(self) -> np.ndarray:
        """Cell areas as shares of the sphere, of shape `shape`; where the share is not known, of the covered area."""
        return self.area if np.isnan(self.share) else self.area * self.share

    @property
    def is_split(self) -> bool:
        """Whether a box across Greenwich lies in two parts, as stores had it before longitudes were contiguous."""
        return self.kind == "box" and not np.array_equal(contiguous(self.longitude)[0], np.arange(self.shape[1]))

    def mesh(self) -> tuple[np.ndarray, np.ndarray]:
        """Latitude and longitude of every cell, degrees, each of shape `shape`."""
        if not self.has_rows:
            return self.latitude, self.longitude
        return tuple(np.meshgrid(self.latitude, self.longitude, indexing="ij"))

    def open_mesh(self, rows: slice | None = None) -> tuple[np.ndarray, np.ndarray]:
        """As `mesh`, but only broadcasting to `shape`: functions of one of them are computed once a row or column.

        `rows`: of some rows alone.
        """
        if not self.has_rows:
            return self.latitude, self.longitude
        return self.latitude[slice(None) if rows is None else rows, None], self.longitude[None]

    def shape_of(self, rows: slice | None) -> tuple[int, ...]:
        """Shape of fields of some rows; None: of all."""
        return self.shape if rows is None else (rows.stop - rows.start, *self.shape[1:])

    def mean(self, field: np.ndarray) -> np.ndarray:
        """Area-weighted mean over the trailing spatial axes, in float64: `(..., *shape)` -> `(...)`."""
        axes = tuple(range(-len(self.shape), 0))
        return np.sum(np.asarray(field, np.float64) * self.area, axis=axes)

    def is_global(self) -> bool:
        """Whether the cells cover the sphere; those of a region do not."""
        return self.kind not in REGIONAL

    @property
    def has_poles(self) -> bool:
        """Whether a latitude-longitude grid has rows at both poles."""
        return self.kind in ("equiangular", "regular") and bool(max(_beyond(self.latitude)) < POLE)

    @property
    def mirrors_at_poles(self) -> bool:
        """Whether what lies beyond each pole, half a turn away, are rows of the grid again, one spacing apart as the others.

        So it is with rows at both poles, and with rows about half a spacing from both; not with a row at one pole alone, and
        not where the rows at both poles were cut off.
        """
        inside = self.kind == "gaussian" or bool(np.all(np.abs(np.subtract(_beyond(self.latitude), 0.5)) < 0.3))
        return self.has_rows and self.is_global() and (self.has_poles or inside)

    @property
    def remedy(self) -> str:
        """Of a globe without rows at a pole words that say so and with which key ingest makes whole ones; "" of others."""
        if not self.is_global() or not self.has_rows or self.mirrors_at_poles:
            return ""
        rows, columns = self.shape
        rows += int((np.asarray(_beyond(self.latitude)) > 0.8).sum())
        whole = f"{{kind: equiangular, rows: {rows}, columns: {columns}, poles: true}}"
        return f", which lacks rows at a pole; ingest it with grid: {whole}"

    def same_as(self, other: "Grid", tolerance: float = GAUSSIAN_TOLERANCE) -> bool:
        """Whether both grids have the same cells, to a tolerance in degrees."""
        return (
            self.shape == other.shape
            and np.allclose(self.latitude, other.latitude, rtol=0, atol=tolerance)
            and np.allclose(self.longitude, other.longitude, rtol=0, atol=tolerance)
        )

    def describe(self) -> str:
        """One phrase for messages and reports."""
        if self.is_points:
            part = "" if np.isnan(self.share) else f", {100 * self.share:.2g} % of the sphere"
            return f"{len(self.latitude)} points" + ("" if self.is_global() else f" of a region{part}")
        if self.kind == "projected":
            unit, step = ("degrees", 1.0) if is_rotated(self.mapping) else ("km", 1e3)
            return (
                f"{self.shape[0]} x {self.shape[1]} projected ({mapping_name(self.mapping)}, "
                f"{np.diff(self.x).mean() / step:.3g} {unit}, latitude {self.latitude.max():.5g} to "
                f"{self.latitude.min():.5g})"
            )
        spacing = np.abs(np.diff(self.latitude)).mean()
        return (
            f"{self.shape[0]} x {self.shape[1]} {self.kind} ({spacing:.3g} degrees, latitude {self.latitude[0]:.5g} to "
            f"{self.latitude[-1]:.5g}, longitude {self.longitude[0]:.5g} to {self.longitude[-1]:.5g})"
        )


@functools.lru_cache(maxsize=8)
def _projected(x: bytes, y: bytes, text: str) -> Grid:
    """Kept: corners of a large grid take a second."""
    x, y, mapping = np.frombuffer(x), np.frombuffer(y), json.loads(text)
    latitude, longitude = to_sphere(mapping, *np.meshgrid(x, y))
    edges_x, edges_y = edges(x), edges(y)
    if is_rotated(mapping):  # rows and columns about another pole: exact
        area = -np.diff(np.sin(np.radians(np.clip(edges_y, -90, 90))))[:, None] * np.radians(np.diff(edges_x))
    else:
        area = mesh_areas(*to_sphere(mapping, *np.meshgrid(edges_x, edges_y)))
    share = float(area.sum()) / (4 * np.pi)
    return Grid(latitude, longitude, "projected", area / area.sum(), share, x, y, mapping)


def _beyond(latitude) -> tuple[float, float]:
    """How far the first and the last row are from their poles, in spacings of the rows there."""
    return (90 - latitude[0]) / (latitude[0] - latitude[1]), (latitude[-1] + 90) / (latitude[-2] - latitude[-1])


def _reaches_poles(latitude) -> bool:
    step = np.abs(np.diff(latitude)).max()
    return bool(90 - latitude[0] <= step and latitude[-1] + 90 <= step)


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
    even = np.allclose(spacing, spacing.mean(), rtol=1e-3, atol=1e-4)
    north, south = _beyond(latitude)
    ends = max(north, south) < POLE or max(abs(north - 0.5), abs(south - 0.5)) < 0.05
    return "equiangular" if even and ends else "regular", weights / weights.sum()
