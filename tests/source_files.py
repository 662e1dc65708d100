"""Small sources of every kind, made from one known field, for the tests of ingest."""

import numpy as np
import xarray as xr

LEVELS = np.array([300.0, 500.0, 850.0])
TIMES = np.datetime64("2001-02-27T00", "ns") + np.arange(8) * np.timedelta64(6, "h")
LATITUDE = np.linspace(90, -90, 7)
LONGITUDE = np.arange(12) * 30.0


def truth(times=TIMES, level=LEVELS) -> xr.Dataset:
    """Fields in the convention's names, units and order: `(time, level, latitude, longitude)`, float32."""
    t = np.arange(len(times))[:, None, None, None]
    lat, lon = np.radians(LATITUDE)[:, None], np.radians(LONGITUDE)[None, :]
    temperature = 230 + 0.05 * np.asarray(level)[:, None, None] + 20 * np.cos(lat) ** 2 + np.sin(lon + 0.3 * t)
    pressure = 1e5 + 500 * np.sin(2 * lon + 0.1 * t[:, 0]) * np.cos(lat)
    rain = 1e-5 * (1 + np.sin(lon + 0.5 * t[:, 0]) * np.cos(lat)) + 0 * lat
    dims = ("time", "level", "latitude", "longitude")
    fields = {
        "temperature": (dims, temperature, {"units": "K", "standard_name": "air_temperature"}),
        "mean_sea_level_pressure": (("time", *dims[2:]), pressure, {"units": "Pa"}),
        "mean_total_precipitation_rate": (("time", *dims[2:]), rain, {"units": "kg m-2 s-1"}),
        "geopotential_at_surface": (dims[2:], 1e3 * np.cos(lat) * np.cos(lon), {"units": "m2 s-2"}),
    }
    coordinates = {"time": times, "level": ("level", level, {"units": "hPa"})}
    dataset = xr.Dataset(fields, coordinates | {"latitude": LATITUDE, "longitude": LONGITUDE})
    for name in dataset.data_vars:
        dataset[name] = dataset[name].astype(np.float32, keep_attrs=True)
    return dataset


def write_grib(path, field: xr.DataArray, short: str, edition: int = 2, **keys) -> None:
    """Appends a message for each time, member and level of `([member,] time, level, latitude, longitude)`.

    `keys` are set on every message; those given as callables are called with the position.
    """
    import eccodes

    with open(path, "ab") as file:
        for where in np.ndindex(field.shape[:-2]):
            at = dict(zip(field.dims[:-2], where, strict=True))
            handle = eccodes.codes_grib_new_from_samples(f"regular_ll_pl_grib{edition}")
            rows, columns = field.shape[-2:]
            latitude, longitude = field["latitude"].values, field["longitude"].values
            moment = field["time"].values[at["time"]] if "time" in at else field["time"].values
            day, clock = str(moment)[:10].replace("-", ""), str(moment)[11:16].replace(":", "")
            settings = {
                "Ni": columns,
                "Nj": rows,
                "latitudeOfFirstGridPointInDegrees": latitude[0],
                "latitudeOfLastGridPointInDegrees": latitude[-1],
                "longitudeOfFirstGridPointInDegrees": longitude[0],
                "longitudeOfLastGridPointInDegrees": longitude[-1],
                "iDirectionIncrementInDegrees": longitude[1] - longitude[0],
                "jDirectionIncrementInDegrees": abs(latitude[1] - latitude[0]),
                "jScansPositively": int(latitude[0] < latitude[-1]),
                "dataDate": int(day),
                "dataTime": int(clock),
                "shortName": short,
            }
            if "level" in field.coords:
                level = field["level"].values[at["level"]] if "level" in at else field["level"].values
                settings |= {"typeOfLevel": "isobaricInhPa", "level": int(level)}
            settings |= {key: value(at) if callable(value) else value for key, value in keys.items()}
            for key, value in settings.items():
                array = isinstance(value, np.ndarray)
                (eccodes.codes_set_array if array else eccodes.codes_set)(handle, key, value)
            eccodes.codes_set(handle, "bitsPerValue", 24)
            eccodes.codes_set_values(handle, field.values[where].astype(np.float64).ravel())
            eccodes.codes_write(handle, file)
            eccodes.codes_release(handle)
