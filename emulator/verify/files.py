"""Scores on disk: one NetCDF file, complete under its name or not there."""

from pathlib import Path

import numpy as np
import xarray as xr

from emulator.files.whole_file import write_netcdf
from emulator.planet.calendar import in_nanoseconds
from emulator.verify.assemble import SCHEMA

_LEADS = ("lead_time", "spectrum_lead", "map_lead", "audit_lead_time")
_COMPRESS_ABOVE = 10_000  # values


def write_scores(scores: xr.Dataset, path: Path) -> None:
    """Writes the scores under a temporary name beside `path`, then renames."""
    scores = scores.assign_attrs(scores_schema=SCHEMA, Conventions="CF-1.11")
    leads = [name for name in _LEADS if name in scores.coords]
    encoding = {name: {"units": "hours", "dtype": "float64"} for name in leads if scores[name].dtype.kind == "m"}
    months = {name: scores[name].assign_attrs(units="months") for name in leads if name not in encoding}
    scores = scores.assign_coords(months)
    for name, array in scores.data_vars.items():
        if array.dtype == bool:
            scores[name] = array.astype(np.int8)
        if array.dtype.kind == "f" and array.size > _COMPRESS_ABOVE:
            encoding[str(name)] = {"zlib": True, "complevel": 2, "shuffle": True}
    write_netcdf(scores, path, encoding)


def part_path(path: Path, number: int, count: int) -> Path:
    """Where part `number` of `count` of the scores at `path` lies until all are there."""
    path = Path(path)
    return path.with_name(f"{path.stem}.part-{number}-of-{count}{path.suffix}")


def open_scores(path: Path) -> xr.Dataset:
    """The scores in memory. Raises `ValueError`, in one sentence, when there are none or they break the schema."""
    if not Path(path).exists():
        raise ValueError(f"Expected scores at {path}, got nothing there")
    try:
        with xr.open_dataset(path, engine="netcdf4", decode_timedelta=True) as dataset:
            scores = in_nanoseconds(dataset.load().drop_encoding())  # units of time that fit other initial times
    except (OSError, ValueError) as error:
        raise ValueError(f"Expected scores in NetCDF at {path}, got: {' '.join(str(error).split())}") from error
    if scores.attrs.get("scores_schema") != SCHEMA:
        raise ValueError(f"Expected scores_schema {SCHEMA!r} in {path}, got {scores.attrs.get('scores_schema')!r}")
    return scores
