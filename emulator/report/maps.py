"""Maps. What all maps of a page share, projection, cell corners and coastlines, is projected once.

Handing every field to cartopy in degrees projects corners and coast again for each map and each pass of the layout, which
took most of the report's time. Nothing is fetched from the network.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import cartopy.crs as ccrs
import contourpy
import numpy as np
import xarray as xr
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from emulator.planet.coordinates import contiguous
from emulator.planet.coordinates import edges as edges_of
from emulator.planet.projection import NAME as CRS
from emulator.planet.projection import from_sphere, mapping_from
from emulator.report.style import COLUMNS, DIVERGING, INK, PALE, SEQUENTIAL, WIDTH
from emulator.report.view import View

COAST = Path("shapefiles") / "natural_earth" / "physical" / "ne_110m_coastline.shp"
FROM_ZERO, WET = ("specific_humidity", "mean_total_precipitation_rate", "total_column_water_vapour"), "YlGnBu"
SIGNED = ("u_component_of_wind", "v_component_of_wind", "vertical_velocity", "vorticity", "divergence")
_DEGREES = ccrs.PlateCarree()


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """Where the cells of a grid lie on the page.

    Attributes:
      projection: Robinson for the globe, with its seam on a cell edge; plate carree for a box; None for a projected grid,
        which is drawn on its own map.
      columns: order of the grid's columns on the map, `(nlon,)`.
      x, y: projected cell corners, `(nlat + 1, nlon + 1)`.
      coast: projected lines, `(point, 2)` each.
      whole: whether the map shows the globe.
    """

    projection: ccrs.Projection | None
    columns: np.ndarray
    x: np.ndarray
    y: np.ndarray
    coast: list[np.ndarray]
    whole: bool

    def draw(self, axis, values: np.ndarray, style: dict):
        """The field `(row, column)` and the coast on an axis of the projection, grey where it is missing; the image."""
        if not np.isfinite(values).all():
            axis.set_facecolor(PALE)
        image = axis.pcolormesh(self.x, self.y, values[:, self.columns], rasterized=True, **style)
        axis.add_collection(LineCollection(self.coast, colors=[INK], linewidths=0.5))
        for spine in axis.spines.values():
            spine.set(visible=True, linewidth=0.5, edgecolor=INK)
        if self.projection is None:
            axis.set(aspect="equal", xticks=[], yticks=[])
        if self.whole:
            axis.set_global()
        else:
            axis.set_xlim(self.x.min(), self.x.max())
            axis.set_ylim(self.y.min(), self.y.max())
        return image


def frame(scores: xr.Dataset) -> Frame:
    """The frame for the grid of a dataset of scores, coast from its land-sea mask or `CARTOPY_DATA_DIR`."""
    if "x" in scores.dims:
        return _own_map(scores)
    latitude, (columns, longitude) = scores["latitude"].values, contiguous(scores["longitude"].values)
    rows = np.clip(edges_of(latitude), -90, 90)
    edges = edges_of(longitude)
    whole = bool(edges[-1] - edges[0] > 359)
    projection = _DEGREES
    if whole:
        # The seam is the cell edge nearest to the date line, so that no cell is cut in two.
        seam = int(np.abs(edges - 180).argmin()) % len(longitude)
        columns = np.roll(columns, -seam)
        edges = np.linspace(edges[seam], edges[seam] + 360, len(longitude) + 1) - 360
        projection = ccrs.Robinson(central_longitude=edges[0] + 180)
    elif edges[0] < -180 or edges[-1] > 180:
        middle = 180.0 if 0 <= edges[0] and edges[-1] <= 360 else (edges[0] + edges[-1]) / 2
        projection = ccrs.PlateCarree(central_longitude=middle)
    corners = edges.copy()
    corners[[0, -1]] += np.array([1e-6, -1e-6])  # a point on the seam itself may fall on either side
    x, y = _project(projection, *np.meshgrid(corners, rows))
    lines = _coastlines(scores, columns, edges)
    coast = [np.stack(_project(projection, *line.T), axis=-1) for line in lines]
    return Frame(projection, columns, x, y, coast, whole)


def _own_map(scores: xr.Dataset) -> Frame:
    """The frame of a projected grid, in its own `x` and `y`."""
    mapping = mapping_from(scores[CRS].attrs)
    x, y = edges_of(scores["x"].values), edges_of(scores["y"].values)
    low, high = np.array([x.min(), y.min()]), np.array([x.max(), y.max()])
    coast = []
    if lines := _shapes():
        for line in lines:
            along = np.stack(from_sphere(mapping, line[:, 1], line[:, 0]), axis=-1)
            near = np.all((along > 2 * low - high) & (along < 2 * high - low), axis=-1)  # cut where maps may turn over
            cuts = np.flatnonzero(np.diff(near)) + 1
            parts = zip(np.split(along, cuts), np.split(near, cuts), strict=True)
            coast += [part for part, kept in parts if kept[0] and len(part) > 1]
    elif _has_coast(scores):
        mask = np.nan_to_num(scores["land_sea_mask"].values)
        coast = contourpy.contour_generator(scores["x"].values, scores["y"].values, mask).lines(0.5)
    return Frame(None, np.arange(len(x) - 1), *np.meshgrid(x, y), coast, False)


def _has_coast(scores) -> bool:
    return "land_sea_mask" in scores and bool(np.ptp(scores["land_sea_mask"].values) > 0)


def _shapes() -> list[np.ndarray]:
    """Coastlines `(point, 2)` of longitude and latitude from `CARTOPY_DATA_DIR`; none where it has none."""
    folder = os.environ.get("CARTOPY_DATA_DIR")
    if not folder or not (Path(folder) / COAST).exists():
        return []
    from cartopy.io.shapereader import Reader

    geometries = Reader(str(Path(folder) / COAST)).geometries()
    return [np.array(line.coords)[:, :2] for shape in geometries for line in _parts(shape)]


def _project(projection, longitude, latitude):
    points = projection.transform_points(_DEGREES, longitude, latitude)
    return points[..., 0], points[..., 1]


def _coastlines(scores, columns, edges) -> list[np.ndarray]:
    """Lines of (longitude, latitude) within the map's columns."""
    if lines := _shapes():
        return [piece for line in lines for piece in _within(line, edges)]
    if not _has_coast(scores):
        return []
    mask = scores["land_sea_mask"].values[:, columns]
    centres = (edges[1:] + edges[:-1]) / 2
    if edges[-1] - edges[0] > 359:  # the neighbours beyond the seam let the coast run up to it
        mask = np.concatenate([mask[:, -1:], mask, mask[:, :1]], axis=1)
        centres = np.concatenate([[centres[-1] - 360], centres, [centres[0] + 360]])
    lines = contourpy.contour_generator(centres, scores["latitude"].values, np.nan_to_num(mask)).lines(0.5)
    return [np.stack([np.clip(line[:, 0], edges[0] + 1e-6, edges[-1] - 1e-6), line[:, 1]], axis=-1) for line in lines]


