"""Map projections by their CF grid mapping: places on the map from places on the sphere, and back.

What CF and PROJ know serves: Lambert conformal and azimuthal, polar and oblique stereographic, Mercator, transverse
Mercator, Albers, rotated pole and others. Latitudes are those of the projection's own ellipsoid, and no other datum is
involved.
"""

import functools
import json
from collections.abc import Mapping

import numpy as np

ROTATED = "rotated_latitude_longitude"
NAME = "crs"  # of the coordinate that holds the mapping's attributes in our stores


def mapping_from(attributes: Mapping) -> dict:
    """The attributes of a CF grid mapping variable as JSON can hold them.

    Raises `ValueError` for what PROJ does not know as a projection.
    """
    found = {}
    for name, value in attributes.items():
        if isinstance(value, np.generic | np.ndarray):
            value = value.tolist()
        if isinstance(value, str | int | float | list | tuple):
            found[str(name)] = list(value) if isinstance(value, tuple) else value
    _transformer(found)
    return found


def to_sphere(mapping: Mapping, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes, and longitudes in [0, 360), in degrees, of places on the map in m (or degrees of a rotated pole)."""
    longitude, latitude = _transformer(mapping).transform(x, y)
    longitude, latitude = np.asarray(longitude, np.float64) % 360, np.asarray(latitude, np.float64)
    if not (np.all(np.isfinite(longitude)) and np.all(np.isfinite(latitude))):
        raise ValueError(f"Expected x and y on the map of {mapping_name(mapping)}, got some beyond its edge")
    return latitude, np.where(longitude >= 360, 0.0, longitude)


def from_sphere(mapping: Mapping, latitude: np.ndarray, longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`x` and `y` of places in degrees; infinite where the map does not show them."""
    x, y = _transformer(mapping).transform(longitude, latitude, direction="INVERSE")
    return np.asarray(x, np.float64), np.asarray(y, np.float64)


def mapping_name(mapping: Mapping) -> str:
    """The projection in words."""
    return str(mapping.get("grid_mapping_name", "an unnamed projection")).replace("_", " ")


def is_rotated(mapping: Mapping) -> bool:
    """Whether `x` and `y` are longitudes and latitudes about another pole, in degrees."""
    return mapping.get("grid_mapping_name") == ROTATED


def _transformer(mapping: Mapping):
    """From the map to the sphere. Made for every use: PROJ's transformers must not be shared by threads."""
    import pyproj  # which takes a fifth of a second

    crs = _reference_system(json.dumps(dict(mapping), sort_keys=True))
    return pyproj.Transformer.from_crs(crs, crs.source_crs or crs.geodetic_crs, always_xy=True)


@functools.lru_cache(maxsize=16)
def _reference_system(text: str):
    """Kept: PROJ takes a few tenths of a second to read one."""
    import pyproj

    try:
        crs = pyproj.CRS.from_cf(json.loads(text))
        if not (crs.is_projected or crs.is_derived):
            raise ValueError("it is no projection")
        return crs
    except (pyproj.exceptions.ProjError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"Expected a grid mapping by CF's attributes, got {text[:200]}: {reason}") from None
