"""Errors of forecasts from times that a training has not seen, for the trials beside this file."""

import numpy as np
import torch
import xarray as xr

from emulator.data.samples import Samples
from emulator.model.assemble import changes
from emulator.model.rollout import rollout
from emulator.model.step import Step
from emulator.store.analysis import open_analysis


def errors(
    step: Step,
    store,
    statistics: xr.Dataset,
    period,
    leads=(1, 4),
    windows: int = 24,
    cells: np.ndarray | slice = slice(None),
    persistence: bool = False,
) -> dict[str, list[float]]:
    """Root-mean-square error over cells by area and levels, by variable and for all together, at leads in steps.

    In units of a typical change over a step, of `statistics`; persistence's is about 1 at a lead of 1. From `windows` initial
    times, spread evenly over `period`, `(start, end)`. `cells`: those that count, among the grid's flattened ones.
    `persistence`: the error of the initial state in place of the forecast's.
    """
    samples = Samples(open_analysis(store), step.layout, *period, cache_bytes=0)
    possible = samples.some_starts(max(leads))
    starts = possible[np.linspace(0, len(possible) - 1, windows).round().astype(int)]
    unit = changes(statistics, step.layout.prognostic).clamp(min=1e-30)[:, None]
    area = torch.from_numpy(samples.grid.cell_area.ravel()[cells])
    squares = torch.zeros(len(leads), len(unit), dtype=torch.float64)
    with torch.no_grad():
        for some in np.array_split(starts, -(-windows // 8)):
            batch = samples.batch(some, max(leads))
            first = batch.start()
            for k, result in enumerate(rollout(step, first, batch.inputs()), start=1):
                if k in leads:
                    guess = first[:, -len(unit) :] if persistence else result.state
                    error = (guess - batch.truth(k - 1)[0]).flatten(2)[..., cells].double() / unit
                    squares[leads.index(k)] += (error.square() * area).sum((0, 2)) / area.sum() / windows
    parts = step.layout.prognostic.slices | {"all": slice(None)}
    return {name: squares[:, where].mean(1).sqrt().tolist() for name, where in parts.items()}


def line(what: str, found: dict[str, list[float]]) -> str:
    """A row of a table: errors of every variable at the leads."""
    return " | ".join([what, *(" / ".join(f"{value:.3f}" for value in values) for values in found.values())])
