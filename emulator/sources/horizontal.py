"""The horizontal grid of a source's variable: rows and columns, a map by its CF grid mapping, or points with areas."""

import json
import re

import numpy as np
import xarray as xr

from emulator.planet.cell_areas import covers_sphere, polygon_areas, ring_areas, unit_vectors
from emulator.planet.constants import ERA5
from emulator.planet.coordinates import contiguous, hole, longitude_east, once, positions_in_order, within_poles
from emulator.planet.grid import Grid
from emulator.planet.projection import NAME as CRS
from emulator.planet.projection import is_rotated, mapping_from, mapping_name
from emulator.planet.units import linear
from emulator.sources.axes import Axes, named
from emulator.store.forecast import FORECAST_NAMES

MAP_NAMES = {  # of the coordinates of a map, and their CF standard names
    "y": ("projection_y_coordinate", "grid_latitude"),
    "x": ("projection_x_coordinate", "grid_longitude"),
}
_SPHERE_IN_M2 = 4 * np.pi * ERA5.earth_radius**2
SPHERE = {  # area of the whole in units of cell areas
    "m2": _SPHERE_IN_M2, "m^2": _SPHERE_IN_M2, "m**2": _SPHERE_IN_M2, "km2": _SPHERE_IN_M2 / 1e6, "km^2": _SPHERE_IN_M2 / 1e6,
    "sr": 4 * np.pi, "steradian": 4 * np.pi, "1": 1.0,
}  # fmt: skip
OTHER_WAY = re.compile(
    r"(?:deg(?:ree)?s?|°|º)[\s_]*(?:south|west)|(?:deg|degrees?)_[sw]|degrees[sw]|deg(?:ree)?w|[°º]\s*[sw]"
)


def on_the_sphere(array) -> bool:
    """Whether a variable has latitudes and longitudes, or places on a map that is named, along its dimensions."""
    place = [named(array, FORECAST_NAMES[n], (n,)) for n in ("latitude", "longitude")]
    along = all(c is not None and c.ndim > 0 and set(c.dims) <= set(array.dims) for c in place)
    return along or (_mapping_name(array) is not None and _on_the_map(array) is not None)


def add_horizontal(axes: Axes, dataset, array) -> None:
    """Rows from the north, columns from 0 east, or from the west of a box or map.

    Raises `ValueError` for a curvilinear grid, one without areas, or a map that PROJ does not know.
    """
    latitude, longitude = (named(array, FORECAST_NAMES[n], (n,)) for n in ("latitude", "longitude"))
    if latitude is None or longitude is None or latitude.ndim > 1:
        _add_map(axes, dataset, array, latitude, longitude)
        return
    for coordinate in (latitude, longitude):
        if not np.all(np.isfinite(coordinate.values)):
            raise ValueError(f"Expected finite values of {coordinate.name}, got NaN")
    north, east = within_poles(degrees(latitude)), degrees(longitude)
    if latitude.ndim and not any(str(c.attrs.get("units", "")) for c in (latitude, longitude)):
        _check_unitless(latitude.name, north, east)
    if latitude.dims == longitude.dims:
        axes.dims["cell"] = latitude.dims[0]
        east = longitude_east(east)
        area = _cell_area(dataset, latitude, longitude)
        axes.coordinates |= {"latitude": north, "longitude": east, "cell_area": area}
        return
    rows, (columns, east) = positions_in_order("latitude", north), contiguous(east)
    columns, east = columns[once(east)], east[once(east)]
    for label, values in (("rows of latitude", north[rows]), ("columns of longitude", east)):
        if (between := hole(values)) is not None:
            raise ValueError(
                f"Expected {label} without a hole, got none between {between[0]:g} and {between[1]:g}, a gap wider than the "
                "others; add the ones that lack, with missing values"
            )
    axes.dims |= {"latitude": latitude.dims[0], "longitude": longitude.dims[0]}
    axes.order |= {"latitude": rows, "longitude": columns}
    axes.coordinates |= {"latitude": north[rows], "longitude": east}


def degrees(coordinate, otherwise="") -> np.ndarray:
    """Latitudes or longitudes in degrees north or east, float64, whatever angle and direction they are recorded in.

    `otherwise`: units where the coordinate has none, as corners are in those of their centres. Raises `ValueError` for units
    that are no angle.
    """
    values, units = np.asarray(coordinate.values, np.float64), str(coordinate.attrs.get("units", "") or otherwise)
    if units.strip().lower().startswith(("deg", "°", "º")) or units.strip() in ("", "1"):
        return -values if OTHER_WAY.fullmatch(units.strip().lower()) else values
    try:
        change = linear(units, "degree")
    except ValueError:
        change = None
    if change is None:
        raise ValueError(
            f"Expected {coordinate.name} in degrees or radians, got {units!r}; give its units, as in units: "
            f"{{{coordinate.name}: degrees}}"
        )
    return values * change[0]


def _check_unitless(name, north: np.ndarray, east: np.ndarray) -> None:
    """Raises `ValueError` for places without units that fill a sphere in radians."""
    half = np.pi / 2 * (1 + 1e-6)
    if np.abs(north).max() <= half and np.abs(east).max() <= 4 * half and np.ptp(north) > 1 and np.ptp(east) > 4.5:
        raise ValueError(
            f"Expected units of {name}, got none for {north.min():.4g} to {north.max():.4g}, which may be radians; say "
            f"which: units: {{{name}: radian}} (or degrees), and the same of the longitudes"
        )


