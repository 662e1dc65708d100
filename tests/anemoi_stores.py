"""Stores in the layout of anemoi-datasets 0.5.47, written by zarr alone, and the fields in them."""

import numpy as np
import zarr

DATES = np.datetime64("2001-01-01T00", "s") + np.arange(8) * np.timedelta64(6, "h")
DIMENSIONS = ("time", "variable", "ensemble", "cell")
COMPUTED = {"cos_latitude": True, "insolation": False, "sin_julian_day": False}  # whether constant in time
SURFACE = {"2t": ("K", 280.0), "tp": ("m", 1e-3), "lsm": ("(0 - 1)", 0.5), "z": ("m**2 s**-2", 1e3)}
ALOFT = {"t": ("K", 250.0), "q": ("kg kg**-1", 1e-3)}
CONSTANT = ("lsm", "z")


def mesh(rows: int = 7, columns: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes and longitudes of the cells of a regular grid with poles, north first."""
    latitude, longitude = np.linspace(90, -90, rows), np.arange(columns) * 360 / columns
    return tuple(axis.ravel() for axis in np.meshgrid(latitude, longitude, indexing="ij"))


def octahedral(number: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Those of the reduced Gaussian grid O`number`: rows of 20, 24, ... cells from either pole."""
    latitude = np.degrees(np.arcsin(np.polynomial.legendre.leggauss(2 * number)[0]))[::-1]
    widths = 16 + 4 * np.minimum(np.arange(1, 2 * number + 1), np.arange(2 * number, 0, -1))
    longitude = np.concatenate([np.arange(width) * 360 / width for width in widths])
    return np.repeat(latitude, widths), longitude


def values_of(names, cells: int, members: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
    """Values of variables by name, `(time, ensemble, cell)` float32."""
    rng, found = np.random.default_rng(seed), {}
    for name in names:
        scale = (SURFACE | ALOFT).get(name, ALOFT.get(name.split("_")[0], ("", 1.0)))[1]
        noise = rng.random((1 if name in CONSTANT else len(DATES), members, cells))
        found[name] = np.broadcast_to(scale * (1 + 0.05 * noise), (len(DATES), members, cells)).astype(np.float32)
    return found


def metadata_of(name: str) -> dict:
    """An entry of `variables_metadata`."""
    if name in COMPUTED:
        return {"computed_forcing": True, "constant_in_time": COMPUTED[name], "units": "dimensionless"}
    param, _, level = name.partition("_")
    units = (ALOFT if level else SURFACE)[param][0]
    mars = {"levtype": "pl" if level else "sfc", "param": param} | ({"levelist": int(level)} if level else {})
    over = {"process": "accumulation", "period": ["0h", "6h"]} if name == "tp" else {}
    return {"mars": mars, "units": units, **over, **({"constant_in_time": True} if name in CONSTANT else {})}


def write_anemoi(path, values, place, shape, missing=(), zarr_format=2, chunks=None, **attributes) -> None:
    """Writes a store.

    Args:
      values: by variable, `(time, ensemble, cell)`; place: latitudes and longitudes of the cells; missing: positions of
        missing dates; shape: of a field, as recorded; attributes: in place of the usual ones, None to leave one out.
    """
    names = sorted(values)
    data = np.stack([values[name] for name in names], axis=1)
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    array = group.create_array(
        "data", shape=data.shape, dtype="f4", chunks=chunks or (1, *data.shape[1:]), fill_value=np.nan
    )
    array.attrs["_ARRAY_DIMENSIONS"] = DIMENSIONS
    for n in set(range(len(data))) - set(missing):
        array[n] = data[n]
    there = np.delete(data.astype(np.float64), list(missing), axis=0)
    statistics = {
        "mean": there.mean(axis=(0, 2, 3)),
        "stdev": there.std(axis=(0, 2, 3)),
        "minimum": there.min(axis=(0, 2, 3)),
        "maximum": there.max(axis=(0, 2, 3)),
    }
    arrays = {"dates": ("time", DATES), "latitudes": ("cell", place[0]), "longitudes": ("cell", place[1])}
    for name, (dim, content) in (arrays | {n: ("variable", v) for n, v in statistics.items()}).items():
        group.create_array(name, data=content).attrs["_ARRAY_DIMENSIONS"] = [dim]
    own = {
        "version": "0.22",
        "uuid": "00000000-0000-0000-0000-000000000000",
        "dimensions": ["dates", "variables", "ensembles", "values"],
        "variables": names,
        "variables_metadata": {name: metadata_of(name) for name in names if "variables_metadata" not in attributes},
        "missing_dates": [str(DATES[n]) for n in missing],
        "constant_fields": [n for n in names if n in CONSTANT],
        "order_by": ["valid_datetime", "param_level", "number"],
        "field_shape": list(shape),
        "resolution": None,
        "frequency": "6h",
        "start_date": str(DATES[0]),
        "end_date": str(DATES[-1]),
    }
    group.attrs.update({key: value for key, value in (own | attributes).items() if value is not None})
