"""The embedded model's output as CF NetCDF in canonical names, written under a temporary name and then renamed."""

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.embedded.speedy import ReferenceModel
from emulator.files.whole_file import write_netcdf
from emulator.planet.variables import variable

_COORDINATES = {
    "latitude": {"units": "degrees_north", "standard_name": "latitude", "axis": "Y"},
    "longitude": {"units": "degrees_east", "standard_name": "longitude", "axis": "X"},
    "level": {"units": "1", "standard_name": "atmosphere_sigma_coordinate", "positive": "down", "axis": "Z"},
}


def to_dataset(model: ReferenceModel, fields: dict[str, np.ndarray], times: list[datetime]) -> xr.Dataset:
    """One chunk: `fields` as `ReferenceModel.advance_day` returns them, joined along time, with coordinates.

    Static fields and the interface coefficients come with every chunk, so that each file can be read alone.
    """
    hours = model.settings.step_hours
    dims = ("time", "level", "latitude", "longitude")
    data = {name: (dims[:1] + dims[-value.ndim + 1 :], value) for name, value in fields.items()}
    data |= {name: (dims[2:], value) for name, value in model.static.items()}
    data |= {
        "half_level_a": ("half_level", model.levels.half_a, {"units": "Pa", "long_name": "a in p = a + b * p_surface"}),
        "half_level_b": ("half_level", model.levels.half_b, {"units": "1", "long_name": "b in p = a + b * p_surface"}),
    }
    coords = {
        "time": ("time", np.array(times, "datetime64[ns]"), {"standard_name": "time", "axis": "T"}),
        "level": ("level", model.levels.values, _COORDINATES["level"]),
        "latitude": ("latitude", model.grid.latitude, _COORDINATES["latitude"]),
        "longitude": ("longitude", model.grid.longitude, _COORDINATES["longitude"]),
    }
    dataset = xr.Dataset(data, coords, _attributes(model))
    for name in (*fields, *model.static):
        entry = variable(name)
        cell = {"point": "time: point", "mean": f"time: mean (interval: {hours} hours)"}.get(entry.cell)
        dataset[name].attrs = {"units": entry.units, "standard_name": entry.standard_name} | (
            {"cell_methods": cell} if cell else {}
        )
    return dataset


def write(dataset: xr.Dataset, path: Path) -> None:
    """Write `path` in one move: a file under its final name is complete. Raises `OSError` saying why when it cannot.

    Uncompressed: deflate at its lowest level makes the file a third smaller and costs an eighth of the simulation's time.
    """
    time = {"units": "hours since 1970-01-01 00:00:00", "calendar": "proleptic_gregorian", "dtype": "int64"}
    encoding = {name: {"_FillValue": None} for name in dataset.variables} | {"time": time}
    write_netcdf(dataset, path, encoding)


def _attributes(model: ReferenceModel) -> dict:
    versions = ", ".join(f"{name} {version}" for name, version in model.provenance["versions"].items())
    return {
        "Conventions": "CF-1.11",
        "title": f"T{model.settings.truncation} simulation with the embedded reference model",
        "source": f"{model.provenance['model']}; {versions}",
        "provenance": json.dumps(model.provenance, sort_keys=True),
        "vertical_coordinate": model.levels.kind,
        "time_step_seconds": model.settings.step_hours * 3600,
        "constants": model.constants.to_json(),
    }