def _mapping_name(array) -> str | None:
    """Name of the variable with the grid mapping of a variable."""
    text = array.attrs.get("grid_mapping", array.encoding.get("grid_mapping"))
    return None if text is None else str(text).split(":")[0].split()[0]


def _on_the_map(array) -> tuple[xr.DataArray, xr.DataArray] | None:
    """The coordinates `y` and `x` of a map, along dimensions of the variable."""
    found = [
        named(array, (), (f"projection_{n}_coordinate", g))
        for n, g in (("y", "grid_latitude"), ("x", "grid_longitude"))
    ]
    found = [c if c is not None else array.coords.get(n) for c, n in zip(found, "yx", strict=True)]
    return tuple(found) if all(c is not None and c.ndim == 1 and c.dims[0] in array.dims for c in found) else None


def _add_map(axes: Axes, dataset, array, latitude, longitude) -> None:
    place, mapping = _on_the_map(array), dataset.variables.get(_mapping_name(array))
    if place is None or mapping is None:
        dims = "none" if latitude is None else latitude.dims
        raise ValueError(
            f"Expected latitudes of one dimension, or x and y with a CF grid mapping, got {dims}: a curvilinear grid; "
            "interpolate it"
        )
    mapping, values = mapping_from(mapping.attrs), {}
    for name, coordinate in zip("yx", place, strict=True):
        units = str(coordinate.attrs.get("units", "m"))
        if is_rotated(mapping):
            values[name] = degrees(coordinate)
        elif (change := linear(units, "m")) is not None:
            values[name] = np.asarray(coordinate.values, np.float64) * change[0]
        else:
            raise ValueError(f"Expected {coordinate.name} of a {mapping_name(mapping)} in m or km, got {units!r}")
        axes.order[name] = positions_in_order(name, values[name])
        axes.dims[name] = coordinate.dims[0]
        values[name] = values[name][axes.order[name]]
    grid = Grid.projected(values["x"], values["y"], mapping)
    _check_places(grid, axes, latitude, longitude)
    axes.coordinates |= values | {"latitude": grid.latitude, "longitude": grid.longitude}
    axes.coordinates[CRS] = np.array(json.dumps(mapping))


def _check_places(grid: Grid, axes: Axes, latitude, longitude) -> None:
    """Raises `ValueError` where recorded latitudes and longitudes are not those of `x` and `y`, to half a cell."""
    if latitude is None or longitude is None or latitude.ndim != 2 or latitude.dims != longitude.dims:
        return
    raw = [axes.dims["y"], axes.dims["x"]]
    if set(latitude.dims) != set(raw):
        return
    where = np.ix_(axes.order["y"], axes.order["x"])
    recorded = unit_vectors(*(degrees(c.transpose(*raw))[where] for c in (latitude, longitude)))
    found = unit_vectors(grid.latitude, grid.longitude)
    apart = np.linalg.norm(recorded - found, axis=-1)
    half = np.linalg.norm(found[:, 1:] - found[:, :-1], axis=-1).min() / 2
    if np.nanmax(apart, initial=0.0) > half:
        raise ValueError(
            f"Expected {latitude.name} and {longitude.name} to be the places of x and y by the {mapping_name(grid.mapping)} "
            f"grid mapping, got places up to {np.degrees(np.nanmax(apart)):.3g} degrees apart"
        )


def grid_from(coordinates) -> Grid:
    """The grid of the coordinates that `add_horizontal` found. Raises `ValueError` as `Grid` does."""
    if CRS in coordinates:
        return Grid.projected(coordinates["x"], coordinates["y"], json.loads(str(coordinates[CRS])))
    place = coordinates["latitude"], coordinates["longitude"]
    if "cell_area" in coordinates:
        return Grid.points(*place, coordinates["cell_area"])
    return Grid.from_coordinates(*place)


def _cell_area(dataset, latitude, longitude) -> np.ndarray:
    """Areas of the cells of a point grid: recorded, of the polygons between recorded corners, or of a known grid.

    Those of a region are shares of the sphere. Raises `ValueError` where they are in no unit that tells.
    """
    area, whole = _area_and_whole(dataset, latitude, longitude)
    if covers_sphere(degrees(latitude), degrees(longitude), area):
        return area
    if whole is None:
        raise ValueError(
            "Expected cell areas of the points of a region in m2, km2, sr or as shares of the sphere (1), got others; give "
            "their units, as in units: {cell_area: m2}"
        )
    return area / whole


def _area_and_whole(dataset, latitude, longitude) -> tuple[np.ndarray, float | None]:
    """Areas, and that of the sphere in their unit, where it is known."""
    for name, candidate in dataset.variables.items():
        if (name in ("cell_area", "areacella") or candidate.attrs.get("standard_name") == "cell_area") and (
            candidate.dims == latitude.dims
        ):
            return np.asarray(candidate.values, np.float64), SPHERE.get(str(candidate.attrs.get("units")))
    corners = [dataset.variables.get(c.attrs.get("bounds")) for c in (latitude, longitude)]
    if any(c is None or c.ndim != 2 for c in corners):
        if (area := ring_areas(degrees(latitude))) is not None:
            return area, 1.0
        raise ValueError("Expected cell areas or cell corners with a point grid, got neither")
    units = [str(c.attrs.get("units", "")) for c in (latitude, longitude)]
    places = [degrees(xr.DataArray(c, name="corners"), own) for c, own in zip(corners, units, strict=True)]
    return polygon_areas(*places), 4 * np.pi