def _parts(shape):
    return getattr(shape, "geoms", [shape])


def _within(line, edges):
    """The line with longitudes inside the map, cut where it crosses the seam."""
    longitude = (line[:, 0] - edges[0]) % 360 + edges[0]
    cuts = np.flatnonzero(np.abs(np.diff(longitude)) > 180) + 1
    pieces = np.split(np.stack([longitude, line[:, 1]], axis=-1), cuts)
    return [piece for piece in pieces if len(piece) > 1]


def difference_maps(view: View, fields: Mapping[str, np.ndarray], of: Sequence[str] = ()) -> Figure:
    """Maps of differences `(latitude, longitude)` by channel, in the channels' units, three in a row around white at 0.

    With names in `of`, fields are `(name, latitude, longitude)`: every name has its maps, in the same colours for a channel.
    """
    places = [(channel, index) for index in range(max(1, len(of))) for channel in fields]
    columns = min(COLUMNS, len(fields) if of else len(places))
    rows = -(-len(fields) // columns) * max(1, len(of))
    shared = frame(view.scores)
    figure = Figure(figsize=(WIDTH, 1.85 * rows))
    axes = figure.subplots(rows, columns, squeeze=False, subplot_kw={"projection": shared.projection}).ravel()
    for axis in axes[len(places) :]:
        axis.set_visible(False)
    for axis, (channel, index) in zip(axes, places, strict=False):
        values = fields[channel] * view.factor(channel)
        image = shared.draw(axis, values[index] if of else values, symmetric(values, DIVERGING))
        axis.set_title("\n".join([view.title(channel), *of[index : index + 1]]))
        colour_bar(figure, image, axis, view.units(channel))
    return figure


def symmetric(values: np.ndarray, colours: str) -> dict:
    """Colours from minus to plus the size that one value in two hundred exceeds."""
    sizes = np.abs(values[np.isfinite(values)])
    widest = float(np.percentile(sizes, 99.5)) if sizes.size else 0.0
    widest = widest or 1e-12
    return {"cmap": colours, "vmin": -widest, "vmax": widest}


def colours_of(variable: str, values: np.ndarray) -> dict:
    """Colours of a field: about zero for winds, from zero for water, between its quantiles for the rest."""
    if variable in SIGNED:
        return symmetric(values, "PuOr_r")
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, [0.5, 99.5]) if finite.size else (0.0, 1.0)
    wet = variable in FROM_ZERO
    return {"cmap": WET if wet else SEQUENTIAL, "vmin": 0 if wet else low, "vmax": high}


def colour_bar(figure: Figure, image, axes, unit: str) -> None:
    """A thin bar beside one or several maps that share an image's colours."""
    bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.015, aspect=18, extend="both")
    bar.outline.set_linewidth(0.4)
    bar.ax.tick_params(labelsize=7, width=0.5)
    bar.set_label(unit, fontsize=7.5)
