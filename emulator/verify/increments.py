"""What the analyses of a cycle add to the budgets, from its records of them."""

import json
from pathlib import Path

import numpy as np
import xarray as xr

NAME = "windows.jsonl"  # beside the folder of feedback, once a cycle is complete
ADDED = {"added_water": "kg m-2", "added_energy": "J m-2", "clipped_water": "kg m-2", "added_pressure": "Pa"}


def increment_scores(feedback) -> xr.Dataset:
    """Global means that each analysis adds, `increment_<name>` `(increment_time,)`; empty without records of budgets.

    `feedback`: the folder of a cycle's feedback. Raises `ValueError` for a file of records that cannot be read.
    """
    path = Path(feedback).parent / NAME
    if not path.is_file():
        return xr.Dataset()
    try:
        records = [json.loads(line) for line in path.read_text().splitlines()]
        times = np.array([record["time"] for record in records], "datetime64[ns]")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"Expected records of a cycle's windows at {path}, got others ({error})") from None
    if not any(set(ADDED) & set(record) for record in records):
        return xr.Dataset()
    values = {
        f"increment_{name}": ("increment_time", [float(record.get(name, 0.0)) for record in records], {"units": units})
        for name, units in ADDED.items()
    }
    return xr.Dataset(values, {"increment_time": times})
