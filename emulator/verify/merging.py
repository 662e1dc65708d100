"""Datasets of scores over different initial times, added up: parts, restarts and later forecasts give one result."""

import json

import numpy as np
import xarray as xr

from emulator.verify.assemble import derive
from emulator.verify.audit import merge_audits
from emulator.verify.same_truth import same_truth
from emulator.verify.sample import EACH

PER_INIT = ("squared_error", *(f"each_{name}" for name in EACH))
FIXED = (
    "climatology_mean",
    "climatology_std",
    "climatology_extreme",
    "record_mean",
    "members",
    "land_sea_mask",
)
COORDINATES = (
    "forecast",
    "channel",
    "region",
    "lead_time",
    "event",
    "map_channel",
    "map_lead",
    "latitude",
    "longitude",
)


def is_sum(name) -> bool:
    """Whether a variable is a sum over initial times."""
    name = str(name)
    return name.startswith("sum_") or name in ("count", "map_count", "power_count", "gap_count")


def merge(parts: list[xr.Dataset]) -> xr.Dataset:
    """Scores over the initial times of all parts, as if they had been made at once.

    Sums are added and everything else derived from them anew; cases to look at are left out, since they are chosen among
    all initial times. Raises `ValueError`, naming the difference, for parts that share an initial time, or that were not
    made of the same forecasts, fields, regions, leads, truth, climatology and conventions.
    """
    first, *rest = parts
    for part in rest:
        check_same(first, part)
    times = [time for part in parts for time in part["init_time"].values.tolist()]
    if shared := len(times) - len(set(times)):
        raise ValueError(f"Expected parts without common initial times, got {shared} in two of them")
    sums = {}
    for name in map(str, first.data_vars):
        if is_sum(name):
            sums[name] = _added([part[name] for part in parts])
        elif name in PER_INIT and all(name in part for part in parts):  # older scores have the squared errors alone
            sums[name] = xr.concat([part[name] for part in parts], "init_time").sortby("init_time")
        elif name in FIXED:
            sums[name] = first[name]
    total = derive(xr.Dataset(sums))
    total = xr.merge([total, merge_audits(parts)], compat="no_conflicts", join="outer", combine_attrs="drop")
    return total.assign_attrs(_attributes(parts))


def check_same(one: xr.Dataset, other: xr.Dataset) -> None:
    """Raises `ValueError` unless two datasets of scores differ in their initial times alone."""
    for name in COORDINATES:
        if (name in one.coords) != (name in other.coords):
            raise ValueError(f"Expected scores with the same coordinates, got {name} in one of them only")
        if name in one.coords and not _alike(one[name].values, other[name].values):
            raise ValueError(
                f"Expected scores of the same {name}, got {_listed(one[name].values)} and {_listed(other[name].values)}"
            )
    ours, theirs = (json.loads(scores.attrs.get("sample", "{}")) for scores in (one, other))
    for key in {**ours, **theirs}:
        if ours.get(key) != theirs.get(key) and not (key == "truth" and same_truth(one, other)):
            raise ValueError(f"Expected scores of the same {key}, got {ours.get(key)!r} and {theirs.get(key)!r}")


def _added(arrays: list[xr.DataArray]) -> xr.DataArray:
    """Pairwise, so that rounding does not grow with the number of parts; an axis that some parts lack counts as 0."""
    while len(arrays) > 1:
        pairs = zip(arrays[::2], arrays[1::2], strict=False)
        arrays = [a + b for a, b in pairs] + (arrays[-1:] if len(arrays) % 2 else [])
    return arrays[0]


def _alike(one, other) -> bool:
    if one.shape != other.shape:
        return False
    if one.dtype.kind == "f":
        return bool(np.allclose(one, other, equal_nan=True))
    return bool(np.array_equal(one, other))


def _listed(values) -> str:
    values = [str(v) for v in np.atleast_1d(values)]
    return ", ".join(values[:4]) + (f", ... ({len(values)})" if len(values) > 4 else "")


def _attributes(parts) -> dict:
    """The last part's, with what is counted over initial times added up and the period of all."""
    result = dict(parts[-1].attrs)  # of a truth that has grown the latest state
    if "missing_truth" in result:
        result["missing_truth"] = int(sum(int(part.attrs.get("missing_truth", 0)) for part in parts))
    if "climatology_overlap" in result:
        result["climatology_overlap"] = int(any(int(part.attrs.get("climatology_overlap", 0)) for part in parts))
    periods = [part.attrs["valid_period"].split(" to ") for part in parts if "valid_period" in part.attrs]
    if periods:
        result["valid_period"] = f"{min(p[0] for p in periods)} to {max(p[1] for p in periods)}"
    return result
