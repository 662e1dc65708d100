"""A travelling wave on three regional grids, as files hold them: a box across Greenwich, a Lambert map, points with areas."""

import numpy as np
import xarray as xr

LAMBERT = {
    "grid_mapping_name": "lambert_conformal_conic",
    "standard_parallel": np.array([56.0, 56.0]),
    "longitude_of_central_meridian": 8.0,
    "latitude_of_projection_origin": 56.0,
    "earth_radius": 6371000.0,
}


def wave(latitude, longitude, times: int = 40) -> xr.Dataset:
    """Temperature on two levels, surface pressure and static fields at places of any shape, as plain arrays by name.

    A wave goes east by 15 degrees a day over a gradient from south to north, with a daily cycle.
    """
    time = np.datetime64("2001-01-01", "ns") + np.arange(times) * np.timedelta64(6, "h")
    shape = (times, *[1] * np.ndim(latitude))
    days = (np.arange(times) / 4).reshape(shape)
    phase = np.radians(6 * (longitude - 15 * days))
    surface = 285 - 0.7 * (latitude - 50) + 4 * np.sin(phase) + 2 * np.cos(2 * np.pi * days)
    temperature = np.stack([surface - 30, surface - 5], axis=1)
    pressure = 1e5 + 800 * np.cos(phase) + 20 * (latitude - 50)
    land = ((np.sin(np.radians(9 * longitude)) + np.cos(np.radians(11 * latitude))) > 0).astype(np.float32)
    return time, {
        "temperature": temperature.astype(np.float32),
        "surface_pressure": pressure.astype(np.float32),
        "land_sea_mask": land,
        "geopotential_at_surface": (land * 500).astype(np.float32),
    }


UNITS = {"temperature": "K", "surface_pressure": "Pa", "land_sea_mask": "1", "geopotential_at_surface": "m2 s-2"}


def _dataset(latitude, longitude, dims, coordinates, mapping=None) -> xr.Dataset:
    time, fields = wave(latitude, longitude)
    front = {"temperature": ("time", "level"), "surface_pressure": ("time",)}
    data = {
        name: (
            (*front.get(name, ()), *dims),
            values,
            {"units": UNITS[name]} | ({"grid_mapping": mapping} if mapping else {}),
        )
        for name, values in fields.items()
    }
    level = ("level", np.array([500.0, 850.0]), {"units": "hPa"})
    return xr.Dataset(data, {"time": time, "level": level, **coordinates})


def box() -> xr.Dataset:
    """45 to 65 N, 17 W to 22 E, from the south, longitudes from 0 to 360 with the hole that their order leaves."""
    latitude, longitude = np.arange(45.0, 66, 2), np.sort(np.arange(-17.0, 23, 3) % 360)
    place = np.meshgrid(latitude, longitude, indexing="ij")
    coordinates = {
        "latitude": ("latitude", latitude, {"units": "degrees_north"}),
        "longitude": ("longitude", longitude, {"units": "degrees_east"}),
    }
    return _dataset(*place, ("latitude", "longitude"), coordinates)


def lambert() -> xr.Dataset:
    """12 x 10 cells of 150 km about 8 E, 56 N, `y` northwards in km, with latitudes and longitudes of every cell."""
    import pyproj

    x, y = (np.arange(12) - 5.5) * 150.0, (np.arange(10) - 4.5) * 150.0
    crs = pyproj.CRS.from_cf(LAMBERT)
    to_sphere = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    longitude, latitude = to_sphere.transform(*(1e3 * a for a in np.meshgrid(x, y)))
    coordinates = {
        "y": ("y", y, {"units": "km", "standard_name": "projection_y_coordinate"}),
        "x": ("x", x, {"units": "km", "standard_name": "projection_x_coordinate"}),
        "lat": (("y", "x"), latitude, {"units": "degrees_north", "standard_name": "latitude"}),
        "lon": (("y", "x"), longitude, {"units": "degrees_east", "standard_name": "longitude"}),
    }
    dataset = _dataset(latitude, longitude, ("y", "x"), coordinates, "lambert")
    return dataset.assign(lambert=((), np.int32(0), LAMBERT))


def points() -> xr.Dataset:
    """120 places in the Nordic countries, with areas in m2 that make up 1 % of the sphere."""
    chance = np.random.default_rng(3)
    latitude, longitude = chance.uniform(54, 71, 120), chance.uniform(4, 31, 120)
    coordinates = {
        "latitude": ("cell", latitude, {"units": "degrees_north"}),
        "longitude": ("cell", longitude, {"units": "degrees_east"}),
    }
    area = chance.uniform(0.5, 1.5, 120)
    area *= 0.01 * 4 * np.pi * 6371229.0**2 / area.sum()
    dataset = _dataset(latitude, longitude, ("cell",), coordinates)
    return dataset.assign(cell_area=("cell", area, {"units": "m2", "standard_name": "cell_area"}))


REGIONS = {"box": box, "projected": lambert, "region_points": points}
