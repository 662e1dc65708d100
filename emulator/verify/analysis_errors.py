"""How far a cycle's analyses are from the truth, time by time: from a nature run, or from the analyses of others."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.planet.calendar import in_nanoseconds
from emulator.planet.vertical import vertical_of
from emulator.store.analysis import open_analysis
from emulator.store.schema import grid_of, missing_times
from emulator.verify.channels import Field, ScoredVariable, channel_name
from emulator.verify.inputs import Inputs

NAME = "analysis.zarr"  # beside the folder of feedback, once a cycle is complete


def analysis_scores(inputs: Inputs, names: Sequence[str]) -> xr.Dataset:
    """Root mean square errors of a cycle's analyses, `analysis_rmse` `(analysis_time, channel)`, over the first region.

    At the times that truth and analyses have, for channels of those names and in their order, NaN where the analyses have
    none and where no cell has a value. Empty without analyses, on another grid, and where the analyses are the truth.
    """
    path = Path(inputs.feedback).parent / NAME
    if not path.is_dir():
        return xr.Dataset()
    analyses = in_nanoseconds(open_analysis(path))
    own = analyses.attrs["fingerprint"] == inputs.truth.attrs.get("fingerprint")
    places = inputs.truth.indexes["time"].get_indexer(analyses["time"].values)
    known = np.flatnonzero((places >= 0) & ~missing_times(inputs.truth)[places] & ~missing_times(analyses))
    if own or not len(known) or not grid_of(analyses).same_as(inputs.grid):
        return xr.Dataset()
    weights = inputs.weights[0].reshape(-1)
    channels, errors = [], []
    for variable in (v for v in inputs.variables if v.name in analyses):
        field = _field(analyses, variable, inputs)
        squares = [_squares(field.analysis([at]), variable.truth.analysis([places[at]]), weights) for at in known]
        channels += [channel_name(variable, level) for level in range(field.level_count)]
        errors.append(np.sqrt(squares))
    data = {"analysis_rmse": (("analysis_time", "channel"), np.concatenate(errors, axis=1))}
    found = xr.Dataset(data, {"analysis_time": analyses["time"].values[known], "channel": channels})
    return found.reindex(channel=list(names))


def _field(analyses: xr.Dataset, variable: ScoredVariable, inputs: Inputs) -> Field:
    """A variable of the analyses on the levels that are scored."""
    array, levels = analyses[variable.name], None
    if variable.levels is not None:
        own = array[vertical_of(array.dims)].values
        levels = tuple(int(np.abs(own - value).argmin()) for value in variable.levels)
    return Field(array, inputs.grid, levels, exists=variable.exists)


def _squares(one: np.ndarray, other: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean square of the difference of `(1, level, cell)` where there are values, `(level,)`; NaN where there are none."""
    squares = (one[0] - other[0]) ** 2
    there = np.isfinite(squares)
    weight = there @ weights
    return np.where(weight > 0, np.where(there, squares, 0) @ weights / np.where(weight > 0, weight, 1), np.nan)
