"""What a step is given in a runner of another package: forcing, clock and the diagnostics of the initial time."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from emulator.bridges.analysis_source import AnalysisSource
from emulator.bridges.lexicon import Name
from emulator.data.channels import Layout
from emulator.data.climatology import Climatology
from emulator.data.forcing import Forcing, Moments, StepInputs, clock_of
from emulator.forecasting.forecaster import climatology_of
from emulator.model.saved_model import check_match, grid_from_json, with_step
from emulator.model.step import Step
from emulator.planet.grid import Grid
from emulator.planet.variables import known


class GivenFields(Protocol):
    """Where the fields come from."""

    def inputs(self, times: Sequence) -> StepInputs:
        """Of steps that start at `times`, datetime64[ns], a row each."""

    def fields(self, times: Sequence, names: Sequence[str]) -> Tensor:
        """Fields by earth2studio's names, `(time, variable, lat, lon)`, missing (NaN) where the source cannot tell."""


class OfAnalysis:
    """From an analysis store, as forecasts of `emulator.forecast` have them."""

    def __init__(self, source: AnalysisSource, layout: Layout, length: int, climatology: Climatology | None):
        self._source, self._forcing = source, Forcing(source.dataset, layout, length, climatology)

    def inputs(self, times: Sequence) -> StepInputs:
        return self._forcing.inputs(times)

    def fields(self, times: Sequence, names: Sequence[str]) -> Tensor:
        here = [name for name in names if name in self._source.names]
        found = torch.full((len(times), len(names), *self._forcing.grid.shape), torch.nan)
        if here:
            values = self._source(np.array(times), here).values
            found[:, [list(names).index(name) for name in here]] = torch.from_numpy(values)
        return found


class OfSource:
    """From a data source of earth2studio, at the times that it is asked for.

    Args:
      source: called with times and names. names: of the forcing's channels.
      layout, grid: of the model. step_seconds: of the shortest step that its store had; length: of the steps, in these.
    """

    def __init__(self, source: Callable, names: Sequence[Name], layout: Layout, grid: Grid, step: tuple[float, int]):
        self._source, self._names, self._grid = source, list(names), grid
        (seconds, self._length), self._several = step, layout.lengths != (1,)
        self._own = np.timedelta64(round(seconds), "s")
        self._hours = seconds * self._length / 3600
        means = [(entry := known(n)) is not None and entry.cell == "mean" for n in layout.forcing.names]
        widths = torch.tensor(layout.forcing.widths, dtype=torch.long)
        self._moments = Moments(
            layout.forcing, layout.moments, torch.tensor(means, dtype=torch.bool).repeat_interleave(widths)
        )
        self.climatology: Climatology | None = None

    def inputs(self, times: Sequence) -> StepInputs:
        times = np.array(times, "datetime64[ns]")
        clock = clock_of(times, self._hours, self._grid)
        told = float(self._length) if self._several else None
        ends = times + self._length * self._own
        reference = None if self.climatology is None else self.climatology.at(ends)
        if not self._names:
            return StepInputs(torch.zeros(len(times), 0, *self._grid.shape), clock, None, told, reference)
        fields = torch.stack([self._at(times + k * self._own) for k in range(self._length + 1)], 1)
        return StepInputs(self._moments(fields, self._length)[:, 0], clock, None, told, reference)

    def fields(self, times: Sequence, names: Sequence[str]) -> Tensor:
        return torch.full((len(times), len(names), *self._grid.shape), torch.nan)

    def _at(self, times: np.ndarray) -> Tensor:
        """Forcing at some times, `(time, channel, lat, lon)`. Raises `ValueError` for fields on another grid."""
        wanted = [name.text for name in self._names]
        found = self._source(times, np.array(wanted)).transpose("time", "variable", "lat", "lon")
        for axis, own in (("lat", self._grid.latitude), ("lon", self._grid.longitude)):
            if len(found[axis]) != len(own) or np.abs(found[axis].values - own).max() > 1e-3:
                raise ValueError(
                    f"Expected forcing on {self._grid.describe()}, got {len(found[axis])} values of {axis}"
                )
        values = np.asarray(found.sel(variable=wanted).values, np.float32)
        factors = np.array([name.factor for name in self._names], np.float32)
        return torch.from_numpy(values / factors[:, None, None])


def given_fields(forcing, step: Step, length: int, climatology, names: Sequence[Name]) -> GivenFields:
    """The fields of an analysis store, opened, its path or as a source, or of a data source of earth2studio.

    Raises `ValueError` for an analysis that does not fit the model, and for none where the model needs forcing.
    """
    layout, saved = step.layout, step.metadata
    grid = grid_from_json(saved["grid"])
    reference = climatology_of([step], grid, climatology)
    if forcing is None or (callable(forcing) and not isinstance(forcing, AnalysisSource)):
        if forcing is None and names:
            raise ValueError(
                f"Expected forcing of {', '.join(n.text for n in names)}, an analysis or a data source, got none"
            )
        found = OfSource(forcing, names, layout, grid, (saved["step_seconds"], length))
        found.climatology = reference
        return found
    source = forcing if isinstance(forcing, AnalysisSource) else AnalysisSource(forcing)
    dataset: xr.Dataset = with_step(source.dataset, saved)
    check_match(saved, dataset, "of the model", "of the forcing")
    return OfAnalysis(source, layout, length, reference)
