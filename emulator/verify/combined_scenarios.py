"""Scores of scenarios of models verified apart, as one: the emulators of all, and once what is the truth's own."""

import functools
import itertools

import numpy as np
import xarray as xr

from emulator.verify.scenarios import OWN

ROWS = ("scenario_source", "scenario_predicted")  # axes along which emulators stand beside what is the truth's own
NEAR = 1e-9  # relative: sums in another order, not other data
UNITS = "scenario_units"


def combine_scenarios(models: dict[str, xr.Dataset]) -> xr.Dataset:
    """`scenario_*` of all models; empty where none has any.

    The one emulator of a model takes the model's name, several have it before theirs. A scenario or a field that only
    some models scored is NaN for the others. Raises `ValueError`, naming scenario and difference, where two did not score
    the same truth, or set other training scenarios beside it.
    """
    parts = {name: _of_scenarios(scores) for name, scores in models.items() if "scenario_nrmse_total" in scores}
    if not parts:
        return xr.Dataset()
    for (one, ours), (other, theirs) in itertools.combinations(parts.items(), 2):
        _check_same_truth(f"{one} and {other}", ours, theirs)
    own = functools.reduce(xr.Dataset.combine_first, (_rows(part, _truths_own) for part in parts.values()))
    emulators = [_named(name, part) for name, part in parts.items()]
    joined = {}
    for variable in own.data_vars:
        axis = next((a for a in ROWS if a in own[variable].dims), None)
        arrays = [part[variable] for part in (*emulators, own) if variable in part]
        joined[variable] = own[variable] if axis is None else xr.concat(arrays, axis, join="outer")
    order = {
        axis: list(dict.fromkeys(name for part in (*emulators, own) for name in part[axis].values))
        for axis in ("scenario", "scenario_channel", *ROWS)
    }
    units = {
        channel: unit
        for part in models.values()
        if UNITS in part.coords
        for channel, unit in zip(part["scenario_channel"].values, part[UNITS].values, strict=True)
    }
    result = xr.Dataset(joined).sel(order)
    return result.assign_coords({UNITS: ("scenario_channel", [units[c] for c in order["scenario_channel"]])})


def _of_scenarios(scores: xr.Dataset) -> xr.Dataset:
    named = [name for name in scores.data_vars if str(name).startswith("scenario_")]
    return scores[named].drop_vars(UNITS)


def _truths_own(name: str) -> bool:
    return name in OWN


def _rows(part: xr.Dataset, wanted) -> xr.Dataset:
    """Those rows of both axes whose names are wanted."""
    return part.sel({axis: [n for n in map(str, part[axis].values) if wanted(n)] for axis in ROWS})


def _named(name: str, part: xr.Dataset) -> xr.Dataset:
    """The emulators of a model under their names among all models."""
    part = _rows(part, lambda row: not _truths_own(row))
    alone = part.sizes["scenario_source"] == 1
    return part.assign_coords({a: [name if alone else f"{name} {row}" for row in part[a].values] for a in ROWS})


def _check_same_truth(models: str, one: xr.Dataset, other: xr.Dataset) -> None:
    for scenario in np.intersect1d(one["scenario"].values, other["scenario"].values):
        ours, theirs = (_rows(part, _truths_own).sel(scenario=scenario) for part in (one, other))
        channels = np.intersect1d(ours["scenario_channel"].values, theirs["scenario_channel"].values)
        ours, theirs = (part.sel(scenario_channel=channels) for part in (ours, theirs))
        years = [part["scenario_year"].values[_scored(part)] for part in (ours, theirs)]
        if not np.array_equal(*years):
            told = " and ".join(f"{label[0]} to {label[-1]}" if len(label) else "none" for label in years)
            raise ValueError(f"Expected {models} scored over the same years of {scenario}, got {told}")
        for variable, what in (
            ("scenario_members", "number of members"),
            ("scenario_truth_map", "truth"),
            ("scenario_forcing", "forcing"),
            ("scenario_nrmse_total", "training scenarios beside it"),
        ):
            if not _alike(ours[variable], theirs[variable]):
                raise ValueError(f"Expected {models} scored with the same {what} of {scenario}, got another")


def _scored(part: xr.Dataset) -> np.ndarray:
    """Years of which the truth has a value, `(year,)` bool."""
    series = part["scenario_series_members"]
    return series.notnull().any([d for d in series.dims if d != "scenario_year"]).values


def _alike(one: xr.DataArray, other: xr.DataArray) -> bool:
    if one.sizes != other.sizes:
        return False
    one, other = one.values, other.transpose(*one.dims).values
    size = np.nanmax(np.abs(one), initial=0.0)
    return bool(np.allclose(one, other, rtol=NEAR, atol=NEAR * size, equal_nan=True))
